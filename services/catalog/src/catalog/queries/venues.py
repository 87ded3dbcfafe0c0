"""Organizers, venues and their seats."""

from collections.abc import Sequence
from uuid import UUID

from contracts.messages import MapSeat
from libs.postgres import Conn
from psycopg.rows import args_row, class_row, scalar_row

from catalog.models import Organizer, Venue, VenueSeat


async def insert_organizer(
    conn: Conn, *, organizer_id: UUID, name: str, email: str, slug: str, logo_url: str | None
) -> Organizer | None:
    """None when another one has the slug, or this one was made before."""
    async with conn.cursor(row_factory=class_row(Organizer)) as cursor:
        await cursor.execute(
            """
            INSERT INTO organizers (id, name, email, slug, logo_url)
            VALUES (%(organizer_id)s, %(name)s, %(email)s, %(slug)s, %(logo_url)s)
            ON CONFLICT DO NOTHING
            RETURNING id, name, email, slug, logo_url, created_at, updated_at
            """,
            {"organizer_id": organizer_id, "name": name, "email": email, "slug": slug, "logo_url": logo_url},
        )
        return await cursor.fetchone()


async def find_organizer(conn: Conn, organizer_id: UUID) -> Organizer | None:
    async with conn.cursor(row_factory=class_row(Organizer)) as cursor:
        await cursor.execute(
            """
            SELECT id, name, email, slug, logo_url, created_at, updated_at
              FROM organizers
             WHERE id = %(organizer_id)s
            """,
            {"organizer_id": organizer_id},
        )
        return await cursor.fetchone()


