"""Checks of the books against Stripe's record: each captured cent bought a ticket or went back."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from audit.books import Books, Order
from audit.findings import Check, Finding
from audit.stripe_record import Intent, StripeRecord, StripeRefund

PAYMENT_KNOWN_HERE = Check(
    "payment-unknown-here",
    "what Stripe captured for an order is in our books",
    "somebody paid and we do not know it: no ticket, no refund",
    settles=True,
)
PAYMENT_KNOWN_THERE = Check(
    "payment-unknown-to-stripe",
    "what our books say was paid, Stripe has captured",
    "tickets were given for money that does not exist",
)
SAME_AMOUNT = Check(
    "payment-amount",
    "captured, recorded and ordered amounts are the same",
    "somebody paid more or less than the order says",
)
KEPT_FOR_TICKETS = Check(
    "payment-without-ticket",
    "money is kept exactly for orders that are fulfilled",
    "somebody paid without getting tickets or the money back, paid twice, or got both",
    settles=True,
)
ONE_REFUND = Check(
    "refund-twice",
    "a payment is refunded once",
    "we gave back more than we should",
)
SAME_REFUNDS = Check(
    "refund-differs",
    "Stripe's refunds are ours",
    "a refund is not in our books, or our books tell of one that is not so at Stripe",
    settles=True,
)
ORDER_MOVES = Check(
    "order-late",
    "no order waits longer than it should",
    "a buyer waits for tickets, for money, or for seats to become free",
    settles=True,
)
SUMS = Check(
    "sums",
    "per currency: captured - refunded = what valid tickets cost",
    "cents are missing or too many, even where no single order shows it",
    settles=True,
)
CHECKS = (
    PAYMENT_KNOWN_HERE,
    PAYMENT_KNOWN_THERE,
    SAME_AMOUNT,
    KEPT_FOR_TICKETS,
    ONE_REFUND,
    SAME_REFUNDS,
    ORDER_MOVES,
    SUMS,
)

AT_REST = ("fulfilled", "cancelled", "expired", "refunded")


class Sum(NamedTuple):
    """Minor units of one currency."""

    currency: str
    captured: int
    refunded: int
    tickets: int
    partly_refunded: int
    """Went back for orders that keep their tickets: made in Stripe's dashboard."""
    in_flight: int
    """Of orders that are not at rest."""
    unexplained: int


class Money(NamedTuple):
    findings: list[Finding]
    sums: list[Sum]
    not_ours: int
    """Payments that name no order, or one too old to be looked at."""


def compare_money(books: Books, stripe: StripeRecord) -> Money:
    return _Comparison(books, stripe).all()


