"""`Idempotency-Key`: the same request is carried out once and answered alike, whatever happens on the way."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from libs.settings import ServiceSettings
from libs.testing import Serve, Tokens
from libs.web import idempotency
from libs.web.access import anyone, authenticated
from libs.web.application import create_service_app
from libs.web.created import created
from libs.web.idempotency import Attempt
from libs.web.problems import Problem, TemporarilyUnavailable
from litestar import Litestar, Response, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody


class Refused(Problem):
    """A refusal of the business."""

    code = "refused"
    status = 409


class TooMany(Problem):
    """Too many requests."""

    code = "too_many"
    status = 429


@post("/things", guards=[authenticated], summary="Make a thing")
async def make(
    data: JSONBody[dict[str, Any]], attempt: NamedDependency[Attempt], state: State
) -> Response[dict[str, Any]]:
    state.attempts.append(attempt)
    await asyncio.sleep(data.get("seconds", 0))
    match data.get("fail"):
        case "bug":
            raise RuntimeError
        case "away":
            raise TemporarilyUnavailable("Not now.")
        case "business":
            raise Refused("No.")
        case "limit":
            raise TooMany("No.")
        case "once" if len(state.attempts) == 1:
            raise RuntimeError
        case _:
            return created({"id": str(attempt.id)}, f"/things/{attempt.id}")


@delete("/things", guards=[authenticated], summary="Remove")
async def remove(state: State) -> None:
    state.attempts.append(None)


@get("/things", guards=[authenticated], summary="Read")
async def read(state: State) -> int:
    state.attempts.append(None)
    return len(state.attempts)


@post("/auth/things", guards=[anyone], summary="Not under a key")
async def make_openly(state: State) -> int:
    state.attempts.append(None)
    return len(state.attempts)


@pytest.fixture
def app(environment: dict[str, str]) -> Litestar:
    execute(environment, "TRUNCATE idempotency_keys")
    settings = ServiceSettings(
        database_url=environment["INVENTORY_DATABASE_URL"], jwks_url="http://127.0.0.1:1/none"
    )
    app = create_service_app(
        settings, service="inventory", title="Test", routes=[make, remove, read, make_openly]
    )
    app.state.attempts = []
    return app


@pytest_asyncio.fixture
async def client(app: Litestar, serve: Serve) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(app) as client:
        yield client


Make = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def caller(tokens: Tokens) -> dict[str, str]:
    return tokens.issue()


@pytest.fixture
def make_under(client: httpx.AsyncClient, caller: dict[str, str]) -> Make:
    async def call(key: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return await client.post("/things", json=body or {}, headers={**caller, "Idempotency-Key": key})

    return call


def execute(environment: dict[str, str], statement: Any, *values: Any) -> list[Any]:
    with psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        conn.execute("SET search_path = inventory")
        cursor = conn.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


async def test_same_key_and_body_get_the_stored_answer_with_its_headers(
    make_under: Make, app: Litestar
) -> None:
    first, again = await make_under("k"), await make_under("k")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    for name in ("location", "content-type", "cache-control", "content-length"):
        assert first.headers[name] == again.headers[name]
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert len(app.state.attempts) == 1
    assert (await make_under("other")).json() != first.json()


async def test_answer_without_a_body_is_stored_too(
    client: httpx.AsyncClient, app: Litestar, caller: dict[str, str]
) -> None:
    headers = {**caller, "Idempotency-Key": "k"}
    for _ in range(2):
        answer = await client.delete("/things", headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
    assert len(app.state.attempts) == 1


async def test_key_used_for_another_request_is_422(
    client: httpx.AsyncClient, make_under: Make, caller: dict[str, str]
) -> None:
    await make_under("k", {"a": 1})
    headers = {**caller, "Idempotency-Key": "k"}
    others = [
        await make_under("k", {"a": 2}),
        await client.post("/things?a=1", json={"a": 1}, headers=headers),
        await client.delete("/things", headers=headers),
    ]
    assert [each.status_code for each in others] == [422] * 3
    assert {each.json()["code"] for each in others} == {"idempotency_key_reused"}


async def test_key_belongs_to_its_caller(client: httpx.AsyncClient, tokens: Tokens, app: Litestar) -> None:
    for _ in range(2):
        headers = {**tokens.issue(), "Idempotency-Key": "k"}
        assert (await client.post("/things", json={}, headers=headers)).status_code == 201
    assert len(app.state.attempts) == 2


async def test_many_at_once_run_once_and_the_others_are_told_to_wait(make_under: Make, app: Litestar) -> None:
    answers = await asyncio.gather(*(make_under("k", {"seconds": 0.3}) for _ in range(20)))
    assert sorted(each.status_code for each in answers) == [201] + [409] * 19
    assert {each.json()["code"] for each in answers if each.status_code == 409} == {"request_in_progress"}
    assert all(each.headers["retry-after"] == "1" for each in answers if each.status_code == 409)
    again = await make_under("k", {"seconds": 0.3})
    assert again.json() in [each.json() for each in answers]
    assert len(app.state.attempts) == 1


async def test_request_whose_process_died_runs_again_as_the_same_attempt(
    make_under: Make, app: Litestar, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run commits and dies before its answer is stored: nothing of it is left but its lock."""

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(idempotency._Answers, "keep", die)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(asyncio.CancelledError):
            await make_under("k")
    assert (await make_under("k")).status_code == 409
    assert len(app.state.attempts) == 1
    execute(environment, "UPDATE idempotency_keys SET locked_until = now() - interval '1 second'")

    answers = await asyncio.gather(*(make_under("k") for _ in range(5)))
    assert sum(each.status_code == 201 for each in answers) >= 1
    first, second = app.state.attempts
    assert (first.is_repeat, second) == (False, Attempt(first.id, is_repeat=True))
    assert (await make_under("k")).json() == {"id": str(first.id)}


