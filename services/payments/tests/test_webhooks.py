"""Stripe's webhook: only what Stripe signed, each event once, answered when it is stored."""

import asyncio
import time
from typing import Any

import msgspec
import psycopg
import pytest
import stripe
from contracts.messages import PaymentSucceeded
from libs.ids import new_id
from payments import webhooks
from stripe_emulator.testing import WEBHOOK_SECRET

from services.payments.tests.support import PRICE, Buyer, Shop, intent_id

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK


def signed(
    event: dict[str, Any] | bytes, *, secret: str = WEBHOOK_SECRET, at: int | None = None
) -> tuple[bytes, str]:
    body = event if isinstance(event, bytes) else msgspec.json.encode(event)
    return body, stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at)


def succeeded(order_id: object, **change: Any) -> dict[str, Any]:
    intent = {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": PRICE,
        "amount_received": PRICE,
        "currency": "eur",
        "metadata": {"orderId": str(order_id)},
    }
    return {
        "id": f"evt_{new_id().hex}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(time.time()),
        "data": {"object": {**intent, **change}},
    }


async def events(shop: Shop) -> int:
    [row] = await shop.rows("SELECT count(*) FROM stripe_events")
    return row[0]


async def test_signed_success_is_stored_and_passed_on(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    await shop.pay(order)
    letter = await shop.letter("payment_intent.succeeded", order)
    answer = await shop.post_webhook(letter)
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    _, message = await shop.said(order)
    event = msgspec.json.decode(letter[0])
    assert message == PaymentSucceeded(
        order_id=msgspec.convert(order["id"], type(new_id())),
        payment_intent_id=intent_id(order),
        amount_minor=order["amountMinor"],
        currency="eur",
        stripe_event_id=event["id"],
    )


async def test_event_delivered_many_times_at_once_counts_once(shop: Shop, buyer: Buyer) -> None:
    order = await shop.ordered(buyer)
    letter = signed(succeeded(order["id"]))
    answers = await asyncio.gather(*(shop.post_webhook(letter) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await shop.said(order)) == 2
    assert await events(shop) == 1


async def test_new_secret_is_accepted_while_the_old_one_is(shop: Shop) -> None:
    for secret in (WEBHOOK_SECRET, "whsec_next"):
        assert (await shop.post_webhook(signed(succeeded(new_id()), secret=secret))).status_code == 200


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "nonsense",
        "t=,v1=",
        "t=1,v1=\xff",
        "t=99999999999999999999999999,v1=aa",
        "t=4102444800,v1=" + "0" * 64,
    ],
)
async def test_unsigned_body_is_401(shop: Shop, signature: str | None) -> None:
    headers = {} if signature is None else {"Stripe-Signature": signature.encode("latin-1")}
    body = msgspec.json.encode(succeeded(new_id()))
    answer = await shop.client.post("/orders/webhook", content=body, headers=headers)  # pyright: ignore[reportArgumentType]
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_signature")
    assert await events(shop) == 0


async def test_signature_covers_the_bytes_and_not_the_meaning(shop: Shop) -> None:
    body, signature = signed(succeeded(new_id()))
    assert (await shop.post_webhook((body + b"\n", signature))).status_code == 401
    assert (await shop.post_webhook((b"\xff" + body, signature))).status_code == 401
    assert (await shop.post_webhook((b"", signature))).status_code == 401


async def test_signature_of_another_secret_or_of_an_hour_ago_is_401(shop: Shop) -> None:
    event = succeeded(new_id())
    assert (await shop.post_webhook(signed(event, secret="whsec_other"))).status_code == 401
    assert (await shop.post_webhook(signed(event, at=int(time.time()) - 3600))).status_code == 401


async def test_success_without_an_order_is_stored_and_nothing_else(shop: Shop) -> None:
    for metadata in ({}, None, {"orderId": "7"}, {"orderId": ""}, {"other": "x"}):
        assert (await shop.post_webhook(signed(succeeded("", metadata=metadata)))).status_code == 200
    assert await events(shop) == 5
    assert await shop.rows("SELECT count(*) FROM outbox") == [(0,)]


@pytest.mark.parametrize(
    "event",
    [
        {"id": "evt_1", "type": "customer.created", "data": {"object": {"id": "cus_1", "metadata": [1]}}},
        {"id": "evt_1", "type": "v1.some.thin.event", "related_object": {"id": "x"}, "created": "2026-01-01"},
        {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "ch", "payment_intent": None}}},
        {
            "id": "evt_1",
            "type": "charge.refunded",
            "data": {"object": {"id": "ch", "payment_intent": "pi_x"}},
        },
        {"id": "evt_1", "type": "balance.available", "data": {"object": []}},
    ],
)
async def test_what_is_none_of_our_business_is_stored(shop: Shop, event: dict[str, Any]) -> None:
    assert (await shop.post_webhook(signed(event))).status_code == 200
    assert await events(shop) == 1
    assert await shop.job_kinds() == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"nonsense",
        b"{}",
        b'{"id": 7, "type": "x"}',
        b'{"id": "evt\\u0000", "type": "x"}',
        b'{"id": "evt_1", "type": "x\\u0000"}',
        b'{"id": "evt_1", "type": "refund.updated", "data": {"object": {"payment_intent": "pi\\u0000"}}}',
        b'{"id": "' + b"e" * 9_000 + b'", "type": "x"}',
    ],
)
async def test_signed_nonsense_is_400(shop: Shop, body: bytes) -> None:
    assert (await shop.post_webhook(signed(body))).status_code == 400


async def test_event_of_ours_in_a_shape_that_we_do_not_know_is_not_called_received(shop: Shop) -> None:
    for change in ({"amount_received": "many"}, {"metadata": 7}, {"amount_received": None, "amount": None}):
        answer = await shop.post_webhook(signed(succeeded(new_id(), **change)))
        assert answer.status_code == 400
    assert await events(shop) == 0


async def test_body_over_256_kib_is_413(shop: Shop) -> None:
    body = b'{"padding": "' + b"x" * 262_144 + b'"}'
    assert (await shop.post_webhook(signed(body))).status_code == 413


async def test_event_that_could_not_be_stored_is_5xx_and_counts_when_it_comes_again(
    shop: Shop, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await shop.ordered(buyer)
    letter = signed(succeeded(order["id"]))

    async def die(*_: object) -> None:
        raise psycopg.OperationalError("the server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "publish_captured", die)
        assert (await shop.post_webhook(letter)).status_code == 503
    assert await events(shop) == 0
    assert (await shop.post_webhook(letter)).status_code == 200
    assert len(await shop.said(order)) == 2


async def test_dispute_raises_an_alarm(shop: Shop, buyer: Buyer, caplog: pytest.LogCaptureFixture) -> None:
    order = await shop.bought(buyer, card="pm_card_createDispute")
    await shop.pass_on("charge.dispute.created", order)
    assert "ALARM a payment is disputed" in caplog.text
    assert intent_id(order) in caplog.text
