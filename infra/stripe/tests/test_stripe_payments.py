"""PaymentIntents through the official SDK: what a buyer and a shop can do to them."""

import asyncio

import httpx
import pytest
import stripe
from stripe.params import PaymentIntentCreateParams
from stripe_emulator.events import API_VERSION
from stripe_emulator.testing import SECRET_KEY, Emulator, Receiver, until

# The SDK hands bytes to httpx in a way that httpx deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


def order(amount: int = 2500) -> PaymentIntentCreateParams:
    return {
        "amount": amount,
        "currency": "EUR",
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": {"order_id": "0193-order"},
    }


async def test_a_card_that_works_pays_at_once(client: stripe.StripeClient, receiver: Receiver) -> None:
    intent = await client.v1.payment_intents.create_async(order())
    assert (intent.status, intent.amount, intent.currency) == ("requires_payment_method", 2500, "eur")
    assert intent.client_secret is not None
    assert intent.client_secret.startswith(f"{intent.id}_secret_")
    assert intent.metadata.to_dict() == {"order_id": "0193-order"}
    assert intent.livemode is False

    paid = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa", "expand": ["latest_charge"]}
    )
    assert (paid.status, paid.amount_received) == ("succeeded", 2500)
    assert isinstance(paid.latest_charge, stripe.Charge)
    assert paid.latest_charge.captured

    found = await client.v1.payment_intents.retrieve_async(intent.id)
    assert found.status == "succeeded"
    assert found.latest_charge == paid.latest_charge.id

    expected = ["charge.succeeded", "payment_intent.created", "payment_intent.succeeded"]
    await until(lambda: sorted(receiver.types(intent.id)) == expected)
    told = next(event for event in receiver.events if event["type"] == "payment_intent.created")
    assert told["data"]["object"]["status"] == "requires_payment_method", (
        "an event shows the object as it was"
    )
    assert told["api_version"] == API_VERSION == stripe.api_version


async def test_a_declined_card_can_be_followed_by_one_that_works(
    client: stripe.StripeClient, receiver: Receiver
) -> None:
    intent = await client.v1.payment_intents.create_async(order())
    with pytest.raises(stripe.CardError) as refusal:
        await client.v1.payment_intents.confirm_async(
            intent.id, {"payment_method": "pm_card_visa_chargeDeclined"}
        )
    assert refusal.value.http_status == 402
    assert refusal.value.code == "card_declined"
    assert refusal.value.error is not None
    assert refusal.value.error.decline_code == "generic_decline"
    assert refusal.value.error.payment_intent is not None
    assert refusal.value.error.payment_intent.status == "requires_payment_method"

    declined = await client.v1.payment_intents.retrieve_async(intent.id)
    assert declined.status == "requires_payment_method"
    assert declined.last_payment_error is not None
    assert declined.last_payment_error.code == "card_declined"

    paid = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_mastercard"})
    assert paid.status == "succeeded"
    assert paid.last_payment_error is None
    charges = await client.v1.charges.list_async({"payment_intent": intent.id})
    assert [charge.status for charge in charges.data] == ["succeeded", "failed"]
    await until(lambda: len(receiver.types(intent.id)) == 5)
    assert {"charge.failed", "payment_intent.payment_failed"} < set(receiver.types(intent.id))


@pytest.mark.parametrize(
    ("payment_method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "incorrect_cvc"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", "processing_error"),
    ],
)
async def test_each_declining_card_says_why(
    client: stripe.StripeClient, payment_method: str, code: str, decline_code: str
) -> None:
    with pytest.raises(stripe.CardError) as refusal:
        await client.v1.payment_intents.create_async(
            {**order(), "payment_method": payment_method, "confirm": True}
        )
    assert refusal.value.code == code
    assert refusal.value.error is not None
    assert refusal.value.error.decline_code == decline_code


