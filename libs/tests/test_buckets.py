"""Buckets of tokens in Redis: exact for all replicas together, and no burden when Redis is away."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
from embedded.stack import Stack
from embedded.testing import running_stack
from libs.ids import new_id
from libs.web.buckets import Bucket, Buckets, RateLimit


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
