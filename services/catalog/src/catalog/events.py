"""Events: made, changed, put on sale, cancelled. Every change is told with the event's whole state."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from contracts.messages import EventCancelled, EventCreated, EventPublished, EventUpdated, Tier
from libs.messaging import outbox
from libs.postgres import Conn, Pool, transaction
from libs.web.etags import require_match
from libs.web.idempotency import Attempt
from libs.web.problems import InvalidRequest, NotFound
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from catalog.cache import EventCache
from catalog.errors import EventIsCancelled, EventIsPublished, UnknownSections
from catalog.models import Event, EventRow, EventStatus, PriceTier
from catalog.organizers import require_organizer
from catalog.queries import events as queries
from catalog.queries import venues as venue_queries
from catalog.seat_maps import SeatMap, copy_changed_seats, copy_seats, seat_map_parts
from catalog.tiers import NewTier, checked_tiers

StateMessage = EventCreated | EventUpdated | EventPublished | EventCancelled

Name = Annotated[str, Meta(min_length=1, max_length=300, examples=["Opening night"])]
Description = Annotated[str, Meta(max_length=10_000, examples=["The first of three evenings"])]
Url = Annotated[str, Meta(max_length=2048, examples=["https://example.com/poster.jpg"])]
Date = Annotated[
    datetime,
    Meta(
        description="ISO 8601; without an offset it is UTC",
        examples=["2030-05-01T19:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
Tiers = Annotated[list[NewTier], Meta(max_length=100)]


class NewEvent(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """No tier: all seats are free."""

    name: Name
    venue_id: UUID
    start_date: Date
    end_date: Date
    organizer_id: UUID | None = None
    description: Description | None = None
    image_url: Url | None = None
    is_published: bool = False
    tiers: Tiers | None = None


class EventChange(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What is left out stays as it is; `tiers` replaces all of them. After publishing, neither the venue nor
    the currency may change, and prices apply to later holds.
    """

    name: Name | UnsetType = UNSET
    venue_id: UUID | UnsetType = UNSET
    start_date: Date | UnsetType = UNSET
    end_date: Date | UnsetType = UNSET
    organizer_id: UUID | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    image_url: Url | UnsetType | None = UNSET
    is_published: bool | UnsetType = UNSET
    tiers: Tiers | UnsetType = UNSET


@dataclass(frozen=True)
class Events:
    """The use cases that change events. Whoever reads after their return sees the change."""

    pool: Pool
    cache: EventCache

    async def create(self, new: NewEvent, *, attempt: Attempt) -> EventRow:
        """Raises `UnknownReference`, `InvalidRequest` or `UnknownSections`."""
        starts_at, ends_at = _utc(new.start_date, "/startDate"), _utc(new.end_date, "/endDate")
        _refuse_end_before_start(starts_at, ends_at)
        tiers = checked_tiers(new.tiers or [])
        event_id = attempt.id
        async with self._changing() as conn:
            if attempt.is_repeat and (made := await queries.find_event(conn, event_id)) is not None:
                return made
            await require_organizer(conn, new.organizer_id)
            seat_map = await copy_seats(conn, new.venue_id)
            await queries.insert_event(
                conn,
                event_id=event_id,
                organizer_id=new.organizer_id,
                venue_id=new.venue_id,
                name=new.name,
                description=new.description,
                image_url=new.image_url,
                starts_at=starts_at,
                ends_at=ends_at,
                status=EventStatus.PUBLISHED if new.is_published else EventStatus.DRAFT,
                currency=tiers[0].currency if tiers else None,
                seat_count=len(seat_map.seats),
                venue_seats_version=seat_map.venue_seats_version,
            )
            await queries.replace_tiers(conn, event_id, tiers)
            return await _tell(conn, event_id, kind=EventCreated, seat_map=seat_map)

    async def change(self, event_id: UUID, change: EventChange, *, if_match: str | None = None) -> EventRow:
        """`if_match` lists entity tags, one of which the event must have.

        Raises `NotFound`, `PreconditionFailed`, `EventIsCancelled`, `EventIsPublished`, and what `create`
        raises.
        """
        async with self._changing() as conn:
            before = await _lock_event(conn, event_id)
            require_match(if_match, Event.of(before))
            if before.status == EventStatus.CANCELLED:
                raise EventIsCancelled("A cancelled event cannot be changed.")
            after = _changed(before, change)
            if after == before:
                return before
            if after.organizer_id != before.organizer_id:
                await require_organizer(conn, after.organizer_id)
            kind = EventUpdated if after.status == before.status else EventPublished
            return await _store(conn, before, after, kind=kind)

    async def publish(self, event_id: UUID) -> EventRow:
        """Puts an event on sale, with the seats that its venue has now; done already, it does nothing.

        Raises `NotFound`, `EventIsCancelled` or `UnknownSections`.
        """
        async with self._changing() as conn:
            before = await _lock_event(conn, event_id)
            if before.status == EventStatus.PUBLISHED:
                return before
            if before.status == EventStatus.CANCELLED:
                raise EventIsCancelled("A cancelled event cannot be published.")
            after = replace(before, status=EventStatus.PUBLISHED)
            return await _store(conn, before, after, kind=EventPublished)

    async def cancel(self, event_id: UUID) -> EventRow:
        """Done already, it does nothing. Raises `NotFound`."""
        async with self._changing() as conn:
            before = await _lock_event(conn, event_id)
            if before.status == EventStatus.CANCELLED:
                return before
            after = replace(before, status=EventStatus.CANCELLED)
            return await _store(conn, before, after, kind=EventCancelled)

    @asynccontextmanager
    async def _changing(self) -> AsyncGenerator[Conn]:
        try:
            async with transaction(self.pool) as conn:
                yield conn
        finally:
            # Also after an error: a commit whose answer was lost may have happened.
            await self.cache.invalidate()


