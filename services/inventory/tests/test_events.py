"""The projection of events and seat maps, and the map that buyers see."""

import asyncio
import itertools

import httpx
import msgspec
import pytest
from contracts.messages import MapSeat, SeatMapPart
from libs.ids import new_id
from libs.testing import Tokens

from services.inventory.tests.support import Buyer, Deliver, OnSale, make_event


def in_parts(event: OnSale, size: int) -> list[SeatMapPart]:
    seats = event.seat_map.seats
    chunks = [seats[start : start + size] for start in range(0, len(seats), size)]
    return [
        msgspec.structs.replace(event.seat_map, part=number, parts=len(chunks), seats=chunk)
        for number, chunk in enumerate(chunks, start=1)
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_event_is_known_once_all_parts_are_there_in_any_order_and_twice(
    client: httpx.AsyncClient, deliver: Deliver, order: tuple[int, ...]
) -> None:
    event = make_event()
    messages = [event.published, *in_parts(event, 5)]
    for index in order:
        await deliver(messages[index], messages[index])
    seats = (await client.get(f"/events/{event.event_id}/seats")).json()
    assert [each["id"] for each in seats] == [str(each) for each in event.seat_ids]
    assert {(each["status"], each["amountMinor"]) for each in seats} == {("available", 4500)}


async def test_parts_and_event_handled_by_workers_at_the_same_time_build_the_map(
    client: httpx.AsyncClient, deliver: Deliver
) -> None:
    for _ in range(5):
        event = make_event()
        await asyncio.gather(*(deliver(each) for each in (event.published, *in_parts(event, 2))))
        assert len((await client.get(f"/events/{event.event_id}/seats")).json()) == 10


async def test_older_version_changes_nothing(
    client: httpx.AsyncClient, deliver: Deliver, on_sale: OnSale
) -> None:
    older = msgspec.structs.replace(on_sale.published, version=1, status="draft", tiers=[])
    await deliver(older)
    seats = (await client.get(f"/events/{on_sale.event_id}/seats")).json()
    assert seats[0]["amountMinor"] == 4500


async def test_new_map_of_a_draft_replaces_the_old_one(client: httpx.AsyncClient, deliver: Deliver) -> None:
    event = make_event()
    draft = msgspec.structs.replace(event.published, status="draft", version=1)
    await deliver(draft, event.seat_map)
    kept, added = event.seat_map.seats[:4], MapSeat(seat_id=new_id(), section="B", row=None, seat_number=None)
    second = SeatMapPart(event_id=event.event_id, version=2, part=1, parts=1, seats=[*kept, added])
    await deliver(msgspec.structs.replace(event.published, seat_map_version=2, seat_count=5), second)
    seats = (await client.get(f"/events/{event.event_id}/seats")).json()
    assert sorted(each["id"] for each in seats) == sorted(str(each.seat_id) for each in second.seats)
    assert [each["amountMinor"] for each in seats if each["section"] == "B"] == [0]


async def test_parts_of_the_next_map_that_come_before_any_version_of_the_event_are_kept(
    client: httpx.AsyncClient, deliver: Deliver
) -> None:
    event = make_event()
    draft = msgspec.structs.replace(event.published, status="draft", version=1)
    second = msgspec.structs.replace(event.seat_map, version=2, seats=event.seat_map.seats[:4])
    await deliver(event.seat_map, second, draft)
    await deliver(msgspec.structs.replace(event.published, seat_map_version=2, seat_count=4))
    seats = (await client.get(f"/events/{event.event_id}/seats")).json()
    assert [each["id"] for each in seats] == [str(each.seat_id) for each in second.seats]


async def test_event_without_seats_has_an_empty_map(client: httpx.AsyncClient, deliver: Deliver) -> None:
    event = make_event(0)
    await deliver(event.published)
    assert (await client.get(f"/events/{event.event_id}/seats")).json() == []


async def test_draft_is_404_to_the_public_and_open_to_admins(
    client: httpx.AsyncClient, deliver: Deliver, tokens: Tokens
) -> None:
    event = make_event()
    await deliver(msgspec.structs.replace(event.published, status="draft"), event.seat_map)
    path = f"/events/{event.event_id}/seats"
    assert (await client.get(path, headers=tokens.issue(role="admin"))).status_code == 200
    assert (await client.get(path, headers=tokens.issue())).status_code == 404


async def test_event_published_a_moment_ago_is_waited_for(
    client: httpx.AsyncClient, deliver: Deliver
) -> None:
    event = make_event()
    await deliver(msgspec.structs.replace(event.published, status="draft", version=1), event.seat_map)
    asked = asyncio.create_task(client.get(f"/events/{event.event_id}/seats"))
    await deliver(event.published)
    assert (await asked).status_code == 200


async def test_map_shows_a_hold_at_once_and_answers_304_until_something_changes(
    client: httpx.AsyncClient, buyer: Buyer, on_sale: OnSale
) -> None:
    path = f"/events/{on_sale.event_id}/seats"
    first = await client.get(path)
    same = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    changed = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert [each["status"] for each in changed.json()][:2] == ["reserved", "available"]


async def test_pages_of_the_map_are_the_map(
    client: httpx.AsyncClient, buyer: Buyer, deliver: Deliver
) -> None:
    """In its order, seats without a row or a number included, with holds and prices."""
    event = make_event(5)
    free = [MapSeat(seat_id=new_id(), section="B", row=row, seat_number=None) for row in ("1", None, None)]
    seats = [*event.seat_map.seats, *free]
    await deliver(
        msgspec.structs.replace(event.published, seat_count=len(seats)),
        msgspec.structs.replace(event.seat_map, seats=seats),
    )
    await buyer.hold(event.event_id, event.seat_ids[:1])
    path = f"/events/{event.event_id}/seats"
    whole = (await client.get(path)).json()
    for limit in (1, 3, 8, 1000):
        found: list[object] = []
        page = await client.get(path, params={"limit": limit})
        found += page.json()
        while "next" in page.links:
            assert len(page.json()) == limit
            page = await client.get(page.links["next"]["url"])
            found += page.json()
        assert found == whole
    assert page.headers["cache-control"] == "public, no-cache"
    assert (await client.get(path, params={"cursor": whole[5]["id"]})).json() == whole[6:]
    assert (await client.get(path, params={"cursor": str(new_id())})).json() == []


async def test_map_of_twenty_thousand_seats_is_read_by_many_at_once(
    client: httpx.AsyncClient, deliver: Deliver
) -> None:
    event = make_event(20_000)
    await deliver(event.published, *in_parts(event, 1000))

    async def read() -> httpx.Response:
        """A 503 says when to ask again, and is asked again: a machine that runs many tests may be slow."""
        answer = await client.get(f"/events/{event.event_id}/seats")
        if answer.status_code != 503:
            return answer
        await asyncio.sleep(float(answer.headers["retry-after"]))
        return await read()

    answers = await asyncio.gather(*(read() for _ in range(20)))
    assert {len(answer.json()) for answer in answers} == {20_000}
    assert len({answer.headers["etag"] for answer in answers}) == 1


async def test_malformed_event_id_is_400_and_names_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/events/nonsense/seats")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "path/event_id")
