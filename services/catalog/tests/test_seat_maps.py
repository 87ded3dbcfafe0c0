"""Seat maps: copied when an event is created, refreshed when it is published, frozen after, never torn."""

import asyncio
from typing import Any

from services.catalog.tests.support import Admin, Database


async def check_map(database: Database, event: Any) -> tuple[int, int]:
    """(version, seats) of the event's map, which must be whole."""
    state = (await database.states(event))[-1]
    parts = await database.seat_map(event, state.seat_map_version)
    assert [part.part for part in parts] == list(range(1, len(parts) + 1))
    assert {part.parts for part in parts} in ({len(parts)}, set())
    seats = [seat for part in parts for seat in part.seats]
    assert len({seat.seat_id for seat in seats}) == len(seats) == state.seat_count
    return state.seat_map_version, state.seat_count


async def test_venue_without_seats_gives_a_map_without_parts(admin: Admin, database: Database) -> None:
    venue = await admin.make_venue()
    event = await admin.make_event(venue, isPublished=True)
    assert await check_map(database, event) == (1, 0)
    assert len(await database.said(event)) == 1


async def test_part_has_a_thousand_seats_at_most(admin: Admin, database: Database) -> None:
    venue = await admin.make_venue(seats=1000)
    full = await admin.make_event(venue)
    await admin.add_seats(venue, 1, section="B")
    more = await admin.make_event(venue)
    assert [len(part.seats) for part in await database.seat_map(full, 1)] == [1000]
    assert [len(part.seats) for part in await database.seat_map(more, 1)] == [1000, 1]


async def test_draft_gets_the_new_seats_when_it_is_published_and_then_no_more(
    admin: Admin, venue: Any, database: Database
) -> None:
    event = await admin.make_event(venue)
    await admin.add_seats(venue, 5, section="B")
    assert (await admin.patch(event, name="Other")).status_code == 200
    assert await check_map(database, event) == (1, 10)
    assert (await admin.publish(event)).status_code == 200
    assert await check_map(database, event) == (2, 15)
    await admin.add_seats(venue, 5, section="C")
    assert (await admin.patch(event, name="Another")).status_code == 200
    assert (await admin.publish(event)).status_code == 200
    assert await check_map(database, event) == (2, 15)
    assert (await admin.cancel(event)).status_code == 200
    assert await check_map(database, event) == (2, 15)


async def test_map_is_one_state_of_the_venue_while_seats_are_added(admin: Admin, database: Database) -> None:
    venue = await admin.make_venue(seats=100)
    drafts = [await admin.make_event(venue) for _ in range(6)]
    created, *_ = await asyncio.gather(
        asyncio.gather(*(admin.make_event(venue, isPublished=True) for _ in range(6))),
        asyncio.gather(*(admin.publish(draft) for draft in drafts)),
        asyncio.gather(*(admin.add_seats(venue, 100, row=str(row)) for row in range(2, 8))),
    )
    for event in [*drafts, *created]:
        _, seats = await check_map(database, event)
        assert seats % 100 == 0
        assert 100 <= seats <= 700
    late = await admin.make_event(venue)
    assert await check_map(database, late) == (1, 700)


async def test_seats_whose_call_dies_are_in_no_map(
    admin: Admin, venue: Any, database: Database, monkeypatch: Any
) -> None:
    async def die(*_: Any, **__: Any) -> int:
        raise RuntimeError("killed")

    event = await admin.make_event(venue)
    with monkeypatch.context() as patch:
        patch.setattr("catalog.venues.queries.insert_seats", die)
        answer = await admin.post(f"/venues/{venue['id']}/seats", {"seats": [{"section": "B"}]})
        assert answer.status_code == 500
    assert (await admin.publish(event)).status_code == 200
    assert await check_map(database, event) == (1, 10)