async def test_authentication_is_asked_for_and_given(
    client: stripe.StripeClient, emulator: Emulator, receiver: Receiver
) -> None:
    intent = await client.v1.payment_intents.create_async(order())
    asked = await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_authenticationRequired"}
    )
    assert asked.status == "requires_action"
    assert asked.next_action is not None
    failed = emulator.control("POST", f"payment_intents/{intent.id}/authenticate", {"outcome": "fail"})
    assert failed["status"] == "requires_payment_method"
    assert failed["last_payment_error"]["code"] == "payment_intent_authentication_failure"

    await client.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_authenticationRequired"}
    )
    paid = emulator.control("POST", f"payment_intents/{intent.id}/authenticate", {"outcome": "succeed"})
    assert paid["status"] == "succeeded"
    await until(lambda: "payment_intent.succeeded" in receiver.types(intent.id))
    assert receiver.types(intent.id).count("payment_intent.requires_action") == 2


async def test_another_card_may_replace_one_that_wants_authentication(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(
        {**order(), "payment_method": "pm_card_authenticationRequired", "confirm": True}
    )
    assert intent.status == "requires_action"
    paid = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"


async def test_processing_lasts_until_it_is_settled_and_cannot_be_cancelled(
    client: stripe.StripeClient, emulator: Emulator
) -> None:
    intent = await client.v1.payment_intents.create_async(
        {**order(), "payment_method": "pm_card_processing", "confirm": True}
    )
    assert intent.status == "processing"
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.payment_intents.cancel_async(intent.id)
    assert refusal.value.code == "payment_intent_unexpected_state"
    assert emulator.control("POST", f"payment_intents/{intent.id}/settle", {"outcome": "succeed"})[
        "status"
    ] == ("succeeded")


async def test_a_bank_payment_that_is_processing_can_be_cancelled(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(
        {**order(), "payment_method": "pm_usBankAccount_processing", "confirm": True}
    )
    cancelled = await client.v1.payment_intents.cancel_async(intent.id)
    assert cancelled.status == "canceled"


async def test_a_cancelled_intent_can_neither_be_paid_nor_cancelled_again(
    client: stripe.StripeClient, receiver: Receiver
) -> None:
    intent = await client.v1.payment_intents.create_async(order())
    cancelled = await client.v1.payment_intents.cancel_async(intent.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "abandoned")
    assert cancelled.canceled_at is not None
    for again in (
        client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}),
        client.v1.payment_intents.cancel_async(intent.id),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await again
        assert refusal.value.http_status == 400
        assert refusal.value.code == "payment_intent_unexpected_state"
        assert refusal.value.error is not None
        assert refusal.value.error.payment_intent is not None
        assert refusal.value.error.payment_intent.status == "canceled"
    await until(lambda: "payment_intent.canceled" in receiver.types(intent.id))


async def test_a_paid_intent_can_neither_be_cancelled_nor_paid_again(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(
        {**order(), "payment_method": "pm_card_visa", "confirm": True}
    )
    for again in (
        client.v1.payment_intents.cancel_async(intent.id),
        client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            await again
        assert refusal.value.code == "payment_intent_unexpected_state"
        assert refusal.value.error is not None
        assert refusal.value.error.payment_intent is not None
        assert refusal.value.error.payment_intent.status == "succeeded"
    charges = await client.v1.charges.list_async({"payment_intent": intent.id})
    assert len(charges.data) == 1


async def test_of_a_payment_and_a_cancellation_exactly_one_wins(client: stripe.StripeClient) -> None:
    async def race() -> str:
        intent = await client.v1.payment_intents.create_async(order())
        ends = await asyncio.gather(
            client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}),
            client.v1.payment_intents.cancel_async(intent.id),
            return_exceptions=True,
        )
        winners = [end.status for end in ends if isinstance(end, stripe.PaymentIntent)]
        losers = [end for end in ends if isinstance(end, stripe.InvalidRequestError)]
        assert len(winners) == len(losers) == 1
        found = await client.v1.payment_intents.retrieve_async(intent.id)
        assert found.status == winners[0]
        return found.status

    await asyncio.gather(*(race() for _ in range(10)))


async def test_manual_capture_authorises_first(client: stripe.StripeClient, receiver: Receiver) -> None:
    intent = await client.v1.payment_intents.create_async(
        {**order(), "capture_method": "manual", "payment_method": "pm_card_visa", "confirm": True}
    )
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 2500, 0)
    captured = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 2000})
    assert (captured.status, captured.amount_capturable, captured.amount_received) == ("succeeded", 0, 2000)
    await until(lambda: "payment_intent.succeeded" in receiver.types(intent.id))
    assert "payment_intent.amount_capturable_updated" in receiver.types(intent.id)


