"""Inventory against real servers: its application, and messages as the other services send them."""

from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio
from contracts.messages import Message
from inventory.app import create_app
from inventory.consumers import HANDLERS
from libs.postgres import Pool, create_pool, transaction
from libs.testing import Serve, Tokens
from litestar import Litestar

from services.inventory.tests.support import Buyer, Database, Deliver, OnSale, make_event


@pytest.fixture
def app(environment: dict[str, str]) -> Litestar:
    return create_app()


@pytest_asyncio.fixture
async def client(app: Litestar, serve: Serve) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(app) as client:
        yield client


@pytest_asyncio.fixture
async def worker_pool(environment: dict[str, str]) -> AsyncGenerator[Pool]:
    """Connections of the worker's role."""
    pool = create_pool(environment["INVENTORY_WORKER_DATABASE_URL"])
    await pool.open()
    yield pool
    await pool.close()


@pytest_asyncio.fixture
async def deliver(worker_pool: Pool) -> Deliver:
    """Hands messages to their consumers, each in a transaction of its own, as a subscription does."""

    async def handle(*messages: Message) -> None:
        for message in messages:
            async with transaction(worker_pool) as conn:
                await HANDLERS[type(message)](conn, message)

    return handle


@pytest_asyncio.fixture
async def on_sale(deliver: Deliver) -> OnSale:
    event = make_event()
    await deliver(event.published, event.seat_map)
    return event


@pytest_asyncio.fixture
async def buyer(client: httpx.AsyncClient, tokens: Tokens) -> Buyer:
    return Buyer(client, tokens)


@pytest_asyncio.fixture
async def rival(client: httpx.AsyncClient, tokens: Tokens) -> Buyer:
    return Buyer(client, tokens)


@pytest_asyncio.fixture
async def database(worker_pool: Pool) -> Database:
    return Database(worker_pool)
