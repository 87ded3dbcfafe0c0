"""Catalog against real servers: its application, an admin, a venue."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis.asyncio
from catalog.app import create_app
from libs.testing import Serve, Tokens

from services.catalog.tests.support import Admin, Database, OwnRedis


@pytest_asyncio.fixture
async def redis_url(
    backing: dict[str, str], worker_id: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[str]:
    """An empty Redis database of this worker's own: others cache other events under the same names."""
    number = 1 + int(worker_id.removeprefix("gw") if worker_id != "master" else 0) % 15
    url = backing["REDIS_URL"].removesuffix("/0") + f"/{number}"
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.flushdb()
    monkeypatch.setenv("REDIS_URL", url)
    yield url


@pytest_asyncio.fixture
async def own_redis() -> AsyncGenerator[OwnRedis]:
    own = OwnRedis()
    await own.start()
    yield own
    own.stop()


@pytest_asyncio.fixture
async def client(
    environment: dict[str, str], redis_url: str, serve: Serve
) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(create_app()) as client:
        yield client


@pytest.fixture
def database(environment: dict[str, str]) -> Database:
    return Database(environment["ADMIN_DATABASE_URL"])


@pytest.fixture
def admin(client: httpx.AsyncClient, tokens: Tokens) -> Admin:
    return Admin(client, tokens)


@pytest_asyncio.fixture
async def venue(admin: Admin) -> Any:
    """With ten seats in section A."""
    return await admin.make_venue(seats=10)
