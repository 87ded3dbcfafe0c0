"""Statements that make the live projection of catalog what a fresh copy of it says.

The copy is in temporary tables (`pg_temp`), the live tables are named with their schema. A seat's hold and
sale are no projection: they stay, and those of a seat that was lost come back from the holds and tickets.
"""

from uuid import UUID

from libs.postgres import Conn


async def list_copied_events(conn: Conn) -> set[UUID]:
    cursor = await conn.execute(
        "SELECT event_id FROM pg_temp.events UNION SELECT event_id FROM pg_temp.seat_map_parts"
    )
    return {row[0] for row in await cursor.fetchall()}


async def list_live_events(conn: Conn) -> set[UUID]:
    cursor = await conn.execute(
        """
        SELECT event_id FROM inventory.events
         UNION SELECT event_id FROM inventory.section_prices
         UNION SELECT event_id FROM inventory.seat_map_parts
         UNION SELECT event_id FROM inventory.event_seats
        """
    )
    return {row[0] for row in await cursor.fetchall()}


async def replace_event(conn: Conn, event_id: UUID) -> bool:
    """Whether anything was different. Seats that are sold stay, as when a map is built."""
    changed = await _restore_missing_seats(conn, event_id) > 0
    # In id order, as buyers lock them.
    await conn.execute(
        """
        SELECT FROM inventory.event_seats live
          LEFT JOIN pg_temp.event_seats copy USING (event_id, seat_id)
         WHERE live.event_id = %(event_id)s
           AND (live.section, live.row_name, live.seat_number)
               IS DISTINCT FROM (copy.section, copy.row_name, copy.seat_number)
         ORDER BY live.seat_id
           FOR UPDATE OF live
        """,
        {"event_id": event_id},
    )
    for statement in (
        """
        DELETE FROM inventory.event_seats live
         WHERE live.event_id = %(event_id)s AND live.sold_order_id IS NULL
           AND NOT EXISTS (SELECT FROM pg_temp.event_seats copy
                            WHERE copy.event_id = live.event_id AND copy.seat_id = live.seat_id)
        """,
        """
        UPDATE inventory.event_seats live
           SET section = copy.section, row_name = copy.row_name, seat_number = copy.seat_number
          FROM pg_temp.event_seats copy
         WHERE live.event_id = %(event_id)s AND copy.event_id = live.event_id AND copy.seat_id = live.seat_id
           AND (live.section, live.row_name, live.seat_number)
               IS DISTINCT FROM (copy.section, copy.row_name, copy.seat_number)
        """,
        """
        DELETE FROM inventory.section_prices live
         WHERE live.event_id = %(event_id)s
           AND NOT EXISTS (SELECT FROM pg_temp.section_prices copy
                            WHERE copy.event_id = live.event_id
                              AND (copy.section, copy.tier_id, copy.amount_minor)
                                  = (live.section, live.tier_id, live.amount_minor))
        """,
        """
        INSERT INTO inventory.section_prices (event_id, section, tier_id, amount_minor)
        SELECT event_id, section, tier_id, amount_minor
          FROM pg_temp.section_prices
         WHERE event_id = %(event_id)s
            ON CONFLICT DO NOTHING
        """,
        """
        DELETE FROM inventory.seat_map_parts live
         WHERE live.event_id = %(event_id)s
           AND NOT EXISTS (SELECT FROM pg_temp.seat_map_parts copy
                            WHERE (copy.event_id, copy.version, copy.part, copy.parts, copy.seats)
                                  = (live.event_id, live.version, live.part, live.parts, live.seats))
        """,
        """
        INSERT INTO inventory.seat_map_parts (event_id, version, part, parts, seats)
        SELECT event_id, version, part, parts, seats
          FROM pg_temp.seat_map_parts
         WHERE event_id = %(event_id)s
            ON CONFLICT DO NOTHING
        """,
        """
        DELETE FROM inventory.events
         WHERE event_id = %(event_id)s
           AND NOT EXISTS (SELECT FROM pg_temp.events WHERE event_id = %(event_id)s)
        """,
        # Last: whoever reads it finds the seats and the prices that go with it.
        """
        INSERT INTO inventory.events AS live
               (event_id, version, status, currency, seat_map_version, seat_count, built_version)
        SELECT event_id, version, status, currency, seat_map_version, seat_count, built_version
          FROM pg_temp.events
         WHERE event_id = %(event_id)s
            ON CONFLICT (event_id) DO UPDATE
           SET version = EXCLUDED.version, status = EXCLUDED.status, currency = EXCLUDED.currency,
               seat_map_version = EXCLUDED.seat_map_version, seat_count = EXCLUDED.seat_count,
               built_version = EXCLUDED.built_version
         WHERE (live.version, live.status, live.currency, live.seat_map_version, live.seat_count,
                live.built_version)
               IS DISTINCT FROM
               (EXCLUDED.version, EXCLUDED.status, EXCLUDED.currency, EXCLUDED.seat_map_version,
                EXCLUDED.seat_count, EXCLUDED.built_version)
        """,
    ):
        cursor = await conn.execute(statement, {"event_id": event_id})
        changed = changed or cursor.rowcount > 0
    return changed


async def _restore_missing_seats(conn: Conn, event_id: UUID) -> int:
    cursor = await conn.execute(
        """
        SELECT array_agg(copy.seat_id)
          FROM pg_temp.event_seats copy
         WHERE copy.event_id = %(event_id)s
           AND NOT EXISTS (SELECT FROM inventory.event_seats live
                            WHERE live.event_id = copy.event_id AND live.seat_id = copy.seat_id)
        """,
        {"event_id": event_id},
    )
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return 0
    parameters = {"event_id": event_id, "missing": row[0]}
    # A ticket that is voided meanwhile frees its seat after us, when it can see it, or is void before.
    await conn.execute(
        """
        SELECT FROM inventory.tickets
         WHERE event_id = %(event_id)s AND seat_id = ANY (%(missing)s) AND status <> 'void'
         ORDER BY ticket_id
           FOR SHARE
        """,
        parameters,
    )
    cursor = await conn.execute(
        """
        INSERT INTO inventory.event_seats
               (event_id, seat_id, section, row_name, seat_number, hold_id, sold_order_id)
        SELECT copy.event_id, copy.seat_id, copy.section, copy.row_name, copy.seat_number,
               coalesce(sale.hold_id, hold.hold_id), ticket.order_id
          FROM pg_temp.event_seats copy
          LEFT JOIN inventory.tickets ticket
            ON ticket.event_id = copy.event_id AND ticket.seat_id = copy.seat_id AND ticket.status <> 'void'
          LEFT JOIN inventory.sales sale ON sale.order_id = ticket.order_id
          LEFT JOIN LATERAL (
               SELECT hold_id
                 FROM inventory.holds
                WHERE event_id = copy.event_id AND status = 'active' AND copy.seat_id = ANY (seat_ids)
                ORDER BY expires_at DESC
                LIMIT 1) AS hold ON true
         WHERE copy.event_id = %(event_id)s AND copy.seat_id = ANY (%(missing)s)
        """,
        parameters,
    )
    return cursor.rowcount
