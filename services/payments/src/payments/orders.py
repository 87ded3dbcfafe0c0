"""What becomes of an order: paid, fulfilled, ended unpaid. Each change is published in its transaction."""

from datetime import UTC, datetime
from typing import TypedDict
from uuid import UUID

from contracts.messages import (
    OrderCancelled,
    OrderExpired,
    OrderFulfilled,
    OrderPaid,
    OrderPlaced,
    PaymentSucceeded,
)
from libs.messaging.outbox import publish
from libs.postgres import Conn, Pool
from libs.tracing import continued, current_traceparent

from payments.errors import MessageContradictsOrder, UnknownOrder
from payments.models import UNPAID, CancelReason, Order, OrderStatus
from payments.queries import jobs, orders

EXPIRE_AT_ONCE = 500


class OrderIds(TypedDict):
    """The members that all messages about an order have."""

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID


def ids_of(order: Order) -> OrderIds:
    return {
        "order_id": order.id,
        "hold_id": order.hold_id,
        "event_id": order.event_id,
        "user_id": order.user_id,
    }


async def publish_placed(conn: Conn, order: Order) -> None:
    await publish(
        conn,
        OrderPlaced(
            **ids_of(order),
            amount_minor=order.amount_minor,
            currency=order.currency,
            placed_at=order.created_at,
            expires_at=order.expires_at,
        ),
    )


async def publish_captured(conn: Conn, message: PaymentSucceeded) -> None:
    """Stripe has the money: told in the trace of the order's checkout, whoever learns of it."""
    learnt_in = current_traceparent()
    traceparent = await orders.find_traceparent(conn, message.order_id)
    with continued(traceparent or learnt_in, "payment captured", links=[learnt_in]):
        await publish(conn, message)


async def publish_paid(conn: Conn, order: Order) -> None:
    await publish(
        conn,
        OrderPaid(
            **ids_of(order),
            amount_minor=order.amount_minor,
            currency=order.currency,
            paid_at=datetime.now(UTC),
        ),
    )


async def known_order(conn: Conn, order_id: UUID) -> Order:
    """Raises `UnknownOrder`."""
    order = await orders.find_order(conn, order_id)
    if order is None:
        raise UnknownOrder(f"there is no order {order_id}")
    return order


async def lock_known_order(conn: Conn, order_id: UUID) -> Order:
    """Raises `UnknownOrder`. The order is locked before its jobs, payments and refunds are touched."""
    order = await orders.lock_order(conn, order_id)
    if order is None:
        raise UnknownOrder(f"there is no order {order_id}")
    return order


async def fulfil_order(conn: Conn, order_id: UUID) -> None:
    """Tickets were issued. An order that is being refunded meanwhile stays so: its tickets will be voided."""
    order = await orders.mark_fulfilled(conn, order_id)
    if order is not None:
        await publish(conn, OrderFulfilled(**ids_of(order)))
        return
    order = await known_order(conn, order_id)
    if order.status in UNPAID:
        raise MessageContradictsOrder(f"tickets were issued for order {order_id}, which is {order.status}")


async def end_unpaid_order(
    conn: Conn, order_id: UUID, *, reason: CancelReason, payment_intent_id: str | None
) -> Order | None:
    """None when the order does not wait, or waits for another payment than the one that was cancelled."""
    order = await orders.end_unpaid(
        conn,
        order_id,
        status=OrderStatus.EXPIRED if reason == "expired" else OrderStatus.CANCELLED,
        payment_intent_id=payment_intent_id,
    )
    if order is None:
        return None
    await jobs.delete_cancellation(conn, order_id)
    if reason == "expired":
        await publish(conn, OrderExpired(**ids_of(order)))
    else:
        await publish(conn, OrderCancelled(**ids_of(order), reason=reason))
    return order


async def expire_unpaid_orders(pool: Pool) -> None:
    """Orders past their payment deadline: Stripe is asked first (`cancellations`), then they expire."""
    enqueued = EXPIRE_AT_ONCE
    while enqueued == EXPIRE_AT_ONCE:
        async with pool.connection() as conn:
            enqueued = await jobs.enqueue_overdue_cancellations(conn, limit=EXPIRE_AT_ONCE)
