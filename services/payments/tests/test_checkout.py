"""From a hold to one order and one PaymentIntent, whatever happens in between."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from contracts.messages import OrderPaid, OrderPlaced
from libs.ids import new_id
from libs.postgres import transaction
from payments.queries import orders

from services.payments.tests.support import (
    PRICE,
    Buyer,
    Shop,
    confirmed,
    expired,
    extended,
    intent_id,
    make_hold,
    released,
    until,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK


async def test_checkout_makes_an_order_and_a_payment_intent_that_names_only_the_order(
    shop: Shop, buyer: Buyer
) -> None:
    hold = await shop.hold(buyer, seats=2)
    order = await buyer.check_out(hold)
    assert order["orderId"] == order["id"]
    assert order["status"] == "pending"
    assert (order["amountMinor"], order["currency"]) == (2 * PRICE, "eur")
    assert order["reservationId"] == str(hold.hold_id)
    assert order["email"] is None
    assert [seat["id"] for seat in order["seats"]] == [str(seat.seat_id) for seat in hold.seats]
    assert order["seats"][0] == {
        "id": str(hold.seats[0].seat_id),
        "section": "A",
        "row": "1",
        "seatNumber": 1,
        "tierId": str(hold.seats[0].tier_id),
        "amountMinor": PRICE,
    }
    left = datetime.fromisoformat(order["expiresAt"]) - datetime.now(UTC)
    assert 890 < left.total_seconds() < 901
    assert order["createdAt"].endswith("Z")
    intent = await shop.intent(order)
    assert intent["client_secret"] == order["clientSecret"]
    assert (intent["amount"], intent["currency"]) == (2 * PRICE, "eur")
    assert intent["metadata"] == {"orderId": order["id"]}
    assert intent["automatic_payment_methods"] == {"enabled": True, "allow_redirects": "never"}
    [placed] = await shop.said(order)
    assert isinstance(placed, OrderPlaced)
    assert placed.hold_id == hold.hold_id
    assert (await buyer.order(order))["id"] == order["id"]


async def test_checkout_again_is_the_same_order_and_client_secret(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    first = await buyer.check_out(hold)
    assert await buyer.check_out(hold) == first
    await shop.pay(first)
    await shop.pass_on("payment_intent.succeeded", first)
    again = await buyer.check_out(hold)
    assert (again["status"], again["clientSecret"]) == ("paid", first["clientSecret"])
    assert len(await shop.intents()) == 1


async def test_fifty_checkouts_of_one_hold_make_one_order_and_one_intent(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    answers = await asyncio.gather(*(buyer.try_checkout(hold) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["clientSecret"] for answer in answers}) == 1
    assert len(await shop.intents()) == 1
    assert await shop.rows("SELECT count(*) FROM orders") == [(1,)]
    assert await shop.told(answers[0].json()) == Counter({"order.placed": 1})


async def test_two_processes_that_check_out_one_hold_make_one_intent(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    shop.fault(status=500, count=3, path="payment_intents")
    assert (await buyer.try_checkout(hold)).status_code == 503
    order = (await buyer.get("/orders")).json()[0]
    rows = await shop.rows("SELECT intent_attempt, amount_minor FROM orders")
    checkout = asyncio.create_task(buyer.check_out(hold))
    intents = await asyncio.gather(
        *(
            shop.stripe.create_intent(
                order_id=order["id"], attempt=rows[0][0], amount_minor=rows[0][1], currency="eur"
            )
            for _ in range(3)
        ),
    )
    assert {intent.id for intent in intents} == {intent_id(await checkout)}


async def test_free_hold_is_paid_at_checkout_without_stripe(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer, price=0)
    assert (order["status"], order["clientSecret"], order["amountMinor"]) == ("paid", None, 0)
    placed, paid = await shop.said(order)
    assert isinstance(placed, OrderPlaced)
    assert isinstance(paid, OrderPaid)
    assert await shop.intents() == []


async def test_zero_decimal_currency_is_charged_in_its_own_units(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer, price=500, currency="jpy")
    assert (await shop.intent(order))["amount"] == 1000


def original_body(buyer: Buyer, hold: Any, **change: Any) -> dict[str, Any]:
    return {
        "userId": buyer.id,
        "eventId": hold.event_id,
        "seatIds": [seat.seat_id for seat in hold.seats],
        "tierId": "anything",
        "email": "ada@example.com",
        **change,
    }


async def test_original_clients_check_out_by_seats(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer, seats=3)
    seat_ids = [seat.seat_id for seat in reversed(hold.seats)]
    answer = await buyer.post("/orders/checkout", original_body(buyer, hold, seatIds=seat_ids))
    assert answer.status_code == 200, answer.text
    assert answer.json()["email"] == "ada@example.com"
    again = await buyer.post("/orders/checkout", original_body(buyer, hold, userId=""))
    assert again.json() == answer.json()
    assert await buyer.check_out(hold) == answer.json()


@pytest.mark.parametrize("change", [{"userId": ""}, {"userId": None}, {"email": ""}, {"tierId": None}])
async def test_what_is_optional_may_be_empty(shop: Shop, buyer: Buyer, change: dict[str, Any]) -> None:
    hold = await shop.hold(buyer)
    answer = await buyer.post("/orders/checkout", original_body(buyer, hold, **change))
    assert answer.status_code == 200, answer.text


async def test_seats_must_be_exactly_those_of_one_hold(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer, seats=2)
    some = [hold.seats[0].seat_id]
    started = time.monotonic()
    answers = await asyncio.gather(
        buyer.post("/orders/checkout", original_body(buyer, hold, seatIds=some)),
        buyer.post("/orders/checkout", original_body(buyer, hold, eventId=new_id())),
        shop.admin.post("/orders/checkout", original_body(buyer, hold, userId="")),
    )
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert 1.5 < time.monotonic() - started < 5


async def test_seats_held_a_moment_ago_are_waited_for(shop: Shop, buyer: Buyer) -> None:
    hold = make_hold(buyer.id)
    by_seats = asyncio.create_task(buyer.post("/orders/checkout", original_body(buyer, hold)))
    by_id = asyncio.create_task(buyer.try_checkout(hold))
    await asyncio.sleep(0.2)
    await shop.deliver(hold)
    assert (await by_seats).status_code == 200
    assert (await by_id).json() == (await by_seats).json()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"seatIds": []}, "/seatIds"),
        ({"seatIds": ["7"]}, "/seatIds/0"),
        ({"seatIds": None}, "/seatIds"),
        ({"eventId": None}, "/eventId"),
        ({"eventId": "x"}, "/eventId"),
        ({"reservationId": 7}, "/reservationId"),
        ({"email": "no address"}, "/email"),
        ({"userId": "x" * 37}, "/userId"),
    ],
)
async def test_bad_checkout_is_400_and_names_the_field(
    shop: Shop, buyer: Buyer, change: dict[str, Any], pointer: str
) -> None:
    hold = make_hold(buyer.id)
    answer = await buyer.post("/orders/checkout", original_body(buyer, hold, **change))
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert answer.json()["message"] == answer.json()["detail"]


async def test_a_seat_named_twice_is_400(shop: Shop, buyer: Buyer) -> None:
    hold = make_hold(buyer.id)
    seat_ids = [hold.seats[0].seat_id] * 2
    answer = await buyer.post("/orders/checkout", original_body(buyer, hold, seatIds=seat_ids))
    assert answer.status_code == 400


async def test_nobody_checks_out_as_or_for_somebody_else(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    rival = shop.buyer()
    assert (await rival.try_checkout(hold)).status_code == 404
    answer = await rival.post("/orders/checkout", original_body(buyer, hold))
    assert answer.status_code == 403
    async with transaction(shop.app_pool) as conn:  # not even by a way in that forgets to ask
        stolen = await orders.place_order(
            conn,
            new_id(),
            hold_id=hold.hold_id,
            user_id=rival.id,
            email=None,
            payment_seconds=900,
            traceparent="",
        )
    assert stolen is None
    assert await shop.rows("SELECT count(*) FROM orders") == [(0,)]


async def test_checkout_needs_a_token(shop: Shop) -> None:
    answer = await shop.client.post("/orders/checkout", json={"reservationId": str(new_id())})
    assert answer.status_code == 401


async def test_fresh_unknown_hold_is_503_and_an_old_one_404_at_once(shop: Shop, buyer: Buyer) -> None:
    answer = await buyer.try_checkout(make_hold(buyer.id))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    minute_ago = new_id().int - (60_000 << 80)
    started = time.monotonic()
    answer = await buyer.post("/orders/checkout", {"reservationId": f"{minute_ago:032x}"[:32]})
    assert answer.status_code == 404
    assert time.monotonic() - started < 1


async def test_hold_that_is_over_is_410(shop: Shop, buyer: Buyer) -> None:
    past = await shop.hold(buyer, seconds=-1)
    let_go = await shop.hold(buyer)
    ended = await shop.hold(buyer)
    await shop.deliver(released(let_go), expired(ended))
    for hold in (past, let_go, ended):
        answer = await buyer.try_checkout(hold)
        assert (answer.status_code, answer.json()["code"]) == (410, "hold_over")


async def test_end_of_a_hold_that_comes_before_its_placing_counts(shop: Shop, buyer: Buyer) -> None:
    hold = make_hold(buyer.id)
    await shop.deliver(released(hold), hold, hold)
    assert (await buyer.try_checkout(hold)).status_code == 410


async def test_hold_taken_up_again_by_its_order_lives(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    order = await buyer.check_out(hold)
    await shop.deliver(expired(hold), extended(hold, order))
    [row] = await shop.rows("SELECT status, expires_at > now() + interval '15 minutes' FROM holds")
    assert row == ("active", True)
    await shop.deliver(confirmed(hold, order), expired(hold), released(hold))
    assert await shop.rows("SELECT status FROM holds") == [("confirmed",)]


async def test_checkout_after_the_end_of_its_order_is_410(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    order = await buyer.check_out(hold)
    assert (await buyer.cancel(order)).status_code == 200
    answer = await buyer.try_checkout(hold)
    assert (answer.status_code, answer.json()["code"]) == (410, "order_over")


async def test_end_of_the_hold_and_checkout_at_the_same_time_leave_no_order_without_hold(
    shop: Shop, buyer: Buyer
) -> None:
    holds = [await shop.hold(buyer) for _ in range(12)]
    both = await asyncio.gather(
        *(buyer.try_checkout(hold) for hold in holds),
        *(shop.deliver(released(hold)) for hold in reversed(holds)),
    )
    assert {answer.status_code for answer in both if answer is not None} <= {200, 410}
    # Each order either was never made or is about to be cancelled.
    await shop.run_jobs()
    assert {row[0] for row in await shop.rows("SELECT status FROM orders")} <= {"cancelled"}


async def test_stripe_away_is_503_and_the_same_call_finishes_the_order(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    shop.fault(status=503, path="payment_intents")
    answer = await buyer.try_checkout(hold)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    [order] = (await buyer.get("/orders")).json()
    assert order["status"] == "pending"
    shop.fault()
    finished = await buyer.check_out(hold)
    assert finished["id"] == order["id"]
    assert finished["clientSecret"]


async def test_lost_answer_repeats_the_key_and_makes_no_second_intent(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    shop.fault(after=True, path="payment_intents", count=3)  # all three tries of the SDK
    assert (await buyer.try_checkout(hold)).status_code == 503
    assert len(await shop.intents()) == 1
    await buyer.check_out(hold)
    assert len(await shop.intents()) == 1
    assert await shop.rows("SELECT intent_attempt FROM orders") == [(1,)]


async def test_stored_error_is_not_repeated_for_ever(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    # The effect is kept under the key together with the error.
    shop.fault(after=True, status=500, path="payment_intents", count=1)
    answers = [await buyer.try_checkout(hold) for _ in range(2)]
    assert answers[-1].status_code == 200, answers[-1].text


async def test_crash_between_intent_and_order_finds_the_same_intent(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    order = await buyer.check_out(hold)
    await shop.execute("UPDATE orders SET payment_intent_id = NULL, client_secret = NULL")
    assert await buyer.check_out(hold) == order
    assert len(await shop.intents()) == 1


async def test_amount_that_stripe_does_not_take_is_409_and_the_order_ends(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer, price=99_999_999)
    answer = await buyer.try_checkout(hold)
    assert (answer.status_code, answer.json()["code"]) == (409, "payment_not_possible")
    [order] = (await buyer.get("/orders")).json()
    await shop.pass_deadline(order)
    await shop.run_jobs()
    assert await buyer.status(order) == "expired"


async def test_no_connection_waits_for_stripe(shop: Shop) -> None:
    buyers = [shop.buyer() for _ in range(12)]  # more than the pool has connections
    holds = [await shop.hold(buyer) for buyer in buyers]
    shop.fault(delaySeconds=1.5, path="payment_intents")
    waiting = [
        asyncio.create_task(buyer.try_checkout(hold)) for buyer, hold in zip(buyers, holds, strict=True)
    ]

    async def all_wait_without_a_connection() -> bool:
        stats = shop.app_pool.get_stats()
        is_idle = stats["pool_available"] == stats["pool_size"] and not stats.get("requests_waiting")
        return is_idle and await shop.rows("SELECT count(*) FROM orders") == [(12,)]

    await until(all_wait_without_a_connection)
    assert not any(each.done() for each in waiting)
    assert {(await each).status_code for each in waiting} == {200}


async def test_client_secret_and_email_are_in_no_message(shop: Shop, buyer: Buyer) -> None:
    hold = await shop.hold(buyer)
    answer = await buyer.post("/orders/checkout", original_body(buyer, hold))
    bodies = "".join(row[0] for row in await shop.rows("SELECT body FROM outbox"))
    assert bodies
    assert answer.json()["clientSecret"] not in bodies
    assert "ada@example.com" not in bodies
