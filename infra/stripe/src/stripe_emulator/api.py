"""The way of every call under /v1: key, faults, parameters, idempotency, one transaction, headers."""

import asyncio
import base64
import hmac
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import MediaType, Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from stripe_emulator import faults, idempotency
from stripe_emulator.errors import ApiError, injected
from stripe_emulator.expansions import expand, read_paths
from stripe_emulator.faults import Fault
from stripe_emulator.forms import P, decode_params, parse_form
from stripe_emulator.idempotency import KeysInUse, Reply
from stripe_emulator.objects import Json, PaymentIntent, new_id
from stripe_emulator.settings import Settings
from stripe_emulator.store import Store, Transaction

HttpRequest = Request[Any, Any, Any]
log = logging.getLogger(__name__)


class Api:
    def __init__(
        self, settings: Settings, store: Store, *, wake: Callable[[], None], stopping: asyncio.Event
    ) -> None:
        """`wake` is called after a commit that may have left events to deliver or refunds to settle."""
        self._settings = settings
        self._store = store
        self._wake = wake
        self._stopping = stopping
        self._keys_in_use = KeysInUse()

    async def answer(
        self,
        request: HttpRequest,
        params: type[P],
        run: Callable[[Transaction, P], object],
        *,
        client_secret_of: str | None = None,
    ) -> Response[bytes]:
        """`run` does the work. The secret key opens everything; the PaymentIntent `client_secret_of` is
        opened by its client secret too, as Stripe.js does it in a browser."""
        request_id = new_id("req")
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        try:
            reply = await self._reply(
                request,
                params,
                run,
                request_id=request_id,
                key=key,
                client_secret_of=client_secret_of,
            )
        except ApiError as refusal:
            reply = Reply(status=refusal.status, body=refusal.body)
        log.info(
            "%s %s %s %s", request.method, request.url.path, reply.status if reply else "lost", request_id
        )
        if reply is None:
            return LostResponse(b"")
        headers = {"Request-Id": request_id}
        if version := request.headers.get("stripe-version"):
            headers["Stripe-Version"] = version
        if key is not None:
            headers["Idempotency-Key"] = key
        if reply.original_request is not None:
            headers |= {"Idempotent-Replayed": "true", "Original-Request": reply.original_request}
            if reply.status >= 500:
                headers["Stripe-Should-Retry"] = "false"  # this key will never answer anything else
        return Response(reply.body, status_code=reply.status, headers=headers, media_type=MediaType.JSON)

    async def _reply(
        self,
        request: HttpRequest,
        params: type[P],
        run: Callable[[Transaction, P], object],
        *,
        request_id: str,
        key: str | None,
        client_secret_of: str | None,
    ) -> Reply | None:
        """None when the answer is to be lost. Raises ApiError for whatever no key remembers."""
        path = request.url.path
        form = await read_form(request)
        by_secret_key = self._authorise(request, form, client_secret_of)
        for name in ("key", "client_secret", "_stripe_version"):
            form.pop(name, None)
        with self._keys_in_use.claim(key):
            with self._store.transaction() as tx:
                fault = faults.take_fault(tx, path)
            if fault is not None and not fault.after:
                await self._pause(fault.delay_seconds)
                if fault.status is not None:
                    raise injected(fault.status)
            repeatable = None if key is None else idempotency.describe_request(key, path, form)
            expansions = read_paths(form.pop("expand", []))
            decoded = decode_params(form, params, drop_unknown=not by_secret_key)
            with self._store.transaction(request_id=request_id, idempotency_key=key) as tx:
                reply = None if repeatable is None else idempotency.find_reply(tx, repeatable)
                if reply is None:
                    reply = execute(lambda: expand(tx, run(tx, decoded), expansions))
                    if repeatable is not None:
                        idempotency.keep_reply(tx, repeatable, as_remembered(reply, fault))
            self._wake()
            if fault is not None and fault.after:
                await self._pause(fault.delay_seconds)
                if fault.status is None:
                    return None
                raise injected(fault.status)
            return reply

    async def _pause(self, seconds: float) -> None:
        """Raises ApiError (503) when the emulator is told to stop meanwhile: it must not wait for this."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise injected(503)

    def _authorise(self, request: HttpRequest, form: Json, client_secret_of: str | None) -> bool:
        """Whether the caller has the secret key; raises ApiError (401, or 400 for a wrong client secret)."""
        given = bearer_or_user(request.headers.get("authorization", "")) or str(form.get("key", ""))
        if hmac.compare_digest(given.encode(), self._settings.secret_key.encode()):
            return True
        client_secret = form.get("client_secret")
        publishable = not given or given.startswith("pk_")
        if client_secret_of is None or client_secret is None or not publishable:
            if not given:
                raise ApiError(
                    401,
                    "You did not provide an API key. You need to provide your API key in the Authorization "
                    "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
                )
            raise ApiError(401, f"Invalid API Key provided: {given[:8]}***")
        with self._store.transaction() as tx:
            intent = tx.find(PaymentIntent, client_secret_of)
        if intent is None or not hmac.compare_digest(
            str(client_secret).encode(), intent.client_secret.encode()
        ):
            raise ApiError(
                400,
                "The client_secret provided does not match any associated PaymentIntent on this account.",
                code="resource_missing",
                param="client_secret",
            )
        return False


def execute(work: Callable[[], object]) -> Reply:
    """A refusal is an answer as well: what `work` changed before it stays, and is committed with it."""
    try:
        return Reply(status=200, body=msgspec.json.encode(work()))
    except ApiError as refusal:
        return Reply(status=refusal.status, body=refusal.body)


def as_remembered(reply: Reply, fault: Fault | None) -> Reply:
    """Stripe saves an endpoint's own 500 under its key and answers it for ever. Any other fault after the
    effect strikes on the way back, behind the idempotency layer, which has saved what the endpoint said."""
    if fault is not None and fault.after and fault.status == 500:
        return Reply(status=500, body=injected(500).body)
    return reply


async def read_form(request: HttpRequest) -> Json:
    if request.method != "POST":
        return parse_form(request.url.query)
    body = await request.body()
    content_type = request.headers.get("content-type", "application/x-www-form-urlencoded")
    if body and not content_type.startswith("application/x-www-form-urlencoded"):
        raise ApiError(
            400,
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded).",
        )
    return parse_form(body.decode(errors="replace"))


def bearer_or_user(authorization: str) -> str:
    """The key in `Bearer sk_...`, or the user name of basic authentication (`curl -u sk_...:`)."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest).decode().partition(":")[0]
        except ValueError:
            return ""
    return rest.strip() if scheme.lower() == "bearer" else ""


class LostAnswer(ASGIResponse):
    """Promises a body and ends without it, upon which the server cuts the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})


class LostResponse(Response[bytes]):
    def to_asgi_response(self, *args: Any, **kwargs: Any) -> ASGIResponse:
        return LostAnswer()