async def _lock_event(conn: Conn, event_id: UUID) -> EventRow:
    event = await queries.lock_event(conn, event_id)
    if event is None:
        raise NotFound("There is no such event.")
    return event


def _changed(before: EventRow, change: EventChange) -> EventRow:
    is_published = before.status == EventStatus.PUBLISHED
    if is_published and change.is_published is False:
        raise EventIsPublished("An event on sale cannot become a draft again; it can be cancelled.")
    if is_published and change.venue_id not in (UNSET, before.venue_id):
        raise EventIsPublished("The venue of an event on sale cannot change.")
    tiers, currency = before.tiers, before.currency
    if change.tiers is not UNSET:
        tiers = checked_tiers(change.tiers, known=before.tiers)
        currency = tiers[0].currency if tiers else before.currency if is_published else None
        if is_published and before.currency not in (None, currency):
            raise EventIsPublished("The currency of an event on sale cannot change.")
    starts_at = before.starts_at if change.start_date is UNSET else _utc(change.start_date, "/startDate")
    ends_at = before.ends_at if change.end_date is UNSET else _utc(change.end_date, "/endDate")
    _refuse_end_before_start(starts_at, ends_at)
    return replace(
        before,
        name=before.name if change.name is UNSET else change.name,
        venue_id=before.venue_id if change.venue_id is UNSET else change.venue_id,
        organizer_id=before.organizer_id if change.organizer_id is UNSET else change.organizer_id,
        description=before.description if change.description is UNSET else change.description,
        image_url=before.image_url if change.image_url is UNSET else change.image_url,
        starts_at=starts_at,
        ends_at=ends_at,
        status=EventStatus.PUBLISHED if change.is_published is True else before.status,
        currency=currency,
        tiers=tiers,
    )


async def _store(conn: Conn, before: EventRow, after: EventRow, *, kind: type[StateMessage]) -> EventRow:
    """Writes the changed event, with a new seat map where it needs one, and tells."""
    seat_map: SeatMap | None = None
    if after.venue_id != before.venue_id:
        seat_map = await copy_seats(conn, after.venue_id)
    elif after.status == EventStatus.PUBLISHED != before.status:
        seat_map = await copy_changed_seats(conn, after)
    if seat_map is not None:
        after = replace(
            after,
            seat_map_version=before.seat_map_version + 1,
            seat_count=len(seat_map.seats),
            venue_seats_version=seat_map.venue_seats_version,
        )
    if not await queries.update_event(conn, after):
        raise EventIsCancelled("A cancelled event cannot be changed.")
    if after.tiers != before.tiers:
        await queries.replace_tiers(conn, after.id, after.tiers)
    return await _tell(conn, after.id, kind=kind, seat_map=seat_map)


async def _tell(
    conn: Conn, event_id: UUID, *, kind: type[StateMessage], seat_map: SeatMap | None
) -> EventRow:
    """Publishes the state that the transaction leaves, and the seat map if it is a new one."""
    event = await _lock_event(conn, event_id)
    if event.status == EventStatus.PUBLISHED and event.seat_count:
        await _refuse_unknown_sections(conn, event.venue_id, event.tiers)
    parts = seat_map_parts(event.id, version=event.seat_map_version, seats=seat_map.seats) if seat_map else []
    await outbox.publish(conn, _state_message(kind, event), *parts)
    return event


def _state_message(kind: type[StateMessage], event: EventRow) -> StateMessage:
    return kind(
        event_id=event.id,
        version=event.version,
        organizer_id=event.organizer_id,
        venue_id=event.venue_id,
        name=event.name,
        starts_at=event.starts_at,
        ends_at=event.ends_at,
        status=event.status.value,
        currency=event.currency,
        tiers=[
            Tier(
                tier_id=tier.id,
                name=tier.name,
                tier=tier.tier.value,
                amount_minor=tier.amount_minor,
                sections=tier.sections,
            )
            for tier in event.tiers
        ],
        seat_map_version=event.seat_map_version,
        seat_count=event.seat_count,
    )


async def _refuse_unknown_sections(conn: Conn, venue_id: UUID, tiers: list[PriceTier]) -> None:
    # A misspelt section would put the seats of the right one on sale for nothing.
    sections = [section for tier in tiers for section in tier.sections]
    unknown = await venue_queries.list_sections_without_seats(conn, venue_id, sections)
    if unknown:
        raise UnknownSections(
            f"The venue has no seat in these sections: {', '.join(unknown[:10])}.", sections=unknown
        )


def _refuse_end_before_start(starts_at: datetime, ends_at: datetime) -> None:
    if ends_at < starts_at:
        raise InvalidRequest.at("/endDate", "the end is before the start")


def _utc(date: datetime, pointer: str) -> datetime:
    if date.tzinfo is None:
        return date.replace(tzinfo=UTC)
    try:
        return date.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest.at(pointer, "a date between the years 1 and 9999") from None
