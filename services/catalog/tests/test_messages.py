"""Messages: what catalog consumes, and that its worker sends what it has to say."""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from catalog.consumers import HANDLERS
from contracts.messages import UserDisabled, UserTokensRevoked
from libs.ids import new_id
from libs.messaging.topics import create_topics
from libs.postgres import Pool, create_pool, transaction
from libs.testing import Tokens

from services.catalog.tests.support import Admin, Database, eventually


@pytest_asyncio.fixture
async def worker_pool(environment: dict[str, str]) -> Any:
    async with create_pool(environment["CATALOG_WORKER_DATABASE_URL"]) as pool:
        yield pool


async def deliver(pool: Pool, *messages: UserDisabled | UserTokensRevoked) -> None:
    for message in messages:
        async with transaction(pool) as conn:
            await HANDLERS[type(message)](conn, message)


async def test_latest_revocation_wins_however_messages_come(worker_pool: Pool, database: Database) -> None:
    user_id, now = new_id(), datetime.now(UTC)
    early = UserTokensRevoked(user_id=user_id, not_before=now - timedelta(minutes=1))
    late = UserDisabled(user_id=user_id, disabled_at=now)
    for order in ((early, late), (late, early), (late, late, early, early)):
        await deliver(worker_pool, *order)
        [[not_before]] = await database.run(
            "SELECT not_before FROM token_revocations WHERE user_id = %s", user_id
        )
        assert not_before == now


async def test_revoked_token_is_refused(client: httpx.AsyncClient, tokens: Tokens, worker_pool: Pool) -> None:
    user_id = new_id()
    old = tokens.issue(user_id, role="admin")
    assert (await client.post("/venues", json={}, headers=old)).status_code == 400
    await deliver(worker_pool, UserDisabled(user_id=user_id, disabled_at=datetime.now(UTC)))
    new = tokens.issue(user_id, role="admin")

    async def is_refused() -> bool:
        return (await client.post("/venues", json={}, headers=old)).status_code == 401

    await eventually(is_refused)
    assert (await client.post("/venues", json={}, headers=new)).status_code == 400


async def test_worker_sends_events_and_hears_of_revocations(
    admin: Admin, venue: Any, environment: dict[str, str], database: Database
) -> None:
    brokers = environment["KAFKA_BROKERS"]
    await create_topics(brokers)
    event = await admin.make_event(venue, isPublished=True)
    user_id = new_id()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "catalog.worker", env={**os.environ, **environment}
    )
    consumer = AIOKafkaConsumer(
        "catalog.events", "catalog.seat-maps", bootstrap_servers=brokers, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await consumer.start()
    await producer.start()
    types: set[bytes] = set()

    async def has_heard() -> bool:
        return bool(await database.run("SELECT 1 FROM token_revocations WHERE user_id = %s", user_id))

    try:
        await producer.send_and_wait(
            "auth.users",
            key=str(user_id).encode(),
            value=b'{"userId":"%s","notBefore":"2026-11-22T18:00:00Z"}' % str(user_id).encode(),
            headers=[("ce_id", str(new_id()).encode()), ("ce_type", b"user.tokens_revoked")],
        )
        async with asyncio.timeout(30):
            while len(types) < 2:
                record = await consumer.getone()
                if record.key == event["id"].encode():
                    types.add(dict(record.headers)["ce_type"])
        await eventually(has_heard)
    finally:
        await producer.stop()
        await consumer.stop()
        worker.terminate()
        assert await worker.wait() == 0
    assert types == {b"event.created", b"seat-map.part"}
