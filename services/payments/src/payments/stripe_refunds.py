"""Moves money back at Stripe, and learns what became of refunds, ours and those made in its dashboard."""

from contracts.messages import OrderRefundRequested
from libs.messaging.outbox import publish
from libs.postgres import Conn, Pool, transaction

from payments.alarms import raise_alarm
from payments.errors import LeaseLost, NotYet
from payments.models import PAID, Job, Order, OrderStatus, Payment, RefundState
from payments.orders import ids_of, known_order, lock_known_order
from payments.queries import jobs, orders
from payments.queries import payments as queries
from payments.refunds import complete_refund
from payments.stripe_client import StripeGateway, StripeRefused


async def run_refund(pool: Pool, stripe: StripeGateway, job: Job) -> None:
    """Gives back all of a capture that did not go back yet.

    A crash anywhere, and a time-out, repeat the same idempotency key; after a definite error Stripe is asked
    for its refunds before another key is used. Stripe itself refuses to give back more than it captured.
    """
    async with pool.connection() as conn:
        order = await known_order(conn, job.order_id)
        payment = await _recorded_payment(conn, job)
    refunds = await _create_or_list(pool, stripe, order, payment)
    async with transaction(pool) as conn:
        order = await lock_known_order(conn, order.id)
        payment = await _save_refunds(conn, payment, refunds)
        await _settle(conn, order, payment)
        # A refund that failed is settled too: it needs a person (`_save_refunds` has raised the alarm).
        is_settled = payment.returning_minor == 0
        if is_settled and not await jobs.finish_job(conn, job):
            raise LeaseLost
    if not is_settled:
        raise NotYet(f"the refund of order {order.id} is on its way")


async def _create_or_list(
    pool: Pool, stripe: StripeGateway, order: Order, payment: Payment
) -> list[RefundState]:
    """The refunds of a capture, after making one where something is left to give back."""
    intent_id = payment.payment_intent_id
    if payment.left_minor <= 0:
        return await stripe.list_refunds(intent_id)
    # The order's own payment has the plain key; one that came twice by mistake needs its own.
    whose = f"{order.id}" if intent_id == order.payment_intent_id else f"{order.id}:{intent_id}"
    try:
        made = await stripe.create_refund(
            intent_id, key=f"refund:{whose}:{payment.refund_attempt}", order_id=order.id
        )
    except StripeRefused as refusal:
        found = await stripe.list_refunds(intent_id)
        if sum(each.amount_minor for each in found if not each.is_failed) >= payment.amount_minor:
            return found
        async with pool.connection() as conn:
            await queries.count_refund_attempt(conn, intent_id, attempt=payment.refund_attempt)
        raise NotYet(f"Stripe refuses the refund of order {order.id}: {refusal}") from refusal
    if made.amount_minor == payment.amount_minor:
        return [made]
    return await stripe.list_refunds(intent_id)


async def run_reconciliation(pool: Pool, stripe: StripeGateway, job: Job) -> None:
    """A webhook told of a refund: learns all refunds of that capture and acts on what they add up to."""
    async with pool.connection() as conn:
        payment = await _recorded_payment(conn, job)
    refunds = await stripe.list_refunds(job.payment_intent_id)
    async with transaction(pool) as conn:
        order = await lock_known_order(conn, job.order_id)
        if not await jobs.finish_job(conn, job):
            raise LeaseLost
        await _settle(conn, order, await _save_refunds(conn, payment, refunds))


async def _recorded_payment(conn: Conn, job: Job) -> Payment:
    payment = await queries.find_payment(conn, job.payment_intent_id)
    if payment is None:
        raise NotYet(f"the capture of {job.payment_intent_id} is not recorded yet")
    return payment


async def _save_refunds(conn: Conn, payment: Payment, refunds: list[RefundState]) -> Payment:
    for refund in refunds:
        is_news = await queries.save_refund(conn, payment.payment_intent_id, refund)
        if is_news and refund.is_failed:
            raise_alarm(
                f"a refund is {refund.status}",
                order=payment.order_id,
                intent=payment.payment_intent_id,
                refund=refund.id,
            )
            # Stripe would answer the old key with the refund that failed.
            await queries.count_refund_attempt(
                conn, payment.payment_intent_id, attempt=payment.refund_attempt
            )
    return await queries.find_payment(conn, payment.payment_intent_id) or payment


async def _settle(conn: Conn, order: Order, payment: Payment) -> None:
    """What the refunds of a capture add up to. `order` is locked.

    A capture that is not the order's own, and one that went back in part, concern the accounts alone.
    """
    if order.payment_intent_id != payment.payment_intent_id:
        return
    if payment.refunded_minor < payment.amount_minor:
        await orders.reopen_refund(conn, order.id)
    elif order.status in PAID:
        # Made in the dashboard, for ours begin with the order: like an admin's, without the call to Stripe.
        if await orders.start_refund(conn, order.id, reason="dashboard", only_from=PAID, is_cleared=False):
            await publish(conn, OrderRefundRequested(**ids_of(order), reason="dashboard"))
    elif order.status == OrderStatus.REFUNDING and order.refund_cleared_at is None:
        await orders.note_dashboard_refund(conn, order.id)
    else:
        await complete_refund(conn, order, amount_minor=payment.amount_minor, currency=payment.currency)
