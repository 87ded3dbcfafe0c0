"""Guessing at passwords: bounded for each network and account; an owner is never locked out by strangers."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio
import redis.asyncio
from auth import guesses
from auth.app import create_app
from auth.worker import forget_old_networks
from libs.ids import new_id
from libs.postgres import create_pool
from libs.testing import Serve

from services.auth.tests.support import PASSWORD, Database, Person, new_email

HOME = "192.0.2.10"
ATTACKER = "198.51.100.10"


@pytest_asyncio.fixture
async def client(
    environment: dict[str, str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[httpx.AsyncClient]:
    """Three wrong passwords are allowed here."""
    monkeypatch.setenv("LOGIN_FAILURES_MAX", "3")
    app = create_app()
    async with serve(app) as client:
        await app.state.key_ring.load()
        yield client


async def log_in(person: Person, address: str, password: str | None = None) -> int:
    body = {"email": person.email, "password": password or person.password}
    answer = await person.client.post("/auth/login", json=body, headers={"X-Forwarded-For": address})
    if answer.status_code == 429:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "rate_limited"
    return answer.status_code


async def test_wrong_passwords_close_the_account_to_their_network_alone(ada: Person) -> None:
    assert [await log_in(ada, ATTACKER, "wrong horse") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert await log_in(ada, ATTACKER) == 429, "the right one is not even looked at"
    assert await log_in(ada, "198.51.100.77") == 429, "it is the network that counts"
    assert await log_in(ada, HOME) == 200


async def test_right_passwords_are_not_counted(ada: Person) -> None:
    assert [await log_in(ada, HOME) for _ in range(8)] == [200] * 8
    assert await log_in(ada, HOME, "wrong horse") == 401
    assert [await log_in(ada, HOME) for _ in range(4)] == [200] * 4


async def test_right_passwords_at_the_same_moment_do_not_refuse_each_other(ada: Person) -> None:
    assert await asyncio.gather(*(log_in(ada, HOME) for _ in range(30))) == [200] * 30
    assert [await log_in(ada, HOME, "wrong horse") for _ in range(4)] == [401] * 3 + [429]


async def test_those_who_wait_for_their_turn_at_an_account_are_bounded(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "MAX_WAITING", 2)
    answers = await asyncio.gather(*(ada.try_log_in() for _ in range(10)))
    statuses = {each.status_code for each in answers}
    assert statuses == {200, 503}
    assert all(each.headers["retry-after"] == "1" for each in answers if each.status_code == 503)
    assert await log_in(ada, HOME) == 200


async def test_parallel_guesses_do_not_slip_through(ada: Person) -> None:
    answers = await asyncio.gather(*(log_in(ada, ATTACKER, f"wrong {number}") for number in range(20)))
    assert sorted(answers) == [401] * 3 + [429] * 17


async def test_account_that_does_not_exist_is_closed_in_the_same_way(client: httpx.AsyncClient) -> None:
    nobody = Person(client, email=new_email())
    assert [await log_in(nobody, ATTACKER) for _ in range(4)] == [401] * 3 + [429]
    assert [await log_in(nobody, f"203.0.{number}.1") for number in range(27)] == [401] * 27
    assert await log_in(nobody, "203.1.0.1") == 429


async def test_many_networks_together_are_stopped_and_the_owners_is_not(ada: Person) -> None:
    assert await log_in(ada, HOME) == 200
    answers = [await log_in(ada, f"203.0.{number // 3}.1", "wrong horse") for number in range(33)]
    assert answers == [401] * 30 + [429] * 3
    assert await log_in(ada, "203.1.0.1") == 429, "a network that nobody knows"
    assert await log_in(ada, HOME) == 200, "one that has logged in before"
    assert await log_in(ada, "127.0.0.200") == 200, "and the one of the registration"


async def test_networks_are_remembered_for_their_owner_alone_and_forgotten_in_the_end(
    ada: Person, client: httpx.AsyncClient, database: Database, environment: dict[str, str]
) -> None:
    assert [await log_in(ada, HOME) for _ in range(2)] == [200, 200]
    assert await log_in(ada, ATTACKER, "wrong horse") == 401
    rows = await database.run("SELECT network::text FROM known_networks WHERE user_id = %s", ada.id)
    assert {row[0] for row in rows} == {"127.0.0.0/24", "192.0.2.0/24"}
    await database.run(
        "UPDATE known_networks SET seen_at = now() - interval '200 days'"
        " WHERE user_id = %s AND network = '192.0.2.0/24'",
        ada.id,
    )
    async with create_pool(environment["AUTH_WORKER_DATABASE_URL"]) as pool:
        await forget_old_networks(pool)
    rows = await database.run("SELECT network::text FROM known_networks WHERE user_id = %s", ada.id)
    assert [row[0] for row in rows] == ["127.0.0.0/24"]


async def test_stolen_token_does_not_guess_the_password(ada: Person) -> None:
    answers = [await ada.try_change_password(f"wrong {number}", "battery staple") for number in range(4)]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 429]
    assert (await ada.try_change_password(PASSWORD, "battery staple")).status_code == 429


async def test_no_key_in_redis_has_an_email_address(ada: Person, backing: dict[str, str]) -> None:
    await log_in(ada, ATTACKER, "wrong horse")
    async with redis.asyncio.Redis.from_url(backing["REDIS_URL"]) as client:
        keys = [key.decode() async for key in client.scan_iter("limit:wrong-passwords*", count=10_000)]
    assert keys
    assert not [key for key in keys if "@" in key or ada.email.casefold() in key]


async def test_network_is_limited_whatever_the_account_and_registrations_apart(
    environment: dict[str, str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_RATE_LIMIT_MAX", "3")
    app = create_app()
    number = int(new_id()) & 0xFFFF
    network = f"100.{number >> 8}.{number & 0xFF}"
    async with serve(app) as client:
        await app.state.key_ring.load()
        people = [Person(client, email=new_email()) for _ in range(4)]
        assert [await log_in(person, f"{network}.{each}") for each, person in enumerate(people)] == [
            401,
            401,
            401,
            429,
        ]
        answers = [
            await client.post(
                "/auth/register",
                json={"email": person.email, "password": PASSWORD, "name": "Ada"},
                headers={"X-Forwarded-For": f"{network}.7"},
            )
            for person in people
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
        assert answers[0].headers["ratelimit-policy"].endswith(', "registrations";q=3;w=900')
        assert await log_in(people[0], HOME) == 200


async def test_without_redis_passwords_are_not_checked_and_the_rest_goes_on(
    environment: dict[str, str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    app = create_app()
    async with serve(app) as client:
        await app.state.key_ring.load()
        ada = await Person(client).register()
        for answer in (await ada.try_log_in(), await ada.try_change_password(PASSWORD, "battery staple")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await ada.try_me()).status_code == 200
        assert (await ada.try_refresh()).status_code == 200
        assert (await client.get("/auth/ready")).json()["degraded"] == ["redis"]
