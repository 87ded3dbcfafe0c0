"""Statements that make the live projection of inventory's holds what a fresh copy of it says.

The copy is in a temporary table (`pg_temp`), the live tables are named with their schema. The copy of a hold
whose `hold.placed` the topic has no more is no whole one: that hold stays as it is. Which order has a hold is
payments' own state.
"""

from uuid import UUID

from libs.postgres import Conn

from payments.queries import jobs


async def list_differing_holds(conn: Conn) -> set[UUID]:
    """Of many holds few are looked at twice; what the service changes after this it changes rightly."""
    cursor = await conn.execute(
        """
        SELECT copy.id
          FROM pg_temp.holds copy
          LEFT JOIN payments.holds live ON live.id = copy.id
         WHERE copy.seats IS NOT NULL
           AND (copy.event_id, copy.user_id, copy.status, copy.seat_ids, copy.seats, copy.amount_minor,
                copy.currency, copy.expires_at, copy.expired_at)
               IS DISTINCT FROM
               (live.event_id, live.user_id, live.status, live.seat_ids, live.seats, live.amount_minor,
                live.currency, live.expires_at, live.expired_at)
        """
    )
    return {row[0] for row in await cursor.fetchall()}


async def list_told_holds(_conn: Conn) -> set[UUID]:
    """None: of how many holds the topic still tells, nobody knows."""
    return set()


async def lock_hold(conn: Conn, hold_id: UUID) -> None:
    # A row that is not there yet is locked too: who inserts it meanwhile waits for this one.
    await conn.execute(
        """
        INSERT INTO payments.holds AS live (id, event_id, user_id, status)
        SELECT id, event_id, user_id, 'active' FROM pg_temp.holds WHERE id = %(hold_id)s
        ON CONFLICT (id) DO UPDATE SET event_id = live.event_id
        """,
        {"hold_id": hold_id},
    )


async def replace_hold(conn: Conn, hold_id: UUID) -> bool:
    """Whether it was different. The end of a hold means for its order what its message would have meant."""
    cursor = await conn.execute(
        """
        UPDATE payments.holds live
           SET event_id = copy.event_id, user_id = copy.user_id, status = copy.status,
               seat_ids = copy.seat_ids, seats = copy.seats, amount_minor = copy.amount_minor,
               currency = copy.currency, expires_at = copy.expires_at, expired_at = copy.expired_at
          FROM pg_temp.holds copy
         WHERE live.id = %(hold_id)s AND copy.id = live.id
           AND (copy.event_id, copy.user_id, copy.status, copy.seat_ids, copy.seats, copy.amount_minor,
                copy.currency, copy.expires_at, copy.expired_at)
               IS DISTINCT FROM
               (live.event_id, live.user_id, live.status, live.seat_ids, live.seats, live.amount_minor,
                live.currency, live.expires_at, live.expired_at)
        RETURNING live.status, live.order_id
        """,
        {"hold_id": hold_id},
    )
    row = await cursor.fetchone()
    if row is not None and row[0] in ("released", "expired", "lost") and row[1] is not None:
        await jobs.enqueue_cancellation(conn, row[1], reason="hold_ended")
    return row is not None
