"""Stripe's test payment methods (https://docs.stripe.com/testing), by name and by card number."""

from typing import Literal

import msgspec

from stripe_emulator.objects import Json

Outcome = Literal["succeed", "decline", "authenticate", "process"]
DECLINED = "Your card was declined."


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when the payment method is used. `refund`: how a refund to it ends, `later` meaning
    some time after its answer."""

    name: str
    brand: str = "visa"
    last4: str = "4242"
    number: str | None = None
    outcome: Outcome = "succeed"
    code: str = "card_declined"
    decline_code: str | None = "generic_decline"
    message: str = DECLINED
    refund: Literal["succeed", "fail_later", "succeed_later"] = "succeed"
    dispute_reason: str | None = None
    cancellable_while_processing: bool = False
    type: Literal["card", "us_bank_account"] = "card"

    def payment_method(self) -> Json:
        """The PaymentMethod object, as errors carry it."""
        return {
            "id": self.name,
            "object": "payment_method",
            "billing_details": {"address": None, "email": None, "name": None, "phone": None},
            "created": 0,
            "customer": None,
            "livemode": False,
            "metadata": {},
            "type": self.type,
            self.type: self.details(),
        }

    def details(self) -> Json:
        if self.type == "us_bank_account":
            return {"bank_name": "STRIPE TEST BANK", "last4": self.last4}
        return {
            "brand": self.brand,
            "country": "US",
            "exp_month": 12,
            "exp_year": 2040,
            "funding": "credit",
            "last4": self.last4,
            "network": self.brand,
        }


def declining(name: str, number: str, *, code: str, decline_code: str | None, message: str) -> list[Card]:
    """Under both names in use: `pm_card_chargeDeclined` and `pm_card_visa_chargeDeclined`."""
    return [
        Card(
            name=f"{prefix}_{name}",
            number=number if prefix == "pm_card" else None,
            last4=number[-4:],
            outcome="decline",
            code=code,
            decline_code=decline_code,
            message=message,
        )
        for prefix in ("pm_card", "pm_card_visa")
    ]


def plain_decline(name: str, number: str, *, reason: str, message: str = DECLINED) -> list[Card]:
    return declining(name, number, code="card_declined", decline_code=reason, message=message)


CARDS = [
    Card(name="pm_card_visa", number="4242424242424242"),
    Card(name="pm_card_visa_debit", number="4000056655665556", last4="5556"),
    Card(name="pm_card_mastercard", number="5555555555554444", brand="mastercard", last4="4444"),
    Card(name="pm_card_mastercard_debit", number="5200828282828210", brand="mastercard", last4="8210"),
    Card(name="pm_card_amex", number="378282246310005", brand="amex", last4="0005"),
    Card(name="pm_card_discover", number="6011111111111117", brand="discover", last4="1117"),
    *plain_decline("chargeDeclined", "4000000000000002", reason="generic_decline"),
    *plain_decline(
        "chargeDeclinedInsufficientFunds",
        "4000000000009995",
        reason="insufficient_funds",
        message="Your card has insufficient funds.",
    ),
    *plain_decline("chargeDeclinedLostCard", "4000000000009987", reason="lost_card"),
    *plain_decline("chargeDeclinedStolenCard", "4000000000009979", reason="stolen_card"),
    *plain_decline("chargeDeclinedFraudulent", "4100000000000019", reason="fraudulent"),
    *plain_decline(
        "chargeDeclinedVelocityLimitExceeded", "4000000000006975", reason="card_velocity_exceeded"
    ),
    *declining(
        "chargeDeclinedExpiredCard",
        "4000000000000069",
        code="expired_card",
        decline_code="expired_card",
        message="Your card has expired.",
    ),
    *declining(
        "chargeDeclinedIncorrectCvc",
        "4000000000000127",
        code="incorrect_cvc",
        decline_code="incorrect_cvc",
        message="Your card's security code is incorrect.",
    ),
    *declining(
        "chargeDeclinedProcessingError",
        "4000000000000119",
        code="processing_error",
        decline_code="processing_error",
        message="An error occurred while processing your card. Try again in a little bit.",
    ),
    Card(name="pm_card_chargeCustomerFail", number="4000000000000341", last4="0341", outcome="decline"),
    Card(
        name="pm_card_authenticationRequired", number="4000002760003184", last4="3184", outcome="authenticate"
    ),
    Card(
        name="pm_card_threeDSecureRequired", number="4000000000003063", last4="3063", outcome="authenticate"
    ),
    Card(
        name="pm_card_threeDSecure2Required", number="4000000000003220", last4="3220", outcome="authenticate"
    ),
    Card(name="pm_card_refundFail", number="4000000000005126", last4="5126", refund="fail_later"),
    Card(name="pm_card_pendingRefund", number="4000000000007726", last4="7726", refund="succeed_later"),
    Card(name="pm_card_createDispute", number="4000000000000259", last4="0259", dispute_reason="fraudulent"),
    Card(
        name="pm_card_createDisputeProductNotReceived",
        number="4000000000002685",
        last4="2685",
        dispute_reason="product_not_received",
    ),
    # Ours: stays `processing`, and refuses to be cancelled, until the control surface settles it.
    Card(name="pm_card_processing", last4="0000", outcome="process"),
    # Stripe's: stays `processing` too, and can be cancelled meanwhile.
    Card(
        name="pm_usBankAccount_processing",
        last4="0009",
        outcome="process",
        cancellable_while_processing=True,
        type="us_bank_account",
    ),
]
BY_NAME = {card.name: card for card in CARDS}
BY_NUMBER = {card.number: card for card in CARDS if card.number}
