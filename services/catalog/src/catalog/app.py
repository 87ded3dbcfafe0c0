"""The HTTP process: `python -m libs.web.serving catalog.app:create_app 3012`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from libs.web.application import create_service_app
from litestar import Litestar

from catalog.cache import EventCache
from catalog.events import Events
from catalog.routes import ROUTES
from catalog.settings import settings_of


def create_app() -> Litestar:
    settings = settings_of("app")

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        cache = EventCache(redis_url=settings.redis_url, ttl_seconds=settings.events_cache_ttl_seconds)
        app.state.cache = cache
        app.state.events = Events(pool=app.state.pool, cache=cache)
        try:
            yield
        finally:
            await cache.close()

    return create_service_app(
        settings, service="catalog", title="Events and venues", routes=ROUTES, lifespan=[lifespan]
    )
