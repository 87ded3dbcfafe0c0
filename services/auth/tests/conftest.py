"""Auth against a real PostgreSQL: its application, and people who use it."""

from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio
from auth.app import create_app
from libs.testing import Serve
from litestar import Litestar

from services.auth.tests.support import Database, Person


@pytest.fixture
def app(environment: dict[str, str]) -> Litestar:
    return create_app()


@pytest_asyncio.fixture
async def client(app: Litestar, serve: Serve) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(app) as client:
        await app.state.key_ring.load()  # auth trusts its own keys, not those of other services' tests
        yield client


@pytest.fixture
def database(environment: dict[str, str]) -> Database:
    return Database(environment["ADMIN_DATABASE_URL"])


@pytest_asyncio.fixture
async def ada(client: httpx.AsyncClient) -> Person:
    return await Person(client).register()


@pytest_asyncio.fixture
async def admin(client: httpx.AsyncClient, database: Database) -> Person:
    person = await Person(client).register()
    await database.run("UPDATE users SET role = 'admin' WHERE id = %s", person.id)
    return await person.log_in()
