"""Refunds and disputes."""

import pytest
import stripe
from stripe_emulator.testing import Receiver, until

# The SDK hands bytes to httpx in a way that httpx deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


async def pay(
    client: stripe.StripeClient, amount: int = 3000, payment_method: str = "pm_card_visa"
) -> stripe.PaymentIntent:
    return await client.v1.payment_intents.create_async(
        {"amount": amount, "currency": "usd", "payment_method": payment_method, "confirm": True}
    )


async def test_a_full_refund_can_be_made_once(client: stripe.StripeClient, receiver: Receiver) -> None:
    intent = await pay(client)
    refund = await client.v1.refunds.create_async(
        {"payment_intent": intent.id, "reason": "requested_by_customer"}
    )
    assert (refund.status, refund.amount, refund.payment_intent) == ("succeeded", 3000, intent.id)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert (refusal.value.http_status, refusal.value.code) == (400, "charge_already_refunded")

    charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.refunded, charge.amount_refunded) == (True, 3000)
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"
    assert (await client.v1.refunds.retrieve_async(refund.id)).amount == 3000
    await until(lambda: {"refund.created", "charge.refunded"} < set(receiver.types(intent.id)))


async def test_partial_refunds_add_up_to_no_more_than_was_paid(client: stripe.StripeClient) -> None:
    intent, other = await pay(client), await pay(client)
    await client.v1.refunds.create_async({"charge": str(intent.latest_charge), "amount": 1000})
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 2001})
    assert refusal.value.param == "amount"
    rest = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert rest.amount == 2000
    await client.v1.refunds.create_async({"payment_intent": other.id})
    listed = await client.v1.refunds.list_async({"payment_intent": intent.id})
    assert [refund.amount for refund in listed.data] == [2000, 1000]


async def test_what_was_not_paid_cannot_be_refunded(client: stripe.StripeClient) -> None:
    intent = await client.v1.payment_intents.create_async({"amount": 500, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.refunds.create_async({"payment_intent": "pi_nowhere"})
    assert refusal.value.code == "resource_missing"
    with pytest.raises(stripe.InvalidRequestError, match="payment_intent or charge"):
        await client.v1.refunds.create_async({"amount": 5})


async def test_a_refund_may_fail_later(client: stripe.StripeClient, receiver: Receiver) -> None:
    intent = await pay(client, payment_method="pm_card_refundFail")
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "succeeded"
    await until(lambda: "refund.failed" in receiver.types(intent.id))
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "failed"
    charge = await client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.refunded, charge.amount_refunded) == (False, 0)


async def test_a_refund_may_be_pending_first(client: stripe.StripeClient, receiver: Receiver) -> None:
    intent = await pay(client, payment_method="pm_card_pendingRefund")
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "pending"
    await until(lambda: "refund.updated" in receiver.types(intent.id))
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "succeeded"


async def test_a_disputed_charge_cannot_be_refunded(client: stripe.StripeClient, receiver: Receiver) -> None:
    intent = await pay(client, payment_method="pm_card_createDispute")
    await until(lambda: "charge.dispute.created" in receiver.types(intent.id))
    assert len((await client.v1.disputes.list_async({"payment_intent": intent.id})).data) == 1
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refusal.value.code == "charge_disputed"
