"""The cache: whoever asks after a change sees it, whatever Redis or a slow reader does meanwhile."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis.asyncio
from catalog import cache as cache_module
from catalog.app import create_app
from catalog.cache import Answer, EventCache
from libs.ids import new_id
from libs.testing import Serve, Tokens

from services.catalog.tests.support import Admin, OwnRedis


class Source:
    """What is behind the cache; a load may be made to wait."""

    def __init__(self) -> None:
        self.value = "first"
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.loading = asyncio.Event()

    async def load(self) -> Answer | None:
        self.loads += 1
        value = self.value
        self.loading.set()
        await self.gate.wait()
        return Answer(value.encode(), value) if value else None


@asynccontextmanager
async def cache_at(redis_url: str, *, ttl_seconds: int = 60) -> AsyncGenerator[EventCache]:
    cache = EventCache(redis_url=redis_url, ttl_seconds=ttl_seconds)
    yield cache
    await cache.close()


@pytest_asyncio.fixture
async def cache(redis_url: str) -> AsyncGenerator[EventCache]:
    async with cache_at(redis_url) as cache:
        yield cache


@pytest.fixture
def source() -> Source:
    return Source()


async def value(cache: EventCache, source: Source, key: str = "x") -> str | None:
    answer = await cache.get(key, source.load)
    return answer.etag if answer else None


async def test_second_read_is_not_loaded_again_by_any_replica(
    cache: EventCache, redis_url: str, source: Source
) -> None:
    async with cache_at(redis_url) as other:
        assert [await value(cache, source), await value(other, source), await value(cache, source)] == [
            "first"
        ] * 3
    assert source.loads == 1


async def test_change_is_seen_by_the_next_read_of_every_replica(
    cache: EventCache, redis_url: str, source: Source
) -> None:
    async with cache_at(redis_url) as other:
        await value(cache, source)
        await value(other, source)
        source.value = "second"
        await other.invalidate()
        assert await value(cache, source) == "second"
        assert await value(other, source) == "second"
    assert source.loads == 2


async def test_old_row_stored_late_is_never_served(cache: EventCache, redis_url: str, source: Source) -> None:
    source.gate.clear()
    slow = asyncio.create_task(value(cache, source))
    await source.loading.wait()
    source.value = "second"
    await cache.invalidate()
    source.gate.set()
    assert await slow == "first", "it asked before the change"
    async with cache_at(redis_url) as other:
        assert await value(other, source) == "second"
    assert await value(cache, source) == "second"


async def test_read_after_a_change_does_not_join_a_load_from_before(
    own_redis: OwnRedis, source: Source
) -> None:
    own_redis.stop()  # no generation to tell them apart
    async with cache_at(own_redis.url) as cache:
        source.gate.clear()
        slow = asyncio.create_task(value(cache, source))
        await source.loading.wait()
        source.value = "second"
        after = asyncio.create_task(value(cache, source))
        source.gate.set()
        assert (await slow, await after) == ("first", "second")


async def test_many_readers_of_a_missing_answer_load_it_once(cache: EventCache, source: Source) -> None:
    assert await asyncio.gather(*(value(cache, source) for _ in range(200))) == ["first"] * 200
    assert source.loads == 1


async def test_many_readers_load_once_without_redis_too(own_redis: OwnRedis, source: Source) -> None:
    own_redis.stop()
    async with cache_at(own_redis.url) as cache:
        assert await asyncio.gather(*(value(cache, source) for _ in range(200))) == ["first"] * 200
    assert source.loads == 1


async def test_reader_that_gives_up_does_not_disturb_the_others(cache: EventCache, source: Source) -> None:
    source.gate.clear()
    impatient = asyncio.create_task(value(cache, source))
    await source.loading.wait()
    patient = asyncio.create_task(value(cache, source))
    impatient.cancel()
    source.gate.set()
    assert await patient == "first"


async def test_failed_load_fails_its_readers_and_not_the_next(cache: EventCache, source: Source) -> None:
    async def fail() -> Answer | None:
        raise LookupError("no database")

    results = await asyncio.gather(*(cache.get("x", fail) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {LookupError}
    assert await value(cache, source) == "first"


async def test_what_is_not_there_is_not_cached(cache: EventCache, source: Source) -> None:
    source.value = ""
    assert await value(cache, source) is None
    source.value = "first"
    assert await value(cache, source) == "first"


async def test_lost_generation_brings_no_old_answer_back(
    cache: EventCache, redis_url: str, source: Source
) -> None:
    await value(cache, source)
    source.value = "second"
    await cache.invalidate()
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.delete(cache_module.GENERATION)  # as an eviction does
    assert await value(cache, source) == "second"


async def test_emptied_or_spoilt_redis_is_a_miss(cache: EventCache, redis_url: str, source: Source) -> None:
    await value(cache, source)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        [name] = [key async for key in client.scan_iter("catalog:answer:*")]
        await client.set(name, b"\xff garbage")
        assert await value(cache, source) == "first"
        assert 0 < await client.ttl(name) <= 60
        await client.flushdb()
    assert await value(cache, source) == "first"
    assert source.loads == 3


async def test_silent_redis_costs_one_time_out_and_not_one_for_each_read(
    own_redis: OwnRedis, source: Source
) -> None:
    async with cache_at(own_redis.url) as cache:
        await value(cache, source)
        with own_redis.paused():
            source.value = "second"
            began = time.monotonic()
            await cache.invalidate()
            for _ in range(50):
                assert await value(cache, source) == "second"
            assert time.monotonic() - began < 1.4


async def test_change_that_redis_missed_is_told_when_it_is_back(
    own_redis: OwnRedis, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "PAUSE_SECONDS", 0.0)
    async with cache_at(own_redis.url) as cache, cache_at(own_redis.url) as other:
        await value(cache, source)
        source.value = "second"
        with own_redis.paused():
            await cache.invalidate()
        assert await value(cache, source) == "second"
        assert await value(other, source) == "second"


async def test_ttl_of_zero_turns_the_cache_off(redis_url: str, source: Source) -> None:
    async with cache_at(redis_url, ttl_seconds=0) as cache:
        await value(cache, source)
        await cache.invalidate()
        await value(cache, source)
    assert source.loads == 2


async def test_every_change_is_in_the_next_answer_of_every_replica(
    admin: Admin, client: httpx.AsyncClient, serve: Serve, tokens: Tokens, venue: Any
) -> None:
    async with serve(create_app()) as replica:
        event = await admin.make_event(venue, isPublished=True)
        path = f"/events/{event['id']}"

        async def check(expected: Any, *, listed: bool) -> None:
            for _ in range(2):
                for each in (client, replica):
                    assert (await each.get(path)).json() == expected
                    assert (expected in (await each.get("/events")).json()) is listed
                    assert (expected in (await each.get("/events?limit=1")).json()) is listed

        await check(event, listed=True)
        changed = (await admin.patch(event, name="Other")).json()
        await check(changed, listed=True)
        cancelled = (await admin.cancel(event)).json()
        await check(cancelled, listed=False)
        draft = await admin.make_event(venue)
        assert (await replica.get(f"/events/{draft['id']}")).status_code == 404
        published = (await Admin(replica, tokens).publish(draft)).json()
        path = f"/events/{draft['id']}"
        await check(published, listed=True)


async def test_racing_readers_never_see_an_older_name_after_a_newer_one(
    admin: Admin, client: httpx.AsyncClient, venue: Any
) -> None:
    event = await admin.make_event(venue, isPublished=True, name="0")
    done = False

    async def read() -> None:
        seen = 0
        while not done:
            name = int((await client.get(f"/events/{event['id']}")).json()["name"])
            assert name >= seen
            seen = name

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for number in range(1, 15):
        assert (await admin.patch(event, name=str(number))).status_code == 200
        assert (await client.get(f"/events/{event['id']}")).json()["name"] == str(number)
    done = True
    await asyncio.gather(*readers)


async def test_unchanged_answer_is_304(admin: Admin, client: httpx.AsyncClient, venue: Any) -> None:
    event = await admin.make_event(venue, isPublished=True)
    for path in ("/events", "/events?limit=1", f"/events/{event['id']}"):
        answer = await client.get(path)
        known = {"If-None-Match": answer.headers["etag"]}
        unchanged = await client.get(path, headers=known)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == answer.headers["etag"]
        event = (await admin.patch(event, name=f"Other {new_id()}")).json()
        assert (await client.get(path, headers=known)).status_code == 200


async def test_events_are_paged_newest_first(admin: Admin, client: httpx.AsyncClient, venue: Any) -> None:
    events = [await admin.make_event(venue, isPublished=True) for _ in range(3)][::-1]
    for _ in range(2):  # loaded, then cached
        page = await client.get("/events?limit=2")
        assert page.json() == events[:2]
        assert (await client.get(page.links["next"]["url"])).json()[0] == events[2]
    assert (await client.get("/events")).json()[:3] == events


async def test_service_works_without_redis(
    environment: dict[str, str],
    serve: Serve,
    tokens: Tokens,
    own_redis: OwnRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_redis.stop()
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    async with serve(create_app()) as client:
        admin = Admin(client, tokens)
        event = await admin.make_event(await admin.make_venue(), isPublished=True)
        assert (await client.get("/events?limit=1")).json() == [event]
        cancelled = (await admin.cancel(event)).json()
        assert (await client.get(f"/events/{event['id']}")).json() == cancelled
        ready = await client.get("/catalog/ready")
        assert ready.status_code == 200
        assert "redis" in ready.json()["degraded"]
