"""Statements on holds and the seats they claim."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from libs.postgres import Conn
from msgspec import Struct
from psycopg.rows import class_row

from inventory.models import HeldSeat, Hold, HoldStatus


class Placing(Struct, frozen=True):
    """What `place_hold` answers; `outcome` is placed, unknown_event, draft, cancelled, quota or taken."""

    outcome: str
    taken: list[UUID] | None
    seats: list[dict[str, Any]] | None
    amount_minor: int | None
    currency: str | None
    placed_at: datetime | None
    expires_at: datetime | None


class EndedHold(Struct, frozen=True):
    event_id: UUID
    hold_id: UUID
    user_id: UUID


async def place_hold(
    conn: Conn,
    hold_id: UUID,
    *,
    event_id: UUID,
    user_id: UUID,
    seat_ids: list[UUID],
    hold_seconds: int,
    max_held_seats: int,
    traceparent: str,
) -> Placing:
    """`seat_ids` are sorted and differ. One round trip: see migrations/0002_placing.sql."""
    async with conn.cursor(row_factory=class_row(Placing)) as cursor:
        await cursor.execute(
            """
            SELECT outcome, taken, seats, amount_minor, currency, placed_at, expires_at
              FROM place_hold(%(hold_id)s, %(event_id)s, %(user_id)s, %(seat_ids)s,
                              %(hold_seconds)s, %(max_held_seats)s, %(traceparent)s)
            """,
            {
                "hold_id": hold_id,
                "event_id": event_id,
                "user_id": user_id,
                "seat_ids": seat_ids,
                "hold_seconds": hold_seconds,
                "max_held_seats": max_held_seats,
                "traceparent": traceparent,
            },
        )
        placing = await cursor.fetchone()
    assert placing is not None  # noqa: S101  # a function with OUT parameters answers one row
    return placing


async def claim_seats(
    conn: Conn, hold_id: UUID, *, event_id: UUID, seat_ids: list[UUID], traceparent: str
) -> list[UUID]:
    """Claims all seats for the hold, or none: then returns those that others have."""
    cursor = await conn.execute(
        "SELECT claim_seats(%s, %s, %s, %s)", [event_id, hold_id, seat_ids, traceparent]
    )
    row = await cursor.fetchone()
    return list(row[0]) if row else []


_COLUMNS = """event_id, hold_id, user_id,
    CASE WHEN status = 'active' AND expires_at <= now() THEN 'expired' ELSE status END,
    seat_ids, seats, amount_minor, currency, placed_at, expires_at, order_id"""


def _hold(row: Any) -> Hold:
    return Hold(
        event_id=row[0],
        hold_id=row[1],
        user_id=row[2],
        status=HoldStatus(row[3]),
        seat_ids=row[4],
        seats=msgspec.convert(row[5], list[HeldSeat]),
        amount_minor=row[6],
        currency=row[7],
        placed_at=row[8],
        expires_at=row[9],
        order_id=row[10],
    )


async def find_hold_of_user(conn: Conn, hold_id: UUID, *, user_id: UUID) -> Hold | None:
    cursor = await conn.execute(
        f"SELECT {_COLUMNS} FROM holds WHERE hold_id = %(hold_id)s AND user_id = %(user_id)s",
        {"hold_id": hold_id, "user_id": user_id},
    )
    row = await cursor.fetchone()
    return _hold(row) if row else None


async def list_holds_of_user(
    conn: Conn, user_id: UUID, *, cursor_id: UUID | None, limit: int | None
) -> list[Hold]:
    cursor = await conn.execute(
        f"""
        SELECT {_COLUMNS}
          FROM holds
         WHERE user_id = %(user_id)s AND (%(cursor)s::uuid IS NULL OR hold_id < %(cursor)s)
         ORDER BY hold_id DESC
         LIMIT %(limit)s
        """,
        {"user_id": user_id, "cursor": cursor_id, "limit": limit},
    )
    return [_hold(row) for row in await cursor.fetchall()]


async def find_hold(conn: Conn, hold_id: UUID, *, event_id: UUID, user_id: UUID) -> Hold | None:
    cursor = await conn.execute(
        f"""
        SELECT {_COLUMNS}
          FROM holds
         WHERE event_id = %(event_id)s AND hold_id = %(hold_id)s AND user_id = %(user_id)s
        """,
        {"event_id": event_id, "hold_id": hold_id, "user_id": user_id},
    )
    row = await cursor.fetchone()
    return _hold(row) if row else None


async def release_hold_of_user(conn: Conn, hold_id: UUID, *, user_id: UUID) -> EndedHold | None:
    """Only an active hold without an order: the buyer may let it go."""
    async with conn.cursor(row_factory=class_row(EndedHold)) as cursor:
        await cursor.execute(
            """
            UPDATE holds
               SET status = 'released'
             WHERE hold_id = %(hold_id)s AND user_id = %(user_id)s AND status = 'active' AND order_id IS NULL
            RETURNING event_id, hold_id, user_id
            """,
            {"hold_id": hold_id, "user_id": user_id},
        )
        return await cursor.fetchone()


async def release_hold_of_order(
    conn: Conn, hold_id: UUID, *, event_id: UUID, order_id: UUID
) -> EndedHold | None:
    async with conn.cursor(row_factory=class_row(EndedHold)) as cursor:
        await cursor.execute(
            """
            UPDATE holds
               SET status = 'released'
             WHERE event_id = %(event_id)s AND hold_id = %(hold_id)s
               AND status = 'active' AND order_id = %(order_id)s
            RETURNING event_id, hold_id, user_id
            """,
            {"event_id": event_id, "hold_id": hold_id, "order_id": order_id},
        )
        return await cursor.fetchone()


async def extend_hold(
    conn: Conn, hold_id: UUID, *, event_id: UUID, order_id: UUID, expires_at: datetime
) -> bool:
    """Gives an active hold whose deadline lies ahead to its order, once, with the order's deadline."""
    cursor = await conn.execute(
        """
        UPDATE holds
           SET order_id = %(order_id)s, expires_at = %(expires_at)s
         WHERE event_id = %(event_id)s AND hold_id = %(hold_id)s
           AND status = 'active' AND expires_at > clock_timestamp() AND order_id IS NULL
        """,
        {"event_id": event_id, "hold_id": hold_id, "order_id": order_id, "expires_at": expires_at},
    )
    return cursor.rowcount == 1


