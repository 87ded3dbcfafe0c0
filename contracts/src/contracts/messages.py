"""Generated from contracts/ by `make contracts`. Do not edit."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from msgspec import Meta, Struct

Timestamp = Annotated[datetime, Meta(tz=True)]


class UserRegistered(Struct, frozen=True, kw_only=True, rename="camel"):
    """user.registered v1: A user account was made."""

    TYPE: ClassVar[str] = "user.registered"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "auth.users"
    KEY: ClassVar[str] = "user_id"

    user_id: UUID
    role: Literal["user", "admin", "scanner"]
    registered_at: Timestamp


class UserDisabled(Struct, frozen=True, kw_only=True, rename="camel"):
    """user.disabled v1: A user may no longer log in; tokens issued before are refused."""

    TYPE: ClassVar[str] = "user.disabled"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "auth.users"
    KEY: ClassVar[str] = "user_id"

    user_id: UUID
    disabled_at: Timestamp


class UserTokensRevoked(Struct, frozen=True, kw_only=True, rename="camel"):
    """user.tokens_revoked v1: Tokens of this user issued before a moment are refused."""

    TYPE: ClassVar[str] = "user.tokens_revoked"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "auth.users"
    KEY: ClassVar[str] = "user_id"

    user_id: UUID
    not_before: Timestamp


class Tier(Struct, frozen=True, kw_only=True, rename="camel"):
    tier_id: UUID
    name: str
    tier: Literal["standard", "premium", "vip", "early_access"]
    amount_minor: Annotated[int, Meta(ge=0)]
    sections: list[str]


class EventCreated(Struct, frozen=True, kw_only=True, rename="camel"):
    """event.created v1: An event was made, as a draft or already published."""

    TYPE: ClassVar[str] = "event.created"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "catalog.events"
    KEY: ClassVar[str] = "event_id"

    event_id: UUID
    version: Annotated[int, Meta(ge=1)]
    organizer_id: UUID | None
    venue_id: UUID
    name: str
    starts_at: Timestamp
    ends_at: Timestamp
    status: Literal["draft", "published", "cancelled"]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")] | None
    tiers: list[Tier]
    seat_map_version: Annotated[int, Meta(ge=1)]
    seat_count: Annotated[int, Meta(ge=0)]


class EventUpdated(Struct, frozen=True, kw_only=True, rename="camel"):
    """event.updated v1: An event changed; prices of later holds may differ."""

    TYPE: ClassVar[str] = "event.updated"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "catalog.events"
    KEY: ClassVar[str] = "event_id"

    event_id: UUID
    version: Annotated[int, Meta(ge=1)]
    organizer_id: UUID | None
    venue_id: UUID
    name: str
    starts_at: Timestamp
    ends_at: Timestamp
    status: Literal["draft", "published", "cancelled"]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")] | None
    tiers: list[Tier]
    seat_map_version: Annotated[int, Meta(ge=1)]
    seat_count: Annotated[int, Meta(ge=0)]


class EventPublished(Struct, frozen=True, kw_only=True, rename="camel"):
    """event.published v1: An event is on sale; its seat map is frozen."""

    TYPE: ClassVar[str] = "event.published"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "catalog.events"
    KEY: ClassVar[str] = "event_id"

    event_id: UUID
    version: Annotated[int, Meta(ge=1)]
    organizer_id: UUID | None
    venue_id: UUID
    name: str
    starts_at: Timestamp
    ends_at: Timestamp
    status: Literal["draft", "published", "cancelled"]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")] | None
    tiers: list[Tier]
    seat_map_version: Annotated[int, Meta(ge=1)]
    seat_count: Annotated[int, Meta(ge=0)]


class EventCancelled(Struct, frozen=True, kw_only=True, rename="camel"):
    """event.cancelled v1: An event will not take place: holds end, tickets are voided, orders refunded."""

    TYPE: ClassVar[str] = "event.cancelled"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "catalog.events"
    KEY: ClassVar[str] = "event_id"

    event_id: UUID
    version: Annotated[int, Meta(ge=1)]
    organizer_id: UUID | None
    venue_id: UUID
    name: str
    starts_at: Timestamp
    ends_at: Timestamp
    status: Literal["draft", "published", "cancelled"]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")] | None
    tiers: list[Tier]
    seat_map_version: Annotated[int, Meta(ge=1)]
    seat_count: Annotated[int, Meta(ge=0)]


class MapSeat(Struct, frozen=True, kw_only=True, rename="camel"):
    seat_id: UUID
    section: str
    row: str | None
    seat_number: int | None


class SeatMapPart(Struct, frozen=True, kw_only=True, rename="camel"):
    """seat-map.part v1: Up to 1,000 seats of one version of an event's seat map."""

    TYPE: ClassVar[str] = "seat-map.part"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "catalog.seat-maps"
    KEY: ClassVar[str] = "event_id"

    event_id: UUID
    version: Annotated[int, Meta(ge=1)]
    part: Annotated[int, Meta(ge=1)]
    parts: Annotated[int, Meta(ge=1)]
    seats: Annotated[list[MapSeat], Meta(max_length=1000)]


