"""Idempotency keys: one effect, one answer, whatever happens to the caller or to the emulator."""

import asyncio
from signal import SIGKILL

import httpx
import pytest
import stripe
from stripe.params import PaymentIntentCreateParams
from stripe_emulator.testing import SECRET_KEY, Emulator

# The SDK hands bytes to httpx in a way that httpx deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

ORDER: PaymentIntentCreateParams = {"amount": 900, "currency": "usd", "metadata": {"order_id": "1"}}
FORM = {"amount": "900", "currency": "usd"}


async def count_intents(client: stripe.StripeClient) -> int:
    return len((await client.v1.payment_intents.list_async({"limit": 100})).data)


async def test_the_same_key_answers_the_same(client: stripe.StripeClient) -> None:
    first = await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
    again = await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
    other = await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "b"})
    assert again.id == first.id != other.id
    assert first.last_response is not None
    assert again.last_response is not None
    assert again.last_response.body == first.last_response.body
    headers = again.last_response.headers
    assert headers is not None
    assert headers["idempotent-replayed"] == "true"
    assert headers["original-request"] == first.last_response.request_id
    assert await count_intents(client) == 2


async def test_a_key_used_for_something_else_is_refused(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        await client.v1.payment_intents.create_async({**ORDER, "amount": 901}, {"idempotency_key": "a"})
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        await client.v1.payment_intents.cancel_async(intent.id, options={"idempotency_key": "a"})
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a" * 256})
    assert await count_intents(client) == 1


async def test_a_decline_is_remembered_and_wrong_parameters_are_not(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async(ORDER)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await client.v1.payment_intents.confirm_async(
                intent.id, {"payment_method": "pm_card_chargeDeclined"}, {"idempotency_key": "pay"}
            )
    charges = await client.v1.charges.list_async({"payment_intent": intent.id})
    assert len(charges.data) == 1

    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.create_async({**ORDER, "amount": 0}, {"idempotency_key": "new"})
    await client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "new"})


async def test_concurrent_requests_with_one_key_make_one_object(client: stripe.StripeClient) -> None:
    answers = await asyncio.gather(
        *(client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"}) for _ in range(20)),
        return_exceptions=True,
    )
    ids = {answer.id for answer in answers if isinstance(answer, stripe.PaymentIntent)}
    refusals = [answer for answer in answers if not isinstance(answer, stripe.PaymentIntent)]
    assert len(ids) == 1
    assert all(
        isinstance(refusal, stripe.StripeError) and refusal.code == "idempotency_key_in_use"
        for refusal in refusals
    )
    assert await count_intents(client) == 1


async def test_a_key_in_use_is_409(
    emulator: Emulator, client: stripe.StripeClient, http: httpx.AsyncClient
) -> None:
    emulator.control("PUT", "faults", {"delaySeconds": 5, "count": 1})
    headers = {"Authorization": f"Bearer {SECRET_KEY}", "Idempotency-Key": "a"}
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/v1/payment_intents", data=FORM, headers=headers, timeout=0.2)
    answer = await http.post("/v1/payment_intents", data=FORM, headers=headers)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "idempotency_key_in_use"
    assert await count_intents(client) == 0


async def test_keys_survive_kill_9(own_emulator: Emulator, own_client: stripe.StripeClient) -> None:
    first = await own_client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
    own_emulator.end(SIGKILL)
    own_emulator.start()
    again = await own_client.v1.payment_intents.create_async(ORDER, {"idempotency_key": "a"})
    assert again.id == first.id
    assert await count_intents(own_client) == 1
