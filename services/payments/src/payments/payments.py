"""Captured money: what it pays, or where else it goes."""

from uuid import UUID

from contracts.messages import OrderRefundRequested
from libs.messaging.outbox import publish
from libs.postgres import Conn, Pool, transaction

from payments.alarms import raise_alarm
from payments.errors import LeaseLost
from payments.models import UNPAID, IntentState, Job, JobKind, Order
from payments.orders import ids_of, known_order, lock_known_order, publish_paid
from payments.queries import jobs, orders
from payments.queries import payments as queries
from payments.stripe_client import StripeGateway


async def record_capture(
    conn: Conn, order_id: UUID, *, payment_intent_id: str, amount_minor: int, currency: str
) -> None:
    """What a signed event said. What does not match its order is asked of Stripe before anything is done.

    Raises `UnknownOrder`.
    """
    order = await orders.mark_paid(
        conn,
        order_id,
        payment_intent_id=payment_intent_id,
        amount_minor=amount_minor,
        currency=currency,
    )
    if order is not None:
        await queries.insert_payment(
            conn, payment_intent_id, order_id=order_id, amount_minor=amount_minor, currency=currency
        )
        await jobs.delete_cancellation(conn, order_id)
        await publish_paid(conn, order)
        return
    await known_order(conn, order_id)
    if await queries.find_payment(conn, payment_intent_id) is None:
        await jobs.enqueue_job(conn, JobKind.INSPECT, order_id=order_id, payment_intent_id=payment_intent_id)


async def run_inspection(pool: Pool, stripe: StripeGateway, job: Job) -> None:
    """Acts on what Stripe says of a payment that did not match its order."""
    intent = await stripe.find_intent(job.payment_intent_id)
    async with transaction(pool) as conn:
        order = await lock_known_order(conn, job.order_id)
        if not await jobs.finish_job(conn, job):
            raise LeaseLost
        if intent is None or intent.status != "succeeded":
            status = intent.status if intent else "unknown"
            raise_alarm(f"a payment was announced that is {status} at Stripe", **_names(job))
        elif intent.order_id != str(order.id):
            raise_alarm("a payment was announced for an order that it does not name", **_names(job))
        elif await queries.insert_payment(
            conn,
            intent.id,
            order_id=order.id,
            amount_minor=intent.amount_minor,
            currency=intent.currency,
        ):
            await _assign_capture(conn, order, intent)


async def _assign_capture(conn: Conn, order: Order, intent: IntentState) -> None:
    """`order` is locked, `intent` succeeded and was not known as captured."""
    is_awaited = order.status in UNPAID and order.payment_intent_id in (None, intent.id)
    amounts = {
        "captured": f"{intent.amount_minor} {intent.currency}",
        "ordered": f"{order.amount_minor} {order.currency}",
    }
    if not is_awaited:
        raise_alarm("a second payment of an order goes back", order=order.id, intent=intent.id, **amounts)
        await jobs.enqueue_job(conn, JobKind.REFUND, order_id=order.id, payment_intent_id=intent.id)
    elif (intent.amount_minor, intent.currency) == (order.amount_minor, order.currency):
        if await orders.mark_paid_late(
            conn, order.id, payment_intent_id=intent.id, client_secret=intent.client_secret
        ):
            await jobs.delete_cancellation(conn, order.id)
            await publish_paid(conn, order)
    else:
        raise_alarm("a payment of a wrong amount goes back", order=order.id, intent=intent.id, **amounts)
        if await orders.mark_wrongly_paid(
            conn, order.id, payment_intent_id=intent.id, client_secret=intent.client_secret
        ):
            await jobs.delete_cancellation(conn, order.id)
            await publish(conn, OrderRefundRequested(**ids_of(order), reason="wrong_amount"))
            await jobs.enqueue_job(conn, JobKind.REFUND, order_id=order.id, payment_intent_id=intent.id)


def _names(job: Job) -> dict[str, object]:
    return {"order": job.order_id, "intent": job.payment_intent_id}