async def revive_hold(
    conn: Conn, hold_id: UUID, *, event_id: UUID, order_id: UUID, expires_at: datetime
) -> bool:
    """Makes an expired hold active again; its seats were claimed in this transaction."""
    cursor = await conn.execute(
        """
        UPDATE holds
           SET status = 'active', order_id = %(order_id)s, expires_at = %(expires_at)s
         WHERE event_id = %(event_id)s AND hold_id = %(hold_id)s
           AND status IN ('active', 'expired') AND order_id IS NULL
        """,
        {"event_id": event_id, "hold_id": hold_id, "order_id": order_id, "expires_at": expires_at},
    )
    return cursor.rowcount == 1


async def lose_hold(conn: Conn, hold_id: UUID, *, event_id: UUID, order_id: UUID) -> None:
    """The hold of a placed order is gone for good; the order stays written on it."""
    await conn.execute(
        """
        UPDATE holds
           SET status = 'lost', order_id = %(order_id)s
         WHERE event_id = %(event_id)s AND hold_id = %(hold_id)s AND status IN ('active', 'expired')
        """,
        {"event_id": event_id, "hold_id": hold_id, "order_id": order_id},
    )


async def confirm_hold(conn: Conn, hold_id: UUID, *, event_id: UUID, order_id: UUID) -> bool:
    cursor = await conn.execute(
        """
        UPDATE holds
           SET status = 'confirmed', order_id = %(order_id)s
         WHERE event_id = %(event_id)s AND hold_id = %(hold_id)s AND status <> 'confirmed'
        """,
        {"event_id": event_id, "hold_id": hold_id, "order_id": order_id},
    )
    return cursor.rowcount == 1


async def expire_holds(conn: Conn, *, limit: int) -> list[EndedHold]:
    """Holds past their deadline that nobody took over. The order of work among them does not matter."""
    async with conn.cursor(row_factory=class_row(EndedHold)) as cursor:
        await cursor.execute(
            """
            UPDATE holds
               SET status = 'expired'
              FROM (SELECT event_id, hold_id
                      FROM holds
                     WHERE status = 'active' AND expires_at <= now()
                     ORDER BY expires_at
                     LIMIT %(limit)s
                       FOR UPDATE SKIP LOCKED) AS overdue
             WHERE holds.event_id = overdue.event_id AND holds.hold_id = overdue.hold_id
            RETURNING holds.event_id, holds.hold_id, holds.user_id
            """,
            {"limit": limit},
        )
        return await cursor.fetchall()


async def release_holds_of_cancelled_events(conn: Conn, *, limit: int) -> list[EndedHold]:
    async with conn.cursor(row_factory=class_row(EndedHold)) as cursor:
        await cursor.execute(
            """
            UPDATE holds
               SET status = 'released'
              FROM (SELECT hold.event_id, hold.hold_id
                      FROM events event
                      JOIN holds hold ON hold.event_id = event.event_id AND hold.status = 'active'
                     WHERE event.status = 'cancelled'
                     LIMIT %(limit)s
                       FOR UPDATE OF hold SKIP LOCKED) AS stopped
             WHERE holds.event_id = stopped.event_id AND holds.hold_id = stopped.hold_id
            RETURNING holds.event_id, holds.hold_id, holds.user_id
            """,
            {"limit": limit},
        )
        return await cursor.fetchall()


async def count_active_holds(conn: Conn) -> int:
    cursor = await conn.execute("SELECT count(*) FROM holds WHERE status = 'active' AND expires_at > now()")
    row = await cursor.fetchone()
    return row[0] if row else 0
