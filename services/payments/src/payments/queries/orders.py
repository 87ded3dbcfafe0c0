"""Statements on orders. Every change of status is one guarded statement that tells whether it took place."""

from collections.abc import Sequence
from typing import Any, LiteralString
from uuid import UUID

from libs.postgres import Conn
from psycopg.rows import class_row

from payments.models import Order, OrderStatus, RefundReason

_COLUMNS: LiteralString = """
    id, hold_id, event_id, user_id, status, amount_minor, currency, email, seats, created_at, expires_at,
    payment_intent_id, client_secret, intent_attempt, refund_reason, refund_cleared_at
"""


async def _one(conn: Conn, statement: LiteralString, parameters: dict[str, Any]) -> Order | None:
    async with conn.cursor(row_factory=class_row(Order)) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchone()


async def place_order(
    conn: Conn,
    order_id: UUID,
    *,
    hold_id: UUID,
    user_id: UUID,
    email: str | None,
    payment_seconds: int,
    traceparent: str,
) -> Order | None:
    """None when the hold is over, someone else's, or has its order already. A free order is paid at once.

    The hold's row decides between checkouts at the same time, and against the end of the hold.
    """
    return await _one(
        conn,
        f"""
        WITH hold AS (
            UPDATE holds
               SET order_id = %(order_id)s
             WHERE id = %(hold_id)s AND user_id = %(user_id)s
               AND status = 'active' AND expires_at > now() AND order_id IS NULL AND seats IS NOT NULL
            RETURNING id, event_id, user_id, amount_minor, currency, seats
        )
        INSERT INTO orders (id, hold_id, event_id, user_id, status, paid_at, amount_minor, currency, email,
                            seats, expires_at, traceparent)
        SELECT %(order_id)s, id, event_id, user_id,
               CASE WHEN amount_minor = 0 THEN 'paid' ELSE 'pending' END,
               CASE WHEN amount_minor = 0 THEN now() END,
               amount_minor, currency, %(email)s, seats,
               now() + make_interval(secs => %(payment_seconds)s), %(traceparent)s
          FROM hold
        RETURNING {_COLUMNS}
        """,
        {
            "order_id": order_id,
            "hold_id": hold_id,
            "user_id": user_id,
            "email": email,
            "payment_seconds": payment_seconds,
            "traceparent": traceparent,
        },
    )


async def find_order(conn: Conn, order_id: UUID) -> Order | None:
    return await _one(conn, f"SELECT {_COLUMNS} FROM orders WHERE id = %(id)s", {"id": order_id})


async def find_traceparent(conn: Conn, order_id: UUID) -> str | None:
    """Of the checkout that made the order."""
    cursor = await conn.execute("SELECT traceparent FROM orders WHERE id = %s", [order_id])
    row = await cursor.fetchone()
    return row[0] if row else None


async def find_own_order(conn: Conn, order_id: UUID, *, user_id: UUID) -> Order | None:
    return await _one(
        conn,
        f"SELECT {_COLUMNS} FROM orders WHERE id = %(id)s AND user_id = %(user_id)s",
        {"id": order_id, "user_id": user_id},
    )


async def find_order_of_hold(conn: Conn, hold_id: UUID, *, user_id: UUID) -> Order | None:
    return await _one(
        conn,
        f"SELECT {_COLUMNS} FROM orders WHERE hold_id = %(hold_id)s AND user_id = %(user_id)s",
        {"hold_id": hold_id, "user_id": user_id},
    )


async def list_own_orders(
    conn: Conn, *, user_id: UUID, limit: int | None, cursor_id: UUID | None
) -> list[Order]:
    """Newest first; `cursor_id` is the last one of the page before."""
    async with conn.cursor(row_factory=class_row(Order)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS}
              FROM orders
             WHERE user_id = %(user_id)s AND (%(cursor_id)s::uuid IS NULL OR id < %(cursor_id)s)
             ORDER BY id DESC
             LIMIT %(limit)s
            """,
            {"user_id": user_id, "cursor_id": cursor_id, "limit": limit},
        )
        return await cursor.fetchall()


async def lock_order(conn: Conn, order_id: UUID) -> Order | None:
    """For a decision that needs more than one row: before the order's jobs, payments and refunds."""
    return await _one(
        conn,
        # Not FOR UPDATE: that would hold up whoever inserts a row that refers to the order.
        f"SELECT {_COLUMNS} FROM orders WHERE id = %(id)s FOR NO KEY UPDATE",
        {"id": order_id},
    )


async def store_intent(
    conn: Conn, order_id: UUID, *, payment_intent_id: str, client_secret: str
) -> Order | None:
    """None when the order has an intent or has ended."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET payment_intent_id = %(intent)s, client_secret = %(secret)s
         WHERE id = %(id)s AND status = 'pending' AND payment_intent_id IS NULL
        RETURNING {_COLUMNS}
        """,
        {"id": order_id, "intent": payment_intent_id, "secret": client_secret},
    )


async def count_intent_attempt(conn: Conn, order_id: UUID, *, attempt: int) -> None:
    """After attempt number `attempt` got a definite error; once, however many saw it."""
    await conn.execute(
        """
        UPDATE orders
           SET intent_attempt = intent_attempt + 1
         WHERE id = %(id)s AND intent_attempt = %(attempt)s AND payment_intent_id IS NULL
        """,
        {"id": order_id, "attempt": attempt},
    )


