"""The seat map of an event: a copy of its venue's seats, made when the event is created, refreshed when it is
published, frozen after.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from contracts.messages import MapSeat, SeatMapPart
from libs.postgres import Conn

from catalog.errors import UnknownReference
from catalog.models import EventRow
from catalog.queries import venues as queries

SEATS_PER_PART = 1000


class SeatMap(NamedTuple):
    """`venue_seats_version` tells of which state of the venue's seats this is the copy."""

    venue_seats_version: int
    seats: list[MapSeat]


async def copy_seats(conn: Conn, venue_id: UUID) -> SeatMap:
    """All seats of a venue; nobody adds any until the end of the transaction. Raises `UnknownReference`."""
    version = await queries.lock_venue_to_copy_seats(conn, venue_id)
    if version is None:
        raise UnknownReference.at("/venueId", "venue")
    return SeatMap(version, await queries.list_map_seats(conn, venue_id))


async def copy_changed_seats(conn: Conn, event: EventRow) -> SeatMap | None:
    """None when the event's map is what the venue has now."""
    version = await queries.lock_venue_to_copy_seats(conn, event.venue_id)
    if version is None or version == event.venue_seats_version:
        return None
    return SeatMap(version, await queries.list_map_seats(conn, event.venue_id))


def seat_map_parts(event_id: UUID, *, version: int, seats: Sequence[MapSeat]) -> list[SeatMapPart]:
    parts = -(-len(seats) // SEATS_PER_PART)
    return [
        SeatMapPart(
            event_id=event_id,
            version=version,
            part=part,
            parts=parts,
            seats=list(seats[(part - 1) * SEATS_PER_PART : part * SEATS_PER_PART]),
        )
        for part in range(1, parts + 1)
    ]
