"""PaymentIntents: create, update, cancel, capture (https://docs.stripe.com/payments/paymentintents/lifecycle).

Confirming, and what a payment method makes of it, is in confirmations.py.
"""

import re
from typing import Annotated

import msgspec

from stripe_emulator import charges, confirmations, events
from stripe_emulator.cards import BY_NAME
from stripe_emulator.confirmations import ConfirmIntent, PaymentMethodData
from stripe_emulator.errors import ApiError, no_such, unexpected_state
from stripe_emulator.lists import Page, PageParams, list_page
from stripe_emulator.objects import (
    CancellationReason,
    CaptureMethod,
    Json,
    PaymentIntent,
    new_id,
    random_text,
)
from stripe_emulator.store import Transaction

Amount = Annotated[int, msgspec.Meta(ge=1, le=99_999_999)]
Metadata = dict[str, str] | str
CURRENCY = re.compile(r"[A-Za-z]{3}")
CANCELLABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")


def no_metadata() -> Metadata:
    return {}


class CreateIntent(ConfirmIntent, kw_only=True):
    """The parameters that the emulator keeps, and those that it takes and ignores."""

    amount: Amount
    currency: str
    automatic_payment_methods: Json | None = None
    capture_method: CaptureMethod = "automatic_async"
    confirm: bool = False
    confirmation_method: str = "automatic"
    customer: str | None = None
    description: str | None = None
    metadata: Metadata = msgspec.field(default_factory=no_metadata)
    payment_method_types: list[str] = msgspec.field(default_factory=lambda: ["card"])
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    transfer_group: str | None = None


class UpdateIntent(msgspec.Struct, kw_only=True):
    amount: Amount | None = None
    currency: str | None = None
    description: str | None = None
    metadata: Metadata = msgspec.field(default_factory=no_metadata)
    payment_method: str | None = None
    payment_method_data: PaymentMethodData | None = None
    receipt_email: str | None = None
    shipping: Json | str | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None


class CancelIntent(msgspec.Struct, kw_only=True):
    cancellation_reason: CancellationReason | None = None


class CaptureIntent(msgspec.Struct, kw_only=True):
    amount_to_capture: Amount | None = None
    metadata: Metadata = msgspec.field(default_factory=no_metadata)
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None


class ListIntents(PageParams, kw_only=True):
    customer: str | None = None


def create(tx: Transaction, params: CreateIntent) -> PaymentIntent:
    intent_id = new_id("pi")
    intent = PaymentIntent(
        id=intent_id,
        amount=params.amount,
        automatic_payment_methods=read_automatic_payment_methods(params.automatic_payment_methods),
        capture_method=params.capture_method,
        client_secret=f"{intent_id}_secret_{random_text(25)}",
        confirmation_method=params.confirmation_method,
        created=int(tx.now),
        currency=read_currency(params.currency),
        customer=params.customer,
        description=params.description,
        metadata=merge_metadata({}, params.metadata),
        payment_method_types=params.payment_method_types,
        receipt_email=params.receipt_email,
        setup_future_usage=params.setup_future_usage or None,
        shipping=params.shipping or None,
        statement_descriptor=params.statement_descriptor,
        statement_descriptor_suffix=params.statement_descriptor_suffix,
        transfer_group=params.transfer_group,
    )
    card = confirmations.find_card(params.payment_method, params.payment_method_data)
    if card is not None:
        intent.payment_method = card.name
        intent.status = "requires_confirmation"
    tx.save(intent)
    events.record(tx, "payment_intent.created", intent)
    return confirmations.confirm(tx, intent, params) if params.confirm else intent


def retrieve(tx: Transaction, intent_id: str) -> PaymentIntent:
    intent = tx.find(PaymentIntent, intent_id)
    if intent is None:
        raise no_such("payment_intent", intent_id, param="intent")
    return intent


def list_intents(tx: Transaction, params: ListIntents) -> Page:
    return list_page(tx, params, url="/v1/payment_intents", kind="PaymentIntent")


def update(tx: Transaction, intent_id: str, params: UpdateIntent) -> PaymentIntent:
    """What it costs and how it is paid can change until it is confirmed; the rest always."""
    intent = retrieve(tx, intent_id)
    card = confirmations.find_card(params.payment_method, params.payment_method_data)
    if params.amount is not None or params.currency is not None or card is not None:
        if intent.status not in ("requires_payment_method", "requires_confirmation", "requires_action"):
            raise unexpected_state(
                "This PaymentIntent's amount, currency and payment method could not be updated because it "
                f"has a status of {intent.status}.",
                intent,
            )
        intent.amount = params.amount or intent.amount
        intent.currency = read_currency(params.currency or intent.currency)
        if card is not None:
            intent.payment_method = card.name
            intent.status = "requires_confirmation"
            intent.next_action = None
    if params.description is not None:
        intent.description = params.description or None
    if params.receipt_email is not None:
        intent.receipt_email = params.receipt_email or None
    if params.shipping is not None:
        intent.shipping = params.shipping if isinstance(params.shipping, dict) else None
    intent.statement_descriptor = params.statement_descriptor or intent.statement_descriptor
    intent.statement_descriptor_suffix = (
        params.statement_descriptor_suffix or intent.statement_descriptor_suffix
    )
    intent.metadata = merge_metadata(intent.metadata, params.metadata)
    tx.save(intent)
    return intent


