"""Use cases on sales: from a paid order to tickets, and back.

What is decided about an order is decided under its row in `sales`, once: an order that was issued, rejected
or voided is not decided again.
"""

import logging
from uuid import UUID

from contracts.messages import (
    HoldConfirmed,
    IssuedTicket,
    OrderPaid,
    OrderRefundRequested,
    SaleRejected,
    TicketsIssued,
    TicketsVoided,
    VoidRefused,
)
from libs.ids import new_id
from libs.messaging.outbox import publish
from libs.postgres import Conn, Pool, transaction
from libs.tracing import current_traceparent

from inventory.holds import release_hold_of_order
from inventory.models import EventStatus, Hold, RejectionReason, SaleStatus, Ticket, TicketStatus, VoidReason
from inventory.queries import events as event_queries
from inventory.queries import holds as hold_queries
from inventory.queries import tickets as queries

log = logging.getLogger(__name__)

SWEEP_SIZE = 50


class SeatsNotSold(Exception):
    """Fewer seats were sold than the order has: the projection of the event is not what the hold says."""


async def confirm_sale(conn: Conn, order: OrderPaid) -> None:
    """Sells the hold's seats and issues their tickets, or rejects the sale: then the money goes back.

    An ended hold whose seats are all free is re-acquired.
    """
    sale = await queries.lock_sale(
        conn, order.order_id, event_id=order.event_id, hold_id=order.hold_id, user_id=order.user_id
    )
    if sale.status != SaleStatus.PLACED:
        return
    hold = await hold_queries.find_hold(conn, order.hold_id, event_id=order.event_id, user_id=order.user_id)
    if hold is None or hold.order_id not in (None, order.order_id):
        await _reject(conn, order, reason="unknown_hold")
        return
    if await event_queries.find_event_status(conn, order.event_id) == EventStatus.CANCELLED:
        await _reject(conn, order, reason="event_cancelled")
        return
    taken = await hold_queries.claim_seats(
        conn,
        hold.hold_id,
        event_id=hold.event_id,
        seat_ids=hold.seat_ids,
        traceparent=current_traceparent(),
    )
    if taken:
        await hold_queries.lose_hold(conn, hold.hold_id, event_id=hold.event_id, order_id=order.order_id)
        await _reject(conn, order, reason="seats_taken")
        return
    await _issue(conn, order, hold)


async def _issue(conn: Conn, order: OrderPaid, hold: Hold) -> None:
    tickets = [
        Ticket(
            event_id=hold.event_id,
            ticket_id=new_id(),
            order_id=order.order_id,
            user_id=hold.user_id,
            seat_id=seat.seat_id,
            section=seat.section,
            row_name=seat.row,
            seat_number=seat.seat_number,
            status=TicketStatus.ISSUED,
            issued_at=order.paid_at,
            checked_in_at=None,
        )
        for seat in hold.seats
    ]
    sold = await queries.sell_seats(conn, order.order_id, event_id=hold.event_id, seat_ids=hold.seat_ids)
    confirmed = await hold_queries.confirm_hold(
        conn, hold.hold_id, event_id=hold.event_id, order_id=order.order_id
    )
    if sold != len(tickets) or not confirmed:
        raise SeatsNotSold(f"order {order.order_id}: {sold} of {len(tickets)} seats")
    await queries.insert_tickets(conn, tickets)
    await queries.set_sale_status(conn, order.order_id, SaleStatus.ISSUED)
    await publish(
        conn,
        TicketsIssued(
            order_id=order.order_id,
            hold_id=hold.hold_id,
            event_id=hold.event_id,
            user_id=hold.user_id,
            tickets=[IssuedTicket(ticket_id=each.ticket_id, seat_id=each.seat_id) for each in tickets],
            issued_at=order.paid_at,
        ),
        HoldConfirmed(
            hold_id=hold.hold_id, event_id=hold.event_id, user_id=hold.user_id, order_id=order.order_id
        ),
    )


async def _reject(conn: Conn, order: OrderPaid, *, reason: RejectionReason) -> None:
    await queries.set_sale_status(conn, order.order_id, SaleStatus.REJECTED)
    await publish(
        conn,
        SaleRejected(order_id=order.order_id, hold_id=order.hold_id, event_id=order.event_id, reason=reason),
    )


async def void_order(conn: Conn, order: OrderRefundRequested) -> None:
    """Voids the order's tickets and frees its seats, or refuses because one was used.

    Asked again, or for an order without tickets, it says again that nothing is valid.
    """
    sale = await queries.lock_sale(
        conn, order.order_id, event_id=order.event_id, hold_id=order.hold_id, user_id=order.user_id
    )
    if sale.status == SaleStatus.ISSUED:
        tickets = await queries.lock_tickets_of_order(conn, order.order_id, event_id=order.event_id)
        if any(each.status == TicketStatus.CHECKED_IN for each in tickets):
            await publish(
                conn,
                VoidRefused(order_id=order.order_id, event_id=order.event_id, reason="checked_in"),
            )
            return
        await _void(conn, sale, tickets, reason="refund_requested")
        return
    if sale.status == SaleStatus.PLACED:
        await queries.set_sale_status(conn, order.order_id, SaleStatus.VOIDED)
        await release_hold_of_order(
            conn,
            order.hold_id,
            event_id=order.event_id,
            order_id=order.order_id,
            reason="order_refunded",
        )
    await _publish_voided(conn, sale, [], reason="refund_requested")


async def void_orders_of_cancelled_events(pool: Pool) -> None:
    """Voids the tickets of cancelled events, used ones too, a few orders at a time."""
    while True:
        async with transaction(pool) as conn:
            sales = await queries.lock_issued_sales_of_cancelled_events(conn, limit=SWEEP_SIZE)
            for sale in sales:
                tickets = await queries.lock_tickets_of_order(conn, sale.order_id, event_id=sale.event_id)
                await _void(conn, sale, tickets, reason="event_cancelled")
        if len(sales) < SWEEP_SIZE:
            return


async def _void(conn: Conn, sale: queries.Sale, tickets: list[Ticket], *, reason: VoidReason) -> None:
    await queries.void_tickets(conn, sale.order_id, event_id=sale.event_id)
    await queries.free_sold_seats(conn, sale.order_id, event_id=sale.event_id)
    await queries.set_sale_status(conn, sale.order_id, SaleStatus.VOIDED)
    await _publish_voided(conn, sale, [each.ticket_id for each in tickets], reason=reason)


async def _publish_voided(
    conn: Conn, sale: queries.Sale, ticket_ids: list[UUID], *, reason: VoidReason
) -> None:
    await publish(
        conn,
        TicketsVoided(order_id=sale.order_id, event_id=sale.event_id, reason=reason, ticket_ids=ticket_ids),
    )
