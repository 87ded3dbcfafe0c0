"""Events: drafts, sale, changes, cancellation, and what is told of each."""

import asyncio
from typing import Any

import httpx
import pytest
from contracts.messages import EventCancelled, EventCreated, EventPublished, EventUpdated
from libs.ids import new_id
from libs.testing import Tokens

from services.catalog.tests.support import DATES, STALLS, Admin, Database

FIELDS = {
    *("id", "organizerId", "venueId", "name", "description", "imageUrl", "startDate", "endDate"),
    *("status", "isPublished", "createdAt", "updatedAt", "tiers"),
}


async def test_draft_is_answered_told_and_hidden(
    admin: Admin, client: httpx.AsyncClient, tokens: Tokens, venue: Any, database: Database
) -> None:
    event = await admin.make_event(
        venue, organizerId=None, description=None, imageUrl=None, tiers=[STALLS | {"currency": "EUR"}]
    )
    assert set(event) == FIELDS
    assert (event["status"], event["isPublished"], event["organizerId"]) == ("draft", False, None)
    assert (event["startDate"], event["endDate"]) == (DATES["startDate"], DATES["endDate"])
    [tier] = event["tiers"]
    assert tier == {**STALLS, "id": tier["id"], "tier": "standard"}
    for visitor in ({}, tokens.issue(), tokens.issue(role="scanner"), {"Authorization": "Bearer no"}):
        assert (await client.get(f"/events/{event['id']}", headers=visitor)).status_code == 404
    seen = await admin.get(f"/events/{event['id']}")
    assert (seen.json(), seen.headers["cache-control"]) == (event, "private, no-store")
    assert (await client.get(f"/events/{event['id']}")).status_code == 404
    assert event["id"] not in (await admin.get("/events")).text
    [created] = await database.states(event)
    assert isinstance(created, EventCreated)
    assert (created.version, created.status, created.currency) == (1, "draft", "eur")
    assert (created.seat_map_version, created.seat_count) == (1, 10)
    assert [(str(each.tier_id), each.amount_minor) for each in created.tiers] == [(tier["id"], 4500)]


async def test_event_may_be_on_sale_at_once(
    admin: Admin, client: httpx.AsyncClient, venue: Any, database: Database
) -> None:
    event = await admin.make_event(venue, isPublished=True, imageUrl="https://example.com/a.jpg")
    assert (event["status"], event["isPublished"], event["tiers"]) == ("published", True, [])
    assert (await client.get(f"/events/{event['id']}")).json() == event
    assert (await client.get("/events?limit=1")).json() == [event]
    [created] = await database.states(event)
    assert (type(created), created.status, created.currency) == (EventCreated, "published", None)
    venue_seats = (await client.get(f"/venues/{venue['id']}/seats")).json()
    [part] = await database.seat_map(event, 1)
    assert [str(seat.seat_id) for seat in part.seats] == [seat["id"] for seat in venue_seats]