def cancel(tx: Transaction, intent_id: str, params: CancelIntent) -> PaymentIntent:
    """Refused once money has moved, and while `processing` unless the payment method allows it."""
    intent = retrieve(tx, intent_id)
    card = BY_NAME.get(intent.payment_method or "")
    if intent.status == "processing" and card is not None and card.cancellable_while_processing:
        intent.processing = None
    elif intent.status not in CANCELLABLE:
        raise unexpected_state(
            f"You cannot cancel this PaymentIntent because it has a status of {intent.status}. Only a "
            "PaymentIntent with one of the following statuses may be canceled: "
            f"{', '.join((*CANCELLABLE, 'processing'))}.",
            intent,
        )
    if intent.status == "requires_capture" and intent.latest_charge is not None:
        charge = charges.retrieve(tx, intent.latest_charge)
        charge.refunded = True
        charge.amount_refunded = charge.amount
        tx.save(charge)
        events.record(tx, "charge.refunded", charge)
    intent.status = "canceled"
    intent.canceled_at = int(tx.now)
    intent.cancellation_reason = params.cancellation_reason
    intent.amount_capturable = 0
    intent.next_action = None
    tx.save(intent)
    events.record(tx, "payment_intent.canceled", intent)
    return intent


def capture(tx: Transaction, intent_id: str, params: CaptureIntent) -> PaymentIntent:
    """Takes the authorised amount, or a part of it and lets the rest go."""
    intent = retrieve(tx, intent_id)
    if intent.status != "requires_capture" or intent.latest_charge is None:
        raise unexpected_state(
            f"This PaymentIntent could not be captured because it has a status of {intent.status}. Only a "
            "PaymentIntent with one of the following statuses may be captured: requires_capture.",
            intent,
        )
    amount = params.amount_to_capture or intent.amount_capturable
    if amount > intent.amount_capturable:
        raise ApiError(
            400,
            f"The amount to capture ({amount}) is greater than the amount that can be captured "
            f"({intent.amount_capturable}).",
            code="amount_too_large",
            param="amount_to_capture",
        )
    charge = charges.retrieve(tx, intent.latest_charge)
    charge.captured = True
    charge.amount_captured = amount
    charge.balance_transaction = new_id("txn")
    tx.save(charge)
    events.record(tx, "charge.captured", charge)
    intent.status = "succeeded"
    intent.amount_capturable = 0
    intent.amount_received = amount
    intent.metadata = merge_metadata(intent.metadata, params.metadata)
    tx.save(intent)
    events.record(tx, "payment_intent.succeeded", intent)
    return intent


def read_currency(currency: str) -> str:
    """Three letters in either case, lower case from here on."""
    if CURRENCY.fullmatch(currency) is None:
        raise ApiError(400, f"Invalid currency: {currency}.", param="currency")
    return currency.lower()


def read_automatic_payment_methods(given: Json | None) -> Json | None:
    if given is None:
        return None
    enabled = given.get("enabled")
    if enabled not in ("true", "false"):
        raise ApiError(400, f"Invalid boolean: {enabled}", param="automatic_payment_methods[enabled]")
    return given | {"enabled": enabled == "true"}


def merge_metadata(before: dict[str, str], given: Metadata) -> dict[str, str]:
    """A key with "" goes, "" for the whole clears it (https://docs.stripe.com/api/metadata)."""
    if isinstance(given, str):
        if given:
            raise ApiError(400, "Invalid object: metadata", param="metadata")
        return {}
    merged = before | given
    for key, value in given.items():
        if len(key) > 40:
            raise ApiError(
                400, f"Metadata keys can have up to 40 characters: {key[:41]}...", param="metadata"
            )
        if len(value) > 500:
            raise ApiError(
                400,
                "Metadata values can have up to 500 characters, but you passed in a value that is "
                f"{len(value)} characters. Invalid value: {value[:500]}...",
                param=f"metadata[{key}]",
            )
    kept = {key: value for key, value in merged.items() if value}
    if len(kept) > 50:
        raise ApiError(400, "Metadata can have up to 50 keys.", param="metadata")
    return kept
