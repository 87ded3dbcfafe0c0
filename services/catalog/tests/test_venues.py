"""Organizers, venues and their seats."""

import asyncio
from typing import Any

import httpx
from libs.ids import new_id
from libs.testing import Tokens

from services.catalog.tests.support import VENUE, Admin, Database


async def test_organizer_is_answered_as_it_was_made(admin: Admin, client: httpx.AsyncClient) -> None:
    organizer = await admin.make_organizer()
    assert set(organizer) == {"id", "name", "email", "slug", "logoUrl", "createdAt", "updatedAt"}
    assert (await client.get(f"/organizers/{organizer['id']}")).json() == organizer
    assert (await client.get("/organizers?limit=1")).json() == [organizer]


async def test_of_parallel_organizers_with_one_slug_one_is_made(admin: Admin) -> None:
    body = {"name": "City Theatre", "email": "office@example.com", "slug": f"theatre-{new_id()}"}
    answers = await asyncio.gather(*(admin.post("/organizers", body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert {answer.json().get("code") for answer in answers} == {None, "slug_taken"}


async def test_venue_is_answered_as_it_was_made(admin: Admin, client: httpx.AsyncClient) -> None:
    organizer = await admin.make_organizer()
    body = {**VENUE, "organizerId": organizer["id"], "description": "Red plush"}
    venue = await admin.make("/venues", body)
    assert venue.items() >= body.items()
    assert set(venue) - set(body) == {"id", "createdAt", "updatedAt"}
    assert (await client.get(f"/venues/{venue['id']}")).json() == venue
    assert (await client.get("/venues?limit=1")).json() == [venue]
    bare = await admin.make("/venues", VENUE)
    assert (bare["organizerId"], bare["description"]) == (None, None)


async def test_lists_are_paged_newest_first(admin: Admin, client: httpx.AsyncClient) -> None:
    made = [(await admin.make_venue())["id"] for _ in range(5)][::-1]
    seen: list[str] = []
    path: str | None = "/venues?limit=2"
    while path and len(seen) < 5:
        answer = await client.get(path)
        seen += [venue["id"] for venue in answer.json()]
        path = answer.links.get("next", {}).get("url")
    assert seen[:5] == made
    everything = (await client.get("/venues")).json()
    assert [venue["id"] for venue in everything][:5] == made


async def test_bad_paging_is_400(client: httpx.AsyncClient) -> None:
    for path in ("/venues", "/organizers", "/events"):
        for query in ("limit=0", "limit=x", "limit=1001", "cursor=x"):
            answer = await client.get(f"{path}?{query}")
            assert answer.status_code == 400, (path, query)
            assert answer.json()["errors"][0]["pointer"] == f"query/{query.split('=')[0]}"


async def test_unknown_and_malformed_ids(admin: Admin, client: httpx.AsyncClient) -> None:
    for path in ("/venues/{}", "/organizers/{}", "/venues/{}/seats", "/events/{}"):
        assert (await client.get(path.format(new_id()))).status_code == 404
        answer = await client.get(path.format("7"))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert answer.json()["errors"][0]["pointer"].startswith("path/")
    answer = await admin.post("/venues", {**VENUE, "organizerId": str(new_id())})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (404, "/organizerId")
    answer = await admin.post(f"/venues/{new_id()}/seats", {"seats": [{"section": "A"}]})
    assert answer.status_code == 404


async def test_only_admins_write_and_are_judged_before_the_body(
    client: httpx.AsyncClient, tokens: Tokens, admin: Admin, venue: Any
) -> None:
    event = await admin.make_event(venue)
    for role in ("user", "scanner"):
        user = Admin(client, tokens, role=role)
        for path in (
            "/organizers",
            "/venues",
            f"/venues/{venue['id']}/seats",
            "/events",
            f"/events/{event['id']}/publish",
            f"/events/{event['id']}/cancel",
        ):
            answer = await user.post(path, {"nonsense": True})
            assert answer.status_code == 403, path
            assert "Admin" in answer.json()["message"]
            assert (await client.post(path, json={})).status_code == 401
        assert (await user.patch(event, nonsense=True)).status_code == 403


async def test_seats_are_added_to_what_is_there_in_their_order(admin: Admin) -> None:
    venue = await admin.make_venue()
    path = f"/venues/{venue['id']}/seats"
    assert (await admin.get(path)).json() == []
    first = [
        {"section": "B", "row": "2", "seatNumber": 1},
        {"section": "A", "row": "1", "seatNumber": 0},
        {"section": "Floor", "row": None, "seatNumber": None},
    ]
    assert await admin.make(path, {"seats": first}) == {"count": 3}
    assert await admin.make(path, {"seats": [{"section": "Floor"}] * 2}) == {"count": 2}
    seats = (await admin.get(path)).json()
    places = [{name: seat[name] for name in ("section", "row", "seatNumber")} for seat in seats]
    assert places == first + [{"section": "Floor", "row": None, "seatNumber": None}] * 2
    assert len({seat["id"] for seat in seats}) == 5
    page = await admin.get(f"{path}?limit=2")
    assert page.json() == seats[:2]
    assert (await admin.get(page.links["next"]["url"])).json() == seats[2:4]


async def test_repeated_seat_is_refused_naming_it_and_nothing_is_added(admin: Admin, venue: Any) -> None:
    path = f"/venues/{venue['id']}/seats"
    there = {"section": "A", "row": "1", "seatNumber": 3}
    new = {"section": "A", "row": "1", "seatNumber": 99}
    for seats, named in (([new, there], there), ([new, {"section": "A"}, new], new)):
        answer = await admin.post(path, {"seats": seats})
        assert (answer.status_code, answer.json()["code"]) == (409, "seat_exists")
        assert answer.json()["seats"] == [named]
    assert len((await admin.get(path)).json()) == 10
    half_known = [{"section": "A", "row": "1"}] * 2 + [{"section": "A", "seatNumber": 1}] * 2
    assert await admin.make(path, {"seats": half_known}) == {"count": 4}


async def test_of_parallel_calls_with_the_same_seats_one_adds_them(admin: Admin) -> None:
    venue = await admin.make_venue()
    seats = [{"section": "A", "row": "1", "seatNumber": number} for number in range(50)]
    answers = await asyncio.gather(
        *(admin.post(f"/venues/{venue['id']}/seats", {"seats": seats[start:]}) for start in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 4
    [count] = [answer.json()["count"] for answer in answers if answer.status_code == 201]
    assert len((await admin.get(f"/venues/{venue['id']}/seats")).json()) == count


async def test_twenty_thousand_seats_go_in_one_call_and_one_more_does_not(
    admin: Admin, database: Database
) -> None:
    venue = await admin.make_venue()
    path = f"/venues/{venue['id']}/seats"
    seats = [
        {"section": f"Block {number % 40}", "row": f"{number // 100}", "seatNumber": number}
        for number in range(20_001)
    ]
    answer = await admin.post(path, {"seats": seats})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/seats")
    assert await admin.make(path, {"seats": seats[:-1]}) == {"count": 20_000}
    event = await admin.make_event(venue, isPublished=True)
    parts = await database.seat_map(event, 1)
    assert [part.part for part in parts] == list(range(1, 21))
    assert {part.parts for part in parts} == {20}
    assert len({seat.seat_id for part in parts for seat in part.seats}) == 20_000
    [[largest]] = await database.run("SELECT max(octet_length(body)) FROM outbox WHERE key = %s", event["id"])
    assert largest < 200_000


async def test_too_large_body_is_413(admin: Admin, venue: Any) -> None:
    blank = " " * 1_048_576
    answer = await admin.client.post(
        "/venues", content=blank + "{}", headers={**admin.headers, "Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    answer = await admin.client.post(
        f"/venues/{venue['id']}/seats",
        content=blank + '{"seats":[{"section":"Z"}]}',
        headers={**admin.headers, "Content-Type": "application/json"},
    )
    assert answer.status_code == 201
    answer = await admin.client.post(
        f"/venues/{venue['id']}/seats",
        content=blank * 4 + '{"seats":[{"section":"Z"}]}',
        headers={**admin.headers, "Content-Type": "application/json"},
    )
    assert answer.status_code == 413


async def test_same_idempotency_key_adds_seats_once(admin: Admin, venue: Any) -> None:
    path = f"/venues/{venue['id']}/seats"
    admin.headers["Idempotency-Key"] = str(new_id())
    answers = [await admin.post(path, {"seats": [{"section": "Floor"}]}) for _ in range(3)]
    assert [answer.json() for answer in answers] == [{"count": 1}] * 3
    assert len((await admin.get(path)).json()) == 11
