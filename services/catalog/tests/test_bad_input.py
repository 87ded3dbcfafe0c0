"""Bad input: whatever an admin's body has in a field, the answer is 400 naming it, never 500."""

from collections.abc import Iterator
from typing import Any

import pytest
from libs.ids import new_id

from services.catalog.tests.support import DATES, STALLS, VENUE, Admin

WRONG: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        7,
        -1,
        1.5,
        2**63,
        10**400,
        "",
        "x",
        "7",
        "x" * 20_000,
        "\x00",
        "\N{GRINNING FACE}",
    ),
    *([], [None], [[]], {}, {"a": 1}, "00000000-0000-0000-0000-000000000000", "2026-01-01", "NaN"),
]
SEAT = {"section": "A", "row": "1", "seatNumber": 5}


def types_of(field: str) -> tuple[type, ...]:
    """What JSON types a field takes."""
    if field == "seatNumber":
        return (int, type(None))
    if field == "amountMinor":
        return (int,)
    if field == "isPublished":
        return (bool,)
    if field in ("seats", "sections"):
        return (list,)
    if field == "tiers":
        return (list, type(None))
    if field in ("organizerId", "description", "imageUrl", "logoUrl", "row"):
        return (str, type(None))
    return (str,)


def spoilt(body: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(pointer, wrong value, the body with it) for every field, those of nested objects included."""
    for field, good in body.items():
        for wrong in WRONG:
            yield f"{path}/{field}", wrong, {**body, field: wrong}
        if isinstance(good, list) and good and isinstance(good[0], dict):
            for pointer, wrong, item in spoilt(good[0], f"{path}/{field}/0"):
                yield pointer, wrong, {**body, field: [item, *good[1:]]}


def is_of_another_type(pointer: str, wrong: Any) -> bool:
    types = types_of(pointer.rsplit("/", 1)[1])
    return not isinstance(wrong, types) or (isinstance(wrong, bool) and bool not in types)


@pytest.mark.parametrize("target", ["organizers", "venues", "seats", "events", "change"])
async def test_every_field_with_every_wrong_value(admin: Admin, target: str) -> None:
    venue = await admin.make_venue(seats=1)
    event_body = {
        "name": "Opening night",
        "venueId": venue["id"],
        "organizerId": None,
        "description": "Words",
        "imageUrl": "https://example.com",
        **DATES,
        "isPublished": False,
        "tiers": [{**STALLS, "tier": "vip"}],
    }
    method, path, body = "POST", f"/{target}", event_body
    if target == "organizers":
        body = {"name": "T", "email": "office@example.com", "slug": f"t-{new_id()}", "logoUrl": None}
    elif target == "venues":
        body = {**VENUE, "description": None, "organizerId": None}
    elif target == "seats":
        path, body = f"/venues/{venue['id']}/seats", {"seats": [SEAT]}
    elif target == "change":
        event = await admin.make_event(venue)
        method, path = "PATCH", f"/events/{event['id']}"
    for pointer, wrong, spoilt_body in spoilt(body):
        answer = await admin.client.request(method, path, json=spoilt_body, headers=admin.headers)
        told = f"{method} {path} {pointer} = {wrong!r:.60}: {answer.text[:300]}"
        assert answer.status_code in (200, 201, 400, 404, 409), told
        if is_of_another_type(pointer, wrong) and not (target == "change" and pointer == "/tiers"):
            assert answer.status_code == 400, told
        if answer.status_code == 400:
            [error] = answer.json()["errors"]
            assert error["pointer"].startswith(pointer) or error["pointer"] == "/", told
            # The whole body is at fault only where a character or a number in it can be in no body.
            assert error["pointer"] != "/" or wrong in ("\x00", 10**400), told
    for unknown in ({**body, "unknown": 1}, {**body, "__proto__": {}}):
        answer = await admin.client.request(method, path, json=unknown, headers=admin.headers)
        assert answer.status_code == 400, answer.text
        assert "unknown" in answer.json()["message"]


async def test_missing_fields_are_named(admin: Admin) -> None:
    venue = await admin.make_venue()
    bodies: dict[str, dict[str, Any]] = {
        "/organizers": {"name": "T", "email": "a@example.com", "slug": "t"},
        "/venues": VENUE,
        "/events": {"name": "N", "venueId": venue["id"], **DATES},
        f"/venues/{venue['id']}/seats": {"seats": [SEAT]},
    }
    for path, body in bodies.items():
        for field in body:
            answer = await admin.post(path, {name: value for name, value in body.items() if name != field})
            assert answer.status_code == 400
            assert field in answer.json()["message"]


async def test_what_is_no_json_object_is_400(admin: Admin) -> None:
    venue = await admin.make_venue()
    event = await admin.make_event(venue)
    calls = [
        *(("POST", path) for path in ("/organizers", "/venues", "/events", f"/venues/{venue['id']}/seats")),
        ("PATCH", f"/events/{event['id']}"),
    ]
    for method, path in calls:
        for body in (b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'"\\ud800"', b"[" * 100_000):
            answer = await admin.client.request(
                method, path, content=body, headers={**admin.headers, "Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), (path, body[:20])
