"""From a hold to an order that waits for its payment.

The order comes first, in one transaction; then, with neither transaction nor connection, its PaymentIntent;
then the intent's id on the order. Whoever dies in between is repeated by the next checkout of the same hold:
the idempotency key is made of what is stored.
"""

import logging
from uuid import UUID

from libs.ids import new_id
from libs.postgres import Conn, Pool, transaction
from libs.tracing import current_traceparent
from libs.web.freshness import FreshnessGate
from libs.web.problems import NotFound, TemporarilyUnavailable

from payments.alarms import raise_alarm
from payments.errors import HoldOver, OrderOver, PaymentNotPossible
from payments.models import PAID, Hold, Order, OrderStatus
from payments.orders import publish_paid, publish_placed
from payments.queries import holds, orders
from payments.stripe_client import StripeGateway, StripeRefused, StripeUnavailable

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2


async def find_hold(pool: Pool, gate: FreshnessGate, *, hold_id: UUID, user_id: UUID) -> Hold:
    """A hold placed a moment ago is waited for. Raises `NotFound`, also for someone else's."""

    async def find() -> Hold | None:
        async with pool.connection() as conn:
            return await holds.find_hold(conn, hold_id)

    hold = await gate.find_fresh(hold_id, find)
    if hold is None or hold.user_id != user_id:
        raise NotFound("There is no such reservation.")
    return hold


async def find_hold_of_seats(
    pool: Pool, gate: FreshnessGate, *, event_id: UUID, seat_ids: list[UUID], user_id: UUID
) -> Hold:
    """The caller's active hold of exactly these seats, waited for. Raises `NotFound`."""
    wanted = sorted(seat_ids)

    async def find() -> Hold | None:
        async with pool.connection() as conn:
            return await holds.find_hold_of_seats(conn, user_id=user_id, event_id=event_id, seat_ids=wanted)

    hold = await find() or await gate.wait_for(find)
    if hold is None:
        raise NotFound("You have no reservation of exactly these seats.")
    return hold


async def check_out(
    pool: Pool, stripe: StripeGateway, *, hold: Hold, user_id: UUID, email: str | None, payment_seconds: int
) -> Order:
    """The hold's one order, with its client secret unless nothing is to be paid.

    Raises `HoldOver`, `OrderOver`, `PaymentNotPossible`, or `TemporarilyUnavailable` when Stripe is away:
    the order then waits, and the same call goes on with it.
    """
    order = await _place_or_find(
        pool, hold=hold, user_id=user_id, email=email, payment_seconds=payment_seconds
    )
    if order.status == OrderStatus.PENDING and order.payment_intent_id is None:
        order = await _with_intent(pool, stripe, order)
    if order.status not in (OrderStatus.PENDING, *PAID):
        raise OrderOver(f"The order of this reservation is {order.status}.", orderId=str(order.id))
    return order


async def _place_or_find(
    pool: Pool, *, hold: Hold, user_id: UUID, email: str | None, payment_seconds: int
) -> Order:
    if hold.order_id is None:
        async with transaction(pool) as conn:
            order = await orders.place_order(
                conn,
                new_id(),
                hold_id=hold.id,
                user_id=user_id,
                email=email,
                payment_seconds=payment_seconds,
                traceparent=current_traceparent(),
            )
            if order is not None:
                await _publish_new(conn, order)
                return order
    async with pool.connection() as conn:
        order = await orders.find_order_of_hold(conn, hold.id, user_id=user_id)
    if order is None:
        raise HoldOver("The reservation is over.")
    return order


async def _publish_new(conn: Conn, order: Order) -> None:
    await publish_placed(conn, order)
    if order.status in PAID:  # free
        await publish_paid(conn, order)


async def _with_intent(pool: Pool, stripe: StripeGateway, order: Order) -> Order:
    try:
        return await ensure_intent(pool, stripe, order)
    except (StripeUnavailable, StripeRefused) as error:
        # Another process may have been given the answer meanwhile.
        async with pool.connection() as conn:
            known = await orders.find_order(conn, order.id)
        if known is not None and (known.payment_intent_id or known.status != OrderStatus.PENDING):
            return known
        if isinstance(error, StripeRefused) and not error.is_fault:
            raise_alarm(f"Stripe refuses a payment: {error}", order=order.id)
            raise PaymentNotPossible(
                "Stripe does not take this payment.", orderId=str(order.id), stripeCode=error.code
            ) from error
        log.warning("order %s waits for its payment intent: %s", order.id, error)
        raise TemporarilyUnavailable(
            "The payment provider is away for a moment. Your order is kept: check out again.",
            retry_after=RETRY_AFTER_SECONDS,
        ) from error


async def ensure_intent(pool: Pool, stripe: StripeGateway, order: Order) -> Order:
    """The order as stored with its PaymentIntent, which is made at Stripe unless it is known.

    An order that has ended meanwhile comes back without. Raises `StripeUnavailable`, `StripeRefused`.
    """
    if order.payment_intent_id is not None:
        return order
    try:
        intent = await stripe.create_intent(
            order_id=order.id,
            attempt=order.intent_attempt,
            amount_minor=order.amount_minor,
            currency=order.currency,
        )
    except StripeRefused:
        async with pool.connection() as conn:
            await orders.count_intent_attempt(conn, order.id, attempt=order.intent_attempt)
        raise
    # A buyer only ever sees the stored secret, so an intent that was not stored cannot be paid.
    async with pool.connection() as conn:
        stored = await orders.store_intent(
            conn, order.id, payment_intent_id=intent.id, client_secret=intent.client_secret
        )
        return stored or await orders.find_order(conn, order.id) or order
