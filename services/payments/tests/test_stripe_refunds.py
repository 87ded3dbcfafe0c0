"""Refunds at Stripe: repeated under one key, refused, on their way, sent back, or made in its dashboard."""

import asyncio
from uuid import UUID

import pytest
from contracts.messages import OrderRefundRequested
from payments import stripe_refunds
from payments.models import RefundState

from services.payments.tests.support import (
    REFUNDED,
    Buyer,
    Shop,
    fulfilled,
    intent_id,
    rejected,
    request_refund,
    until,
    void_refused,
    voided,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK


@pytest.fixture
def refund_keys(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The idempotency keys under which Stripe was asked for refunds, in this order."""
    keys: list[str] = []
    create_refund = shop.stripe.create_refund

    async def note(intent_id: str, *, key: str, order_id: UUID) -> RefundState:
        keys.append(key)
        return await create_refund(intent_id, key=key, order_id=order_id)

    monkeypatch.setattr(shop.stripe, "create_refund", note)
    return keys


async def test_lost_answer_of_a_refund_repeats_its_key(
    shop: Shop, buyer: Buyer, refund_keys: list[str]
) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))
    shop.fault(after=True, path="refunds", count=3)
    await shop.run_jobs()
    assert await buyer.status(order) == "refunding"
    assert len(await shop.refunds(order)) == 1
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1
    assert await shop.rows("SELECT refund_attempt FROM payments") == [(1,)]
    assert len(refund_keys) == 2
    assert len(set(refund_keys)) == 1


async def test_crash_between_refund_and_its_record_refunds_once(
    shop: Shop, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))

    async def die(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(stripe_refunds, "complete_refund", die)
        await shop.run_jobs()
    assert await shop.rows("SELECT count(*) FROM refunds") == [(0,)]
    assert len(await shop.refunds(order)) == 1
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1


async def test_definite_error_looks_for_a_refund_and_then_takes_another_key(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))
    # It was made, and its answer was an error that Stripe repeats for the key.
    shop.fault(after=True, status=500, path="refunds", count=1)
    await shop.run_jobs()
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1


async def test_refused_refund_is_tried_again_under_another_key(
    shop: Shop, buyer: Buyer, refund_keys: list[str]
) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))
    shop.fault(status=400, path="refunds", count=1)
    await shop.run_jobs()
    assert await shop.rows("SELECT refund_attempt FROM payments") == [(2,)]
    assert await shop.job_kinds() == ["refund"]
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1
    assert len(refund_keys) == len(set(refund_keys)) == 2


async def test_stripe_away_delays_a_refund_and_raises_an_alarm_by_age(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))
    shop.fault(status=503)
    await shop.run_jobs()
    assert "ALARM" not in caplog.text
    await shop.execute("UPDATE stripe_jobs SET created_at = now() - interval '10 minutes'")
    await shop.run_jobs()
    assert "ALARM refund has no answer for" in caplog.text
    assert await buyer.status(order) == "refunding"
    shop.fault()
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"


async def test_pending_refund_stays_refunding_until_stripe_says_more(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer, card="pm_card_pendingRefund")
    await shop.deliver(rejected(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunding"
    assert await shop.account(order) == (order["amountMinor"], 0)
    await shop.pass_on("refund.updated", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])
    await shop.run_jobs()
    assert await shop.job_kinds() == []


async def test_failed_refund_is_refunding_with_an_alarm_until_asked_for_again(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    order = await shop.bought(buyer, card="pm_card_refundFail")
    await shop.deliver(rejected(order))
    await shop.run_jobs()
    await shop.pass_on("refund.failed", order)  # Stripe called it a success at first
    await shop.run_jobs()
    assert await buyer.status(order) == "refunding"
    assert "ALARM a refund is failed" in caplog.text
    assert await shop.account(order) == (order["amountMinor"], 0)
    await shop.run_jobs()
    assert len(await shop.refunds(order)) == 1
    assert await request_refund(shop, order) == "refunding"
    await shop.run_jobs()
    assert [refund["status"] for refund in await shop.refunds(order)][1:] == ["failed"]
    assert len(await shop.refunds(order)) == 2


async def test_refund_in_the_dashboard_acts_like_an_admins_without_calling_stripe(
    shop: Shop, buyer: Buyer
) -> None:
    order = await fulfilled(shop, buyer)
    await shop.stripe_call("POST", "refunds", payment_intent=intent_id(order))
    await shop.pass_on("charge.refunded", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "refunding"
    asked = (await shop.said(order))[-1]
    assert isinstance(asked, OrderRefundRequested)
    assert asked.reason == "dashboard"
    await shop.deliver(voided(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert len(await shop.refunds(order)) == 1
    assert await shop.told(order) == REFUNDED
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])


async def test_dashboard_refund_of_a_used_ticket_cannot_be_called_off(
    shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture
) -> None:
    order = await fulfilled(shop, buyer)
    await request_refund(shop, order)
    await shop.stripe_call("POST", "refunds", payment_intent=intent_id(order))
    await shop.pass_on("charge.refunded", order)
    await shop.run_jobs()
    await shop.deliver(void_refused(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert "ALARM an order was refunded in the dashboard though a ticket was used" in caplog.text
    assert len(await shop.refunds(order)) == 1
    assert await shop.told(order) == REFUNDED


async def test_partial_refund_in_the_dashboard_is_in_the_accounts_and_the_rest_goes_back_later(
    shop: Shop, buyer: Buyer
) -> None:
    order = await fulfilled(shop, buyer)
    await shop.stripe_call("POST", "refunds", payment_intent=intent_id(order), amount=1000)
    await shop.pass_on("charge.refunded", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "fulfilled"
    assert await shop.account(order) == (order["amountMinor"], 1000)
    await request_refund(shop, order)
    await shop.deliver(voided(order))
    await shop.run_jobs()
    assert await buyer.status(order) == "refunded"
    assert sorted(refund["amount"] for refund in await shop.refunds(order)) == [
        1000,
        order["amountMinor"] - 1000,
    ]
    assert await shop.account(order) == (order["amountMinor"], order["amountMinor"])


async def test_refund_event_before_the_capture_is_recorded_waits(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    await shop.stripe_call("POST", "refunds", payment_intent=intent_id(order))
    await shop.pass_on("charge.refunded", order)
    await shop.run_jobs()
    assert await shop.job_kinds() == ["reconcile"]
    await shop.pass_on("payment_intent.succeeded", order)
    await shop.run_jobs()
    assert await buyer.status(order) == "refunding"


async def test_jobs_are_done_by_the_next_worker_when_one_dies(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))
    shop.fault(delaySeconds=1, path="refunds", count=1)
    dying = asyncio.create_task(shop.jobs.run_due_jobs(shop.pool))

    async def is_leased() -> bool:
        return await shop.rows("SELECT leased_until > now() FROM stripe_jobs") == [(True,)]

    await until(is_leased)
    dying.cancel()
    await asyncio.wait([dying])
    assert await shop.jobs.run_due_jobs(shop.pool) == 0

    async def is_refunded() -> bool:
        await shop.run_jobs()  # the lease is over; Stripe is still busy with the dead worker's request
        return await buyer.status(order) == "refunded"

    await until(is_refunded)
    assert len(await shop.refunds(order)) == 1


async def test_wish_that_comes_while_its_job_runs_makes_it_run_again(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer)
    await shop.deliver(rejected(order))
    shop.fault(delaySeconds=0.5, path="refunds", count=1)
    running = asyncio.create_task(shop.jobs.run_due_jobs(shop.pool))

    async def is_leased() -> bool:
        return await shop.rows("SELECT leased_until > now() FROM stripe_jobs") == [(True,)]

    await until(is_leased)
    await shop.execute("UPDATE stripe_jobs SET asked = asked + 1")
    await running
    assert await shop.rows("SELECT kind, leased_until FROM stripe_jobs") == [("refund", None)]
    await shop.run_jobs()
    assert await shop.job_kinds() == []
    assert len(await shop.refunds(order)) == 1
    assert (await shop.told(order))["order.refunded"] == 1
