"""Statements on money: captures, refunds, and the webhook events that told of them."""

from uuid import UUID

from libs.postgres import Conn
from psycopg.rows import class_row

from payments.models import Payment, RefundState


async def insert_payment(
    conn: Conn, payment_intent_id: str, *, order_id: UUID, amount_minor: int, currency: str
) -> bool:
    """False when this capture is known."""
    cursor = await conn.execute(
        """
        INSERT INTO payments (payment_intent_id, order_id, amount_minor, currency)
        VALUES (%(intent)s, %(order_id)s, %(amount_minor)s, %(currency)s)
        ON CONFLICT DO NOTHING
        """,
        {
            "intent": payment_intent_id,
            "order_id": order_id,
            "amount_minor": amount_minor,
            "currency": currency,
        },
    )
    return cursor.rowcount == 1


async def find_payment(conn: Conn, payment_intent_id: str) -> Payment | None:
    async with conn.cursor(row_factory=class_row(Payment)) as cursor:
        await cursor.execute(
            """
            SELECT payment_intent_id, order_id, payments.amount_minor, payments.currency, refund_attempt,
                   COALESCE(sum(refunds.amount_minor) FILTER (WHERE refunds.status = 'succeeded'), 0)::bigint
                       AS refunded_minor,
                   COALESCE(sum(refunds.amount_minor)
                       FILTER (WHERE refunds.status IN ('pending', 'requires_action')), 0)::bigint
                       AS returning_minor
              FROM payments
              LEFT JOIN refunds USING (payment_intent_id)
             WHERE payment_intent_id = %(intent)s
             GROUP BY payment_intent_id
            """,
            {"intent": payment_intent_id},
        )
        return await cursor.fetchone()


async def count_refund_attempt(conn: Conn, payment_intent_id: str, *, attempt: int) -> None:
    await conn.execute(
        """
        UPDATE payments
           SET refund_attempt = refund_attempt + 1
         WHERE payment_intent_id = %(intent)s AND refund_attempt = %(attempt)s
        """,
        {"intent": payment_intent_id, "attempt": attempt},
    )


async def save_refund(conn: Conn, payment_intent_id: str, refund: RefundState) -> bool:
    """Whether this is news. A success can still fail later; nothing else undoes a definite state."""
    cursor = await conn.execute(
        """
        INSERT INTO refunds AS known (refund_id, payment_intent_id, amount_minor, currency, status)
        VALUES (%(id)s, %(intent)s, %(amount_minor)s, %(currency)s, %(status)s)
        ON CONFLICT (refund_id) DO UPDATE
           SET status = EXCLUDED.status, updated_at = now()
         WHERE known.status <> EXCLUDED.status
           AND (known.status IN ('pending', 'requires_action')
                OR known.status = 'succeeded' AND EXCLUDED.status IN ('failed', 'canceled'))
        """,
        {
            "id": refund.id,
            "intent": payment_intent_id,
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "status": refund.status,
        },
    )
    return cursor.rowcount == 1


async def insert_stripe_event(
    conn: Conn,
    event_id: str,
    *,
    type_: str,
    object_id: str | None,
    payment_intent_id: str | None,
) -> bool:
    """False when Stripe delivered this event before."""
    cursor = await conn.execute(
        """
        INSERT INTO stripe_events (event_id, type, object_id, payment_intent_id)
        VALUES (%(event_id)s, %(type)s, %(object_id)s, %(intent)s)
        ON CONFLICT DO NOTHING
        """,
        {
            "event_id": event_id,
            "type": type_,
            "object_id": object_id,
            "intent": payment_intent_id,
        },
    )
    return cursor.rowcount == 1