async def test_publishing_is_told_once_however_often_it_is_asked_for(
    admin: Admin, venue: Any, database: Database
) -> None:
    event = await admin.make_event(venue, tiers=[STALLS])
    answers = await asyncio.gather(*(admin.publish(event) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    [_, published] = await database.states(event)
    assert isinstance(published, EventPublished)
    assert (published.version, published.status) == (2, "published")
    assert (published.seat_map_version, published.seat_count) == (1, 10), "the venue's seats are the same"
    assert await database.seat_map(event, 2) == []


async def test_cancelling_is_told_once_and_settles_the_event(
    admin: Admin, client: httpx.AsyncClient, venue: Any, database: Database
) -> None:
    event = await admin.make_event(venue, isPublished=True)
    answers = await asyncio.gather(*(admin.cancel(event) for _ in range(4)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "cancelled")}
    assert [type(each) for each in await database.states(event)] == [EventCreated, EventCancelled]
    assert (await client.get(f"/events/{event['id']}")).json()["status"] == "cancelled"
    assert event["id"] not in (await client.get("/events")).text
    for answer in (await admin.publish(event), await admin.patch(event, name="Other")):
        assert (answer.status_code, answer.json()["code"]) == (409, "event_cancelled")
    assert len(await database.states(event)) == 2


async def test_cancelled_draft_stays_hidden(admin: Admin, client: httpx.AsyncClient, venue: Any) -> None:
    event = await admin.make_event(venue)
    assert (await admin.cancel(event)).status_code == 200
    assert (await client.get(f"/events/{event['id']}")).status_code == 404
    assert (await admin.get(f"/events/{event['id']}")).json()["status"] == "cancelled"


async def test_publish_and_cancel_at_once_end_cancelled(admin: Admin, venue: Any, database: Database) -> None:
    for _ in range(5):
        event = await admin.make_event(venue)
        published, cancelled = await asyncio.gather(admin.publish(event), admin.cancel(event))
        assert (published.status_code, cancelled.status_code) in {(200, 200), (409, 200)}
        states = await database.states(event)
        assert states[-1].status == "cancelled"
        assert [each.version for each in states] == list(range(1, len(states) + 1))


async def test_change_is_answered_and_told_with_the_whole_state(
    admin: Admin, venue: Any, database: Database
) -> None:
    organizer = await admin.make_organizer()
    event = await admin.make_event(venue, tiers=[STALLS], description="Old", imageUrl="x")
    answer = await admin.patch(
        event,
        name="Other",
        description=None,
        organizerId=organizer["id"],
        startDate="2027-01-01T20:00:00+02:00",
        endDate="2027-01-01T18:00:00",
    )
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert (changed["name"], changed["description"], changed["imageUrl"]) == ("Other", None, "x")
    assert (changed["startDate"], changed["endDate"]) == ("2027-01-01T18:00:00Z", "2027-01-01T18:00:00Z")
    assert changed["tiers"] == event["tiers"]
    assert changed["updatedAt"] > event["updatedAt"]
    [_, updated] = await database.states(event)
    assert isinstance(updated, EventUpdated)
    assert (updated.version, updated.name, str(updated.organizer_id)) == (2, "Other", organizer["id"])
    assert len(updated.tiers) == 1
    for nothing in ({}, {"name": "Other"}, {"isPublished": False}):
        assert (await admin.patch(event, **nothing)).json() == changed
    assert len(await database.states(event)) == 2


async def test_parallel_changes_of_different_fields_all_last(
    admin: Admin, venue: Any, database: Database
) -> None:
    event = await admin.make_event(venue)
    changes: list[dict[str, Any]] = [
        {"name": "Other"},
        {"description": "Words"},
        {"imageUrl": "https://example.com"},
        {"tiers": [STALLS]},
        {"endDate": "2026-01-02T00:00:00Z"},
    ]
    answers = await asyncio.gather(*(admin.patch(event, **change) for change in changes))
    assert {answer.status_code for answer in answers} == {200}
    after = (await admin.get(f"/events/{event['id']}")).json()
    assert (after["name"], after["description"], len(after["tiers"])) == ("Other", "Words", 1)
    states = await database.states(event)
    assert [each.version for each in states] == [1, 2, 3, 4, 5, 6]
    assert len(states[-1].tiers) == 1


async def test_prices_change_after_publishing_and_keep_their_ids(
    admin: Admin, venue: Any, database: Database
) -> None:
    await admin.add_seats(venue, 5, section="B")
    balcony = STALLS | {"name": "Balcony", "sections": ["B"], "tier": "vip"}
    event = await admin.make_event(venue, isPublished=True, tiers=[balcony, STALLS])
    answer = await admin.patch(event, tiers=[STALLS | {"amountMinor": 1}, balcony])
    assert answer.status_code == 200, answer.text
    ids = {tier["name"]: tier["id"] for tier in event["tiers"]}
    assert [(tier["name"], tier["id"], tier["amountMinor"]) for tier in answer.json()["tiers"]] == [
        ("Stalls", ids["Stalls"], 1),
        ("Balcony", ids["Balcony"], 4500),
    ]
    [_, updated] = await database.states(event)
    assert (updated.seat_map_version, updated.seat_count) == (1, 15)
    assert await database.seat_map(event, 2) == []


async def test_venue_and_currency_are_settled_by_publishing(
    admin: Admin, venue: Any, database: Database
) -> None:
    other = await admin.make_venue(seats=3)
    event = await admin.make_event(venue, tiers=[STALLS])
    moved = await admin.patch(event, venueId=other["id"], tiers=[STALLS | {"currency": "jpy"}])
    assert (moved.status_code, moved.json()["venueId"]) == (200, other["id"])
    [_, updated] = await database.states(event)
    assert (updated.seat_map_version, updated.seat_count, updated.currency) == (2, 3, "jpy")
    assert sum(len(part.seats) for part in await database.seat_map(event, 2)) == 3
    assert (await admin.publish(event)).status_code == 200
    refused: list[dict[str, Any]] = [
        {"venueId": venue["id"]},
        {"tiers": [STALLS]},
        {"isPublished": False},
    ]
    for change in refused:
        answer = await admin.patch(event, **change)
        assert (answer.status_code, answer.json()["code"]) == (409, "event_published"), change
    assert (await admin.patch(event, venueId=other["id"])).status_code == 200, "no change"
    free = await admin.patch(event, tiers=[])
    assert (free.status_code, free.json()["tiers"]) == (200, [])
    assert (await admin.patch(event, tiers=[STALLS])).status_code == 409, "its currency stays"
    assert len(await database.states(event)) == 4


async def test_change_may_publish(admin: Admin, venue: Any, database: Database) -> None:
    event = await admin.make_event(venue)
    answer = await admin.patch(event, name="Other", isPublished=True)
    assert (answer.json()["status"], answer.json()["name"]) == ("published", "Other")
    [_, published] = await database.states(event)
    assert (type(published), published.name) == (EventPublished, "Other")


async def test_section_that_no_seat_is_in_keeps_an_event_off_sale(admin: Admin, venue: Any) -> None:
    misspelt = [STALLS | {"sections": ["a", "A"]}]
    draft = await admin.make_event(venue, tiers=misspelt)
    body = {"name": "Opening night", "venueId": venue["id"], **DATES, "tiers": misspelt, "isPublished": True}
    for answer in (await admin.publish(draft), await admin.post("/events", body)):
        assert (answer.status_code, answer.json()["code"]) == (409, "unknown_sections")
        assert answer.json()["sections"] == ["a"]
    await admin.add_seats(venue, 1, section="a")
    assert (await admin.publish(draft)).status_code == 200
    nowhere = await admin.make_venue()
    assert (await admin.make_event(nowhere, tiers=misspelt, isPublished=True))["isPublished"]


@pytest.mark.parametrize(
    ("tiers", "pointer"),
    [
        ([STALLS | {"currency": "xyz"}], "/tiers/0/currency"),
        ([STALLS | {"currency": "euro"}], "/tiers/0/currency"),
        ([STALLS, STALLS | {"sections": ["B"], "currency": "usd"}], "/tiers/1/currency"),
        ([STALLS, STALLS | {"sections": ["B", "A"]}], "/tiers/1/sections/1"),
        ([STALLS | {"sections": ["A", "A"]}], "/tiers/0/sections/1"),
        ([STALLS | {"sections": []}], "/tiers/0/sections"),
        ([STALLS | {"amountMinor": 100_000_000}], "/tiers/0/amountMinor"),
        ([STALLS | {"amountMinor": -1}], "/tiers/0/amountMinor"),
        ([STALLS | {"tier": "gold"}], "/tiers/0/tier"),
        ([STALLS | {"price": 1}], "/tiers/0/price"),
    ],
)
async def test_impossible_tiers_are_refused(admin: Admin, venue: Any, tiers: Any, pointer: str) -> None:
    event = await admin.make_event(venue)
    body = {"name": "Opening night", "venueId": venue["id"], **DATES, "tiers": tiers}
    for answer in (await admin.post("/events", body), await admin.patch(event, tiers=tiers)):
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer), answer.text


async def test_dates_that_cannot_be(admin: Admin, venue: Any) -> None:
    event = await admin.make_event(venue)
    body = {"name": "Opening night", "venueId": venue["id"], **DATES}
    wrong: list[tuple[dict[str, str], str]] = [
        ({"endDate": "2026-01-01T19:59:59Z"}, "/endDate"),
        ({"endDate": "2026-01-01T21:00:00+02:00"}, "/endDate"),
        ({"startDate": "0001-01-01T00:00:00+10:00"}, "/startDate"),
        ({"endDate": "9999-12-31T23:59:59-10:00"}, "/endDate"),
        ({"startDate": "2026-02-30T00:00:00Z"}, "/startDate"),
        ({"startDate": "tomorrow"}, "/startDate"),
        ({"startDate": "2027-01-01T00:00:00Z"}, "/endDate"),
    ]
    for dates, pointer in wrong:
        for answer in (await admin.post("/events", body | dates), await admin.patch(event, **dates)):
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer), dates
    for dates in ({"startDate": "0001-01-01T00:00:00Z"}, {"endDate": "9999-12-31T23:59:59.999999Z"}):
        answer = await admin.post("/events", body | dates)
        assert answer.status_code == 201
        assert (await admin.get(f"/events/{answer.json()['id']}")).json().items() >= dates.items()


