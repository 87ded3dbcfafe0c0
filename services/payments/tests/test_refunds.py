"""Money that goes back: who asks for it, what inventory says to that, once and for certain."""

import asyncio
import itertools
from collections import Counter

import pytest
from contracts.messages import OrderRefunded, OrderRefundRequested
from libs.ids import new_id
from payments.errors import MessageContradictsOrder

from services.payments.tests.support import (
    BOUGHT,
    REFUNDED,
    Buyer,
    Shop,
    fulfilled,
    issued,
    rejected,
    request_refund,
    void_refused,
    voided,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK


async def test_admin_refund_waits_for_inventory_and_then_moves_the_money_once(
    shop: Shop, buyer: Buyer
) -> None:
    order = await fulfilled(shop, buyer)
    assert await request_refund(shop, order) == "refunding"
    asked = (await shop.said(order))[-1]
    assert isinstance(asked, OrderRefundRequested)
    assert asked.reason == "admin"
    await shop.run_jobs()
    assert await shop.refunds(order) == []
    assert await request_refund(shop, order) == "refunding"
    await shop.deliver(voided(order), voided(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert await request_refund(shop, order) == "refunded"
    done = (await shop.said(order))[-1]
    assert isinstance(done, OrderRefunded)
    assert (done.amount_minor, done.currency) == (order["amountMinor"], "eur")
    # What Stripe says of our own refund changes nothing.
    await shop.pass_on("charge.refunded", order)
    await shop.run_jobs()
    await shop.deliver(voided(order, event_cancelled=True))
    assert await shop.told(order) == REFUNDED
    assert len(await shop.refunds(order)) == 1
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])
    assert await shop.job_kinds() == []


async def test_only_admins_refund_and_only_what_was_paid(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    refused = await buyer.post(f"/orders/{order['id']}/refund")
    assert refused.status_code == 403
    assert "Admin" in refused.json()["message"]
    never = await shop.admin.post(f"/orders/{order['id']}/refund")
    assert (never.status_code, never.json()["code"]) == (409, "order_never_paid")
    assert (await shop.admin.post(f"/orders/{new_id()}/refund")).status_code == 404


async def test_refund_asked_for_many_times_at_once_is_one(shop: Shop, buyer: Buyer) -> None:
    order = await fulfilled(shop, buyer)
    assert set(await asyncio.gather(*(request_refund(shop, order) for _ in range(10)))) == {"refunding"}
    await asyncio.gather(*(shop.deliver(voided(order)) for _ in range(5)))
    await shop.execute("UPDATE stripe_jobs SET run_at = now()")
    await asyncio.gather(*(shop.jobs.run_due_jobs(shop.pool) for _ in range(3)))
    await shop.run_jobs()
    assert await shop.told(order) == REFUNDED
    assert len(await shop.refunds(order)) == 1


async def test_free_order_is_refunded_without_stripe(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer, price=0)
    await shop.deliver(issued(order))
    assert await request_refund(shop, order) == "refunding"
    await shop.deliver(voided(order), voided(order))
    assert await buyer.status(order) == "refunded"
    assert await shop.told(order) == REFUNDED
    rejected_one = await shop.ordered(buyer, price=0)
    await shop.deliver(rejected(rejected_one), rejected(rejected_one))
    assert await shop.told(rejected_one) == Counter({**BOUGHT, "order.refunded": 1})
    assert await shop.job_kinds() == []


async def test_used_ticket_keeps_its_order_which_can_be_asked_for_again(shop: Shop, buyer: Buyer) -> None:
    order = await fulfilled(shop, buyer)
    await request_refund(shop, order)
    await shop.deliver(void_refused(order), void_refused(order))
    assert await buyer.status(order) == "fulfilled"
    await shop.run_jobs()
    assert await shop.refunds(order) == []
    # The event is cancelled: now even a used ticket is void.
    assert await request_refund(shop, order) == "refunding"
    await shop.deliver(voided(order, event_cancelled=True), void_refused(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1


async def test_cancelled_event_refunds_without_being_asked(shop: Shop, buyer: Buyer) -> None:
    order = await fulfilled(shop, buyer)
    await shop.deliver(voided(order, event_cancelled=True), voided(order, event_cancelled=True))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert await shop.told(order) == Counter({**BOUGHT, "order.fulfilled": 1, "order.refunded": 1})


async def test_rejected_sale_refunds(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order), rejected(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert await shop.told(order) == Counter({**BOUGHT, "order.refunded": 1})
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])


async def test_rejected_sale_of_an_order_with_tickets_is_a_contradiction(shop: Shop, buyer: Buyer) -> None:
    order = await fulfilled(shop, buyer)
    with pytest.raises(MessageContradictsOrder):
        await shop.deliver(rejected(order))


ANSWERS = ("issued", "void_refused", "voided", "event_cancelled")


@pytest.mark.parametrize("answers", list(itertools.permutations(ANSWERS)))
async def test_inventorys_answers_in_any_order_and_doubled_refund_at_most_once(
    shop: Shop, buyer: Buyer, answers: tuple[str, ...]
) -> None:
    order = await shop.bought(buyer)
    await request_refund(shop, order)
    messages = {
        "issued": issued(order),
        "void_refused": void_refused(order),
        "voided": voided(order),
        "event_cancelled": voided(order, event_cancelled=True),
    }
    for answer in answers:
        await shop.deliver(messages[answer], messages[answer])
        await shop.run_jobs()
    # Tickets were voided in each of them, so the money is back in each of them.
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1
    assert (await shop.told(order))["order.refunded"] == 1
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])
