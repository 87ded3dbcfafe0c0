"""The HTTP process: `python -m libs.web.serving auth.app:create_app 3011`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from libs.web.application import create_service_app
from libs.web.buckets import RateLimit
from litestar import Litestar

from auth.guesses import Guesses
from auth.keys import KeyRing
from auth.passwords import PasswordHasher
from auth.routes import ROUTES
from auth.sessions import Sessions
from auth.settings import Settings, settings_of
from auth.users import Accounts


def create_app() -> Litestar:
    settings = settings_of("app")

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with _resources(app, settings):
            yield

    window_seconds = settings.auth_rate_limit_window_ms / 1000
    return create_service_app(
        settings,
        service="auth",
        title="Accounts and tokens",
        routes=ROUTES,
        lifespan=[lifespan],
        limits=[
            RateLimit(name, settings.auth_rate_limit_max, window_seconds, by_network=True)
            for name in ("logins", "registrations")
        ],
    )


@asynccontextmanager
async def _resources(app: Litestar, settings: Settings) -> AsyncGenerator[None]:
    keys = KeyRing(pool=app.state.pool, verifier=app.state.token_verifier, settings=settings)
    hasher = PasswordHasher(threads=settings.password_threads)
    sessions = Sessions(keys=keys, settings=settings)
    app.state.key_ring = keys
    app.state.sessions = sessions
    app.state.accounts = Accounts(
        pool=app.state.pool,
        hasher=hasher,
        sessions=sessions,
        guesses=Guesses(buckets=app.state.buckets, settings=settings),
    )
    await keys.try_load()
    refreshing = asyncio.create_task(keys.keep_fresh())
    try:
        yield
    finally:
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
        hasher.close()