async def test_unknown_references_are_404_naming_the_field(admin: Admin, venue: Any) -> None:
    event = await admin.make_event(venue)
    body = {"name": "Opening night", "venueId": venue["id"], **DATES}
    for field in ("venueId", "organizerId"):
        unknown = {field: str(new_id())}
        for answer in (await admin.post("/events", body | unknown), await admin.patch(event, **unknown)):
            assert answer.status_code == 404
            assert answer.json()["errors"][0]["pointer"] == f"/{field}"
    for answer in (
        await admin.patch({"id": new_id()}, name="Other"),
        await admin.publish({"id": new_id()}),
        await admin.cancel({"id": new_id()}),
    ):
        assert answer.status_code == 404


async def test_change_that_dies_before_its_commit_leaves_no_trace(
    admin: Admin, venue: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        raise RuntimeError("killed")

    event = await admin.make_event(venue, tiers=[STALLS])
    with monkeypatch.context() as patch:
        patch.setattr("catalog.events.outbox.publish", die)
        body = {"name": "Never made", "venueId": venue["id"], **DATES}
        assert (await admin.post("/events", body)).status_code == 500
        assert (await admin.publish(event)).status_code == 500
        assert (await admin.patch(event, tiers=[])).status_code == 500
        assert (await admin.cancel(event)).status_code == 500
    assert (await admin.get(f"/events/{event['id']}")).json() == event
    assert len(await database.states(event)) == 1
    [[made]] = await database.run("SELECT count(*) FROM events WHERE name = 'Never made'")
    assert made == 0
    assert (await admin.publish(event)).status_code == 200
    assert [each.version for each in await database.states(event)] == [1, 2]
