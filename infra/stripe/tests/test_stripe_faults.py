"""Faults that are ordered, wrong orders, and tampering."""

import asyncio
from signal import SIGTERM

import httpx
import pytest
import stripe
from stripe.params import PaymentIntentCreateParams, RefundCreateParams
from stripe_emulator.testing import SECRET_KEY, Emulator, until

# The SDK hands bytes to httpx in a way that httpx deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

ORDER: PaymentIntentCreateParams = {"amount": 900, "currency": "usd"}


async def intents(client: stripe.StripeClient) -> int:
    return len((await client.v1.payment_intents.list_async()).data)


async def paid(client: stripe.StripeClient) -> str:
    intent = await client.v1.payment_intents.create_async(
        {**ORDER, "payment_method": "pm_card_visa", "confirm": True}
    )
    return intent.id


async def test_a_fault_before_the_effect_leaves_nothing_behind(
    client: stripe.StripeClient, emulator: Emulator
) -> None:
    emulator.control("PUT", "faults", {"status": 500, "count": 2, "path": "/v1/payment_intents"})
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failure:
            await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
        assert failure.value.http_status == 500
    assert emulator.control("GET", "faults")["count"] == 0
    assert await intents(client) == 0
    await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
    assert await intents(client) == 1


async def test_a_fault_strikes_its_path_only_until_it_is_cleared(
    client: stripe.StripeClient, emulator: Emulator
) -> None:
    emulator.control("PUT", "faults", {"status": 429, "path": "/v1/refunds"})
    intent_id = await paid(client)
    for _ in range(3):
        with pytest.raises(stripe.RateLimitError):
            await client.v1.refunds.create_async({"payment_intent": intent_id})
    emulator.control("PUT", "faults", {})
    await client.v1.refunds.create_async({"payment_intent": intent_id})


async def test_the_sdk_gets_through_a_short_fault_by_itself(
    emulator: Emulator, sdk: stripe.HTTPXClient
) -> None:
    client = stripe.StripeClient(
        SECRET_KEY, base_addresses={"api": emulator.url}, http_client=sdk, max_network_retries=2
    )
    emulator.control("PUT", "faults", {"status": 503, "count": 1})
    await client.v1.payment_intents.create_async(ORDER)
    assert await intents(client) == 1


@pytest.mark.parametrize("fault", [{"status": 504}, {}, {"delaySeconds": 0.05}])
async def test_a_lost_answer_is_replayed_to_the_same_key(
    client: stripe.StripeClient, emulator: Emulator, fault: dict[str, object]
) -> None:
    """Another key would refund, or charge, a second time."""
    intent_id = await paid(client)
    refund: RefundCreateParams = {"payment_intent": intent_id, "amount": 100}
    emulator.control("PUT", "faults", {**fault, "after": True, "count": 1, "path": "/v1/refunds"})
    with pytest.raises((stripe.APIError, stripe.APIConnectionError)):
        await client.v1.refunds.create_async(refund, {"idempotency_key": "refund"})
    again = await client.v1.refunds.create_async(refund, {"idempotency_key": "refund"})
    listed = await client.v1.refunds.list_async({"payment_intent": intent_id})
    assert [found.id for found in listed.data] == [again.id]
    await client.v1.refunds.create_async(refund, {"idempotency_key": "another"})
    listed = await client.v1.refunds.list_async({"payment_intent": intent_id})
    assert len(listed.data) == 2


async def test_a_500_after_the_effect_is_what_its_key_answers_for_ever(
    client: stripe.StripeClient, emulator: Emulator
) -> None:
    emulator.control("PUT", "faults", {"status": 500, "after": True, "count": 1})
    for _ in range(3):
        with pytest.raises(stripe.APIError) as failure:
            await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
        assert failure.value.http_status == 500
    assert await intents(client) == 1


async def test_a_call_that_timed_out_still_has_its_effect(
    client: stripe.StripeClient, emulator: Emulator, http: httpx.AsyncClient
) -> None:
    emulator.control("PUT", "faults", {"delaySeconds": 30, "after": True, "count": 1})
    with pytest.raises(httpx.ReadTimeout):
        await http.post(
            "/v1/payment_intents",
            data={"amount": "5", "currency": "usd"},
            auth=(SECRET_KEY, ""),
            timeout=0.1,
        )
    assert await intents(client) == 1


async def test_a_delayed_call_does_not_keep_the_emulator_from_stopping(
    own_emulator: Emulator, own_client: stripe.StripeClient
) -> None:
    own_emulator.control("PUT", "faults", {"delaySeconds": 60, "count": 1})
    call = asyncio.create_task(own_client.v1.payment_intents.create_async(ORDER))
    await until(lambda: own_emulator.control("GET", "faults")["count"] == 0)
    assert await asyncio.to_thread(own_emulator.end, SIGTERM) == 0
    with pytest.raises(stripe.APIError):
        await call


async def test_the_amount_of_an_intent_can_be_tampered_with(
    client: stripe.StripeClient, emulator: Emulator
) -> None:
    intent = await client.v1.payment_intents.create_async({**ORDER, "metadata": {"order_id": "7"}})
    emulator.control("PUT", f"payment_intents/{intent.id}", {"amount": 1, "currency": "EUR"})
    taken = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert (taken.amount_received, taken.currency) == (1, "eur")
    assert taken.metadata.to_dict() == {"order_id": "7"}
    emulator.control("PUT", f"payment_intents/{intent.id}", {"amount": 300})
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.amount == 300


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("delivery", {"copies": "3"}, "copies"),
        ("delivery", {"copies": 0}, "copies"),
        ("delivery", {"copies": True}, "copies"),
        ("delivery", {"delaySeconds": -1}, "delaySeconds"),
        ("delivery", {"hold": 1}, "hold"),
        ("delivery", {"delay": 1}, "delay"),
        ("delivery", [], None),
        ("faults", {"status": 200}, "status"),
        ("faults", {"count": 1.5}, "count"),
        ("faults", {"path": 7}, "path"),
        ("payment_intents/pi_1", {"amount": "1"}, "amount"),
    ],
)
async def test_wrong_input_to_the_control_surface_is_named(
    http: httpx.AsyncClient, path: str, body: object, field: str | None
) -> None:
    answer = await http.put(f"/_emulator/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field
    assert (await http.put(f"/_emulator/{path}", content=b"{nonsense")).status_code == 400


async def test_the_control_surface_says_what_it_does_not_have(http: httpx.AsyncClient) -> None:
    outcome = {"outcome": "succeed"}
    assert (await http.post("/_emulator/events/evt_1/deliver")).status_code == 404
    assert (await http.put("/_emulator/payment_intents/pi_1", json={})).status_code == 404
    assert (await http.post("/_emulator/payment_intents/pi_1/settle", json=outcome)).status_code == 404
    assert (await http.post("/_emulator/payment_intents/pi_1/settle", json={})).status_code == 400
