"""Statuses, rows, and what of them is answered."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from libs.web.fields import AmountMinor, Currency, EmailAddress, Row, SeatNumber, Section, Time
from msgspec import Meta, Struct


class EventStatus(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    CANCELLED = "cancelled"


class TierKind(StrEnum):
    STANDARD = "standard"
    PREMIUM = "premium"
    VIP = "vip"
    EARLY_ACCESS = "early_access"


class Organizer(Struct, frozen=True, rename="camel"):
    id: UUID
    name: Annotated[str, Meta(examples=["City Theatre"])]
    email: EmailAddress
    slug: Annotated[str, Meta(examples=["city-theatre"])]
    logo_url: Annotated[str, Meta(examples=["https://example.com/logo.png"])] | None
    created_at: Time
    updated_at: Time


class Venue(Struct, frozen=True, rename="camel"):
    id: UUID
    organizer_id: UUID | None
    name: Annotated[str, Meta(examples=["Old Theatre"])]
    address: Annotated[str, Meta(examples=["1 Stage Street"])]
    city: Annotated[str, Meta(examples=["Hamburg"])]
    state: Annotated[str, Meta(examples=["HH"])]
    zip: Annotated[str, Meta(examples=["20095"])]
    country: Annotated[str, Meta(examples=["DE"])]
    description: Annotated[str, Meta(examples=["Two halls and a bar"])] | None
    created_at: Time
    updated_at: Time


class VenueSeat(Struct, frozen=True, rename="camel"):
    """`row` and `seatNumber` are null where seats are not numbered."""

    id: UUID
    section: Section
    row: Row | None
    seat_number: SeatNumber | None


class PriceTier(Struct, frozen=True, rename="camel"):
    """What the seats of some sections cost, in the currency's minor unit."""

    id: UUID
    name: Annotated[str, Meta(examples=["Stalls"])]
    tier: TierKind
    amount_minor: AmountMinor
    currency: Currency
    sections: list[Section]


class EventRow(Struct, frozen=True, kw_only=True):
    """An event with its tiers; `Event` is what is answered of it."""

    id: UUID
    organizer_id: UUID | None
    venue_id: UUID
    name: str
    description: str | None
    image_url: str | None
    starts_at: datetime
    ends_at: datetime
    status: EventStatus
    currency: str | None
    version: int
    seat_map_version: int
    seat_count: int
    venue_seats_version: int
    published_at: datetime | None
    created_at: datetime
    updated_at: datetime
    tiers: list[PriceTier]

    @property
    def is_public(self) -> bool:
        """On sale, or cancelled after it was."""
        return self.published_at is not None


class Event(Struct, frozen=True, kw_only=True, rename="camel"):
    id: UUID
    organizer_id: UUID | None
    venue_id: UUID
    name: Annotated[str, Meta(examples=["Opening night"])]
    description: Annotated[str, Meta(examples=["The first of three evenings"])] | None
    image_url: Annotated[str, Meta(examples=["https://example.com/poster.jpg"])] | None
    start_date: Time
    end_date: Time
    status: EventStatus
    is_published: bool
    created_at: Time
    updated_at: Time
    tiers: list[PriceTier]

    @classmethod
    def of(cls, row: EventRow) -> "Event":
        return cls(
            id=row.id,
            organizer_id=row.organizer_id,
            venue_id=row.venue_id,
            name=row.name,
            description=row.description,
            image_url=row.image_url,
            start_date=row.starts_at,
            end_date=row.ends_at,
            status=row.status,
            is_published=row.status == EventStatus.PUBLISHED,
            created_at=row.created_at,
            updated_at=row.updated_at,
            tiers=row.tiers,
        )
