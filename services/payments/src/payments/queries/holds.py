"""Statements on the projection of inventory's holds.

Each takes the hold's row lock, as checkout does: whichever comes second sees what the first one did.
"""

from datetime import datetime
from uuid import UUID

from libs.postgres import Conn
from psycopg.rows import class_row

from payments.models import Hold, HoldStatus


async def save_placed_hold(
    conn: Conn,
    hold_id: UUID,
    *,
    event_id: UUID,
    user_id: UUID,
    seat_ids: list[UUID],
    seats: bytes,
    amount_minor: int,
    currency: str,
    expires_at: datetime,
) -> None:
    """`seats`: JSON array. What later messages said already of the status and the deadline stays."""
    await conn.execute(
        """
        INSERT INTO holds AS known
               (id, event_id, user_id, status, seat_ids, seats, amount_minor, currency, expires_at)
        VALUES (%(hold_id)s, %(event_id)s, %(user_id)s, 'active', %(seat_ids)s, %(seats)s::jsonb,
                %(amount_minor)s, %(currency)s, %(expires_at)s)
        ON CONFLICT (id) DO UPDATE
           SET seat_ids = EXCLUDED.seat_ids, seats = EXCLUDED.seats, amount_minor = EXCLUDED.amount_minor,
               currency = EXCLUDED.currency, expires_at = GREATEST(known.expires_at, EXCLUDED.expires_at)
         WHERE known.seats IS NULL
        """,
        {
            "hold_id": hold_id,
            "event_id": event_id,
            "user_id": user_id,
            "seat_ids": seat_ids,
            "seats": seats.decode(),
            "amount_minor": amount_minor,
            "currency": currency,
            "expires_at": expires_at,
        },
    )


async def extend_hold(
    conn: Conn, hold_id: UUID, *, event_id: UUID, user_id: UUID, expires_at: datetime
) -> None:
    """An expired hold lives again when its new deadline is later than its expiry: its seats were free."""
    await conn.execute(
        """
        INSERT INTO holds AS known (id, event_id, user_id, status, expires_at)
        VALUES (%(hold_id)s, %(event_id)s, %(user_id)s, 'active', %(expires_at)s)
        ON CONFLICT (id) DO UPDATE
           SET expires_at = GREATEST(known.expires_at, EXCLUDED.expires_at),
               status = CASE WHEN known.status = 'expired' AND EXCLUDED.expires_at > known.expired_at
                             THEN 'active' ELSE known.status END
        """,
        {"hold_id": hold_id, "event_id": event_id, "user_id": user_id, "expires_at": expires_at},
    )


async def end_hold(
    conn: Conn,
    hold_id: UUID,
    *,
    event_id: UUID,
    user_id: UUID,
    status: HoldStatus,
    replaces: tuple[HoldStatus, ...],
    expired_at: datetime | None = None,
) -> UUID | None:
    """The order of a hold that this ends; None when it has none or had ended otherwise already."""
    cursor = await conn.execute(
        """
        INSERT INTO holds AS known (id, event_id, user_id, status, expired_at)
        VALUES (%(hold_id)s, %(event_id)s, %(user_id)s, %(status)s, %(expired_at)s)
        ON CONFLICT (id) DO UPDATE
           SET status = EXCLUDED.status, expired_at = COALESCE(EXCLUDED.expired_at, known.expired_at)
         WHERE known.status = ANY(%(replaces)s)
        RETURNING order_id
        """,
        {
            "hold_id": hold_id,
            "event_id": event_id,
            "user_id": user_id,
            "status": status,
            "replaces": list(replaces),
            "expired_at": expired_at,
        },
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def find_hold(conn: Conn, hold_id: UUID) -> Hold | None:
    """None also while only an extension of it is known."""
    async with conn.cursor(row_factory=class_row(Hold)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, order_id
              FROM holds
             WHERE id = %(hold_id)s AND (seats IS NOT NULL OR status <> 'active')
            """,
            {"hold_id": hold_id},
        )
        return await cursor.fetchone()


async def find_hold_of_seats(
    conn: Conn, *, user_id: UUID, event_id: UUID, seat_ids: list[UUID]
) -> Hold | None:
    """The caller's hold of exactly these seats (sorted) that can be checked out or has a living order."""
    async with conn.cursor(row_factory=class_row(Hold)) as cursor:
        await cursor.execute(
            """
            SELECT hold.id, hold.user_id, hold.order_id
              FROM holds hold
              LEFT JOIN orders ON orders.id = hold.order_id
             WHERE hold.user_id = %(user_id)s
               AND hold.event_id = %(event_id)s
               AND hold.seat_ids = %(seat_ids)s
               AND (orders.status IN ('pending', 'paid', 'fulfilled')
                    OR orders.id IS NULL AND hold.status = 'active' AND hold.expires_at > now())
             ORDER BY hold.status = 'active' DESC, hold.id DESC
             LIMIT 1
            """,
            {"user_id": user_id, "event_id": event_id, "seat_ids": seat_ids},
        )
        return await cursor.fetchone()


async def delete_old_holds(conn: Conn) -> None:
    """Those without an order, long after any message about them could still come."""
    await conn.execute("DELETE FROM holds WHERE order_id IS NULL AND expires_at < now() - interval '60 days'")
