"""Statuses and rows. No I/O."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

CancelReason = Literal["buyer", "hold_ended", "expired"]
RefundReason = Literal["admin", "dashboard", "wrong_amount", "sale_rejected", "tickets_voided"]


class HoldStatus(StrEnum):
    ACTIVE = "active"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"
    LOST = "lost"


class OrderStatus(StrEnum):
    PENDING = "pending"
    PAID = "paid"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUNDING = "refunding"
    REFUNDED = "refunded"


UNPAID = (OrderStatus.PENDING, OrderStatus.CANCELLED, OrderStatus.EXPIRED)
PAID = (OrderStatus.PAID, OrderStatus.FULFILLED)
REFUND = (OrderStatus.REFUNDING, OrderStatus.REFUNDED)


class JobKind(StrEnum):
    CANCEL_INTENT = "cancel_intent"
    INSPECT = "inspect"
    REFUND = "refund"
    RECONCILE = "reconcile"


class Hold(Struct, frozen=True):
    """What checkout has to know of a hold."""

    id: UUID
    user_id: UUID
    order_id: UUID | None


class Order(Struct, frozen=True):
    """A row of `orders`. `seats` is the JSON of inventory's held seats (`seatId`, `section`, ...)."""

    id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    status: OrderStatus
    amount_minor: int
    currency: str
    email: str | None
    seats: list[dict[str, Any]]
    created_at: datetime
    expires_at: datetime
    payment_intent_id: str | None
    client_secret: str | None
    intent_attempt: int
    refund_reason: RefundReason | None
    refund_cleared_at: datetime | None


class Payment(Struct, frozen=True):
    """A capture: `refunded_minor` and `returning_minor` are what went back and what is on its way."""

    payment_intent_id: str
    order_id: UUID
    amount_minor: int
    currency: str
    refund_attempt: int
    refunded_minor: int
    returning_minor: int

    @property
    def left_minor(self) -> int:
        """What could still be given back."""
        return self.amount_minor - self.refunded_minor - self.returning_minor


class Job(Struct, frozen=True):
    """A job claimed by this worker; `attempts` counts claims and so tells whether the claim still holds."""

    id: UUID
    kind: JobKind
    order_id: UUID
    payment_intent_id: str
    reason: CancelReason | None
    asked: int
    attempts: int
    age_seconds: float
    traceparent: str | None


class IntentState(Struct, frozen=True):
    """A PaymentIntent as Stripe has it. `amount_minor` is what was captured; `order_id` is our metadata."""

    id: str
    client_secret: str
    status: str
    amount_minor: int
    currency: str
    order_id: str | None


class RefundState(Struct, frozen=True):
    """A refund as Stripe has it: pending, requires_action, succeeded, failed or canceled."""

    id: str
    status: str
    amount_minor: int
    currency: str

    @property
    def is_failed(self) -> bool:
        return self.status in ("failed", "canceled")
