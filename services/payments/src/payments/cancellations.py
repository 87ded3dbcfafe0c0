"""The ways of an order to its unpaid end: the PaymentIntent is cancelled first, then the order."""

import logging
from uuid import UUID

from contracts.messages import PaymentSucceeded
from libs.postgres import Pool, transaction
from libs.web.problems import NotFound, TemporarilyUnavailable

from payments.alarms import raise_alarm
from payments.checkouts import ensure_intent
from payments.errors import NotYet, OrderNotCancellable
from payments.models import CancelReason, IntentState, Job, Order, OrderStatus
from payments.orders import end_unpaid_order, known_order, lock_known_order, publish_captured
from payments.queries import jobs, orders
from payments.stripe_client import StripeGateway, StripeRefused, StripeUnavailable

log = logging.getLogger(__name__)

# Time for the request itself to do what it has recorded, before a worker does.
OWN_TRY_SECONDS = 10.0


class AlreadyCaptured(NotYet):
    """Stripe has the money: the order will be paid."""


async def cancel_order(pool: Pool, stripe: StripeGateway, *, order_id: UUID, user_id: UUID) -> Order:
    """The buyer's wish. Cancelled already: the same again.

    Raises `NotFound`, `OrderNotCancellable`, or `TemporarilyUnavailable` when Stripe gives no definite
    answer; the wish is recorded then and will be carried out.
    """
    async with pool.connection() as conn:
        order = await orders.find_own_order(conn, order_id, user_id=user_id)
        if order is None:
            raise NotFound("There is no such order.")
        if order.status == OrderStatus.PENDING:
            await jobs.enqueue_cancellation(conn, order_id, reason="buyer", delay_seconds=OWN_TRY_SECONDS)
    try:
        if order.status == OrderStatus.PENDING:
            order = await cancel_pending_order(pool, stripe, order_id, reason="buyer")
    except AlreadyCaptured:
        raise OrderNotCancellable("The order was paid at this moment.") from None
    except (NotYet, StripeUnavailable, StripeRefused) as reason:
        log.warning("the cancellation of order %s waits: %s", order_id, reason)
        async with pool.connection() as conn:
            await jobs.enqueue_cancellation(conn, order_id, reason="buyer")
        raise TemporarilyUnavailable(
            "Your cancellation is recorded and will be carried out; the payment provider has not confirmed it"
            " yet. Look at the order again.",
            retry_after=5,
        ) from None
    if order.status != OrderStatus.CANCELLED:
        raise OrderNotCancellable(f"The order is {order.status}.", orderStatus=order.status)
    return order


async def run_cancellation(pool: Pool, stripe: StripeGateway, job: Job) -> None:
    order = await cancel_pending_order(pool, stripe, job.order_id, reason=job.reason or "expired")
    if order.status != OrderStatus.PENDING:
        async with pool.connection() as conn:
            await jobs.delete_cancellation(conn, order.id)


async def cancel_pending_order(
    pool: Pool, stripe: StripeGateway, order_id: UUID, *, reason: CancelReason
) -> Order:
    """The order after it; unchanged when it was not pending any more.

    Raises `AlreadyCaptured`, `NotYet`, `StripeUnavailable`, `StripeRefused`.
    """
    async with pool.connection() as conn:
        order = await known_order(conn, order_id)
    if order.status != OrderStatus.PENDING:
        return order
    try:
        order = await ensure_intent(pool, stripe, order)
    except StripeRefused as refusal:
        if refusal.is_fault:
            raise
        # Stripe made no intent and would make none: there is nothing that could be paid.
    if order.status != OrderStatus.PENDING:
        return order
    if order.payment_intent_id is not None:
        intent = await stripe.cancel_intent(order.payment_intent_id)
        if intent is None:
            raise_alarm(
                "Stripe does not know an order's intent", order=order_id, intent=order.payment_intent_id
            )
        elif intent.status == "succeeded":
            await _report_capture(pool, order_id, intent)
            raise AlreadyCaptured(f"order {order_id} was paid")
        elif intent.status != "canceled":
            raise NotYet(f"the payment of order {order_id} is {intent.status}")
    async with transaction(pool) as conn:
        ended = await end_unpaid_order(
            conn, order_id, reason=reason, payment_intent_id=order.payment_intent_id
        )
        if ended is not None:
            return ended
        order = await known_order(conn, order_id)
    if order.status == OrderStatus.PENDING:
        raise NotYet(f"order {order_id} was given an intent meanwhile")
    return order


async def _report_capture(pool: Pool, order_id: UUID, intent: IntentState) -> None:
    """What Stripe's webhook will say too, or has said; the intent's id makes it count once."""
    async with transaction(pool) as conn:
        order = await lock_known_order(conn, order_id)
        if order.status == OrderStatus.PENDING:
            await publish_captured(
                conn,
                PaymentSucceeded(
                    order_id=order_id,
                    payment_intent_id=intent.id,
                    amount_minor=intent.amount_minor,
                    currency=intent.currency,
                    stripe_event_id=None,
                ),
            )
