"""Venues and their seats."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from libs.postgres import Pool, transaction
from libs.web.problems import NotFound
from msgspec import Meta, Struct
from psycopg.errors import UniqueViolation

from catalog.errors import SeatExists
from catalog.models import Venue
from catalog.organizers import require_organizer
from catalog.queries import venues as queries

# As many of the seats in the way as a refusal names.
NAMED_SEATS = 10


class NewSeat(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """With row and number, the place is the venue's only one; without, there may be many alike."""

    section: Annotated[str, Meta(min_length=1, max_length=100, examples=["A"])]
    row: Annotated[str, Meta(min_length=1, max_length=20, examples=["12"])] | None = None
    seat_number: Annotated[int, Meta(ge=0, le=2_147_483_647, examples=[7])] | None = None


async def create_venue(
    pool: Pool,
    *,
    venue_id: UUID,
    organizer_id: UUID | None,
    name: str,
    address: str,
    city: str,
    state: str,
    zip_code: str,
    country: str,
    description: str | None,
) -> Venue:
    """The one that is there when it was made before. Raises `UnknownReference`."""
    async with transaction(pool) as conn:
        await require_organizer(conn, organizer_id)
        return await queries.insert_venue(
            conn,
            venue_id=venue_id,
            organizer_id=organizer_id,
            name=name,
            address=address,
            city=city,
            state=state,
            zip_code=zip_code,
            country=country,
            description=description,
        )


async def add_seats(pool: Pool, venue_id: UUID, *, call_id: UUID, seats: Sequence[NewSeat]) -> int:
    """Adds all or none; returns how many. Events on sale keep the seats they have. The same call again adds
    nothing.

    Raises `NotFound` or `SeatExists`.
    """
    _refuse_repetitions(seats)
    sections = [seat.section for seat in seats]
    rows = [seat.row for seat in seats]
    seat_numbers = [seat.seat_number for seat in seats]
    try:
        async with transaction(pool) as conn:
            if not await queries.lock_venue_to_add_seats(conn, venue_id):
                raise NotFound("There is no such venue.")
            if not await queries.insert_seat_call(conn, call_id, venue_id=venue_id):
                return len(seats)
            return await queries.insert_seats(
                conn, venue_id, sections=sections, rows=rows, seat_numbers=seat_numbers
            )
    except UniqueViolation:
        pass
    async with pool.connection() as conn:
        existing = await queries.find_seats_in_place(
            conn, venue_id, sections=sections, rows=rows, seat_numbers=seat_numbers, limit=NAMED_SEATS
        )
    raise _seat_exists(
        "The venue has seats in these places.",
        [(seat.section, seat.row, seat.seat_number) for seat in existing],
    )


def _refuse_repetitions(seats: Sequence[NewSeat]) -> None:
    seen: set[tuple[str, str | None, int | None]] = set()
    repeated: dict[tuple[str, str | None, int | None], None] = {}
    for seat in seats:
        place = (seat.section, seat.row, seat.seat_number)
        if seat.row is not None and seat.seat_number is not None and place in seen:
            repeated[place] = None
        seen.add(place)
    if repeated:
        raise _seat_exists("These places are named more than once.", list(repeated)[:NAMED_SEATS])


def _seat_exists(detail: str, places: Sequence[tuple[str, str | None, int | None]]) -> SeatExists:
    return SeatExists(
        detail,
        seats=[
            {"section": section, "row": row, "seatNumber": seat_number}
            for section, row, seat_number in places
        ],
    )
