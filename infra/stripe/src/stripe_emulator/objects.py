"""Stripe's objects, field by field as in its API reference; amounts in minor units, times in Unix seconds."""

import secrets
import string
from typing import Literal, TypeVar

import msgspec

Json = dict[str, object]

IntentStatus = Literal[
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "requires_capture",
    "canceled",
    "succeeded",
]
CaptureMethod = Literal["automatic", "automatic_async", "manual"]
CancellationReason = Literal["duplicate", "fraudulent", "requested_by_customer", "abandoned"]
RefundReason = Literal["duplicate", "fraudulent", "requested_by_customer"]

ALPHABET = string.ascii_letters + string.digits


def random_text(length: int) -> str:
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in secrets.token_bytes(length))


def new_id(prefix: str) -> str:
    return f"{prefix}_{random_text(24)}"


def no_billing_details() -> Json:
    return {"address": None, "email": None, "name": None, "phone": None}


def to_the_card() -> Json:
    return {"card": {"type": "refund"}, "type": "card"}


class PaymentIntent(msgspec.Struct, kw_only=True):
    """`payment_method` holds the test card's own name (`pm_card_visa`), where Stripe makes a new id of it."""

    id: str
    object: str = "payment_intent"
    amount: int
    amount_capturable: int = 0
    amount_details: Json = msgspec.field(default_factory=lambda: {"tip": {}})
    amount_received: int = 0
    application: None = None
    application_fee_amount: None = None
    automatic_payment_methods: Json | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    capture_method: CaptureMethod = "automatic_async"
    client_secret: str
    confirmation_method: str = "automatic"
    created: int
    currency: str
    customer: str | None = None
    description: str | None = None
    last_payment_error: Json | None = None
    latest_charge: str | None = None
    livemode: bool = False
    metadata: dict[str, str] = {}
    next_action: Json | None = None
    on_behalf_of: None = None
    payment_method: str | None = None
    payment_method_options: Json = {}
    payment_method_types: list[str] = msgspec.field(default_factory=lambda: ["card"])
    processing: Json | None = None
    receipt_email: str | None = None
    review: None = None
    setup_future_usage: str | None = None
    shipping: Json | None = None
    source: None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    status: IntentStatus = "requires_payment_method"
    transfer_data: None = None
    transfer_group: str | None = None


class Charge(msgspec.Struct, kw_only=True):
    id: str
    object: str = "charge"
    amount: int
    amount_captured: int = 0
    amount_refunded: int = 0
    application: None = None
    balance_transaction: str | None = None
    billing_details: Json = msgspec.field(default_factory=no_billing_details)
    calculated_statement_descriptor: str = "EMULATOR"
    captured: bool = False
    created: int
    currency: str
    customer: str | None = None
    description: str | None = None
    disputed: bool = False
    failure_balance_transaction: None = None
    failure_code: str | None = None
    failure_message: str | None = None
    fraud_details: Json = {}
    livemode: bool = False
    metadata: dict[str, str] = {}
    outcome: Json
    paid: bool = False
    payment_intent: str
    payment_method: str
    payment_method_details: Json
    receipt_email: str | None = None
    receipt_number: None = None
    receipt_url: None = None
    refunded: bool = False
    review: None = None
    shipping: Json | None = None
    source: None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    status: Literal["succeeded", "pending", "failed"]
    transfer_data: None = None
    transfer_group: str | None = None


class Refund(msgspec.Struct, kw_only=True):
    id: str
    object: str = "refund"
    amount: int
    balance_transaction: str | None = None
    charge: str
    created: int
    currency: str
    destination_details: Json = msgspec.field(default_factory=to_the_card)
    failure_balance_transaction: str | None = None
    failure_reason: str | None = None
    metadata: dict[str, str] = {}
    payment_intent: str
    pending_reason: str | None = None
    reason: str | None = None
    receipt_number: None = None
    source_transfer_reversal: None = None
    status: Literal["pending", "succeeded", "failed"]
    transfer_reversal: None = None


class Dispute(msgspec.Struct, kw_only=True):
    id: str
    object: str = "dispute"
    amount: int
    balance_transactions: list[Json] = []
    charge: str
    created: int
    currency: str
    evidence: Json = {}
    evidence_details: Json
    is_charge_refundable: bool = False
    livemode: bool = False
    metadata: dict[str, str] = {}
    payment_intent: str
    reason: str
    status: str = "needs_response"


StoredObject = PaymentIntent | Charge | Refund | Dispute
S = TypeVar("S", PaymentIntent, Charge, Refund, Dispute)


class Event(msgspec.Struct, kw_only=True):
    """A snapshot event: `data.object` is what the object looked like when this happened."""

    id: str
    object: str = "event"
    api_version: str
    created: int
    data: Json
    livemode: bool = False
    pending_webhooks: int = 1
    request: Json
    type: str
