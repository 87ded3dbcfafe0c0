"""The HTTP edge: access, strict bodies, problems, idempotency, fresh ids."""

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest
import pytest_asyncio
from libs.ids import new_id, seconds_since_minted
from libs.settings import ServiceSettings
from libs.testing import Serve, Tokens
from libs.web.access import admin, anyone, authenticated
from libs.web.application import create_service_app
from libs.web.freshness import FreshnessGate
from libs.web.problems import TemporarilyUnavailable
from libs.web.tokens import Caller
from litestar import Litestar, WebSocket, get, post, websocket
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct


class Seat(Struct, rename="camel", forbid_unknown_fields=True):
    seat_number: Annotated[int, Meta(ge=0)]
    section: Annotated[str, Meta(min_length=1)]


class Seats(Struct, rename="camel", forbid_unknown_fields=True):
    seats: Annotated[list[Seat], Meta(max_length=3)]


@post("/seats", guards=[anyone], status_code=200)
async def echo(data: JSONBody[Seats]) -> Seats:
    return data


class Note(Struct):
    """As many of ours: a field that it does not know is passed over."""

    pages: int | None = None


@post("/notes", guards=[anyone], status_code=200)
async def echo_note(data: JSONBody[Note]) -> Note:
    return data


@get("/things/{thing_id:str}", guards=[anyone])
async def thing(thing_id: FromPath[UUID]) -> dict[str, str]:
    return {"id": str(thing_id)}


@get("/boom", guards=[anyone])
async def boom() -> None:
    raise RuntimeError("SELECT secret FROM table")  # as an exception of a driver would tell


@get("/mine", guards=[authenticated])
async def mine(caller: NamedDependency[Caller]) -> str:
    return str(caller.user_id)


@get("/office", guards=[admin])
async def office() -> str:
    return "ok"


@pytest.fixture
def app(environment: dict[str, str]) -> Litestar:
    settings = ServiceSettings(
        database_url=environment["INVENTORY_DATABASE_URL"], jwks_url="http://127.0.0.1:1/none"
    )
    return create_service_app(
        settings, service="inventory", title="Test", routes=[echo, echo_note, thing, boom, mine, office]
    )


@pytest_asyncio.fixture
async def client(app: Litestar, serve: Serve) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(app) as client:
        yield client


@get("/open")
async def forgotten() -> str:
    return ""


