"""Organizers, venues and their seats."""

from typing import Annotated, Any
from uuid import UUID

from libs.web.access import admin, anyone
from libs.web.paging import Cursor, Limit, page_response, query_limit
from libs.web.problems import NotFound
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from catalog.models import Organizer, Venue, VenueSeat
from catalog.organizers import create_organizer
from catalog.queries import venues as queries
from catalog.venues import NewSeat, add_seats, create_venue

TOKEN = [{"token": list[str]()}]
MAX_SEATS_IN_CALL = 20_000
MAX_SEATS_BODY_BYTES = 4 * 1_048_576

Line = Annotated[str, Meta(min_length=1, max_length=200)]


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
    logo_url: Annotated[str, Meta(max_length=2048)] | None = None


class NewVenue(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: Line
    address: Annotated[str, Meta(max_length=300)]
    city: Annotated[str, Meta(max_length=200)]
    state: Annotated[str, Meta(max_length=200)]
    zip: Annotated[str, Meta(max_length=20)]
    country: Annotated[str, Meta(max_length=100)]
    description: Annotated[str, Meta(max_length=10_000)] | None = None
    organizer_id: UUID | None = None


class NewSeats(Struct, frozen=True, forbid_unknown_fields=True):
    seats: Annotated[list[NewSeat], Meta(min_length=1, max_length=MAX_SEATS_IN_CALL)]


class Count(Struct, frozen=True):
    count: int


@post("/organizers", guards=[admin], security=TOKEN, summary="Make an organizer")
async def post_organizer(data: JSONBody[NewOrganizer], state: State) -> Organizer:
    """A slug that is taken is 409 `slug_taken`."""
    return await create_organizer(
        state.pool, name=data.name, email=data.email, slug=data.slug, logo_url=data.logo_url
    )


@get("/organizers", guards=[anyone], summary="Organizers, newest first")
async def get_organizers(
    request: Request[Any, Any, Any], state: State, limit: Limit = None, cursor: Cursor = None
) -> Response[list[Organizer]]:
    async with state.pool.connection() as conn:
        rows = await queries.list_organizers(conn, before=cursor, limit=query_limit(limit))
    return page_response(request, rows, limit=limit)


@get("/organizers/{organizer_id:str}", guards=[anyone], summary="An organizer")
async def get_organizer(organizer_id: FromPath[UUID], state: State) -> Organizer:
    async with state.pool.connection() as conn:
        organizer = await queries.find_organizer(conn, organizer_id)
    if organizer is None:
        raise NotFound("There is no such organizer.")
    return organizer


@post("/venues", guards=[admin], security=TOKEN, summary="Make a venue")
async def post_venue(data: JSONBody[NewVenue], state: State) -> Venue:
    """It has no seats yet: `POST /venues/{venue_id}/seats`."""
    return await create_venue(
        state.pool,
        organizer_id=data.organizer_id,
        name=data.name,
        address=data.address,
        city=data.city,
        state=data.state,
        zip_code=data.zip,
        country=data.country,
        description=data.description,
    )


@get("/venues", guards=[anyone], summary="Venues, newest first")
async def get_venues(
    request: Request[Any, Any, Any], state: State, limit: Limit = None, cursor: Cursor = None
) -> Response[list[Venue]]:
    async with state.pool.connection() as conn:
        rows = await queries.list_venues(conn, before=cursor, limit=query_limit(limit))
    return page_response(request, rows, limit=limit)


@get("/venues/{venue_id:str}", guards=[anyone], summary="A venue")
async def get_venue(venue_id: FromPath[UUID], state: State) -> Venue:
    async with state.pool.connection() as conn:
        venue = await queries.find_venue(conn, venue_id)
    if venue is None:
        raise NotFound("There is no such venue.")
    return venue


@post(
    "/venues/{venue_id:str}/seats",
    guards=[admin],
    security=TOKEN,
    request_max_body_size=MAX_SEATS_BODY_BYTES,
    summary="Add seats to a venue",
)
async def post_seats(venue_id: FromPath[UUID], data: JSONBody[NewSeats], state: State) -> Count:
    """Adds all or none. A section + row + number that is there already, or twice in the call, is 409
    `seat_exists`; seats without row or number may repeat. Events on sale keep the seats they have.
    """
    return Count(await add_seats(state.pool, venue_id, seats=data.seats))


@get("/venues/{venue_id:str}/seats", guards=[anyone], summary="The seats of a venue")
async def get_seats(
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
VENUE_ROUTES = [post_venue, get_venues, get_venue, post_seats, get_seats]
