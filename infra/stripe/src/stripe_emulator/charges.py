"""Attempts to take money: one charge each, kept whether it succeeded or failed; and the disputes of some."""

from stripe_emulator import events
from stripe_emulator.cards import Card
from stripe_emulator.errors import no_such
from stripe_emulator.lists import Page, PageParams, list_page
from stripe_emulator.objects import Charge, Dispute, Json, PaymentIntent, new_id
from stripe_emulator.store import Transaction

EVIDENCE_SECONDS = 9 * 86_400


class ListCharges(PageParams, kw_only=True):
    payment_intent: str | None = None
    customer: str | None = None


def charge_card(tx: Transaction, intent: PaymentIntent, card: Card, *, capture: bool) -> Charge:
    """The intent's amount, captured at once or only authorised."""
    charge = new_charge(tx, intent, card, status="succeeded", outcome=APPROVED)
    charge.paid = True
    charge.captured = capture
    charge.amount_captured = intent.amount if capture else 0
    charge.balance_transaction = new_id("txn") if capture else None
    tx.save(charge)
    events.record(tx, "charge.succeeded", charge)
    return charge


def fail_charge(tx: Transaction, intent: PaymentIntent, card: Card) -> Charge:
    declined: Json = {
        "network_status": "declined_by_network",
        "reason": card.decline_code,
        "risk_level": "normal",
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }
    charge = new_charge(tx, intent, card, status="failed", outcome=declined)
    charge.failure_code = card.code
    charge.failure_message = card.message
    tx.save(charge)
    events.record(tx, "charge.failed", charge)
    return charge


APPROVED: Json = {
    "network_status": "approved_by_network",
    "reason": None,
    "risk_level": "normal",
    "seller_message": "Payment complete.",
    "type": "authorized",
}


def new_charge(tx: Transaction, intent: PaymentIntent, card: Card, *, status: str, outcome: Json) -> Charge:
    return Charge(
        id=new_id("ch"),
        amount=intent.amount,
        created=int(tx.now),
        currency=intent.currency,
        customer=intent.customer,
        description=intent.description,
        metadata=dict(intent.metadata),
        outcome=outcome,
        payment_intent=intent.id,
        payment_method=card.name,
        payment_method_details={"type": card.type, card.type: card.details()},
        receipt_email=intent.receipt_email,
        shipping=intent.shipping,
        statement_descriptor=intent.statement_descriptor,
        statement_descriptor_suffix=intent.statement_descriptor_suffix,
        status="succeeded" if status == "succeeded" else "failed",
        transfer_group=intent.transfer_group,
    )


def open_dispute(tx: Transaction, charge: Charge, *, reason: str) -> None:
    """The card's owner wants the whole charge back; it can no longer be refunded."""
    charge.disputed = True
    tx.save(charge)
    dispute = Dispute(
        id=new_id("du"),
        amount=charge.amount,
        charge=charge.id,
        created=int(tx.now),
        currency=charge.currency,
        evidence_details={
            "due_by": int(tx.now) + EVIDENCE_SECONDS,
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        payment_intent=charge.payment_intent,
        reason=reason,
    )
    tx.save(dispute)
    events.record(tx, "charge.dispute.created", dispute)


def retrieve(tx: Transaction, charge_id: str) -> Charge:
    charge = tx.find(Charge, charge_id)
    if charge is None:
        raise no_such("charge", charge_id, param="id")
    return charge


def list_charges(tx: Transaction, params: ListCharges) -> Page:
    return list_page(tx, params, url="/v1/charges", kind="Charge", payment_intent=params.payment_intent)


def retrieve_dispute(tx: Transaction, dispute_id: str) -> Dispute:
    dispute = tx.find(Dispute, dispute_id)
    if dispute is None:
        raise no_such("dispute", dispute_id, param="id")
    return dispute


def list_disputes(tx: Transaction, params: ListCharges) -> Page:
    return list_page(tx, params, url="/v1/disputes", kind="Dispute", payment_intent=params.payment_intent)
