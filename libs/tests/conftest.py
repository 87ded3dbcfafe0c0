"""A PostgreSQL and a Kafka of their own: these tests consume as a whole service does."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from embedded.stack import Stack
from embedded.testing import running_stack
from libs.messaging.letters import Letters, open_letters
from libs.messaging.topics import create_topics
from libs.migrations import migrate, services_from_environment
from libs.postgres import Pool, create_pool

SERVICE = "payments"


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with running_stack(("postgres", "kafka")) as stack:
        yield stack


@pytest.fixture(scope="session")
def servers(stack: Stack) -> dict[str, str]:
    environment = stack.environment()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        folder = Path(__file__).parents[2] / "services" / SERVICE / "migrations"
        migrate(environment["ADMIN_DATABASE_URL"], services_from_environment([folder]))
    with psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE payments.effects"
            " (number bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, note text NOT NULL)"
        )
        conn.execute("GRANT ALL ON payments.effects TO payments_worker")
    return environment


@pytest.fixture
def admin(servers: dict[str, str]) -> Iterator[psycopg.Connection]:
    """May do anything; what it leaves in the outbox is gone after the test."""
    with psycopg.connect(servers["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        yield conn
        conn.execute("DELETE FROM payments.outbox")


@pytest_asyncio.fixture
async def kafka_brokers(servers: dict[str, str]) -> str:
    await create_topics(servers["KAFKA_BROKERS"])
    return servers["KAFKA_BROKERS"]


@pytest.fixture
def database_url(servers: dict[str, str]) -> str:
    return servers["PAYMENTS_WORKER_DATABASE_URL"]


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncGenerator[Pool]:
    pool = create_pool(database_url)
    await pool.open()
    yield pool
    await pool.close()


@pytest_asyncio.fixture
async def letters(kafka_brokers: str) -> AsyncGenerator[Letters]:
    async with open_letters(kafka_brokers) as letters:
        yield letters


@pytest_asyncio.fixture
async def producer(kafka_brokers: str) -> AsyncGenerator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_brokers, max_request_size=2_000_000)
    await producer.start()
    yield producer
    await producer.stop()
