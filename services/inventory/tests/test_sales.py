"""From a paid order to tickets and back: exactly once, never two owners, never neither."""

import asyncio
import contextlib

import httpx
import msgspec
from contracts.messages import (
    HoldConfirmed,
    HoldReleased,
    OrderCancelled,
    OrderExpired,
    OrderPlaced,
    OrderRefundRequested,
    SaleRejected,
    TicketsIssued,
    TicketsVoided,
    VoidRefused,
)
from inventory.holds import expire_holds, release_holds_of_cancelled_events
from inventory.sales import confirm_sale, void_orders_of_cancelled_events
from libs.postgres import Pool, transaction
from libs.testing import Tokens

from services.inventory.tests.support import Buyer, Database, Deliver, OnSale, paid


def refund_of(order: OrderPlaced) -> OrderRefundRequested:
    return OrderRefundRequested(
        order_id=order.order_id,
        hold_id=order.hold_id,
        event_id=order.event_id,
        user_id=order.user_id,
        reason="admin",
    )


async def bought(buyer: Buyer, deliver: Deliver, on_sale: OnSale, seats: slice) -> OrderPlaced:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[seats])
    order = buyer.order_placed(hold)
    await deliver(order, paid(order))
    return order


async def test_paid_order_sells_its_seats_and_issues_one_ticket_for_each(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    order = await bought(buyer, deliver, on_sale, slice(0, 2))
    tickets = await buyer.tickets(order.order_id)
    assert sorted(each["seat"]["id"] for each in tickets) == [str(each) for each in on_sale.seat_ids[:2]]
    assert await database.seat_statuses(on_sale.event_id) == {"sold": 2, "free": 8}
    [issued] = await database.said(order.order_id)
    assert isinstance(issued, TicketsIssued)
    assert isinstance((await database.said(order.hold_id))[-1], HoldConfirmed)


async def test_paid_message_delivered_twice_or_to_two_workers_issues_once(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:3])
    order = buyer.order_placed(hold)
    await deliver(order)
    await asyncio.gather(*(deliver(paid(order)) for _ in range(8)))
    assert len(await buyer.tickets(order.order_id)) == 3
    # Nor was it called a rejected sale, whose money goes back, since its seats are sold by then.
    assert [type(each) for each in await database.said(order.order_id)] == [TicketsIssued]


async def test_release_that_comes_late_leaves_a_sold_seat_sold(
    buyer: Buyer,
    rival: Buyer,
    client: httpx.AsyncClient,
    deliver: Deliver,
    on_sale: OnSale,
    database: Database,
    worker_pool: Pool,
) -> None:
    order = await bought(buyer, deliver, on_sale, slice(0, 1))
    ids = {
        "order_id": order.order_id,
        "hold_id": order.hold_id,
        "event_id": order.event_id,
        "user_id": order.user_id,
    }
    await database.pass_deadline(str(order.hold_id))
    await expire_holds(worker_pool)
    await deliver(order, OrderCancelled(**ids, reason="buyer"), OrderExpired(**ids))
    answer = await client.delete(f"/reservations/{order.hold_id}", headers=buyer.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_pending")

    assert (await buyer.get(f"/reservations/{order.hold_id}"))["status"] == "confirmed"
    assert isinstance((await database.said(order.hold_id))[-1], HoldConfirmed)
    answer = await rival.try_hold(on_sale.event_id, on_sale.seat_ids[:1])
    assert (answer.status_code, answer.json()["code"]) == (409, "seats_unavailable")
    assert (await database.seat_statuses(on_sale.event_id))["sold"] == 1


async def test_release_that_comes_late_leaves_the_seats_of_the_next_holder_alone(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database, worker_pool: Pool
) -> None:
    late = buyer.order_placed(await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2]))
    await deliver(late)
    await database.pass_deadline(str(late.hold_id))
    await rival.hold(on_sale.event_id, on_sale.seat_ids[:1])
    sold = await bought(rival, deliver, on_sale, slice(1, 2))
    ids = {"order_id": late.order_id, "hold_id": late.hold_id, "event_id": late.event_id}
    await expire_holds(worker_pool)
    await deliver(OrderCancelled(**ids, user_id=late.user_id, reason="buyer"), refund_of(late))
    assert (await database.seat_statuses(on_sale.event_id)) == {"active": 1, "sold": 1, "free": 8}
    assert len(await rival.tickets(sold.order_id)) == 1


async def test_free_section_gets_tickets_too(buyer: Buyer, deliver: Deliver, on_sale: OnSale) -> None:
    await deliver(msgspec.structs.replace(on_sale.published, tiers=[], currency=None, version=3))
    order = await bought(buyer, deliver, on_sale, slice(0, 2))
    assert len(await buyer.tickets(order.order_id)) == 2


async def test_late_payment_gets_the_same_seats_when_they_are_free(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, database: Database, worker_pool: Pool
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2])
    order = buyer.order_placed(hold)
    await deliver(order)
    await database.pass_deadline(hold["id"])
    await expire_holds(worker_pool)
    await deliver(paid(order))
    assert len(await buyer.tickets(order.order_id)) == 2