class HeldSeat(Struct, frozen=True, kw_only=True, rename="camel"):
    seat_id: UUID
    section: str
    row: str | None
    seat_number: int | None
    tier_id: UUID | None
    amount_minor: Annotated[int, Meta(ge=0)]


class HoldPlaced(Struct, frozen=True, kw_only=True, rename="camel"):
    """hold.placed v1: Seats are held for a buyer until a deadline, at the price of that moment."""

    TYPE: ClassVar[str] = "hold.placed"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.holds"
    KEY: ClassVar[str] = "hold_id"

    hold_id: UUID
    event_id: UUID
    user_id: UUID
    seats: list[HeldSeat]
    amount_minor: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")]
    placed_at: Timestamp
    expires_at: Timestamp


class HoldExtended(Struct, frozen=True, kw_only=True, rename="camel"):
    """hold.extended v1: The hold lives until its order's payment deadline and the grace after it."""

    TYPE: ClassVar[str] = "hold.extended"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.holds"
    KEY: ClassVar[str] = "hold_id"

    hold_id: UUID
    event_id: UUID
    user_id: UUID
    order_id: UUID
    expires_at: Timestamp


class HoldLost(Struct, frozen=True, kw_only=True, rename="camel"):
    """hold.lost v1: The hold of a placed order is gone: the order cannot be fulfilled."""

    TYPE: ClassVar[str] = "hold.lost"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.holds"
    KEY: ClassVar[str] = "hold_id"

    hold_id: UUID
    event_id: UUID
    user_id: UUID
    order_id: UUID
    reason: Literal["expired", "released", "event_cancelled", "unknown_hold"]


class HoldReleased(Struct, frozen=True, kw_only=True, rename="camel"):
    """hold.released v1: The hold ended before its deadline and its seats are free."""

    TYPE: ClassVar[str] = "hold.released"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.holds"
    KEY: ClassVar[str] = "hold_id"

    hold_id: UUID
    event_id: UUID
    user_id: UUID
    reason: Literal["buyer", "order_cancelled", "order_expired", "order_refunded", "event_cancelled"]


class HoldExpired(Struct, frozen=True, kw_only=True, rename="camel"):
    """hold.expired v1: The hold's deadline passed and its seats are free."""

    TYPE: ClassVar[str] = "hold.expired"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.holds"
    KEY: ClassVar[str] = "hold_id"

    hold_id: UUID
    event_id: UUID
    user_id: UUID
    expired_at: Timestamp


class HoldConfirmed(Struct, frozen=True, kw_only=True, rename="camel"):
    """hold.confirmed v1: The hold's seats are sold to its order."""

    TYPE: ClassVar[str] = "hold.confirmed"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.holds"
    KEY: ClassVar[str] = "hold_id"

    hold_id: UUID
    event_id: UUID
    user_id: UUID
    order_id: UUID


class IssuedTicket(Struct, frozen=True, kw_only=True, rename="camel"):
    ticket_id: UUID
    seat_id: UUID


class TicketsIssued(Struct, frozen=True, kw_only=True, rename="camel"):
    """tickets.issued v1: Every seat of a paid order is sold and has its ticket."""

    TYPE: ClassVar[str] = "tickets.issued"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.tickets"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    tickets: list[IssuedTicket]
    issued_at: Timestamp


class SaleRejected(Struct, frozen=True, kw_only=True, rename="camel"):
    """sale.rejected v1: A paid order cannot have its seats: its money goes back."""

    TYPE: ClassVar[str] = "sale.rejected"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.tickets"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    reason: Literal["seats_taken", "event_cancelled", "unknown_hold"]


class TicketsVoided(Struct, frozen=True, kw_only=True, rename="camel"):
    """tickets.voided v1: No ticket of the order is valid any more and its seats are free."""

    TYPE: ClassVar[str] = "tickets.voided"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.tickets"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    event_id: UUID
    reason: Literal["refund_requested", "event_cancelled"]
    ticket_ids: list[UUID]