async def test_slow_run_renews_its_lock_and_its_answer_is_kept(
    make_under: Make, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "RENEW_SECONDS", 0.05)
    slow = asyncio.ensure_future(make_under("k", {"seconds": 1.5}))
    locks: set[Any] = set()
    async with asyncio.timeout(5):
        while len(locks) < 3:
            locks |= set(execute(environment, "SELECT locked_until FROM idempotency_keys WHERE key = 'k'"))
            await asyncio.sleep(0.01)
    assert (await make_under("k", {"seconds": 1.5})).status_code == 409
    first, again = await slow, await make_under("k", {"seconds": 1.5})
    assert (first.json(), again.headers["idempotent-replayed"]) == (again.json(), "true")


async def test_run_that_was_overtaken_does_not_replace_the_answer(
    make_under: Make, environment: dict[str, str]
) -> None:
    slow = asyncio.ensure_future(make_under("k", {"seconds": 0.5}))
    async with asyncio.timeout(5):
        while not execute(environment, "SELECT 1 FROM idempotency_keys WHERE key = 'k'"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    execute(
        environment,
        "UPDATE idempotency_keys SET status = 200, headers = '{}', body = 'x', locked_until = now()",
    )
    assert (await slow).status_code == 201
    assert (await make_under("k", {"seconds": 0.5})).text == "x"


@pytest.mark.parametrize(("fail", "status"), [("bug", 500), ("away", 503), ("limit", 429)])
async def test_failure_of_ours_is_not_kept_and_the_next_one_is_the_same_attempt(
    make_under: Make, app: Litestar, fail: str, status: int
) -> None:
    for _ in range(2):
        assert (await make_under("k", {"fail": fail})).status_code == status
    first, second = app.state.attempts
    assert second == Attempt(first.id, is_repeat=True)


async def test_failure_followed_by_success_is_kept(make_under: Make) -> None:
    statuses = [(await make_under("k", {"fail": "once"})).status_code for _ in range(3)]
    assert statuses == [500, 201, 201]


async def test_refusal_is_kept(make_under: Make, app: Litestar) -> None:
    answers = [await make_under("k", {"fail": "business"}) for _ in range(2)]
    assert [each.json()["code"] for each in answers] == ["refused"] * 2
    assert answers[0].json()["traceId"] == answers[1].json()["traceId"]
    assert len(app.state.attempts) == 1


async def test_answer_is_true_also_when_it_cannot_be_stored(
    make_under: Make, app: Litestar, environment: dict[str, str]
) -> None:
    execute(environment, "ALTER TABLE idempotency_keys ADD CONSTRAINT full_up CHECK (status IS NULL)")
    try:
        assert (await make_under("k")).status_code == 201
    finally:
        execute(environment, "ALTER TABLE idempotency_keys DROP CONSTRAINT full_up")
    assert len(app.state.attempts) == 1


async def test_answers_are_kept_for_a_day(
    make_under: Make, app: Litestar, environment: dict[str, str]
) -> None:
    await make_under("k")
    execute(environment, "UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes'")
    await make_under("k")
    assert len(app.state.attempts) == 1
    execute(environment, "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 minute'")
    assert (await make_under("k", {"another": "body"})).status_code == 201
    first, second = app.state.attempts
    assert first.id != second.id
    assert not second.is_repeat


async def test_only_a_digest_of_the_body_is_kept(make_under: Make, environment: dict[str, str]) -> None:
    await make_under("k", {"note": "a-rare-word"})
    (row,) = execute(environment, "SELECT idempotency_keys::text, length(digest) FROM idempotency_keys")
    assert row[1] == 32
    assert "a-rare-word" not in row[0]
    assert b"a-rare-word".hex() not in row[0]


async def test_key_that_is_no_key_is_400(
    client: httpx.AsyncClient, make_under: Make, caller: dict[str, str]
) -> None:
    for key in ("x" * 256, "", "a\tb"):
        answer = await make_under(key)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "header/Idempotency-Key")
    two = [*caller.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await client.post("/things", json={}, headers=two)).status_code == 400
    assert (await make_under("x" * 255)).status_code == 201


