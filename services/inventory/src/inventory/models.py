"""Statuses and rows. No I/O."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from msgspec import Struct

ReleaseReason = Literal["buyer", "order_cancelled", "order_expired", "order_refunded", "event_cancelled"]
LossReason = Literal["expired", "released", "event_cancelled", "unknown_hold"]
RejectionReason = Literal["seats_taken", "event_cancelled", "unknown_hold"]
VoidReason = Literal["refund_requested", "event_cancelled"]


class EventStatus(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    CANCELLED = "cancelled"


class SeatStatus(StrEnum):
    AVAILABLE = "available"
    RESERVED = "reserved"
    SOLD = "sold"


class HoldStatus(StrEnum):
    ACTIVE = "active"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"
    LOST = "lost"


class SaleStatus(StrEnum):
    PLACED = "placed"
    ISSUED = "issued"
    REJECTED = "rejected"
    VOIDED = "voided"


class TicketStatus(StrEnum):
    ISSUED = "issued"
    CHECKED_IN = "checked_in"
    VOID = "void"


class HeldSeat(Struct, frozen=True, rename="camel"):
    """A seat of a hold at the price of its placing; as stored in `holds.seats`."""

    seat_id: UUID
    section: str
    row: str | None
    seat_number: int | None
    tier_id: UUID | None
    amount_minor: int


class Hold(Struct, frozen=True):
    event_id: UUID
    hold_id: UUID
    user_id: UUID
    status: HoldStatus
    seat_ids: list[UUID]
    seats: list[HeldSeat]
    amount_minor: int
    currency: str
    placed_at: datetime
    expires_at: datetime
    order_id: UUID | None

    @property
    def id(self) -> UUID:
        return self.hold_id


class Ticket(Struct, frozen=True):
    event_id: UUID
    ticket_id: UUID
    order_id: UUID
    user_id: UUID
    seat_id: UUID
    section: str
    row_name: str | None
    seat_number: int | None
    status: TicketStatus
    issued_at: datetime
    checked_in_at: datetime | None

    @property
    def id(self) -> UUID:
        return self.ticket_id
