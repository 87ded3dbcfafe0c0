"""The projection of catalog's events, prices and seat maps."""

from contracts.messages import EventCancelled, EventCreated, EventPublished, EventUpdated, SeatMapPart
from libs.postgres import Conn
from msgspec import json

from inventory.queries import events as queries


async def save_event(
    conn: Conn, event: EventCreated | EventUpdated | EventPublished | EventCancelled
) -> None:
    """Takes the newest state; the event is known once the seat map that it names is complete."""
    await queries.lock_projection(conn, event.event_id)
    await apply_event(conn, event)


async def save_seat_map_part(conn: Conn, part: SeatMapPart) -> None:
    await queries.lock_projection(conn, part.event_id)
    await apply_seat_map_part(conn, part)


async def apply_event(
    conn: Conn, event: EventCreated | EventUpdated | EventPublished | EventCancelled
) -> None:
    """The same where nobody else writes: in the copy that a rebuild makes."""
    is_newer = await queries.save_event(
        conn,
        event.event_id,
        version=event.version,
        status=event.status,
        currency=event.currency,
        seat_map_version=event.seat_map_version,
        seat_count=event.seat_count,
    )
    if is_newer:
        prices = [
            (section, tier.tier_id, tier.amount_minor) for tier in event.tiers for section in tier.sections
        ]
        await queries.replace_prices(conn, event.event_id, prices)
        await queries.build_seats(conn, event.event_id)


async def apply_seat_map_part(conn: Conn, part: SeatMapPart) -> None:
    await queries.save_seat_map_part(
        conn,
        part.event_id,
        version=part.version,
        part=part.part,
        parts=part.parts,
        seats=json.encode(part.seats),
    )
    await queries.build_seats(conn, part.event_id)