async def mark_paid(
    conn: Conn, order_id: UUID, *, payment_intent_id: str, amount_minor: int, currency: str
) -> Order | None:
    """None unless the order waits for exactly this payment."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'paid', paid_at = now()
         WHERE id = %(id)s AND status = 'pending' AND payment_intent_id = %(intent)s
           AND amount_minor = %(amount_minor)s AND currency = %(currency)s
        RETURNING {_COLUMNS}
        """,
        {
            "id": order_id,
            "intent": payment_intent_id,
            "amount_minor": amount_minor,
            "currency": currency,
        },
    )


async def mark_paid_late(
    conn: Conn, order_id: UUID, *, payment_intent_id: str, client_secret: str
) -> Order | None:
    """The same once Stripe was asked: also after the order's end, and when its intent was never stored."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'paid', paid_at = now(),
               payment_intent_id = %(intent)s, client_secret = %(secret)s
         WHERE id = %(id)s AND status IN ('pending', 'cancelled', 'expired')
           AND (payment_intent_id IS NULL OR payment_intent_id = %(intent)s)
        RETURNING {_COLUMNS}
        """,
        {"id": order_id, "intent": payment_intent_id, "secret": client_secret},
    )


async def mark_wrongly_paid(
    conn: Conn, order_id: UUID, *, payment_intent_id: str, client_secret: str
) -> Order | None:
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'refunding', refund_reason = 'wrong_amount',
               refunding_at = now(), refund_cleared_at = now(),
               payment_intent_id = %(intent)s, client_secret = %(secret)s
         WHERE id = %(id)s AND status IN ('pending', 'cancelled', 'expired')
           AND (payment_intent_id IS NULL OR payment_intent_id = %(intent)s)
        RETURNING {_COLUMNS}
        """,
        {"id": order_id, "intent": payment_intent_id, "secret": client_secret},
    )


async def end_unpaid(
    conn: Conn, order_id: UUID, *, status: OrderStatus, payment_intent_id: str | None
) -> Order | None:
    """`payment_intent_id` is the one that cannot be paid any more; None when the order never got one."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = %(status)s, ended_at = now()
         WHERE id = %(id)s AND status = 'pending'
           AND payment_intent_id IS NOT DISTINCT FROM %(intent)s::text
        RETURNING {_COLUMNS}
        """,
        {"id": order_id, "status": status, "intent": payment_intent_id},
    )


async def mark_fulfilled(conn: Conn, order_id: UUID) -> Order | None:
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'fulfilled', fulfilled_at = now()
         WHERE id = %(id)s AND status = 'paid'
        RETURNING {_COLUMNS}
        """,
        {"id": order_id},
    )


async def start_refund(
    conn: Conn, order_id: UUID, *, reason: RefundReason, only_from: Sequence[OrderStatus], is_cleared: bool
) -> Order | None:
    """`is_cleared`: no valid ticket is left, so the money may go back at once."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'refunding', refund_reason = %(reason)s, refunding_at = now(),
               refund_cleared_at = CASE WHEN %(is_cleared)s THEN now() END
         WHERE id = %(id)s AND status = ANY(%(only_from)s)
        RETURNING {_COLUMNS}
        """,
        {"id": order_id, "reason": reason, "only_from": list(only_from), "is_cleared": is_cleared},
    )


async def clear_refund(conn: Conn, order_id: UUID) -> Order | None:
    """Lets the money of a refund that waited for inventory go back; once."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET refund_cleared_at = now()
         WHERE id = %(id)s AND status = 'refunding' AND refund_cleared_at IS NULL
        RETURNING {_COLUMNS}
        """,
        {"id": order_id},
    )


async def note_dashboard_refund(conn: Conn, order_id: UUID) -> Order | None:
    """A waiting refund whose money went back meanwhile: it cannot be called off any more."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET refund_reason = 'dashboard'
         WHERE id = %(id)s AND status = 'refunding' AND refund_cleared_at IS NULL
        RETURNING {_COLUMNS}
        """,
        {"id": order_id},
    )


async def call_off_refund(conn: Conn, order_id: UUID) -> Order | None:
    """Back to fulfilled, only while no money moves. A refused void tells that tickets were issued."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'fulfilled', fulfilled_at = COALESCE(fulfilled_at, now()),
               refund_reason = NULL, refunding_at = NULL
         WHERE id = %(id)s AND status = 'refunding'
           AND refund_cleared_at IS NULL AND refund_reason = 'admin'
        RETURNING {_COLUMNS}
        """,
        {"id": order_id},
    )


async def reopen_refund(conn: Conn, order_id: UUID) -> Order | None:
    """Stripe took back what it had called a success: the money is with us again."""
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'refunding', refunded_at = NULL
         WHERE id = %(id)s AND status = 'refunded'
        RETURNING {_COLUMNS}
        """,
        {"id": order_id},
    )


async def mark_refunded(conn: Conn, order_id: UUID) -> Order | None:
    return await _one(
        conn,
        f"""
        UPDATE orders
           SET status = 'refunded', refunded_at = now()
         WHERE id = %(id)s AND status = 'refunding' AND refund_cleared_at IS NOT NULL
        RETURNING {_COLUMNS}
        """,
        {"id": order_id},
    )
