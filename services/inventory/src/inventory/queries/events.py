"""Statements on the projection of catalog: events, prices and seat maps."""

from uuid import UUID

from libs.postgres import Conn

from inventory.models import EventStatus


async def lock_projection(conn: Conn, event_id: UUID) -> None:
    """A map's parts and its event come over two topics, maybe to two workers: the last one must see all."""
    await conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('projection:' || %s::text, 0))", [event_id]
    )


async def save_event(
    conn: Conn,
    event_id: UUID,
    *,
    version: int,
    status: str,
    currency: str | None,
    seat_map_version: int,
    seat_count: int,
) -> bool:
    """Whether this version is newer than what was known."""
    cursor = await conn.execute(
        """
        INSERT INTO events AS known (event_id, version, status, currency, seat_map_version, seat_count)
        VALUES (%(event_id)s, %(version)s, %(status)s, %(currency)s, %(seat_map_version)s, %(seat_count)s)
        ON CONFLICT (event_id) DO UPDATE
           SET version = EXCLUDED.version, status = EXCLUDED.status, currency = EXCLUDED.currency,
               seat_map_version = EXCLUDED.seat_map_version, seat_count = EXCLUDED.seat_count
         WHERE known.version < EXCLUDED.version
        RETURNING true
        """,
        {
            "event_id": event_id,
            "version": version,
            "status": status,
            "currency": currency,
            "seat_map_version": seat_map_version,
            "seat_count": seat_count,
        },
    )
    return await cursor.fetchone() is not None


async def replace_prices(conn: Conn, event_id: UUID, prices: list[tuple[str, UUID, int]]) -> None:
    """`prices`: (section, tier id, amount in minor units)."""
    await conn.execute("DELETE FROM section_prices WHERE event_id = %s", [event_id])
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO section_prices (event_id, section, tier_id, amount_minor) VALUES (%s, %s, %s, %s)",
            [(event_id, *price) for price in prices],
        )


async def save_seat_map_part(
    conn: Conn, event_id: UUID, *, version: int, part: int, parts: int, seats: bytes
) -> None:
    """`seats`: JSON array of {seatId, section, row, seatNumber}."""
    await conn.execute(
        """
        INSERT INTO seat_map_parts (event_id, version, part, parts, seats)
        SELECT %(event_id)s, %(version)s, %(part)s, %(parts)s, %(seats)s::jsonb
         WHERE NOT EXISTS (
               SELECT FROM events WHERE event_id = %(event_id)s AND built_version >= %(version)s)
        ON CONFLICT DO NOTHING
        """,
        {"event_id": event_id, "version": version, "part": part, "parts": parts, "seats": seats.decode()},
    )


async def build_seats(conn: Conn, event_id: UUID) -> bool:
    """Makes the event's seats from its map once all parts are there. Seats keep their hold and their sale."""
    cursor = await conn.execute(
        """
        SELECT 1
          FROM events
         WHERE event_id = %(event_id)s
           AND built_version IS DISTINCT FROM seat_map_version
           AND seat_count = (
               SELECT coalesce(sum(jsonb_array_length(seats)), 0)
                 FROM seat_map_parts
                WHERE event_id = %(event_id)s AND version = events.seat_map_version)
        """,
        {"event_id": event_id},
    )
    if await cursor.fetchone() is None:
        return False
    await conn.execute(
        """
        WITH map AS (
            SELECT (seat ->> 'seatId')::uuid AS seat_id, seat ->> 'section' AS section,
                   seat ->> 'row' AS row_name, (seat ->> 'seatNumber')::integer AS seat_number
              FROM seat_map_parts part
              JOIN events USING (event_id)
             CROSS JOIN jsonb_array_elements(part.seats) AS seat
             WHERE part.event_id = %(event_id)s AND part.version = events.seat_map_version
        ), gone AS (
            DELETE FROM event_seats
             WHERE event_id = %(event_id)s AND sold_order_id IS NULL
               AND seat_id NOT IN (SELECT seat_id FROM map)
        )
        INSERT INTO event_seats (event_id, seat_id, section, row_name, seat_number)
        SELECT %(event_id)s, seat_id, section, row_name, seat_number FROM map
        ON CONFLICT (event_id, seat_id) DO UPDATE
           SET section = EXCLUDED.section, row_name = EXCLUDED.row_name, seat_number = EXCLUDED.seat_number
        """,
        {"event_id": event_id},
    )
    await conn.execute("UPDATE events SET built_version = seat_map_version WHERE event_id = %s", [event_id])
    # Parts of a later map may be here before the message that names it.
    await conn.execute(
        """
        DELETE FROM seat_map_parts part
         USING events
         WHERE part.event_id = %(event_id)s AND events.event_id = part.event_id
           AND part.version <= events.built_version
        """,
        {"event_id": event_id},
    )
    return True


async def find_event_status(conn: Conn, event_id: UUID) -> EventStatus | None:
    """None while the event, or part of its seat map, has not arrived."""
    cursor = await conn.execute(
        "SELECT status FROM events WHERE event_id = %s AND built_version = seat_map_version", [event_id]
    )
    row = await cursor.fetchone()
    return EventStatus(row[0]) if row else None


async def list_seat_ids(conn: Conn, event_id: UUID, *, after: UUID | None, limit: int | None) -> list[UUID]:
    """In the order of the seat map; none when the event has no seat `after`."""
    cursor = await conn.execute(
        """
        WITH place AS (
            SELECT seat_id, row_number() OVER (ORDER BY section, row_name, seat_number, seat_id) AS number
              FROM event_seats
             WHERE event_id = %(event_id)s
        )
        SELECT seat_id
          FROM place
         WHERE %(after)s::uuid IS NULL OR number > (SELECT number FROM place WHERE seat_id = %(after)s)
         ORDER BY number
         LIMIT %(limit)s
        """,
        {"event_id": event_id, "after": after, "limit": limit},
    )
    return [row[0] for row in await cursor.fetchall()]


async def seat_map(conn: Conn, event_id: UUID, *, seat_ids: list[UUID] | None = None) -> bytes:
    """The event's seats, or some of them, as a JSON array, encoded by the database: with 20,000 seats that is
    the cheapest.
    """
    cursor = await conn.execute(
        """
        SELECT coalesce(json_agg(json_build_object(
                   'id', seat.seat_id, 'section', seat.section, 'row', seat.row_name,
                   'seatNumber', seat.seat_number,
                   'status', CASE WHEN seat.sold_order_id IS NOT NULL THEN 'sold'
                                  WHEN hold.hold_id IS NOT NULL THEN 'reserved'
                                  ELSE 'available' END,
                   'tierId', price.tier_id, 'amountMinor', coalesce(price.amount_minor, 0))
                   ORDER BY seat.section, seat.row_name, seat.seat_number, seat.seat_id), '[]')::text
          FROM event_seats seat
          LEFT JOIN holds hold
            ON hold.event_id = %(event_id)s AND hold.hold_id = seat.hold_id
           AND hold.status = 'active' AND hold.expires_at > now()
          LEFT JOIN section_prices price ON price.event_id = seat.event_id AND price.section = seat.section
         WHERE seat.event_id = %(event_id)s
           AND (%(seat_ids)s::uuid[] IS NULL OR seat.seat_id = ANY (%(seat_ids)s::uuid[]))
        """,
        {"event_id": event_id, "seat_ids": seat_ids},
    )
    row = await cursor.fetchone()
    return row[0].encode() if row else b"[]"
