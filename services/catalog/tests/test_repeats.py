"""What an admin makes under an Idempotency-Key is made once, also when the first process died on the way."""

from functools import partial
from typing import Any

import httpx
import pytest
from libs.ids import new_id
from libs.testing import cut_off

from services.catalog.tests.support import DATES, STALLS, VENUE, Admin, Database

SEATS = [{"section": "A", "row": "1", "seatNumber": number} for number in (1, 2)]
UNNUMBERED = [{"section": "Standing"}] * 3


def post(admin: Admin, path: str, body: Any, *, key: str) -> Any:
    headers = {**admin.headers, "Idempotency-Key": key}
    return partial(admin.client.post, path, json=body, headers=headers)


async def made_twice(admin: Admin, path: str, body: Any) -> httpx.Response:
    """The answer to the second try of a request whose first one died after its commit."""
    request = post(admin, path, body, key=str(new_id()))
    await cut_off(request)
    answer = await request()
    assert answer.status_code == 201, answer.text
    assert "idempotent-replayed" not in answer.headers
    again = await request()
    assert (again.json(), again.headers["location"]) == (answer.json(), answer.headers["location"])
    return answer


async def test_organizer_is_made_once(admin: Admin, database: Database) -> None:
    body = {"name": "City Theatre", "email": "office@example.com", "slug": f"theatre-{new_id()}"}
    answer = await made_twice(admin, "/organizers", body)
    assert answer.json()["slug"] == body["slug"]
    assert (await admin.get(answer.headers["location"])).json() == answer.json()
    assert (await admin.post("/organizers", body)).status_code == 409


async def test_venue_is_made_once(admin: Admin, database: Database) -> None:
    name = f"Odeon {new_id()}"
    answer = await made_twice(admin, "/venues", {**VENUE, "name": name})
    assert await database.run("SELECT id::text FROM venues WHERE name = %s", name) == [(answer.json()["id"],)]
    assert (await admin.get(answer.headers["location"])).json() == answer.json()


@pytest.mark.parametrize("seats", [SEATS, UNNUMBERED])
async def test_seats_are_added_once(admin: Admin, seats: list[Any]) -> None:
    venue = await admin.make_venue()
    answer = await made_twice(admin, f"/venues/{venue['id']}/seats", {"seats": seats})
    assert answer.json() == {"count": len(seats)}
    assert len((await admin.get(answer.headers["location"])).json()) == len(seats)


async def test_event_is_made_and_told_once(admin: Admin, database: Database, venue: Any) -> None:
    name = f"Opening night {new_id()}"
    body = {"name": name, "venueId": venue["id"], "isPublished": True, "tiers": [STALLS], **DATES}
    answer = await made_twice(admin, "/events", body)
    assert await database.run("SELECT id::text FROM events WHERE name = %s", name) == [(answer.json()["id"],)]
    assert len(await database.states(answer.json())) == 1
    assert (await admin.get(answer.headers["location"])).json() == answer.json()


async def test_same_request_without_a_key_or_under_another_is_another_request(
    admin: Admin, database: Database
) -> None:
    body = {**VENUE, "name": f"Odeon {new_id()}"}
    ids = {
        (await post(admin, "/venues", body, key="a")()).json()["id"],
        (await post(admin, "/venues", body, key="b")()).json()["id"],
        (await admin.post("/venues", body)).json()["id"],
    }
    assert len(ids) == 3


async def test_change_meant_for_an_older_event_is_412(admin: Admin, venue: Any) -> None:
    event = await admin.make_event(venue, isPublished=True)
    path = f"/events/{event['id']}"
    tag = (await admin.get(path)).headers["etag"]
    headers = {**admin.headers, "If-Match": tag}
    changed = await admin.client.patch(path, json={"name": "First night"}, headers=headers)
    assert changed.status_code == 200
    assert changed.headers["etag"] == (await admin.get(path)).headers["etag"]
    late = await admin.client.patch(path, json={"name": "Last night"}, headers=headers)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert (await admin.get(path)).json()["name"] == "First night"


async def test_who_may_keep_what_and_how_long(admin: Admin, venue: Any) -> None:
    public = await admin.make_event(venue, isPublished=True)
    draft = await admin.make_event(venue)
    for path, cache_control in (
        ("/events", "public, max-age=5"),
        (f"/events/{public['id']}", "public, no-cache"),
        (f"/events/{draft['id']}", "private, no-store"),
        ("/venues", "public, no-cache"),
        (f"/venues/{venue['id']}/seats", "public, no-cache"),
        ("/organizers", "public, no-cache"),
    ):
        answer = await admin.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, cache_control), path
        known = {**admin.headers, "If-None-Match": answer.headers["etag"]}
        assert (await admin.client.get(path, headers=known)).status_code == 304