async def test_late_payment_is_rejected_when_one_seat_is_gone(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2])
    order = buyer.order_placed(hold)
    await deliver(order)
    await database.pass_deadline(hold["id"])
    await bought(rival, deliver, on_sale, slice(1, 2))
    await deliver(paid(order), paid(order))
    assert await buyer.tickets(order.order_id) == []
    [rejected] = await database.said(order.order_id)
    assert isinstance(rejected, SaleRejected)
    assert rejected.reason == "seats_taken"
    assert (await database.seat_statuses(on_sale.event_id))["sold"] == 1


async def test_late_payments_of_two_orders_for_one_seat_make_one_sale(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    orders: list[OrderPlaced] = []
    for each in (buyer, rival):
        hold = await each.hold(on_sale.event_id, on_sale.seat_ids[:1])
        orders.append(each.order_placed(hold))
        await deliver(orders[-1])
        await database.pass_deadline(hold["id"])
    await asyncio.gather(*(deliver(paid(order)) for order in orders))
    answers = [type((await database.said(order.order_id))[0]) for order in orders]
    assert sorted(each.__name__ for each in answers) == ["SaleRejected", "TicketsIssued"]


async def test_crash_before_the_commit_of_a_sale_leaves_nothing_and_the_next_try_sells(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, worker_pool: Pool, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    order = buyer.order_placed(hold)
    await deliver(order)
    with contextlib.suppress(ConnectionError):
        async with transaction(worker_pool) as conn:
            await confirm_sale(conn, paid(order))
            raise ConnectionError("killed after the last statement, before the commit")
    assert await buyer.tickets(order.order_id) == []
    assert await database.said(order.order_id) == []
    await deliver(paid(order))
    assert len(await buyer.tickets(order.order_id)) == 1


async def test_refund_voids_the_tickets_and_frees_the_seats(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    order = await bought(buyer, deliver, on_sale, slice(0, 2))
    await deliver(refund_of(order), refund_of(order))
    assert {each["status"] for each in await buyer.tickets(order.order_id)} == {"void"}
    voided = [each for each in await database.said(order.order_id) if isinstance(each, TicketsVoided)]
    assert [len(each.ticket_ids) for each in voided] == [2, 0]
    await bought(rival, deliver, on_sale, slice(0, 2))


async def test_refund_is_refused_once_a_ticket_was_used(
    buyer: Buyer,
    client: httpx.AsyncClient,
    tokens: Tokens,
    deliver: Deliver,
    on_sale: OnSale,
    database: Database,
) -> None:
    order = await bought(buyer, deliver, on_sale, slice(0, 2))
    [ticket, _] = await buyer.tickets(order.order_id)
    door = Buyer(client, tokens, role="admin")
    answer = await client.post(
        "/tickets/check-in", json={"qrPayload": ticket["qrPayload"]}, headers=door.headers
    )
    assert answer.status_code == 200
    await deliver(refund_of(order))
    assert isinstance((await database.said(order.order_id))[-1], VoidRefused)
    assert sorted(each["status"] for each in await buyer.tickets(order.order_id)) == ["checked_in", "issued"]


async def test_refund_of_an_order_that_never_got_tickets_releases_its_hold(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    order = buyer.order_placed(hold)
    await deliver(order, refund_of(order), paid(order))
    assert isinstance((await database.said(hold["id"]))[-1], HoldReleased)
    assert [type(each) for each in await database.said(order.order_id)] == [TicketsVoided]
    assert await buyer.tickets(order.order_id) == []


async def test_cancelled_event_ends_holds_voids_tickets_and_rejects_what_comes_later(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database, worker_pool: Pool
) -> None:
    sold = await bought(buyer, deliver, on_sale, slice(0, 1))
    held = await rival.hold(on_sale.event_id, on_sale.seat_ids[1:2])
    pending = await rival.hold(on_sale.event_id, on_sale.seat_ids[2:3])
    order = rival.order_placed(pending)
    await deliver(order, msgspec.structs.replace(on_sale.published, status="cancelled", version=3))
    for _ in range(2):
        await release_holds_of_cancelled_events(worker_pool)
        await void_orders_of_cancelled_events(worker_pool)
    assert {each["status"] for each in await buyer.tickets(sold.order_id)} == {"void"}
    for hold in (held, pending):
        reasons = [each.reason for each in await database.said(hold["id"]) if isinstance(each, HoldReleased)]
        assert reasons == ["event_cancelled"]
    voided = [each for each in await database.said(sold.order_id) if isinstance(each, TicketsVoided)]
    assert [each.reason for each in voided] == ["event_cancelled"]
    await deliver(paid(order))
    [rejected] = await database.said(order.order_id)
    assert isinstance(rejected, SaleRejected)
    assert rejected.reason == "event_cancelled"


async def test_price_of_a_hold_stays_when_the_tier_changes(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    before = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    tier = msgspec.structs.replace(on_sale.published.tiers[0], amount_minor=9900)
    await deliver(msgspec.structs.replace(on_sale.published, tiers=[tier], version=3))
    after = await buyer.hold(on_sale.event_id, on_sale.seat_ids[1:2])
    assert ((await buyer.get(f"/reservations/{before['id']}"))["amountMinor"], after["amountMinor"]) == (
        4500,
        9900,
    )
