"""Live is not ready: a process that is up answers `health`, one that can serve answers `ready`."""

import asyncio
import time
from typing import Annotated, Any, Literal

import psycopg
import redis.asyncio
import redis.exceptions
from litestar import Response, Router, get
from litestar.datastructures import State
from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg_pool import PoolTimeout, TooManyRequests

from libs.postgres import Pool
from libs.web.access import anyone
from libs.web.limits import UNLIMITED
from libs.web.openapi import describe
from libs.web.problems import TemporarilyUnavailable

CACHE_SECONDS = 1.0


class Health(Struct, frozen=True):
    status: Literal["ok"] = "ok"


class Readiness(Struct, frozen=True):
    """`degraded` names parts that are away while the service goes on without them."""

    status: Literal["ok", "unavailable"]
    reason: Annotated[str, Meta(examples=["database"])] | UnsetType = UNSET
    degraded: list[Annotated[str, Meta(examples=["redis"])]] | UnsetType = UNSET


class ReadinessProbe:
    """Looks at the database, Redis and Kafka at most once a second."""

    def __init__(self, *, pool: Pool, redis_url: str, kafka_brokers: str) -> None:
        self._pool = pool
        self._redis: redis.asyncio.Redis = redis.asyncio.Redis.from_url(redis_url, socket_timeout=0.5)
        self._kafka_brokers = kafka_brokers
        self._looking = asyncio.Lock()
        self._answer: tuple[float, Readiness] | None = None

    async def readiness(self) -> Readiness:
        async with self._looking:
            if self._answer is None or time.monotonic() - self._answer[0] > CACHE_SECONDS:
                self._answer = (time.monotonic(), await self._look())
            return self._answer[1]

    async def _look(self) -> Readiness:
        if not await self._database_answers():
            return Readiness("unavailable", reason="database")
        redis_ok, kafka_ok = await asyncio.gather(self._redis_answers(), self._kafka_answers())
        degraded = [name for name, ok in (("redis", redis_ok), ("kafka", kafka_ok)) if not ok]
        return Readiness("ok", degraded=degraded or UNSET)

    async def _database_answers(self) -> bool:
        for _ in range(2):
            try:
                async with self._pool.connection(timeout=1) as conn:
                    await conn.execute("SELECT 1")
            except (psycopg.Error, PoolTimeout, TooManyRequests):
                await self._pool.check()
            else:
                return True
        return False

    async def _redis_answers(self) -> bool:
        try:
            ping: Any = self._redis.ping()
            return bool(await ping)
        except (redis.exceptions.RedisError, OSError):
            return False

    async def _kafka_answers(self) -> bool:
        for broker in self._kafka_brokers.split(","):
            host, _, port = broker.strip().rpartition(":")
            try:
                async with asyncio.timeout(0.5):
                    _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
            except (OSError, ValueError, TimeoutError):
                continue
            return True
        return False

    async def close(self) -> None:
        await self._redis.aclose()


def health_router(service: str) -> Router:
    @get("/health", guards=[anyone], summary="Whether the gateway reaches a service")
    async def health() -> Health:
        return Health()

    @get(
        f"/{service}/health",
        guards=[anyone],
        summary=f"Whether {service} is up",
        operation_id=f"{service}Health",
    )
    async def own_health() -> Health:
        return Health()

    @get(
        f"/{service}/ready",
        guards=[anyone],
        summary=f"Whether {service} can answer requests",
        operation_id=f"{service}Ready",
        opt=describe(unavailable=Readiness),
    )
    async def ready(state: State) -> Response[Readiness]:
        """503 without its database or while it stops. `degraded` names parts that it does without."""
        probe: ReadinessProbe = state.readiness_probe
        if state.edge.is_draining:
            readiness = Readiness("unavailable", reason="draining")
        else:
            readiness = await probe.readiness()
        if readiness.status == "ok":
            return Response(readiness)
        return Response(readiness, status_code=503, headers={"Retry-After": "1"})

    @get("/accepting", guards=[anyone], include_in_schema=False)
    async def accepting(state: State) -> Health:
        """For the load balancer: 503 once the process stops, so that no request is sent to it any more.

        Without its database a process is not ready, but its replicas are no better off.
        """
        if state.edge.is_draining:
            raise TemporarilyUnavailable("This process stops.")
        return Health()

    @get("/unavailable", guards=[anyone], include_in_schema=False)
    async def unavailable() -> None:
        """What the gateway answers in place of a service that it does not reach."""
        raise TemporarilyUnavailable("The service that answers this is away or restarting. Try again.")

    return Router(
        "/",
        route_handlers=[health, own_health, ready, accepting, unavailable],
        tags=["health"],
        response_headers={"Cache-Control": "no-store"},
        opt=UNLIMITED,
    )