async def test_reads_and_paths_without_keys_ignore_the_header(
    client: httpx.AsyncClient, caller: dict[str, str], app: Litestar
) -> None:
    headers = {**caller, "Idempotency-Key": "k"}
    assert [(await client.get("/things", headers=headers)).json() for _ in range(2)] == [1, 2]
    assert [(await client.post("/auth/things", headers=headers)).json() for _ in range(2)] == [3, 4]


async def test_request_without_a_valid_token_leaves_nothing_behind(
    client: httpx.AsyncClient, environment: dict[str, str]
) -> None:
    for headers in ({}, {"Authorization": "Bearer x.y.z"}):
        answer = await client.post("/things", json={}, headers={**headers, "Idempotency-Key": "k-of-nobody"})
        assert answer.status_code == 401
    assert not execute(environment, "SELECT 1 FROM idempotency_keys WHERE key = 'k-of-nobody'")


async def test_body_cut_off_half_way_claims_nothing(
    app: Litestar, client: httpx.AsyncClient, caller: dict[str, str], environment: dict[str, str]
) -> None:
    messages = [
        {"type": "http.request", "body": b'{"half":', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(_: Any) -> None:
        pytest.fail("nobody is there to be answered")

    headers = [
        (b"host", b"localhost"),
        (b"idempotency-key", b"cut"),
        (b"authorization", caller["Authorization"].encode()),
    ]
    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/things",
        "raw_path": b"/things",
        "client": ("127.0.0.1", 1),
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
    }
    await app(scope, receive, send)
    assert not execute(environment, "SELECT 1 FROM idempotency_keys WHERE key = 'cut'")
