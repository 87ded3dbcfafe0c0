"""Captured money: it pays its order once, or goes back."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from contracts.messages import OrderPaid, OrderRefundRequested, PaymentSucceeded
from libs.ids import new_id
from payments.errors import MessageContradictsOrder, UnknownOrder

from services.payments.tests.support import Buyer, Shop, intent_id, issued, rejected, voided

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK


def success(order: dict[str, Any], **change: Any) -> PaymentSucceeded:
    members: dict[str, Any] = {
        "order_id": order["id"],
        "payment_intent_id": intent_id(order),
        "amount_minor": order["amountMinor"],
        "currency": order["currency"],
        "stripe_event_id": "evt_1",
    }
    return PaymentSucceeded(**{**members, **change})


async def test_payment_makes_the_order_paid_and_is_in_the_accounts(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer)
    paid = (await shop.said(order))[-1]
    assert isinstance(paid, OrderPaid)
    assert (paid.amount_minor, paid.currency) == (order["amountMinor"], "eur")
    assert await shop.account(order) == (order["amountMinor"], 0)
    await shop.deliver(issued(order))
    assert await buyer.status(order) == "fulfilled"
    assert await shop.told(order) == Counter({"order.placed": 1, "order.paid": 1, "order.fulfilled": 1})


async def test_declined_card_can_be_followed_by_one_that_pays(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    assert (await shop.pay(order, card="pm_card_chargeDeclined")).status_code == 402
    await shop.pass_on("payment_intent.payment_failed", order)
    assert await buyer.status(order) == "pending"
    assert (await shop.pay(order)).status_code == 200
    await shop.pass_on("payment_intent.succeeded", order)
    assert await buyer.status(order) == "paid"


async def test_messages_that_come_many_times_at_once_count_once(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    await asyncio.gather(*(shop.deliver(success(order)) for _ in range(8)))
    await asyncio.gather(*(shop.deliver(issued(order)) for _ in range(8)))
    await shop.run_jobs()
    assert await shop.told(order) == Counter({"order.placed": 1, "order.paid": 1, "order.fulfilled": 1})
    assert await shop.account(order) == (order["amountMinor"], 0)


async def test_success_that_stripe_does_not_confirm_changes_nothing_and_raises_an_alarm(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    order = await shop.ordered(buyer)
    await shop.deliver(success(order, amount_minor=1), success(order, payment_intent_id="pi_unknown"))
    await shop.run_jobs()
    assert await buyer.status(order) == "pending"
    assert await shop.account(order) == (0, 0)
    assert "ALARM a payment was announced that is requires_payment_method" in caplog.text
    assert "ALARM a payment was announced that is unknown at Stripe" in caplog.text
    assert await shop.job_kinds() == []


async def test_wrong_amount_in_the_event_is_corrected_by_stripe(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    await shop.deliver(success(order, amount_minor=1))
    await shop.run_jobs()
    assert await buyer.status(order) == "paid"
    assert await shop.account(order) == (order["amountMinor"], 0)


async def test_payment_announced_wrongly_and_then_rightly_counts_once_and_is_kept(
    shop: Shop, buyer: Buyer
) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    await shop.deliver(success(order, amount_minor=1), success(order))
    assert await shop.job_kinds() == ["inspect"]
    await shop.run_jobs()
    await shop.run_jobs()
    assert await buyer.status(order) == "paid"
    assert await shop.account(order) == (order["amountMinor"], 0)
    assert await shop.told(order) == Counter({"order.placed": 1, "order.paid": 1})


@pytest.mark.parametrize("change", [{"amount": 1}, {"amount": 99_999}, {"currency": "usd"}])
@pytest.mark.parametrize("end", ["pending", "expired"])
async def test_wrong_amount_captured_goes_back(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture, change: dict[str, Any], end: str
) -> None:
    order = await shop.ordered(buyer)
    shop.emulator.control("PUT", f"payment_intents/{intent_id(order)}", change)
    await shop.pay(order)
    if end == "expired":
        await shop.execute("UPDATE orders SET status = 'expired', ended_at = now()")
    await shop.pass_on("payment_intent.succeeded", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "refunding"
    asked = [message for message in await shop.said(order) if isinstance(message, OrderRefundRequested)]
    assert [message.reason for message in asked] == ["wrong_amount"]
    assert "ALARM a payment of a wrong amount goes back" in caplog.text
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    captured, back = await shop.account(order)
    assert captured == back == change.get("amount", order["amountMinor"])
    await shop.deliver(voided(order))  # inventory's word on it
    assert await shop.told(order) == Counter(
        {"order.placed": 1, "order.refund_requested": 1, "order.refunded": 1}
    )
    assert len(await shop.refunds(order)) == 1


@pytest.mark.parametrize("end", ["expired", "cancelled"])
async def test_late_payment_revives_an_ended_order_and_inventory_decides(
    shop: Shop, buyer: Buyer, end: str
) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    # Ended although the money was captured: by a Stripe that said so, or by hand.
    await shop.execute("UPDATE orders SET status = %s, ended_at = now()", end)
    await shop.pass_on("payment_intent.succeeded", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "paid"
    assert await shop.told(order) == Counter({"order.placed": 1, "order.paid": 1})
    await shop.deliver(rejected(order), rejected(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])


async def test_payment_of_an_intent_that_was_never_stored_counts(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    await shop.execute("UPDATE orders SET payment_intent_id = NULL, client_secret = NULL")
    await shop.pass_on("payment_intent.succeeded", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "paid"
    assert await shop.rows("SELECT payment_intent_id FROM orders") == [(intent_id(order),)]


async def test_second_payment_of_an_order_goes_back(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    order = await shop.bought(buyer)
    stray = (
        await shop.stripe_call(
            "POST",
            "payment_intents",
            amount=700,
            currency="eur",
            confirm="true",
            payment_method="pm_card_visa",
            **{"metadata[orderId]": order["id"]},
        )
    ).json()
    assert stray["status"] == "succeeded"
    for _ in range(2):
        await shop.deliver(success(order, payment_intent_id=stray["id"], amount_minor=700))
        await shop.run_jobs()
        await shop.run_jobs()
    assert await buyer.status(order) == "paid"
    assert await shop.account(order) == (order["amountMinor"] + 700, 700)
    assert "ALARM a second payment of an order goes back" in caplog.text
    assert await shop.refunds(order) == []


async def test_payment_that_names_another_order_is_not_taken(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    order = await shop.ordered(buyer)
    other = await shop.ordered(buyer)
    await shop.pay(other)
    await shop.deliver(success(order, payment_intent_id=intent_id(other)))
    await shop.run_jobs()
    assert await buyer.status(order) == "pending"
    assert "ALARM a payment was announced for an order that it does not name" in caplog.text


async def test_payment_of_an_unknown_order_is_an_error_to_retry(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    with pytest.raises(UnknownOrder):
        await shop.deliver(success(order, order_id=new_id()))
    with pytest.raises(UnknownOrder):
        await shop.deliver(issued({**order, "id": str(new_id())}))


async def test_tickets_for_an_unpaid_order_are_a_contradiction(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    for message in (issued(order), rejected(order), voided(order)):
        with pytest.raises(MessageContradictsOrder):
            await shop.deliver(message)
    assert await buyer.status(order) == "pending"
