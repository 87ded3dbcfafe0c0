"""Stripe's events: verified over the raw bytes, stored once each, passed on in the same transaction.

What an event says about a person or a card is neither kept nor logged.
"""

import logging
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec
import stripe
from contracts.messages import PaymentSucceeded
from libs.postgres import Conn, Pool, transaction
from libs.web.problems import InvalidRequest
from msgspec import Struct

from payments.alarms import raise_alarm
from payments.errors import InvalidSignature
from payments.orders import publish_captured
from payments.queries import jobs
from payments.queries import payments as queries

log = logging.getLogger(__name__)

# https://docs.stripe.com/webhooks#replay-attacks; events that were seen are told by their id.
TOLERANCE_SECONDS = 300

_CONCERNS = ("payment_intent.", "charge.", "refund.")
_REFUND_EVENTS = ("charge.refunded", "charge.refund.updated", "refund.updated", "refund.failed")


# What is stored: PostgreSQL's text cannot hold U+0000, nor its index a long one.
_Name = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,255}$")]


class _Object(Struct, frozen=True):
    """What we read of a PaymentIntent, charge, refund or dispute."""

    id: _Name | None = None
    payment_intent: _Name | dict[str, Any] | None = None
    amount_received: int | None = None
    amount: Any = None
    currency: _Name | None = None
    metadata: dict[str, str] | None = None


class _Data(Struct, frozen=True):
    object: msgspec.Raw = msgspec.Raw(b"{}")


class _Event(Struct, frozen=True):
    """https://docs.stripe.com/api/events/object"""

    id: _Name
    type: _Name
    data: _Data = _Data()


async def receive_event(pool: Pool, *, body: bytes, signature: str | None, secrets: Sequence[str]) -> None:
    """Returns once the event is stored for good. Raises `InvalidSignature`, `InvalidRequest`."""
    verify_signature(body, signature, secrets=secrets)
    try:
        event = msgspec.json.decode(body, type=_Event)
        subject = _Object()
        if event.type.startswith(_CONCERNS):
            subject = msgspec.json.decode(event.data.object, type=_Object)
    except msgspec.MsgspecError as error:
        raise InvalidRequest.at("/", f"no event of Stripe's: {error}") from None
    intent_id = subject.id if event.type.startswith("payment_intent.") else subject.payment_intent
    async with transaction(pool) as conn:
        is_new = await queries.insert_stripe_event(
            conn,
            event.id,
            type_=event.type,
            object_id=subject.id,
            payment_intent_id=intent_id if isinstance(intent_id, str) else None,
        )
        if is_new:
            await _pass_on(conn, event, subject)


def verify_signature(body: bytes, signature: str | None, *, secrets: Sequence[str]) -> None:
    """Any one secret will do: there are two while they are being rotated. Raises `InvalidSignature`."""
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, signature, secret, TOLERANCE_SECONDS)
        except (stripe.SignatureVerificationError, ValueError, TypeError):
            continue  # ValueError: no UTF-8; TypeError: a signature that is not ASCII
        return
    # Nothing of the SDK's error, which carries the body.
    raise InvalidSignature("The Stripe-Signature header does not match the body.")


async def _pass_on(conn: Conn, event: _Event, subject: _Object) -> None:
    if event.type == "payment_intent.succeeded":
        await _pass_on_capture(conn, event, subject)
    elif event.type in _REFUND_EVENTS and isinstance(subject.payment_intent, str):
        await jobs.enqueue_reconciliation(conn, subject.payment_intent)
    elif event.type == "charge.dispute.created":
        raise_alarm("a payment is disputed", dispute=subject.id, intent=subject.payment_intent)
    else:
        log.info("stored, nothing to do: %s %s", event.type, event.id)


async def _pass_on_capture(conn: Conn, event: _Event, subject: _Object) -> None:
    try:
        order_id = UUID((subject.metadata or {}).get("orderId", ""))
    except ValueError:
        log.warning("%s: payment %s names no order of ours", event.id, subject.id)
        return
    amount_minor = subject.amount if subject.amount_received is None else subject.amount_received
    if not subject.id or not isinstance(amount_minor, int) or amount_minor < 0 or subject.currency is None:
        raise InvalidRequest.at(
            "/data/object", "a succeeded PaymentIntent has an id, an amount and a currency"
        )
    await publish_captured(
        conn,
        PaymentSucceeded(
            order_id=order_id,
            payment_intent_id=subject.id,
            amount_minor=amount_minor,
            currency=subject.currency.lower(),
            stripe_event_id=event.id,
        ),
    )
