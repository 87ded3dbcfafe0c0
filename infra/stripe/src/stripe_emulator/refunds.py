"""Refunds: whole or in part, of what a charge took (https://docs.stripe.com/refunds)."""

from typing import Annotated

import msgspec

from stripe_emulator import events, payment_intents
from stripe_emulator.cards import BY_NAME
from stripe_emulator.errors import ApiError, no_such
from stripe_emulator.lists import Page, PageParams, list_page
from stripe_emulator.objects import Charge, PaymentIntent, Refund, RefundReason, new_id
from stripe_emulator.payment_intents import Metadata, no_metadata
from stripe_emulator.store import Store, Transaction

# How long Stripe's "some time later" is for a refund that does not end at once.
SETTLE_SECONDS = 1.0


class CreateRefund(msgspec.Struct, kw_only=True):
    payment_intent: str | None = None
    charge: str | None = None
    amount: Annotated[int, msgspec.Meta(ge=1)] | None = None
    metadata: Metadata = msgspec.field(default_factory=no_metadata)
    reason: RefundReason | None = None


class ListRefunds(PageParams, kw_only=True):
    payment_intent: str | None = None
    charge: str | None = None


def create(tx: Transaction, params: CreateRefund) -> Refund:
    """Without `amount`, all that is left."""
    charge = find_charge(tx, params)
    left = charge.amount_captured - charge.amount_refunded
    if charge.refunded or left == 0:
        raise ApiError(400, f"Charge {charge.id} has already been refunded.", code="charge_already_refunded")
    if charge.disputed:
        raise ApiError(
            400, f"Charge {charge.id} has been charged back; cannot issue a refund.", code="charge_disputed"
        )
    amount = params.amount or left
    if amount > left:
        raise ApiError(
            400,
            f"Refund amount ({amount} {charge.currency}) is greater than unrefunded amount on charge "
            f"({left} {charge.currency})",
            param="amount",
        )
    ending = BY_NAME[charge.payment_method].refund
    refund = Refund(
        id=new_id("re"),
        amount=amount,
        balance_transaction=new_id("txn"),
        charge=charge.id,
        created=int(tx.now),
        currency=charge.currency,
        metadata=payment_intents.merge_metadata({}, params.metadata),
        payment_intent=charge.payment_intent,
        pending_reason="processing" if ending == "succeed_later" else None,
        reason=params.reason,
        status="pending" if ending == "succeed_later" else "succeeded",
    )
    tx.save(refund)
    events.record(tx, "refund.created", refund)
    before = charge.amount_refunded
    charge.amount_refunded += amount
    charge.refunded = charge.amount_refunded == charge.amount_captured
    tx.save(charge)
    events.record(tx, "charge.refunded", charge, previous={"amount_refunded": before, "refunded": False})
    if ending != "succeed":
        tx.db.execute(
            "INSERT INTO settlements (refund_id, due_at, outcome) VALUES (?, ?, ?)",
            (refund.id, tx.now + SETTLE_SECONDS, ending),
        )
    return refund


def find_charge(tx: Transaction, params: CreateRefund) -> Charge:
    if params.payment_intent is None and params.charge is None:
        raise ApiError(
            400,
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
        )
    charge_id = params.charge
    if params.payment_intent is not None:
        intent = tx.find(PaymentIntent, params.payment_intent)
        if intent is None:
            raise no_such("payment_intent", params.payment_intent, param="payment_intent")
        if charge_id is not None and charge_id != intent.latest_charge:
            raise ApiError(400, "The charge does not belong to the payment_intent.", param="charge")
        charge_id = intent.latest_charge
    charge = None if charge_id is None else tx.find(Charge, charge_id)
    if charge is None and params.payment_intent is None:
        raise no_such("charge", str(charge_id), param="charge")
    if charge is None or not charge.captured:
        raise ApiError(
            400,
            f"This PaymentIntent ({params.payment_intent or (charge and charge.payment_intent)}) does not "
            "have a successful charge to refund.",
            param="payment_intent" if params.payment_intent else "charge",
        )
    return charge


def retrieve(tx: Transaction, refund_id: str) -> Refund:
    refund = tx.find(Refund, refund_id)
    if refund is None:
        raise no_such("refund", refund_id, param="id")
    return refund


def list_refunds(tx: Transaction, params: ListRefunds) -> Page:
    return list_page(
        tx,
        params,
        url="/v1/refunds",
        kind="Refund",
        payment_intent=params.payment_intent,
        charge=params.charge,
    )


def settle_due(store: Store) -> float | None:
    """Ends the refunds whose time has come; returns the seconds until the next one."""
    with store.transaction() as tx:
        due = tx.db.execute(
            "DELETE FROM settlements WHERE due_at <= ? RETURNING refund_id, outcome", (tx.now,)
        ).fetchall()
        for refund_id, outcome in due:
            settle(tx, retrieve(tx, refund_id), is_failure=outcome == "fail_later")
        (next_at,) = tx.db.execute("SELECT min(due_at) FROM settlements").fetchone()
        return None if next_at is None else max(0.0, next_at - tx.now)


def settle(tx: Transaction, refund: Refund, *, is_failure: bool) -> None:
    """A failed refund's money is back with us, and the charge can be refunded again."""
    before = refund.status
    refund.pending_reason = None
    refund.status = "failed" if is_failure else "succeeded"
    if is_failure:
        refund.failure_reason = "lost_or_stolen_card"
        refund.failure_balance_transaction = new_id("txn")
        charge = tx.find(Charge, refund.charge)
        if charge is not None:
            charge.amount_refunded -= refund.amount
            charge.refunded = False
            tx.save(charge)
    tx.save(refund)
    events.record(tx, "refund.updated", refund, previous={"status": before})
    if is_failure:
        events.record(tx, "refund.failed", refund, previous={"status": before})
