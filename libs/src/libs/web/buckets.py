"""Buckets of tokens in Redis, shared by all replicas of all services; one script (`take.lua`) does it all.

Requests that come while Redis is being asked are asked about together in the next round trip: the busier a
process is, the fewer it makes for each. While Redis is away nobody waits for it: a task looks for its return.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis.asyncio
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from libs.tasks import end_tasks

log = logging.getLogger(__name__)

# Of one round trip, connecting included. Paid once: those who come after it do not wait.
TIMEOUT_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.5
MAX_TOGETHER = 200

_SCRIPT = files("libs.web").joinpath("take.lua").read_text()


class RateLimit(Struct, frozen=True):
    """At most `quota` at once, and then as many again as come back evenly: `quota` in `window_seconds`."""

    name: str
    quota: int
    window_seconds: float
    by_network: bool = False
    """Counted by the client's network, whoever is logged in; otherwise by user, or else by address."""

    def __post_init__(self) -> None:
        # A token that takes no time to come back is no limit, and the script would divide by zero.
        if self.quota < 1 or self.window_seconds * 1_000_000 < self.quota:
            raise ValueError(
                f"the limit {self.name!r} is none: {self.quota} in {self.window_seconds} s; at least one, and"
                " at most one in a microsecond"
            )

    @property
    def numbers(self) -> str:
        """For the script: microseconds for a token to come back, and how many there are."""
        return f"{self.window_seconds * 1_000_000 / self.quota:.0f} {self.quota}"

    def bucket(self, owner: object) -> "Bucket":
        return Bucket(f"limit:{self.name}:{owner}", self)


class Bucket(Struct, frozen=True):
    key: str
    limit: RateLimit


class Verdict(Struct, frozen=True):
    """`wait_seconds` is 0 when the tokens were given; `left` has, for each bucket, its tokens and the seconds
    until it is full.
    """

    wait_seconds: int
    left: Sequence[tuple[int, int]]

    @property
    def is_given(self) -> bool:
        return self.wait_seconds == 0


class _Request(Struct, frozen=True):
    buckets: Sequence[Bucket]
    tokens: int
    verdict: "asyncio.Future[Verdict | None]"


class Buckets:
    """Where tokens are taken from."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(
            redis_url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # A connection that Redis' restart has cut is made anew at once.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._take = self._redis.register_script(_SCRIPT)
        self._waiting: list[_Request] = []
        self._asking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def take(self, *buckets: Bucket) -> Verdict | None:
        """A token of each of the buckets, or none of any; None while Redis is away."""
        return await self._ask(buckets, 1)

    async def give_back(self, *buckets: Bucket) -> None:
        await self._ask(buckets, -1)

    async def close(self) -> None:
        running = [task for task in (self._asking, self._looking) if task is not None]
        if running:
            await end_tasks(*running)
        _let_go(self._waiting)
        await self._redis.aclose()

    async def _ask(self, buckets: Sequence[Bucket], tokens: int) -> Verdict | None:
        if self._looking is not None:
            return None
        verdict = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(buckets, tokens, verdict))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_for_all())
        return await verdict

    async def _ask_for_all(self) -> None:
        together: list[_Request] = []
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:MAX_TOGETHER], self._waiting[MAX_TOGETHER:]
                try:
                    verdicts = await self._verdicts(together)
                except Exception as error:  # a bug: it reaches those who asked, and the next ones ask anew
                    for request in together:
                        if not request.verdict.done():
                            request.verdict.set_exception(error)
                    continue
                for request, verdict in zip(together, verdicts, strict=True):
                    if not request.verdict.done():  # whoever asked may have gone
                        request.verdict.set_result(verdict)
        finally:
            self._asking = None
            _let_go(together)  # whose verdict is not there because this was cancelled

    async def _verdicts(self, together: Sequence[_Request]) -> Sequence[Verdict | None]:
        if self._looking is not None:
            return [None] * len(together)
        keys: list[str] = []
        numbers: list[str] = []
        for request in together:
            numbers.append(f"{len(request.buckets)} {request.tokens}")
            for bucket in request.buckets:
                keys.append(bucket.key)
                numbers.append(bucket.limit.numbers)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                # One string: redis-py is slow with many arguments.
                answer: bytes = await self._take(keys, [" ".join(numbers)])
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("Redis is away (%r): nobody is limited, passwords are not checked", error)
            self._looking = asyncio.create_task(self._look_for_redis())
            return [None] * len(together)
        told = map(int, answer.split())
        return [
            Verdict(_seconds(next(told)), [(next(told), _seconds(next(told))) for _ in request.buckets])
            for request in together
        ]

    async def _look_for_redis(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._redis.ping()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            log.warning("Redis is back: requests are limited, passwords are checked")
            self._looking = None
            return


def _let_go(requests: Sequence[_Request]) -> None:
    for request in requests:
        request.verdict.cancel()


def _seconds(microseconds: int) -> int:
    return math.ceil(max(microseconds, 0) / 1_000_000)
