"""Limits: exact for all replicas together, by user or by the address that our proxies tell."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis.asyncio
from embedded.stack import Stack
from embedded.testing import running_stack
from libs.ids import new_id
from libs.settings import ServiceSettings
from libs.testing import Serve, Tokens
from libs.web.access import anyone, authenticated
from libs.web.addresses import client_address, network_of
from libs.web.application import create_service_app
from libs.web.buckets import Bucket, Buckets, RateLimit
from libs.web.limits import UNLIMITED
from litestar import Litestar, get

PROXY = "10.0.0.1"


def bucket(quota: int, *, seconds: float = 3600) -> Bucket:
    return RateLimit("test", quota, seconds).bucket(new_id())


@asynccontextmanager
async def buckets_at(redis_url: str) -> AsyncGenerator[Buckets]:
    buckets = Buckets(redis_url)
    try:
        yield buckets
    finally:
        await buckets.close()


@pytest_asyncio.fixture
async def buckets(backing: dict[str, str]) -> AsyncGenerator[Buckets]:
    async with buckets_at(backing["REDIS_URL"]) as buckets:
        yield buckets


@pytest.fixture
def own_redis() -> Iterator[Stack]:
    with running_stack(("redis",)) as stack:
        yield stack


async def given(buckets: Buckets, *wanted: Bucket) -> bool:
    verdict = await buckets.take(*wanted)
    assert verdict is not None, "Redis is away"
    return verdict.is_given


async def test_replicas_that_race_give_exactly_the_quota(backing: dict[str, str]) -> None:
    contested = bucket(10)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(buckets_at(backing["REDIS_URL"])) for _ in range(3)]
        answers = await asyncio.gather(*(given(replicas[each % 3], contested) for each in range(90)))
    assert answers.count(True) == 10


async def test_requests_that_come_together_share_round_trips(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    ask: Any = buckets._take  # pyright: ignore[reportPrivateUsage]

    async def count(keys: list[str], arguments: list[str]) -> bytes:
        sent.append(len(keys))
        return await ask(keys, arguments)

    monkeypatch.setattr(buckets, "_take", count)
    wanted = [bucket(1) for _ in range(100)]
    answers = await asyncio.gather(*(given(buckets, each) for each in wanted * 2))
    assert answers == [True] * 100 + [False] * 100, "each has its own answer"
    assert (sum(sent), len(sent)) == (200, 1)


async def test_tokens_come_back_evenly(buckets: Buckets) -> None:
    limited = bucket(2, seconds=2)
    started = time.monotonic()
    assert [await given(buckets, limited) for _ in range(3)] == [True, True, False]
    verdict = await buckets.take(limited)
    assert verdict is not None
    assert (verdict.wait_seconds, verdict.left) == (1, [(0, 2)])
    async with asyncio.timeout(10):
        while not await given(buckets, limited):  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)
    assert time.monotonic() - started >= 0.9, "one after half of the window"
    assert not await given(buckets, limited), "and no more than one"


async def test_tokens_are_taken_from_all_buckets_or_from_none(buckets: Buckets) -> None:
    small, large = bucket(1), bucket(3)
    assert await given(buckets, large, small)
    assert not await given(buckets, large, small)
    verdict = await buckets.take(large)
    assert verdict is not None
    assert verdict.left[0][0] == 1, "the refused request has cost nothing"


async def test_what_is_given_back_can_be_taken_again_and_no_more(buckets: Buckets) -> None:
    one = bucket(1)
    for _ in range(3):
        assert await given(buckets, one)
        await buckets.give_back(one)
    await buckets.give_back(one)
    assert [await given(buckets, one) for _ in range(2)] == [True, False]


async def test_emptied_redis_is_no_error(buckets: Buckets, backing: dict[str, str]) -> None:
    one = bucket(1)
    assert await given(buckets, one)
    async with redis.asyncio.Redis.from_url(backing["REDIS_URL"]) as client:
        await client.script_flush()
        await client.delete(one.key)
    assert await given(buckets, one)


async def test_bug_while_redis_is_asked_reaches_those_who_asked_and_nobody_waits_for_ever(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_nonsense(*_: Any) -> bytes:
        await asyncio.sleep(0)
        return b"1 nan"

    with monkeypatch.context() as patch:
        patch.setattr(buckets, "_take", answer_nonsense)
        async with asyncio.timeout(5):
            asking = (given(buckets, bucket(1)) for _ in range(300))  # more than one round trip
            answers = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(each) for each in answers} == {ValueError}
    assert await given(buckets, bucket(1))


@pytest.mark.parametrize("turns", [1, 2], ids=["before Redis is asked", "while Redis is asked"])
async def test_who_still_waits_when_all_ends_is_let_go(
    backing: dict[str, str], monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    async with buckets_at(backing["REDIS_URL"]) as buckets:
        monkeypatch.setattr(buckets, "_take", lambda *_: asyncio.sleep(3600))  # pyright: ignore[reportUnknownLambdaType]
        waiting = [asyncio.create_task(buckets.take(bucket(1))) for _ in range(300)]
        for _ in range(turns):
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in ended} == {asyncio.CancelledError}


@pytest.mark.parametrize(("quota", "seconds"), [(0, 60), (-1, 60), (1, 0), (1, -1), (2, 0.000_001)])
def test_limit_that_limits_nothing_is_refused(quota: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="the limit 'test' is none"):
        RateLimit("test", quota, seconds)


async def test_nobody_waits_for_a_redis_that_is_away_and_its_return_is_noticed(
    own_redis: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    one = bucket(1)
    async with buckets_at(own_redis.environment()["REDIS_URL"]) as buckets:
        assert await given(buckets, one)
        await asyncio.to_thread(own_redis.stop, ["redis"])
        assert await asyncio.gather(*(buckets.take(one) for _ in range(50))) == [None] * 50
        assert caplog.text.count("Redis is away") == 1
        await asyncio.to_thread(own_redis.start, ["redis"])
        async with asyncio.timeout(20):
            while await buckets.take(one) is None:  # noqa: ASYNC110 - what is waited for is in another process
                await asyncio.sleep(0.05)
    assert "Redis is back" in caplog.text


async def test_restart_of_redis_costs_no_request_its_limit(own_redis: Stack) -> None:
    async with buckets_at(own_redis.environment()["REDIS_URL"]) as buckets:
        assert await given(buckets, bucket(1))
        await asyncio.to_thread(own_redis.stop, ["redis"])
        await asyncio.to_thread(own_redis.start, ["redis"])
        assert await given(buckets, bucket(1)), "although its connection was cut"


async def test_silent_redis_costs_one_time_out_and_not_one_for_each_request(own_redis: Stack) -> None:
    pid = own_redis.supervisor.processes()["redis"].pid
    assert pid is not None
    async with buckets_at(own_redis.environment()["REDIS_URL"]) as buckets:
        assert await given(buckets, bucket(1))
        os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            for _ in range(50):
                assert await buckets.take(bucket(1)) is None
            assert time.monotonic() - started < 5, "50 time-outs are 15 s"
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        # A stranger's word counts for nothing.
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        (PROXY, ["192.0.2.7"], "192.0.2.7"),
        (PROXY, [], PROXY),
        # What a client sends itself stands before what the proxy appends.
        (PROXY, ["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (PROXY, ["198.51.100.1", "192.0.2.7"], "192.0.2.7"),
        (PROXY, [f"198.51.100.1, 192.0.2.7, 10.0.0.2,{PROXY}"], "192.0.2.7"),
        (PROXY, ["10.0.0.2"], "10.0.0.2"),
        (PROXY, ["nonsense"], PROXY),
        (PROXY, ["192.0.2.7, nonsense"], PROXY),
        (PROXY, ["\xff"], PROXY),
        (f"::ffff:{PROXY}", ["2001:db8::1"], "2001:db8::1"),
        (f"::ffff:{PROXY}", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("unix:", [], "0.0.0.0"),  # noqa: S104
    ],
)
def test_client_is_the_last_address_that_is_no_proxy_of_ours(
    peer: str, forwarded: list[str], expected: str
) -> None:
    scope: Any = {
        "client": (peer, 4711),
        "headers": [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded],
    }
    trusted = [ip_network("10.0.0.0/30"), ip_network("2001:db8:1::/48")]
    assert client_address(scope, trusted_proxies=trusted) == ip_address(expected)


def test_network_is_what_one_customer_has() -> None:
    assert str(network_of(ip_address("127.1.0.1"))) == "127.1.0.0/24"
    assert str(network_of(ip_address("2001:db8:1:2ff:3::4"))) == "2001:db8:1:200::/56"


def test_proxies_that_are_no_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="TRUSTED_PROXIES"):
        ServiceSettings(database_url="postgresql://x", trusted_proxies="10.0.0.1, gateway")


@get("/open", guards=[anyone])
async def open_to_all() -> str:
    return "ok"


@get("/mine", guards=[authenticated], opt={"limit": "small"})
async def mine() -> str:
    return "ok"


@get("/by-network", guards=[anyone], opt={"limit": "networks"})
async def by_network() -> str:
    return "ok"


@get("/always", guards=[anyone], opt=UNLIMITED)
async def always() -> str:
    return "ok"


def make_app(environment: dict[str, str], *, quota: int = 5, seconds: int = 900, redis: str = "") -> Litestar:
    settings = ServiceSettings(
        database_url=environment["INVENTORY_DATABASE_URL"],
        jwks_url="http://127.0.0.1:1/none",
        redis_url=redis or environment["REDIS_URL"],
        trusted_proxies=PROXY,
        rate_limit_max=quota,
        rate_limit_window_ms=seconds * 1000,
    )
    return create_service_app(
        settings,
        service="inventory",
        title="Test",
        routes=[open_to_all, mine, by_network, always],
        limits=[
            RateLimit("small", 2, 60),
            RateLimit("networks", 2, 60, by_network=True),
        ],
    )


def through(app: Litestar, peer: str) -> httpx.AsyncClient:
    """A client whose requests come from `peer`."""
    transport: Any = httpx.ASGITransport(app=app, client=(peer, 4711))  # pyright: ignore[reportArgumentType]
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


_last_address = int(new_id()) & 0xFFFF << 8


def new_address() -> str:
    """One of its own in the shared Redis, in a network of its own."""
    global _last_address  # noqa: PLW0603
    _last_address += 256
    return str(ip_address(0xCB000000 + _last_address % 0x1000000))


async def statuses(client: httpx.AsyncClient, path: str, times: int, **headers: str) -> list[int]:
    return [(await client.get(path, headers=headers)).status_code for _ in range(times)]


async def test_clients_behind_one_proxy_are_limited_apart(environment: dict[str, str], serve: Serve) -> None:
    app = make_app(environment)
    async with serve(app), through(app, PROXY) as proxy:
        one, other = new_address(), new_address()
        assert await statuses(proxy, "/open", 6, **{"X-Forwarded-For": one}) == [200] * 5 + [429]
        assert await statuses(proxy, "/open", 5, **{"X-Forwarded-For": other}) == [200] * 5
        pretended = {"X-Forwarded-For": f"{new_address()}, {one}"}
        assert await statuses(proxy, "/open", 1, **pretended) == [429]


async def test_stranger_cannot_pass_for_another_address(environment: dict[str, str], serve: Serve) -> None:
    app = make_app(environment)
    async with serve(app), through(app, new_address()) as stranger:
        answers = [
            await statuses(stranger, "/open", 1, **{"X-Forwarded-For": new_address()}) for _ in range(6)
        ]
    assert answers == [[200]] * 5 + [[429]]


async def test_refusal_says_when_to_come_back_and_every_answer_what_is_left(
    environment: dict[str, str], serve: Serve
) -> None:
    app = make_app(environment, quota=2, seconds=60)
    async with serve(app), through(app, new_address()) as client:
        first = await client.get("/open")
        assert first.headers["ratelimit-policy"] == '"requests";q=2;w=60'
        assert first.headers["ratelimit"] == '"requests";r=1;t=30'
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/mine")).headers["ratelimit"].startswith('"requests";r=0;t=')
        refused = await client.get("/open")
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"
    assert 28 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')


async def test_user_is_limited_wherever_from_and_the_address_of_a_user_is_not(
    environment: dict[str, str], serve: Serve, tokens: Tokens
) -> None:
    app = make_app(environment)
    async with serve(app), through(app, PROXY) as proxy:
        user = tokens.issue()
        address = new_address()
        answers = [
            await statuses(proxy, "/open", 1, **user, **{"X-Forwarded-For": new_address()}) for _ in range(6)
        ]
        assert answers == [[200]] * 5 + [[429]]
        for _ in range(3):
            assert (
                await statuses(proxy, "/open", 5, **tokens.issue(), **{"X-Forwarded-For": address})
                == [200] * 5
            )
        assert await statuses(proxy, "/open", 1, **{"X-Forwarded-For": address}) == [200]
        bad = {"Authorization": "Bearer x.y.z", "X-Forwarded-For": address}
        assert await statuses(proxy, "/mine", 5, **bad) == [401] * 2 + [429] * 3, "counted for the address"


async def test_limit_of_a_route_comes_on_top_and_may_go_by_network(
    environment: dict[str, str], serve: Serve, tokens: Tokens
) -> None:
    app = make_app(environment, quota=50)
    async with serve(app), through(app, PROXY) as proxy:
        user = tokens.issue()
        answer = await proxy.get("/mine", headers=user)
        assert answer.headers["ratelimit-policy"] == '"requests";q=50;w=900, "small";q=2;w=60'
        assert await statuses(proxy, "/mine", 2, **user) == [200, 429]
        assert await statuses(proxy, "/open", 1, **user) == [200]
        network = new_address().rsplit(".", 1)[0]
        answers = [
            await statuses(proxy, "/by-network", 1, **{"X-Forwarded-For": f"{network}.{number}"})
            for number in (1, 2, 3)
        ]
        assert answers == [[200], [200], [429]]


async def test_services_share_the_limit(environment: dict[str, str], serve: Serve) -> None:
    one, other = make_app(environment), make_app(environment)
    address = new_address()
    async with serve(one), serve(other), through(one, address) as here, through(other, address) as there:
        assert await statuses(here, "/open", 3) == [200] * 3
        assert await statuses(there, "/open", 3) == [200, 200, 429]
        assert await statuses(there, "/always", 9) == [200] * 9
        for path in ("/health", "/inventory/health", "/inventory/ready"):
            answer = await there.get(path)
            assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)


async def test_without_redis_nobody_is_refused_and_readiness_tells(
    environment: dict[str, str], serve: Serve
) -> None:
    app = make_app(environment, quota=1, redis="redis://127.0.0.1:1/0")
    async with serve(app), through(app, new_address()) as client:
        assert await statuses(client, "/open", 5) == [200] * 5
        ready = (await client.get("/inventory/ready")).json()
    assert (ready["status"], "redis" in ready["degraded"]) == ("ok", True)


def test_route_with_an_unknown_limit_does_not_start() -> None:
    with pytest.raises(ValueError, match="unknown limit: small"):
        create_service_app(
            ServiceSettings(database_url="postgresql://x"), service="inventory", title="T", routes=[mine]
        )
