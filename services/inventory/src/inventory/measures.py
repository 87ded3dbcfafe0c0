"""Metrics that only inventory has."""

from collections.abc import Awaitable, Callable

from libs.postgres import Pool
from libs.telemetry.metrics import Metric

from inventory.queries import holds, tickets

ACTIVE_HOLDS = Metric(
    "ticketing.holds.active", "gauge", "{hold}", "Holds whose deadline lies ahead (inventory)"
)
SOLD_SEATS = Metric("ticketing.seats.sold", "gauge", "{seat}", "Seats with a valid ticket (inventory)")


async def count_active_holds(pool: Pool) -> int:
    async with pool.connection() as conn:
        return await holds.count_active_holds(conn)


async def count_sold_seats(pool: Pool) -> int:
    async with pool.connection() as conn:
        return await tickets.count_sold_seats(conn)


MEASURES: dict[Metric, Callable[[Pool], Awaitable[int]]] = {
    ACTIVE_HOLDS: count_active_holds,
    SOLD_SEATS: count_sold_seats,
}