class VoidRefused(Struct, frozen=True, kw_only=True, rename="camel"):
    """void.refused v1: A ticket of the order was already used: the order stays as it is."""

    TYPE: ClassVar[str] = "void.refused"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "inventory.tickets"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    event_id: UUID
    reason: Literal["checked_in"]


class OrderPlaced(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.placed v1: A buyer checked out a hold; the hold must last until the payment deadline."""

    TYPE: ClassVar[str] = "order.placed"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    amount_minor: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")]
    placed_at: Timestamp
    expires_at: Timestamp


class OrderPaid(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.paid v1: The order's money is captured (or nothing was to pay): its seats can be sold."""

    TYPE: ClassVar[str] = "order.paid"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    amount_minor: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")]
    paid_at: Timestamp


class OrderCancelled(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.cancelled v1: The order ended unpaid and cannot be paid any more."""

    TYPE: ClassVar[str] = "order.cancelled"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    reason: Literal["buyer", "hold_ended"]


class OrderExpired(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.expired v1: The order was not paid by its deadline and cannot be paid any more."""

    TYPE: ClassVar[str] = "order.expired"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID


class OrderRefundRequested(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.refund_requested v1: The order's money is to go back: its tickets must be voided first."""

    TYPE: ClassVar[str] = "order.refund_requested"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    reason: Literal["admin", "wrong_amount", "dashboard"]


class OrderFulfilled(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.fulfilled v1: The order is paid and its tickets are issued."""

    TYPE: ClassVar[str] = "order.fulfilled"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID


class OrderRefunded(Struct, frozen=True, kw_only=True, rename="camel"):
    """order.refunded v1: The order's money went back."""

    TYPE: ClassVar[str] = "order.refunded"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payments.orders"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    hold_id: UUID
    event_id: UUID
    user_id: UUID
    amount_minor: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")]
    refunded_at: Timestamp


class PaymentSucceeded(Struct, frozen=True, kw_only=True, rename="camel"):
    """payment.succeeded v1: Stripe captured a payment."""

    TYPE: ClassVar[str] = "payment.succeeded"
    VERSION: ClassVar[int] = 1
    TOPIC: ClassVar[str] = "payment.succeeded"
    KEY: ClassVar[str] = "order_id"

    order_id: UUID
    payment_intent_id: str
    amount_minor: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern="^[a-z]{3}$")]
    stripe_event_id: str | None


Message = UserRegistered | UserDisabled | UserTokensRevoked | EventCreated | EventUpdated | EventPublished | EventCancelled | SeatMapPart | HoldPlaced | HoldExtended | HoldLost | HoldReleased | HoldExpired | HoldConfirmed | TicketsIssued | SaleRejected | TicketsVoided | VoidRefused | OrderPlaced | OrderPaid | OrderCancelled | OrderExpired | OrderRefundRequested | OrderFulfilled | OrderRefunded | PaymentSucceeded

MESSAGE_TYPES: dict[tuple[str, int], type[Message]] = {
    ("user.registered", 1): UserRegistered,
    ("user.disabled", 1): UserDisabled,
    ("user.tokens_revoked", 1): UserTokensRevoked,
    ("event.created", 1): EventCreated,
    ("event.updated", 1): EventUpdated,
    ("event.published", 1): EventPublished,
    ("event.cancelled", 1): EventCancelled,
    ("seat-map.part", 1): SeatMapPart,
    ("hold.placed", 1): HoldPlaced,
    ("hold.extended", 1): HoldExtended,
    ("hold.lost", 1): HoldLost,
    ("hold.released", 1): HoldReleased,
    ("hold.expired", 1): HoldExpired,
    ("hold.confirmed", 1): HoldConfirmed,
    ("tickets.issued", 1): TicketsIssued,
    ("sale.rejected", 1): SaleRejected,
    ("tickets.voided", 1): TicketsVoided,
    ("void.refused", 1): VoidRefused,
    ("order.placed", 1): OrderPlaced,
    ("order.paid", 1): OrderPaid,
    ("order.cancelled", 1): OrderCancelled,
    ("order.expired", 1): OrderExpired,
    ("order.refund_requested", 1): OrderRefundRequested,
    ("order.fulfilled", 1): OrderFulfilled,
    ("order.refunded", 1): OrderRefunded,
    ("payment.succeeded", 1): PaymentSucceeded,
}