class _Comparison:
    def __init__(self, books: Books, stripe: StripeRecord) -> None:
        self.books = books
        self.stripe = stripe
        self.charged_at: dict[str, datetime] = {}
        self.charged: dict[str, int] = defaultdict(int)
        for charge in stripe.charges:
            if charge.payment_intent_id:
                self.charged_at[charge.payment_intent_id] = charge.created_at
                self.charged[charge.payment_intent_id] += charge.captured_minor
        self.refunds: dict[str, list[StripeRefund]] = defaultdict(list)
        for refund in stripe.refunds.values():
            self.refunds[refund.payment_intent_id or ""].append(refund)
        # An intent is an order's if our books say so; else if it says so itself.
        self.captured: dict[str, list[Intent]] = defaultdict(list)
        for intent in stripe.intents.values():
            if intent.status == "succeeded" and (order_id := self.order_of(intent)):
                self.captured[order_id].append(intent)

    def order_of(self, intent: Intent) -> str | None:
        """None when it is no order's, or that of one too old to be looked at."""
        if payment := self.books.payments.get(intent.id):
            return payment.order_id
        is_old = self.books.after is not None and intent.created_at < self.books.after
        return intent.order_id if not is_old or intent.order_id in self.books.orders else None

    def all(self) -> Money:
        findings = [
            *self.unknown_here(),
            *self.unknown_there(),
            *self.amounts(),
            *self.kept(),
            *self.refunds_once(),
            *self.refunds_differ(),
            *self.late_orders(),
        ]
        sums, moved_at = self.sums()
        for each in sums:
            if each.unexplained:
                id_ = f"{each.currency} {each.unexplained}"
                text = "minor units too many (or, negative, missing)"
                findings.append(Finding(SUMS, id_, text, moved_at[each.currency]))
        not_ours = sum(self.order_of(intent) is None for intent in self.stripe.intents.values())
        return Money(findings, sums, not_ours)

    def unknown_here(self) -> Iterator[Finding]:
        for order_id, intents in self.captured.items():
            for intent in intents:
                if intent.id in self.books.payments:
                    continue
                order = self.books.orders.get(order_id)
                text = f"{intent.received_minor} {intent.currency} captured for order {order_id}, " + (
                    f"which is {order.status}" if order else "which is not there"
                )
                yield Finding(PAYMENT_KNOWN_HERE, intent.id, text, self.charged_at.get(intent.id))

    def unknown_there(self) -> Iterator[Finding]:
        for payment in self.books.payments.values():
            intent = self.stripe.intents.get(payment.payment_intent_id)
            if intent is None or intent.status != "succeeded":
                status = intent.status if intent else "unknown"
                text = f"payment of order {payment.order_id} is {status} at Stripe"
                yield Finding(PAYMENT_KNOWN_THERE, payment.payment_intent_id, text)
        recorded = {payment.order_id for payment in self.books.payments.values()}
        for order in self.books.orders.values():
            if order.status in ("paid", "fulfilled") and order.amount_minor and order.id not in recorded:
                yield Finding(PAYMENT_KNOWN_THERE, order.id, f"{order.status} without a recorded payment")

    def amounts(self) -> Iterator[Finding]:
        for payment in self.books.payments.values():
            intent = self.stripe.intents.get(payment.payment_intent_id)
            recorded = (payment.amount_minor, payment.currency)
            if (
                intent
                and intent.status == "succeeded"
                and recorded != (intent.received_minor, intent.currency)
            ):
                text = f"recorded as {_text(recorded)}, captured {intent.received_minor} {intent.currency}"
                yield Finding(SAME_AMOUNT, payment.payment_intent_id, text)
            order = self.books.orders.get(payment.order_id)
            if (
                order
                and order.payment_intent_id == payment.payment_intent_id
                and order.status in ("paid", "fulfilled")
                and recorded != (order.amount_minor, order.currency)
            ):
                text = f"paid {_text(recorded)}, the order is of {order.amount_minor} {order.currency}"
                yield Finding(SAME_AMOUNT, order.id, text)
        for intent in self.stripe.intents.values():
            charged = self.charged.get(intent.id)
            if intent.status == "succeeded" and charged is not None and charged != intent.received_minor:
                yield Finding(SAME_AMOUNT, intent.id, f"received {intent.received_minor}, charged {charged}")

    def kept_of(self, order_id: str) -> int:
        return sum(
            intent.received_minor - self.returned(intent.id) for intent in self.captured.get(order_id, ())
        )

    def returned(self, intent_id: str) -> int:
        """What went back or is on its way."""
        return sum(refund.amount_minor for refund in self.refunds[intent_id] if not refund.is_failed)

    def kept(self) -> Iterator[Finding]:
        for order_id in self.captured:
            order = self.books.orders.get(order_id)
            if order is None or order.status not in AT_REST:
                continue  # unknown: said above; on its way: `late_orders`
            kept = self.kept_of(order_id)
            if order.status != "fulfilled":
                if kept:
                    yield Finding(
                        KEPT_FOR_TICKETS,
                        order_id,
                        f"{order.status}, and {kept} {order.currency} of its payment are kept",
                        self.latest(order),
                    )
            elif kept > order.amount_minor:
                text = f"fulfilled, paid {kept} {order.currency} in place of {order.amount_minor}"
                yield Finding(KEPT_FOR_TICKETS, order_id, text, self.latest(order))
            elif not kept and order.amount_minor:
                text = f"fulfilled, though its {order.amount_minor} {order.currency} went back"
                yield Finding(KEPT_FOR_TICKETS, order_id, text, self.latest(order))

    def latest(self, order: Order) -> datetime:
        """When anything happened to the order's money or to its end."""
        moments = [order.created_at, order.paid_at, order.ended_at, order.refunded_at]
        moments += [self.moved_at(intent) for intent in self.captured.get(order.id, ())]
        return max(moment for moment in moments if moment)

    def moved_at(self, intent: Intent) -> datetime:
        """When its money last came or went."""
        charged_at = self.charged_at.get(intent.id, intent.created_at)
        return max([charged_at, *(refund.created_at for refund in self.refunds[intent.id])])

    def refunds_once(self) -> Iterator[Finding]:
        for intent_id, refunds in self.refunds.items():
            intent = self.stripe.intents.get(intent_id)
            if intent is None or self.order_of(intent) is None:
                continue
            alive = [refund for refund in refunds if not refund.is_failed]
            ours = [refund.id for refund in alive if refund.order_id]
            total = sum(refund.amount_minor for refund in alive)
            if total > intent.received_minor:
                yield Finding(ONE_REFUND, intent_id, f"{total} of {intent.received_minor} went back")
            elif len(ours) > 1:
                yield Finding(ONE_REFUND, intent_id, f"{len(ours)} refunds of ours: {', '.join(ours)}")
        recorded: dict[str, int] = defaultdict(int)
        for refund in self.books.refunds.values():
            if refund.status not in ("failed", "canceled"):
                recorded[refund.payment_intent_id] += refund.amount_minor
        for intent_id, total in recorded.items():
            payment = self.books.payments.get(intent_id)
            if payment and total > payment.amount_minor:
                yield Finding(
                    ONE_REFUND, intent_id, f"our books: {total} of {payment.amount_minor} went back"
                )

    def refunds_differ(self) -> Iterator[Finding]:
        for refund in self.books.refunds.values():
            real = self.stripe.refunds.get(refund.refund_id)
            if real is None:
                yield Finding(SAME_REFUNDS, refund.refund_id, f"{refund.status} here, unknown at Stripe")
            elif (refund.amount_minor, refund.currency) != (real.amount_minor, real.currency):
                there = _text((real.amount_minor, real.currency))
                text = f"{refund.amount_minor} {refund.currency} here, {there} at Stripe"
                yield Finding(SAME_REFUNDS, refund.refund_id, text)
            elif refund.status != real.status:
                yield Finding(
                    SAME_REFUNDS, refund.refund_id, f"{refund.status} here, {real.status} at Stripe"
                )
        for real in self.stripe.refunds.values():
            if real.payment_intent_id in self.books.payments and real.id not in self.books.refunds:
                yield Finding(
                    SAME_REFUNDS, real.id, f"{real.status} at Stripe, unknown here", real.created_at
                )

    def late_orders(self) -> Iterator[Finding]:
        for order in self.books.orders.values():
            intent = self.stripe.intents.get(order.payment_intent_id or "")
            if order.status == "pending" and not (intent and intent.status == "processing"):
                if order.expires_at < self.books.at:
                    text = f"pending past its deadline, {intent.status if intent else 'no payment'} at Stripe"
                    yield Finding(ORDER_MOVES, order.id, text, order.expires_at)
            elif order.status == "paid":
                yield Finding(
                    ORDER_MOVES, order.id, "paid, and neither tickets nor a refusal came", order.paid_at
                )
            elif order.status == "refunding" and not any(
                refund.status in ("pending", "requires_action")
                for refund in self.refunds[order.payment_intent_id or ""]
            ):
                yield Finding(
                    ORDER_MOVES, order.id, "refunding, and the money is not back", order.refunding_at
                )

    def sums(self) -> tuple[list[Sum], dict[str, datetime]]:
        """All of Stripe's money that names our orders, and all that inventory's valid tickets cost.

        And by currency, when anything of what is not explained moved last.
        """
        totals: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(Sum._fields[1:], 0))
        moved_at: dict[str, datetime] = defaultdict(lambda: datetime.fromtimestamp(0, UTC))

        def wonder(currency: str, amount_minor: int, moment: datetime) -> None:
            if amount_minor:
                totals[currency]["unexplained"] += amount_minor
                moved_at[currency] = max(moved_at[currency], moment)

        for order_id, intents in self.captured.items():
            for intent in intents:
                total = totals[intent.currency]
                total["captured"] += self.charged.get(intent.id, intent.received_minor)
                total["refunded"] += self.returned(intent.id)
                if order_id not in self.books.orders:
                    kept = intent.received_minor - self.returned(intent.id)
                    wonder(intent.currency, kept, self.moved_at(intent))
        for order in self.books.orders.values():
            total, kept = totals[order.currency], self.kept_of(order.id)
            total["tickets"] += order.tickets_worth
            if order.status not in AT_REST:
                total["in_flight"] += kept - order.tickets_worth
            elif 0 < kept < order.tickets_worth == order.amount_minor:
                total["partly_refunded"] += order.tickets_worth - kept
            else:
                wonder(order.currency, kept - order.tickets_worth, self.latest(order))
        sums = [Sum(currency, **total) for currency, total in sorted(totals.items()) if any(total.values())]
        return sums, moved_at


def _text(amount: tuple[int, str]) -> str:
    return f"{amount[0]} {amount[1]}"
