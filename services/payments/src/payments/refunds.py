"""Who wants money to go back, and when nothing stands in its way any more.

An order is `refunding` from the wish on. Its refund is cleared once inventory says that no valid ticket is
left; from then on it cannot be called off, and a job (`stripe_refunds`) moves the money.
"""

from datetime import UTC, datetime
from uuid import UUID

from contracts.messages import OrderFulfilled, OrderRefunded, OrderRefundRequested
from libs.messaging.outbox import publish
from libs.postgres import Conn, Pool, transaction
from libs.web.problems import NotFound

from payments.alarms import raise_alarm
from payments.errors import MessageContradictsOrder, OrderNeverPaid
from payments.models import PAID, REFUND, JobKind, Order, OrderStatus
from payments.orders import ids_of, known_order
from payments.queries import jobs, orders, payments


async def request_refund(pool: Pool, *, order_id: UUID) -> Order:
    """An admin's wish; asked again, the same. Raises `NotFound`, `OrderNeverPaid`."""
    async with transaction(pool) as conn:
        order = await orders.start_refund(conn, order_id, reason="admin", only_from=PAID, is_cleared=False)
        if order is not None:
            await publish(conn, OrderRefundRequested(**ids_of(order), reason="admin"))
            return order
        order = await orders.lock_order(conn, order_id)
        if order is None:
            raise NotFound("There is no such order.")
        if order.status not in REFUND:
            raise OrderNeverPaid(f"The order is {order.status}: nothing can be refunded.")
        await _try_failed_refund_again(conn, order)
        return order


async def _try_failed_refund_again(conn: Conn, order: Order) -> None:
    """A refund that the bank sent back stays where it is until somebody asks for it again."""
    if order.status != OrderStatus.REFUNDING or order.refund_cleared_at is None:
        return
    payment = await payments.find_payment(conn, order.payment_intent_id or "")
    if payment is not None and payment.left_minor > 0:
        await jobs.enqueue_job(
            conn, JobKind.REFUND, order_id=order.id, payment_intent_id=payment.payment_intent_id
        )


async def void_tickets(conn: Conn, order_id: UUID) -> None:
    """No ticket of the order is valid any more, whoever asked for that: its money goes back, once."""
    order = await orders.start_refund(
        conn, order_id, reason="tickets_voided", only_from=PAID, is_cleared=True
    ) or await orders.clear_refund(conn, order_id)
    await _give_back(conn, order_id, order, because="tickets were voided")


async def reject_sale(conn: Conn, order_id: UUID) -> None:
    """The order's seats cannot be had: no tickets were issued, its money goes back."""
    order = await orders.start_refund(
        conn, order_id, reason="sale_rejected", only_from=(OrderStatus.PAID,), is_cleared=True
    ) or await orders.clear_refund(conn, order_id)
    await _give_back(conn, order_id, order, because="its sale was rejected")


async def _give_back(conn: Conn, order_id: UUID, cleared: Order | None, *, because: str) -> None:
    if cleared is None:
        order = await known_order(conn, order_id)
        if order.status not in REFUND:
            raise MessageContradictsOrder(f"order {order_id} is {order.status}, but {because}")
    elif cleared.payment_intent_id is None:  # it was free
        await complete_refund(conn, cleared, amount_minor=0, currency=cleared.currency)
    else:
        await jobs.enqueue_job(
            conn, JobKind.REFUND, order_id=order_id, payment_intent_id=cleared.payment_intent_id
        )


async def refuse_void(conn: Conn, order_id: UUID) -> None:
    """A ticket was used already: the order is fulfilled again, unless its money is gone."""
    order = await orders.call_off_refund(conn, order_id)
    if order is not None:
        await publish(conn, OrderFulfilled(**ids_of(order)))
        return
    order = await orders.clear_refund(conn, order_id)
    if order is not None:
        raise_alarm("an order was refunded in the dashboard though a ticket was used", order=order_id)
        # The job finds the refund that was made.
        await _give_back(conn, order_id, order, because="its void was refused")
        return
    order = await known_order(conn, order_id)
    if order.status not in (OrderStatus.FULFILLED, *REFUND):
        raise MessageContradictsOrder(f"order {order_id} is {order.status}, but its void was refused")


async def complete_refund(conn: Conn, order: Order, *, amount_minor: int, currency: str) -> None:
    """The money is back. Nothing when that is known or the refund is not cleared."""
    if await orders.mark_refunded(conn, order.id) is not None:
        await publish(
            conn,
            OrderRefunded(
                **ids_of(order),
                amount_minor=amount_minor,
                currency=currency,
                refunded_at=datetime.now(UTC),
            ),
        )