async def list_organizers(conn: Conn, *, before: UUID | None, limit: int | None) -> list[Organizer]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Organizer)) as cursor:
        await cursor.execute(
            """
            SELECT id, name, email, slug, logo_url, created_at, updated_at
              FROM organizers
             WHERE %(before)s::uuid IS NULL OR id < %(before)s
             ORDER BY id DESC
             LIMIT %(limit)s
            """,
            {"before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def insert_venue(
    conn: Conn,
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
    """The one that is there when it was made before."""
    async with conn.cursor(row_factory=class_row(Venue)) as cursor:
        await cursor.execute(
            """
            INSERT INTO venues (id, organizer_id, name, address, city, state, zip, country, description)
            VALUES (%(venue_id)s, %(organizer_id)s, %(name)s, %(address)s, %(city)s, %(state)s, %(zip)s,
                    %(country)s, %(description)s)
            -- Nothing changes, and the row comes back.
            ON CONFLICT (id) DO UPDATE SET updated_at = venues.updated_at
            RETURNING id, organizer_id, name, address, city, state, zip, country, description,
                      created_at, updated_at
            """,
            {
                "venue_id": venue_id,
                "organizer_id": organizer_id,
                "name": name,
                "address": address,
                "city": city,
                "state": state,
                "zip": zip_code,
                "country": country,
                "description": description,
            },
        )
        (venue,) = await cursor.fetchall()
        return venue


async def find_venue(conn: Conn, venue_id: UUID) -> Venue | None:
    async with conn.cursor(row_factory=class_row(Venue)) as cursor:
        await cursor.execute(
            """
            SELECT id, organizer_id, name, address, city, state, zip, country, description,
                   created_at, updated_at
              FROM venues
             WHERE id = %(venue_id)s
            """,
            {"venue_id": venue_id},
        )
        return await cursor.fetchone()


async def list_venues(conn: Conn, *, before: UUID | None, limit: int | None) -> list[Venue]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Venue)) as cursor:
        await cursor.execute(
            """
            SELECT id, organizer_id, name, address, city, state, zip, country, description,
                   created_at, updated_at
              FROM venues
             WHERE %(before)s::uuid IS NULL OR id < %(before)s
             ORDER BY id DESC
             LIMIT %(limit)s
            """,
            {"before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def lock_venue_to_add_seats(conn: Conn, venue_id: UUID) -> bool:
    """Counts the venue's `seats_version` up. False when there is no such venue."""
    # The lock keeps others from adding seats, and events from copying them, until all are there.
    cursor = await conn.execute(
        """
        UPDATE venues
           SET seats_version = seats_version + 1, updated_at = now()
         WHERE id = %(venue_id)s
        """,
        {"venue_id": venue_id},
    )
    return cursor.rowcount == 1


async def lock_venue_to_copy_seats(conn: Conn, venue_id: UUID) -> int | None:
    """The venue's `seats_version`; None when there is no such venue."""
    # Whoever adds seats waits, and has been waited for: the next statement sees all of them or none.
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT seats_version FROM venues WHERE id = %(venue_id)s FOR SHARE", {"venue_id": venue_id}
        )
        return await cursor.fetchone()


async def insert_seat_call(conn: Conn, call_id: UUID, *, venue_id: UUID) -> bool:
    """Whether this call adds seats for the first time."""
    cursor = await conn.execute(
        "INSERT INTO venue_seat_calls (id, venue_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [call_id, venue_id],
    )
    return cursor.rowcount == 1


async def find_seats_in_place(
    conn: Conn,
    venue_id: UUID,
    *,
    sections: Sequence[str],
    rows: Sequence[str | None],
    seat_numbers: Sequence[int | None],
    limit: int,
) -> list[VenueSeat]:
    """Seats that the venue has where others are wanted. The three sequences belong together."""
    async with conn.cursor(row_factory=args_row(VenueSeat)) as cursor:
        await cursor.execute(
            """
            SELECT seat.id, seat.section, seat.row_name, seat.seat_number
              FROM venue_seats AS seat
              JOIN unnest(%(sections)s::text[], %(rows)s::text[], %(seat_numbers)s::integer[])
                   AS wanted (section, row_name, seat_number)
             USING (section, row_name, seat_number)
             WHERE seat.venue_id = %(venue_id)s
             LIMIT %(limit)s
            """,
            {
                "venue_id": venue_id,
                "sections": sections,
                "rows": rows,
                "seat_numbers": seat_numbers,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def insert_seats(
    conn: Conn,
    venue_id: UUID,
    *,
    sections: Sequence[str],
    rows: Sequence[str | None],
    seat_numbers: Sequence[int | None],
) -> int:
    """How many were added. Their ids are in the order given."""
    cursor = await conn.execute(
        """
        INSERT INTO venue_seats (venue_id, section, row_name, seat_number)
        SELECT %(venue_id)s, section, row_name, seat_number
          FROM unnest(%(sections)s::text[], %(rows)s::text[], %(seat_numbers)s::integer[])
               WITH ORDINALITY AS new (section, row_name, seat_number, position)
         ORDER BY position
        """,
        {"venue_id": venue_id, "sections": sections, "rows": rows, "seat_numbers": seat_numbers},
    )
    return cursor.rowcount


async def list_seats(conn: Conn, venue_id: UUID, *, after: UUID | None, limit: int | None) -> list[VenueSeat]:
    """In the order in which they were added."""
    async with conn.cursor(row_factory=args_row(VenueSeat), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT id, section, row_name, seat_number
              FROM venue_seats
             WHERE venue_id = %(venue_id)s
               AND (%(after)s::uuid IS NULL OR id > %(after)s)
             ORDER BY id
             LIMIT %(limit)s
            """,
            {"venue_id": venue_id, "after": after, "limit": limit},
        )
        return await cursor.fetchall()


async def list_map_seats(conn: Conn, venue_id: UUID) -> list[MapSeat]:
    """All seats, as messages carry them, in the order in which they were added."""
    async with conn.cursor(row_factory=args_row(_map_seat), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT id, section, row_name, seat_number
              FROM venue_seats
             WHERE venue_id = %(venue_id)s
             ORDER BY id
            """,
            {"venue_id": venue_id},
        )
        return await cursor.fetchall()


def _map_seat(id_: UUID, section: str, row: str | None, seat_number: int | None) -> MapSeat:
    return MapSeat(seat_id=id_, section=section, row=row, seat_number=seat_number)


async def list_sections_without_seats(conn: Conn, venue_id: UUID, sections: Sequence[str]) -> list[str]:
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT section
              FROM unnest(%(sections)s::text[]) WITH ORDINALITY AS named (section, position)
             WHERE NOT EXISTS (
                       SELECT FROM venue_seats AS seat
                        WHERE seat.venue_id = %(venue_id)s
                          AND seat.section = named.section
                   )
             ORDER BY position
            """,
            {"venue_id": venue_id, "sections": sections},
        )
        return await cursor.fetchall()