async def test_metadata_is_merged_and_can_be_unset(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(order())
    intent = await client.v1.payment_intents.update_async(intent.id, {"metadata": {"a": "1", "order_id": ""}})
    assert intent.metadata.to_dict() == {"a": "1"}
    with pytest.raises(stripe.InvalidRequestError, match="500 characters"):
        await client.v1.payment_intents.update_async(intent.id, {"metadata": {"seats": "x" * 501}})


async def test_lists_are_newest_first_and_paged(client: stripe.StripeClient) -> None:
    ids = [(await client.v1.payment_intents.create_async(order())).id for _ in range(3)]
    first = await client.v1.payment_intents.list_async({"limit": 2})
    assert [intent.id for intent in first.data] == [ids[2], ids[1]]
    assert first.has_more
    every = [intent.id async for intent in first.auto_paging_iter()]
    assert every == ids[::-1]
    none = await client.v1.payment_intents.list_async({"created": {"lt": 1_700_000_000}})
    assert none.data == []


async def test_a_browser_pays_with_the_client_secret_alone(
    client: stripe.StripeClient, http: httpx.AsyncClient
) -> None:
    intent = await client.v1.payment_intents.create_async(order())
    path = f"/v1/payment_intents/{intent.id}"
    secret = {"client_secret": str(intent.client_secret), "key": "pk_test_anything"}
    assert (await http.get(path)).status_code == 401
    assert (await http.get(path, params={"client_secret": "wrong"})).status_code == 400
    assert (await http.get(path, params=secret)).json()["status"] == "requires_payment_method"
    assert (await http.post(f"{path}/cancel", data=secret)).status_code == 401
    card = {"payment_method_data[type]": "card", "payment_method_data[card][number]": "4242 4242 4242 4242"}
    paid = await http.post(f"{path}/confirm", data={**secret, **card, "time_on_page": "7"})
    assert paid.json()["status"] == "succeeded"


async def test_a_wrong_key_is_refused(http: httpx.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Bearer sk_test_other"}, {"Authorization": "Basic nonsense"}):
        answer = await http.post("/v1/payment_intents", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (await http.get("/v1/refunds", auth=(SECRET_KEY, ""))).status_code == 200


@pytest.mark.parametrize(
    ("form", "param", "code"),
    [
        ({"currency": "usd"}, "amount", "parameter_missing"),
        ({"amount": "x", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": "0", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": "", "currency": "usd"}, "amount", "parameter_invalid_empty"),
        ({"amount": "5", "currency": "us"}, "currency", None),
        ({"amount": "5", "currency": "usd", "colour": "red"}, "colour", "parameter_unknown"),
        ({"amount": "5", "currency": "usd", "payment_method": "pm_x"}, "payment_method", "resource_missing"),
        ({"amount": "5", "currency": "usd", "metadata": "x"}, "metadata", None),
        ({"amount[a]": "5", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": "5", "amount[a]": "5", "currency": "usd"}, "amount", None),
        ({"amount": "5", "currency": "usd", "capture_method": "never"}, "capture_method", None),
        ({"amount": "5", "currency": "usd", "expand[]": "mood"}, "expand", None),
    ],
)
async def test_a_wrong_parameter_is_named(
    http: httpx.AsyncClient, form: dict[str, str], param: str, code: str | None
) -> None:
    answer = await http.post("/v1/payment_intents", data=form, auth=(SECRET_KEY, ""))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error.get("code")) == (param, code)
    assert answer.headers["Request-Id"].startswith("req_")


async def test_what_does_not_exist_is_404(http: httpx.AsyncClient) -> None:
    http.auth = (SECRET_KEY, "")
    missing = await http.get("/v1/payment_intents/pi_nowhere")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "resource_missing")
    for method, path in (("GET", "/v1/moods"), ("DELETE", "/v1/refunds"), ("GET", "/")):
        assert (await http.request(method, path)).status_code == 404
    assert (await http.get("/health")).json() == {"status": "ok"}
