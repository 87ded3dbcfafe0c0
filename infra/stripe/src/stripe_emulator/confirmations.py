"""Confirming a PaymentIntent: what the test card makes of it, at once or once buyer or bank have spoken."""

from typing import Literal

import msgspec

from stripe_emulator import charges, events
from stripe_emulator.cards import BY_NAME, BY_NUMBER, Card
from stripe_emulator.errors import ApiError, no_such, unexpected_state
from stripe_emulator.objects import Json, PaymentIntent
from stripe_emulator.store import Transaction

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
Outcome = Literal["succeed", "fail"]


class CardData(msgspec.Struct, kw_only=True):
    number: str


class PaymentMethodData(msgspec.Struct, kw_only=True):
    """What a card form sends; other members are ignored."""

    type: str = "card"
    card: CardData | None = None


class ConfirmIntent(msgspec.Struct, kw_only=True):
    """Everything after `payment_method_data` is echoed at most."""

    payment_method: str | None = None
    payment_method_data: PaymentMethodData | None = None
    error_on_requires_action: bool = False
    mandate_data: Json | None = None
    off_session: str | None = None
    payment_method_options: Json | None = None
    radar_options: Json | None = None
    receipt_email: str | None = None
    return_url: str | None = None
    setup_future_usage: str | None = None
    shipping: Json | None = None
    use_stripe_sdk: bool = False


def find_card(name: str | None, data: PaymentMethodData | None) -> Card | None:
    """The test card that a request names, by id or by number, if any. Raises ApiError for an unknown one."""
    if name is not None:
        card = BY_NAME.get(name)
        if card is None:
            raise no_such("PaymentMethod", name, param="payment_method", status=400)
        return card
    if data is None or data.card is None:
        return None
    card = BY_NUMBER.get(data.card.number.replace(" ", ""))
    if card is None:
        raise ApiError(
            402,
            "Your card number is incorrect.",
            kind="card_error",
            code="incorrect_number",
            param="payment_method_data[card][number]",
        )
    return card


def confirm(tx: Transaction, intent: PaymentIntent, params: ConfirmIntent) -> PaymentIntent:
    """Raises ApiError: 402 for a declined card (another try is possible), 400 in a state that forbids it."""
    if intent.status == "succeeded":
        raise unexpected_state(
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously "
            "confirmed.",
            intent,
        )
    if intent.status not in CONFIRMABLE:
        raise unexpected_state(
            f"You cannot confirm this PaymentIntent because it has a status of {intent.status}. Only a "
            f"PaymentIntent with one of the following statuses may be confirmed: {', '.join(CONFIRMABLE)}.",
            intent,
        )
    card = find_card(params.payment_method, params.payment_method_data)
    if card is None and intent.status == "requires_action":
        return intent  # nothing new: it still waits for the buyer
    card = card or BY_NAME.get(intent.payment_method or "")
    if card is None:
        raise unexpected_state(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either "
            "update the PaymentIntent with a payment method and then confirm it again, or confirm it again "
            "directly with a payment method or ConfirmationToken.",
            intent,
        )
    intent.payment_method = card.name
    match card.outcome:
        case "succeed":
            return pay(tx, intent, card)
        case "decline":
            raise decline(tx, intent, card)
        case "authenticate" if params.error_on_requires_action or params.off_session not in (None, "false"):
            raise decline(tx, intent, without_buyer(card))
        case "authenticate":
            return require_action(tx, intent, params)
        case "process":
            return process(tx, intent)


def pay(tx: Transaction, intent: PaymentIntent, card: Card) -> PaymentIntent:
    """Captures, or only authorises when the intent's capture method is manual."""
    capture = intent.capture_method != "manual"
    charge = charges.charge_card(tx, intent, card, capture=capture)
    intent.latest_charge = charge.id
    intent.last_payment_error = None
    intent.next_action = None
    intent.processing = None
    if capture:
        intent.status = "succeeded"
        intent.amount_received = intent.amount
    else:
        intent.status = "requires_capture"
        intent.amount_capturable = intent.amount
    tx.save(intent)
    events.record(
        tx, "payment_intent.succeeded" if capture else "payment_intent.amount_capturable_updated", intent
    )
    if capture and card.dispute_reason is not None:
        charges.open_dispute(tx, charge, reason=card.dispute_reason)
    return intent


def decline(tx: Transaction, intent: PaymentIntent, card: Card) -> ApiError:
    """Keeps the failed charge, puts the intent back to requires_payment_method, returns the 402."""
    charge = charges.fail_charge(tx, intent, card)
    details: Json = {
        "charge": charge.id,
        "decline_code": card.decline_code,
        "payment_method": card.payment_method(),
    }
    intent.latest_charge = charge.id
    fail_payment(tx, intent, {"type": "card_error", "code": card.code, "message": card.message} | details)
    return ApiError(
        402, card.message, kind="card_error", code=card.code, payment_intent=intent, details=details
    )


def fail_payment(tx: Transaction, intent: PaymentIntent, error: Json) -> None:
    intent.status = "requires_payment_method"
    intent.payment_method = None
    intent.next_action = None
    intent.processing = None
    intent.last_payment_error = error
    tx.save(intent)
    events.record(tx, "payment_intent.payment_failed", intent)


def without_buyer(card: Card) -> Card:
    """The card's answer when nobody is there to authenticate."""
    return msgspec.structs.replace(
        card,
        code="authentication_required",
        decline_code="authentication_required",
        message="Your card was declined. This transaction requires authentication.",
    )


def require_action(tx: Transaction, intent: PaymentIntent, params: ConfirmIntent) -> PaymentIntent:
    intent.status = "requires_action"
    if params.return_url is not None and not params.use_stripe_sdk:
        intent.next_action = {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": params.return_url, "url": params.return_url},
        }
    else:
        intent.next_action = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
    tx.save(intent)
    events.record(tx, "payment_intent.requires_action", intent)
    return intent


def process(tx: Transaction, intent: PaymentIntent) -> PaymentIntent:
    intent.status = "processing"
    intent.next_action = None
    tx.save(intent)
    events.record(tx, "payment_intent.processing", intent)
    return intent


def authenticate(tx: Transaction, intent: PaymentIntent, outcome: Outcome) -> PaymentIntent:
    """What the buyer did with the 3-D Secure challenge. Raises ApiError (400) when there is none."""
    card = BY_NAME.get(intent.payment_method or "")
    if intent.status != "requires_action" or card is None:
        raise unexpected_state(f"This PaymentIntent awaits no authentication: it is {intent.status}.", intent)
    if outcome == "succeed":
        return pay(tx, intent, card)
    fail_payment(
        tx,
        intent,
        {
            "type": "invalid_request_error",
            "code": "payment_intent_authentication_failure",
            "message": "The provided PaymentMethod has failed authentication. You can provide "
            "payment_method_data or a new PaymentMethod to attempt to fulfill this PaymentIntent again.",
            "payment_method": card.payment_method(),
        },
    )
    return intent


def settle(tx: Transaction, intent: PaymentIntent, outcome: Outcome) -> PaymentIntent:
    """How a payment that was `processing` ended. Raises ApiError (400) when it is not."""
    card = BY_NAME.get(intent.payment_method or "")
    if intent.status != "processing" or card is None:
        raise unexpected_state(f"This PaymentIntent is not processing: it is {intent.status}.", intent)
    if outcome == "succeed":
        return pay(tx, intent, card)
    decline(tx, intent, card)
    return intent
