"""The HTTP process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from libs.tasks import end_tasks
from libs.web.application import create_service_app
from libs.web.buckets import RateLimit
from litestar import Litestar

from inventory.routes import ROUTES
from inventory.seat_maps import SeatMaps
from inventory.settings import settings_of
from inventory.ticket_keys import TicketKeys


def create_app() -> Litestar:
    settings = settings_of("app")

    @asynccontextmanager
    async def inventory_parts(app: Litestar) -> AsyncGenerator[None]:
        app.state.settings = settings
        app.state.seat_maps = SeatMaps(app.state.pool)
        app.state.ticket_keys = TicketKeys(app.state.pool)
        await app.state.ticket_keys.try_load()
        refreshing = asyncio.create_task(app.state.ticket_keys.keep_fresh())
        try:
            yield
        finally:
            await end_tasks(refreshing)

    return create_service_app(
        settings,
        service="inventory",
        title="Inventory",
        routes=ROUTES,
        lifespan=[inventory_parts],
        limits=[RateLimit("holds", settings.hold_rate_limit_max, 60)],
    )
