"""The application: store, sender, Stripe's paths, the control surface."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.exceptions import HTTPException

from stripe_emulator import refunds
from stripe_emulator.alarm import Alarm
from stripe_emulator.api import Api, HttpRequest
from stripe_emulator.control import BadControl, control_routes
from stripe_emulator.errors import ApiError
from stripe_emulator.routes import stripe_routes
from stripe_emulator.sender import Sender
from stripe_emulator.settings import Settings
from stripe_emulator.store import Store

log = logging.getLogger(__name__)


def create_app(settings: Settings, store: Store, *, stopping: asyncio.Event) -> Litestar:
    """The store stays the caller's to close. Set, `stopping` ends the calls that a fault delays."""
    sender = Sender(settings, store)

    def settle_refunds() -> float | None:
        wait = refunds.settle_due(store)
        sender.wake()
        return wait

    settler = Alarm(settle_refunds)
    # Rung, the settler wakes the sender in its turn.
    api = Api(settings, store, wake=settler.ring, stopping=stopping)

    @asynccontextmanager
    async def background(_: Litestar) -> AsyncGenerator[None, None]:
        store.prune()
        tasks = [asyncio.create_task(sender.run()), asyncio.create_task(settler.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return Litestar(
        [
            health,
            *stripe_routes(api),
            *control_routes(store, wake=settler.ring),
        ],
        lifespan=[background],
        openapi_config=None,
        logging_config=None,
        exception_handlers={
            ApiError: refuse_api,
            BadControl: refuse_control,
            HTTPException: refuse_http,
            Exception: refuse_bug,
        },
    )


@get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


def refuse_api(_: HttpRequest, error: ApiError) -> Response[bytes]:
    return Response(error.body, status_code=error.status, media_type=MediaType.JSON)


def refuse_control(_: HttpRequest, error: BadControl) -> Response[bytes]:
    return Response(error.body, status_code=400, media_type=MediaType.JSON)


def refuse_http(request: HttpRequest, error: HTTPException) -> Response[bytes]:
    """No such path, or a method that it does not have: Stripe says 404 to both."""
    status = 404 if error.status_code == 405 else error.status_code
    message = (
        f"Unrecognized request URL ({request.method}: {request.url.path})." if status == 404 else error.detail
    )
    return Response(ApiError(status, message).body, status_code=status, media_type=MediaType.JSON)


def refuse_bug(request: HttpRequest, error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    body = msgspec.json.encode(
        {"error": {"type": "api_error", "message": "The emulator failed: see its log."}}
    )
    return Response(body, status_code=500, media_type=MediaType.JSON)