@websocket("/talk")
async def forgotten_socket(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()


@get("/unsure", guards=[authenticated, admin])
async def unsure() -> str:
    return ""


@pytest.mark.parametrize("planted", [forgotten, forgotten_socket, unsure])
def test_route_without_one_access_rule_does_not_start(planted: BaseRouteHandler) -> None:
    with pytest.raises(ValueError, match="names no access rule, or several"):
        create_service_app(
            ServiceSettings(database_url="postgresql://x"),
            service="inventory",
            title="T",
            routes=[mine, planted],
        )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"seats":[{"seatNumber":"7","section":"A"}]}', "/seats/0/seatNumber"),
        (b'{"seats":[{"seatNumber":7.5,"section":"A"}]}', "/seats/0/seatNumber"),
        (b'{"seats":[{"seatNumber":-1,"section":"A"}]}', "/seats/0/seatNumber"),
        (b'{"seats":[{"seatNumber":-1.0,"section":"A"}]}', "/seats/0/seatNumber"),
        (b'{"seats":[{"seatNumber":1e300,"section":"A"}]}', "/seats/0/seatNumber"),
        (b'{"seats":[{"seatNumber":1e400,"section":"A"}]}', "/seats/0/seatNumber"),
        (b'{"seats":[{"seatNumber":1.0,"section":""}]}', "/seats/0/section"),
        (b'{"seats":[{"seatNumber":1.0,"section":"A","x":1}]}', "/seats/0/x"),
        (b'{"seats":[{"seatNumber":1.0,"section":"\\u0000"}]}', "/"),
        (b'{"seats":[{"seatNumber":1,"section":""}]}', "/seats/0/section"),
        (b'{"seats":[{"seatNumber":1,"section":"A","x":1}]}', "/seats/0/x"),
        (b'{"seats":[{"section":"A"}]}', "/seats/0/seatNumber"),
        (b"{}", "/seats"),
        (b'{"seats":[' + b",".join([b'{"seatNumber":1,"section":"A"}'] * 4) + b"]}", "/seats"),
        (b'{"seats":[{"seatNumber":1,"section":"A\\u0000"}]}', "/"),
        (b'{"seats":', "/"),
        (b"\xff", "/"),
        (b"", "/"),
        (b"null", "/"),
    ],
)
async def test_wrong_body_is_400_and_names_the_field(
    client: httpx.AsyncClient, body: bytes, pointer: str
) -> None:
    answer = await client.post("/seats", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "codec" not in answer.text


@pytest.mark.parametrize("number", [b"7.0", b"7", b"0.7e1", b"70e-1"])
async def test_number_without_a_fraction_is_an_integer_however_it_is_written(
    client: httpx.AsyncClient, number: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    seats = b'{"seats":[{"seatNumber":%b,"section":"7.0"}]}' % number
    answer = await client.post("/seats", content=seats, headers=headers)
    assert answer.json() == {"seats": [{"seatNumber": 7, "section": "7.0"}]}
    answer = await client.post("/notes", content=b'{"pages":%b}' % number, headers=headers)
    assert answer.json() == {"pages": 7}


@pytest.mark.parametrize("start", [b"", b'{"unknown":', b'{"pages":7.0,"unknown":'])
async def test_body_that_is_nested_without_end_is_400(client: httpx.AsyncClient, start: bytes) -> None:
    for nested in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000 + b"}"):
        answer = await client.post(
            "/notes", content=start + nested, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_problems_are_documents_with_a_message_and_no_inner_text(client: httpx.AsyncClient) -> None:
    for path, status in (("/nowhere", 404), ("/things/x", 400), ("/boom", 500), ("/mine", 401)):
        answer = await client.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["message"] == problem["detail"]
        assert "SELECT" not in answer.text
    assert (await client.put("/seats")).status_code == 405


async def test_body_larger_than_the_limit_is_413(client: httpx.AsyncClient) -> None:
    answer = await client.post("/seats", content=b"x" * 1_100_000)
    assert answer.status_code == 413


async def test_tokens_of_another_kind_key_or_time_are_refused(
    client: httpx.AsyncClient, tokens: Tokens
) -> None:
    now = time.time()
    public_pem = tokens.public_key.key.public_bytes_raw()
    forged = jwt.encode(
        {"sub": str(new_id()), "iss": "ticketing-auth", "aud": "ticketing", "iat": now, "exp": now + 60},
        public_pem,
        algorithm="HS256",
        headers={"kid": "test", "typ": "at+jwt"},
    )
    bad = [
        tokens.issue(exp=now - 60),
        tokens.issue(aud="elsewhere"),
        tokens.issue(iss="elsewhere"),
        tokens.issue(sub="not an id"),
        Tokens().issue(),
        {"Authorization": f"Bearer {forged}"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": "Basic abc"},
        {},
    ]
    for headers in bad:
        assert (await client.get("/mine", headers=headers)).status_code == 401
    assert (await client.get("/mine", headers=tokens.issue())).status_code == 200
    refused = await client.get("/office", headers=tokens.issue())
    assert (refused.status_code, "Admin" in refused.json()["message"]) == (403, True)


async def test_token_issued_before_a_revocation_is_refused_and_a_later_one_is_not(
    client: httpx.AsyncClient, app: Litestar, tokens: Tokens, environment: dict[str, str]
) -> None:
    user_id = new_id()
    old = tokens.issue(user_id, iat=time.time() - 5)
    assert (await client.get("/mine", headers=old)).status_code == 200
    with psycopg.connect(environment["INVENTORY_WORKER_DATABASE_URL"]) as conn:
        conn.execute("INSERT INTO token_revocations VALUES (%s, %s)", [user_id, datetime.now(UTC)])
    async with asyncio.timeout(10):
        while (await client.get("/mine", headers=old)).status_code != 401:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await client.get("/mine", headers=tokens.issue(user_id))).status_code == 200


def test_ids_minted_in_bulk_sort_by_time_and_do_not_run_ahead_of_the_clock() -> None:
    ids = [new_id() for _ in range(50_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    before = time.time() + 0.002
    assert (new_id().int >> 80) / 1000 <= before + 1


async def test_fresh_id_is_waited_for_an_old_one_is_not_and_waiters_are_bounded() -> None:
    gate = FreshnessGate(max_waiting=1)
    answers = [None, None, "there"]

    async def find() -> str | None:
        return answers.pop(0) if answers else None

    assert await gate.find_fresh(new_id(), find) == "there"
    assert await gate.find_fresh(UUID("018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01"), find) is None
    assert seconds_since_minted(UUID(int=1)) == float("inf")
    waiting = asyncio.create_task(gate.find_fresh(new_id(), find))
    await asyncio.sleep(0)
    with pytest.raises(TemporarilyUnavailable):
        await gate.wait_for(find)
    with pytest.raises(TemporarilyUnavailable):
        await waiting
    # Whoever waited, with or without success, has made room for the next one.
    answers += [None, "there again"]
    assert await gate.find_fresh(new_id(), find) == "there again"
