"""Events and their price tiers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from libs.postgres import Conn
from psycopg.rows import kwargs_row

from catalog.models import EventRow, EventStatus, PriceTier

_SELECT_EVENT = """
    SELECT event.id, event.organizer_id, event.venue_id, event.name, event.description, event.image_url,
           event.starts_at, event.ends_at, event.status, event.currency, event.version,
           event.seat_map_version, event.seat_count, event.venue_seats_version, event.published_at,
           event.created_at, event.updated_at,
           (
               SELECT json_agg(
                          json_build_object(
                              'id', tier.id,
                              'name', tier.name,
                              'tier', tier.tier,
                              'amountMinor', tier.amount_minor,
                              'currency', event.currency,
                              'sections', (
                                  SELECT json_agg(section ORDER BY position)
                                    FROM tier_sections
                                   WHERE event_id = event.id
                                     AND tier_id = tier.id
                              )
                          )
                          ORDER BY tier.position
                      )
                 FROM price_tiers AS tier
                WHERE tier.event_id = event.id
           ) AS tiers
      FROM events AS event
"""


def _event_row(*, status: str, tiers: list[Any] | None, **columns: Any) -> EventRow:
    return EventRow(
        status=EventStatus(status), tiers=msgspec.convert(tiers or [], list[PriceTier]), **columns
    )


async def find_event(conn: Conn, event_id: UUID) -> EventRow | None:
    async with conn.cursor(row_factory=kwargs_row(_event_row)) as cursor:
        await cursor.execute(_SELECT_EVENT + "WHERE event.id = %(event_id)s", {"event_id": event_id})
        return await cursor.fetchone()


async def lock_event(conn: Conn, event_id: UUID) -> EventRow | None:
    """The event, which nobody else changes until the end of the transaction."""
    await conn.execute("SELECT FROM events WHERE id = %(id)s FOR NO KEY UPDATE", {"id": event_id})
    # Read only now: a statement that waits for a lock would show the tiers of before.
    return await find_event(conn, event_id)


async def list_published_events(conn: Conn, *, before: UUID | None, limit: int | None) -> list[EventRow]:
    """Newest first."""
    async with conn.cursor(row_factory=kwargs_row(_event_row)) as cursor:
        await cursor.execute(
            _SELECT_EVENT
            + """
             WHERE event.status = 'published'
               AND (%(before)s::uuid IS NULL OR event.id < %(before)s)
             ORDER BY event.id DESC
             LIMIT %(limit)s
            """,
            {"before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def insert_event(
    conn: Conn,
    *,
    event_id: UUID,
    organizer_id: UUID | None,
    venue_id: UUID,
    name: str,
    description: str | None,
    image_url: str | None,
    starts_at: datetime,
    ends_at: datetime,
    status: EventStatus,
    currency: str | None,
    seat_count: int,
    venue_seats_version: int,
) -> None:
    """The transaction has locked the venue."""
    await conn.execute(
        """
        INSERT INTO events (id, organizer_id, venue_id, name, description, image_url, starts_at, ends_at,
                            status, currency, seat_count, venue_seats_version, published_at)
        VALUES (%(event_id)s, %(organizer_id)s, %(venue_id)s, %(name)s, %(description)s, %(image_url)s,
                %(starts_at)s, %(ends_at)s, %(status)s, %(currency)s, %(seat_count)s,
                %(venue_seats_version)s, CASE WHEN %(status)s = 'published' THEN now() END)
        """,
        {
            "event_id": event_id,
            "organizer_id": organizer_id,
            "venue_id": venue_id,
            "name": name,
            "description": description,
            "image_url": image_url,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "status": status,
            "currency": currency,
            "seat_count": seat_count,
            "venue_seats_version": venue_seats_version,
        },
    )


async def update_event(conn: Conn, event: EventRow) -> bool:
    """Stores all of an event but its tiers, one version on.

    False when it is not in the version that `event` was made from, or when it is cancelled.
    """
    cursor = await conn.execute(
        """
        UPDATE events
           SET organizer_id = %(organizer_id)s,
               venue_id = %(venue_id)s,
               name = %(name)s,
               description = %(description)s,
               image_url = %(image_url)s,
               starts_at = %(starts_at)s,
               ends_at = %(ends_at)s,
               status = %(status)s,
               currency = %(currency)s,
               version = version + 1,
               seat_map_version = %(seat_map_version)s,
               seat_count = %(seat_count)s,
               venue_seats_version = %(venue_seats_version)s,
               published_at = CASE WHEN %(status)s = 'published' THEN coalesce(published_at, now())
                                   ELSE published_at END,
               updated_at = now()
         WHERE id = %(id)s
           AND version = %(version)s
           AND status <> 'cancelled'
        """,
        {name: getattr(event, name) for name in EventRow.__struct_fields__ if name != "tiers"},
    )
    return cursor.rowcount == 1


async def replace_tiers(conn: Conn, event_id: UUID, tiers: Sequence[PriceTier]) -> None:
    await conn.execute("DELETE FROM price_tiers WHERE event_id = %(event_id)s", {"event_id": event_id})
    if not tiers:
        return
    await conn.execute(
        """
        INSERT INTO price_tiers (event_id, id, position, name, tier, amount_minor)
        SELECT %(event_id)s, id, position, name, tier, amount_minor
          FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(kinds)s::text[], %(amounts)s::integer[])
               WITH ORDINALITY AS new (id, name, tier, amount_minor, position)
        """,
        {
            "event_id": event_id,
            "ids": [tier.id for tier in tiers],
            "names": [tier.name for tier in tiers],
            "kinds": [tier.tier for tier in tiers],
            "amounts": [tier.amount_minor for tier in tiers],
        },
    )
    await conn.execute(
        """
        INSERT INTO tier_sections (event_id, section, tier_id, position)
        SELECT %(event_id)s, section, tier_id, position
          FROM unnest(%(sections)s::text[], %(tier_ids)s::uuid[])
               WITH ORDINALITY AS new (section, tier_id, position)
        """,
        {
            "event_id": event_id,
            "sections": [section for tier in tiers for section in tier.sections],
            "tier_ids": [tier.id for tier in tiers for _ in tier.sections],
        },
    )
