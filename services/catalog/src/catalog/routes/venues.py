"""Organizers, venues and their seats."""

from typing import Annotated, Any
from uuid import UUID

from libs.web.access import admin, anyone
from libs.web.created import created
from libs.web.idempotency import Attempt
from libs.web.openapi import describe
from libs.web.paging import Cursor, Limit, page_response, query_limit
from libs.web.problems import NotFound
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from catalog.errors import SeatExists, SlugTaken, UnknownReference
from catalog.models import Organizer, Venue, VenueSeat
from catalog.organizers import create_organizer
from catalog.queries import venues as queries
from catalog.venues import NewSeat, add_seats, create_venue

# Anybody may keep it, and asks each time whether it is still so.
PUBLIC = {"Cache-Control": "public, no-cache"}
MAX_SEATS_IN_CALL = 20_000
MAX_SEATS_BODY_BYTES = 4 * 1_048_576


class NewOrganizer(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: Annotated[str, Meta(min_length=1, max_length=200, examples=["City Theatre"])]
    # `(?!\n)` because `$` takes a newline at the end.
    email: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=254,
            pattern=r"^[^\s\x00-\x1f\x7f@]{1,64}@[^\s\x00-\x1f\x7f@]+$(?!\n)",
            examples=["office@example.com"],
        ),
    ]
    slug: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)",
            examples=["city-theatre"],
        ),
    ]
    logo_url: Annotated[str, Meta(max_length=2048, examples=["https://example.com/logo.png"])] | None = None


class NewVenue(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: Annotated[str, Meta(min_length=1, max_length=200, examples=["Old Theatre"])]
    address: Annotated[str, Meta(max_length=300, examples=["1 Stage Street"])]
    city: Annotated[str, Meta(max_length=200, examples=["Hamburg"])]
    state: Annotated[str, Meta(max_length=200, examples=["HH"])]
    zip: Annotated[str, Meta(max_length=20, examples=["20095"])]
    country: Annotated[str, Meta(max_length=100, examples=["DE"])]
    description: Annotated[str, Meta(max_length=10_000, examples=["Two halls and a bar"])] | None = None
    organizer_id: UUID | None = None


class NewSeats(Struct, frozen=True, forbid_unknown_fields=True):
    seats: Annotated[list[NewSeat], Meta(min_length=1, max_length=MAX_SEATS_IN_CALL)]


class Count(Struct, frozen=True):
    count: Annotated[int, Meta(examples=[2])]


@post(
    "/organizers",
    guards=[admin],
    summary="Make an organizer",
    opt=describe(SlugTaken, links={"getOrganizer": "organizer_id"}),
)
async def post_organizer(
    data: JSONBody[NewOrganizer], attempt: NamedDependency[Attempt], state: State
) -> Response[Organizer]:
    """A slug that is taken is 409 `slug_taken`."""
    organizer = await create_organizer(
        state.pool,
        organizer_id=attempt.id,
        name=data.name,
        email=data.email,
        slug=data.slug,
        logo_url=data.logo_url,
    )
    return created(organizer, f"/organizers/{organizer.id}")


@get("/organizers", guards=[anyone], summary="Organizers, newest first", response_headers=PUBLIC)
async def get_organizers(
    request: Request[Any, Any, Any], state: State, limit: Limit = None, cursor: Cursor = None
) -> Response[list[Organizer]]:
    async with state.pool.connection() as conn:
        rows = await queries.list_organizers(conn, before=cursor, limit=query_limit(limit))
    return page_response(request, rows, limit=limit)


@get("/organizers/{organizer_id:str}", guards=[anyone], summary="An organizer", response_headers=PUBLIC)
async def get_organizer(organizer_id: FromPath[UUID], state: State) -> Organizer:
    async with state.pool.connection() as conn:
        organizer = await queries.find_organizer(conn, organizer_id)
    if organizer is None:
        raise NotFound("There is no such organizer.")
    return organizer


@post(
    "/venues",
    guards=[admin],
    summary="Make a venue",
    opt=describe(
        UnknownReference,
        links={"getVenue": "venue_id", "postVenueSeats": "venue_id", "postEvent": "/venueId"},
    ),
)
async def post_venue(
    data: JSONBody[NewVenue], attempt: NamedDependency[Attempt], state: State
) -> Response[Venue]:
    """It has no seats yet: `POST /venues/{venue_id}/seats`."""
    venue = await create_venue(
        state.pool,
        venue_id=attempt.id,
        organizer_id=data.organizer_id,
        name=data.name,
        address=data.address,
        city=data.city,
        state=data.state,
        zip_code=data.zip,
        country=data.country,
        description=data.description,
    )
    return created(venue, f"/venues/{venue.id}")


@get("/venues", guards=[anyone], summary="Venues, newest first", response_headers=PUBLIC)
async def get_venues(
    request: Request[Any, Any, Any], state: State, limit: Limit = None, cursor: Cursor = None
) -> Response[list[Venue]]:
    async with state.pool.connection() as conn:
        rows = await queries.list_venues(conn, before=cursor, limit=query_limit(limit))
    return page_response(request, rows, limit=limit)


@get("/venues/{venue_id:str}", guards=[anyone], summary="A venue", response_headers=PUBLIC)
async def get_venue(venue_id: FromPath[UUID], state: State) -> Venue:
    async with state.pool.connection() as conn:
        venue = await queries.find_venue(conn, venue_id)
    if venue is None:
        raise NotFound("There is no such venue.")
    return venue


@post(
    "/venues/{venue_id:str}/seats",
    guards=[admin],
    request_max_body_size=MAX_SEATS_BODY_BYTES,
    summary="Add seats to a venue",
    opt=describe(SeatExists),
)
async def post_venue_seats(
    venue_id: FromPath[UUID], data: JSONBody[NewSeats], attempt: NamedDependency[Attempt], state: State
) -> Response[Count]:
    """Adds all or none. A section + row + number that is there already, or twice in the call, is 409
    `seat_exists`; seats without row or number may repeat. Events on sale keep the seats they have.
    """
    count = await add_seats(state.pool, venue_id, call_id=attempt.id, seats=data.seats)
    return created(Count(count), f"/venues/{venue_id}/seats")


@get("/venues/{venue_id:str}/seats", guards=[anyone], summary="The seats of a venue", response_headers=PUBLIC)
async def get_venue_seats(
    request: Request[Any, Any, Any],
    venue_id: FromPath[UUID],
    state: State,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response[list[VenueSeat]]:
    """In the order in which they were added."""
    async with state.pool.connection() as conn:
        if await queries.find_venue(conn, venue_id) is None:
            raise NotFound("There is no such venue.")
        rows = await queries.list_seats(conn, venue_id, after=cursor, limit=query_limit(limit))
    return page_response(request, rows, limit=limit)


ORGANIZER_ROUTES = [post_organizer, get_organizers, get_organizer]
VENUE_ROUTES = [post_venue, get_venues, get_venue, post_venue_seats, get_venue_seats]
