"""Encoded answers in Redis, shared by all replicas; nothing is lost when Redis is emptied or away.

Every entry carries the generation in which it was read. A change gives the cache a new generation after its
commit and before its answer, so that whoever asks after the answer misses all that was read before, also when
a slow reader stores an old row late. Generations are random and never come again, whatever Redis forgets.

While Redis is away the database answers. A change that could not be told to Redis is told as soon as Redis
is back, before this process reads from it; another replica may show what lies there for up to the TTL.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import redis.asyncio
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

GENERATION = "catalog:generation"
# Of everything that this asks of Redis, connecting included.
TIMEOUT_SECONDS = 0.2
# After a failure Redis is left alone for so long, lest every request pay the time-out.
PAUSE_SECONDS = 1.5
MAX_CONNECTIONS = 32


class Answer(Struct, frozen=True, array_like=True):
    """A body encoded once, its entity tag, and what its `Link` header says."""

    body: bytes
    etag: str
    link: str | None = None


class _Entry(Struct, frozen=True, array_like=True):
    generation: bytes
    answer: Answer


_ENTRY = msgspec.msgpack.Decoder(_Entry)

Load = Callable[[], Awaitable[Answer | None]]


class EventCache:
    """Cache-aside for public answers. Of requests for one answer that come together, one asks for all."""

    def __init__(self, *, redis_url: str, ttl_seconds: int) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            redis_url,
            max_connections=MAX_CONNECTIONS,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = redis.asyncio.Redis.from_pool(pool)
        self._ttl_seconds = ttl_seconds
        self._away_until = float("-inf")
        self._changes = 0
        self._changes_told = 0
        self._flights = _Flights()

    async def close(self) -> None:
        await self._redis.aclose()

    async def get(self, key: str, load: Load) -> Answer | None:
        """The cached answer, or else what `load` reads; None, which is not cached, when it finds nothing."""
        return await self._flights.join(key, lambda: self._look_or_load(key, load))

    async def invalidate(self) -> None:
        """To be called after each commit that changed anything, before it is answered."""
        if self._ttl_seconds <= 0:
            return
        self._changes += 1
        # Also while Redis is left alone: it may be back for the others.
        await self._tell_changes()

    async def _look_or_load(self, key: str, load: Load) -> Answer | None:
        generation, answer = await self._look(key)
        if answer is not None:
            return answer
        answer = await load()
        if generation is not None and answer is not None:
            entry = msgspec.msgpack.encode(_Entry(generation, answer))
            await self._ask(lambda: self._redis.set(_name(key), entry, ex=self._ttl_seconds))
        return answer

    async def _look(self, key: str) -> tuple[bytes | None, Answer | None]:
        """The generation, None when the cache is not to be used, and what it has under `key`."""
        if self._ttl_seconds <= 0 or time.monotonic() < self._away_until:
            return None, None
        if self._changes_told < self._changes and not await self._tell_changes():
            return None, None
        found: Any = await self._ask(lambda: self._redis.mget(GENERATION, _name(key)))
        if found is None:
            return None, None
        generation, encoded = found
        if generation is None:
            return await self._first_generation(), None
        try:
            entry = _ENTRY.decode(encoded) if encoded else None
        except msgspec.MsgspecError:
            entry = None
        return generation, entry.answer if entry and entry.generation == generation else None

    async def _first_generation(self) -> bytes | None:
        await self._ask(lambda: self._redis.set(GENERATION, secrets.token_bytes(12), nx=True))
        return await self._ask(lambda: self._redis.get(GENERATION))

    async def _tell_changes(self) -> bool:
        changes = self._changes
        done = await self._ask(lambda: self._redis.set(GENERATION, secrets.token_bytes(12)))
        if done:
            self._changes_told = max(self._changes_told, changes)
        return bool(done)

    async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """None when Redis does not answer."""
        try:
            return await question()
        except (RedisError, OSError, TimeoutError) as error:
            if time.monotonic() >= self._away_until:
                log.warning("Redis is away, the database answers: %r", error)
            self._away_until = time.monotonic() + PAUSE_SECONDS
            return None


def _name(key: str) -> str:
    return f"catalog:answer:{key}"


class _Flights:
    """One flight for a key at a time. Who comes while it is on its way takes the next: it may have set off
    before a change that they know of.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Answer | None]] = {}
        self._next: dict[str, asyncio.Task[Answer | None]] = {}

    async def join(self, key: str, load: Load) -> Answer | None:
        task = self._next.get(key)
        if task is None:
            task = asyncio.create_task(self._fly(key, load, after=self._running.get(key)))
            # Whoever waits gets the error; that all of them have gone is no error.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._next[key] = task
        return await asyncio.shield(task)

    async def _fly(self, key: str, load: Load, *, after: asyncio.Task[Answer | None] | None) -> Answer | None:
        if after is not None:
            await asyncio.wait([after])
        self._running[key] = self._next.pop(key)
        try:
            return await load()
        finally:
            del self._running[key]
