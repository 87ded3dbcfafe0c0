"""Orders as their owners see them, their unpaid ends, and the race between paying and cancelling."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from contracts.messages import (
    OrderCancelled,
    OrderExpired,
    PaymentSucceeded,
    UserDisabled,
    UserTokensRevoked,
)
from libs.ids import new_id
from libs.postgres import transaction
from payments import cancellations
from payments.models import Order, OrderStatus
from payments.orders import expire_unpaid_orders
from payments.queries import orders

from services.payments.tests.support import Buyer, Shop, expired, intent_id, lost, rejected, released, until

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK


async def test_orders_are_listed_newest_first_in_pages(shop: Shop, buyer: Buyer) -> None:
    made = [(await shop.ordered(buyer, price=0))["id"] for _ in range(3)]
    await shop.ordered(shop.buyer(), price=0)
    everything = await buyer.get("/orders")
    assert [order["id"] for order in everything.json()] == made[::-1]
    assert "Link" not in everything.headers
    page = await buyer.get("/orders", limit=2)
    assert [order["id"] for order in page.json()] == made[:0:-1]
    assert page.headers["Link"] == f'</orders?limit=2&cursor={made[1]}>; rel="next"'
    rest = await buyer.get("/orders", limit=2, cursor=made[1])
    assert [order["id"] for order in rest.json()] == made[:1]
    for bad in ({"limit": 0}, {"limit": "x"}, {"cursor": "x"}):
        assert (await buyer.get("/orders", **bad)).status_code == 400


async def test_order_is_its_owners_and_an_admin_reads_any(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    seen = await buyer.order(order)
    assert "clientSecret" not in seen
    assert await shop.admin.order(order) == seen
    rival = shop.buyer()
    assert (await rival.get(f"/orders/{order['id']}")).status_code == 404
    assert (await rival.cancel(order)).status_code == 404
    assert (await shop.admin.cancel(order)).status_code == 404
    assert (await buyer.get(f"/orders/{new_id()}")).status_code == 404
    assert (await buyer.get("/orders/7")).status_code == 400
    for path in ("/orders", f"/orders/{order['id']}"):
        assert (await shop.client.get(path)).status_code == 401


async def test_end_that_comes_late_does_not_touch_an_order_that_is_paid_or_over(
    shop: Shop, buyer: Buyer
) -> None:
    paid, cancelled = await shop.bought(buyer), await shop.ordered(buyer)
    await buyer.cancel(cancelled)
    for order, status in ((paid, "paid"), (cancelled, "cancelled")):
        async with transaction(shop.pool) as conn:
            ended = await orders.end_unpaid(
                conn, UUID(order["id"]), status=OrderStatus.EXPIRED, payment_intent_id=intent_id(order)
            )
        assert ended is None
        assert await buyer.status(order) == status


async def test_order_that_was_given_an_intent_meanwhile_is_not_ended(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    for cancelled in (None, "pi_another"):
        async with transaction(shop.pool) as conn:
            ended = await orders.end_unpaid(
                conn, UUID(order["id"]), status=OrderStatus.CANCELLED, payment_intent_id=cancelled
            )
        assert ended is None
    assert await buyer.status(order) == "pending"


@pytest.mark.parametrize("mark", [orders.mark_paid_late, orders.mark_wrongly_paid])
async def test_payment_that_comes_late_does_not_touch_an_order_that_is_paid_or_back(
    shop: Shop, buyer: Buyer, mark: Callable[..., Awaitable[Order | None]]
) -> None:
    paid, back = await shop.bought(buyer), await shop.bought(buyer)
    await shop.deliver(rejected(back))
    await shop.run_jobs()
    for order, status in ((paid, "paid"), (back, "refunded")):
        async with transaction(shop.pool) as conn:
            marked = await mark(
                conn, UUID(order["id"]), payment_intent_id=intent_id(order), client_secret="secret"
            )
        assert marked is None
        assert await buyer.status(order) == status


async def test_buyer_cancels_and_the_intent_cannot_be_paid_any_more(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    answer = await buyer.cancel(order)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert (await shop.intent(order))["status"] == "canceled"
    assert (await shop.pay(order)).status_code == 400
    assert (await buyer.cancel(order)).json() == answer.json()
    assert await shop.told(order) == Counter({"order.placed": 1, "order.cancelled": 1})
    cancelled = (await shop.said(order))[-1]
    assert isinstance(cancelled, OrderCancelled)
    assert cancelled.reason == "buyer"
    assert await shop.job_kinds() == []


async def test_paid_order_is_not_cancelled(shop: Shop, buyer: Buyer) -> None:
    order = await shop.bought(buyer)
    answer = await buyer.cancel(order)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_not_cancellable")
    assert (await buyer.cancel(await shop.ordered(buyer, price=0))).status_code == 409


async def test_order_paid_at_stripe_only_is_not_cancelled_but_paid(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)  # and the webhook is late
    assert (await buyer.cancel(order)).status_code == 409
    told = (await shop.said(order))[-1]
    assert isinstance(told, PaymentSucceeded)
    assert told.stripe_event_id is None
    await shop.consume_own()
    assert await buyer.status(order) == "paid"
    await shop.pass_on("payment_intent.succeeded", order)
    await shop.run_jobs()
    assert await shop.told(order) == Counter({"order.placed": 1, "order.paid": 1})
    assert await shop.account(order) == (order["amountMinor"], 0)
    assert await shop.job_kinds() == []


async def test_paying_and_cancelling_at_once_end_in_one_of_two_worlds(shop: Shop, buyer: Buyer) -> None:
    for _ in range(6):
        order = await shop.ordered(buyer)
        cancel, pay = await asyncio.gather(buyer.cancel(order), shop.pay(order))
        paid = (await shop.intent(order))["status"] == "succeeded"
        assert (pay.status_code == 200) is paid
        assert cancel.status_code == (409 if paid else 200)
        if paid:
            await shop.pass_on("payment_intent.succeeded", order)
        await shop.run_jobs()
        assert await buyer.status(order) == ("paid" if paid else "cancelled")
        end = "order.paid" if paid else "order.cancelled"
        assert await shop.told(order) == Counter({"order.placed": 1, end: 1})


async def test_cancelling_while_stripe_is_away_is_503_and_carried_out_later(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    shop.fault(status=503)
    answer = await buyer.cancel(order)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "recorded" in answer.json()["detail"]
    await shop.run_jobs()
    assert await buyer.status(order) == "pending"
    shop.fault()
    await shop.run_jobs()
    assert await buyer.status(order) == "cancelled"


async def test_cancelling_dies_half_way_and_is_carried_out_by_the_worker(
    shop: Shop, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await shop.ordered(buyer)

    async def die(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(cancellations, "end_unpaid_order", die)
        assert (await buyer.cancel(order)).status_code == 500
    assert (await shop.intent(order))["status"] == "canceled"
    assert await buyer.status(order) == "pending"
    await shop.run_jobs()
    assert await buyer.status(order) == "cancelled"
    assert await shop.told(order) == Counter({"order.placed": 1, "order.cancelled": 1})


async def test_payment_in_process_is_asked_for_again(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order, card="pm_card_processing")
    assert (await buyer.cancel(order)).status_code == 503
    await shop.run_jobs()
    assert await buyer.status(order) == "pending"
    shop.emulator.control("POST", f"payment_intents/{intent_id(order)}/settle", {"outcome": "fail"})
    await shop.run_jobs()
    assert await buyer.status(order) == "cancelled"


async def test_unpaid_order_expires_after_its_intent_is_cancelled(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await expire_unpaid_orders(shop.pool)
    assert await shop.job_kinds() == []
    await shop.pass_deadline(order)
    await expire_unpaid_orders(shop.pool)
    assert await shop.job_kinds() == ["cancel_intent"]
    assert await buyer.status(order) == "pending"
    await shop.run_jobs()
    assert await buyer.status(order) == "expired"
    assert (await shop.intent(order))["status"] == "canceled"
    assert isinstance((await shop.said(order))[-1], OrderExpired)
    assert await shop.told(order) == Counter({"order.placed": 1, "order.expired": 1})
    assert (await buyer.cancel(order)).status_code == 409
    assert await shop.job_kinds() == []


async def test_buyer_and_deadline_at_once_end_the_order_once(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pass_deadline(order)
    shop.fault(delaySeconds=0.3, path="/cancel", count=2)
    cancel, _ = await asyncio.gather(buyer.cancel(order), shop.jobs.run_due_jobs(shop.pool))
    status = await buyer.status(order)
    assert cancel.status_code == (200 if status == "cancelled" else 409)
    assert await shop.told(order) == Counter({"order.placed": 1, f"order.{status}": 1})


async def test_order_paid_just_before_its_deadline_is_paid(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    await shop.pass_deadline(order)
    await shop.run_jobs()
    assert await buyer.status(order) == "paid"
    await shop.pass_on("payment_intent.succeeded", order)
    assert await shop.told(order) == Counter({"order.placed": 1, "order.paid": 1})
    assert await shop.account(order) == (order["amountMinor"], 0)


async def test_order_whose_intent_was_never_stored_expires(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    shop.fault(after=True, path="payment_intents", count=3)
    assert (await buyer.try_checkout(hold)).status_code == 503
    [order] = (await buyer.get("/orders")).json()
    await shop.pass_deadline(order)
    await shop.run_jobs()
    assert await buyer.status(order) == "expired"
    assert [intent["status"] for intent in await shop.intents()] == ["canceled"]


@pytest.mark.parametrize("way", ["lost", "released", "expired"])
async def test_end_of_the_hold_cancels_its_pending_order(shop: Shop, buyer: Buyer, way: str) -> None:
    hold = await shop.hold(buyer)
    order = await buyer.check_out(hold)
    message = {"lost": lost(hold, order), "released": released(hold), "expired": expired(hold)}[way]
    await shop.deliver(message, message)
    await shop.run_jobs()
    assert await buyer.status(order) == "cancelled"
    cancelled = (await shop.said(order))[-1]
    assert isinstance(cancelled, OrderCancelled)
    assert cancelled.reason == "hold_ended"
    assert await shop.told(order) == Counter({"order.placed": 1, "order.cancelled": 1})


async def test_end_of_the_hold_of_a_paid_order_changes_nothing(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    order = await buyer.check_out(hold)
    await shop.pay(order)
    await shop.pass_on("payment_intent.succeeded", order)
    await shop.deliver(lost(hold, order))
    assert await shop.job_kinds() == []
    assert await buyer.status(order) == "paid"


async def test_same_idempotency_key_gets_the_same_answer(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    body = {"reservationId": hold.hold_id}
    first = await buyer.post("/orders/checkout", body, **{"Idempotency-Key": "k1"})
    await buyer.cancel(first.json())
    again = await buyer.post("/orders/checkout", body, **{"Idempotency-Key": "k1"})
    assert (again.status_code, again.content) == (200, first.content)
    other = await buyer.post("/orders/checkout", {"reservationId": new_id()}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 422


async def test_revoked_and_disabled_users_are_refused(shop: Shop, buyer: Buyer) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=5)
    rival = shop.buyer()
    await shop.deliver(
        UserDisabled(user_id=buyer.id, disabled_at=soon),
        UserTokensRevoked(user_id=rival.id, not_before=soon),
        UserTokensRevoked(user_id=rival.id, not_before=soon - timedelta(days=1)),  # late: changes nothing
    )

    async def refused() -> bool:
        answers = [await each.get("/orders") for each in (buyer, rival)]
        return {answer.status_code for answer in answers} == {401}

    await until(refused)
