"""What tests of dead letters share: a handler that fails when it is told to, and the operator's command."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaProducer
from contracts.messages import Message, UserDisabled
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.letters import Letter, Letters
from libs.messaging.subscriptions import Subscription
from libs.postgres import Conn, Pool
from messaging_support import eventually

TOPIC = "auth.users"  # it has three subscribers
DEAD = "auth.users.payments.dlq"


class Fault(Exception):
    pass


class Handler:
    """Notes what it handled, and fails for the users that it is told to."""

    def __init__(self) -> None:
        self.faulty: set[UUID] = set()
        self.handled: list[UUID] = []

    async def __call__(self, conn: Conn, message: UserDisabled) -> None:
        await conn.execute("INSERT INTO effects (key, note) VALUES (%s, 'done')", [str(message.user_id)])
        if message.user_id in self.faulty:
            raise Fault(f"no such user {message.user_id}")
        self.handled.append(message.user_id)


def disabled() -> UserDisabled:
    return UserDisabled(user_id=new_id(), disabled_at=datetime.now(UTC))


async def effects(pool: Pool, message: UserDisabled) -> int:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM effects WHERE key = %s", [str(message.user_id)])
        row = await cursor.fetchone()
        return row[0] if row else 0


@asynccontextmanager
async def subscribed(
    pool: Pool, kafka_brokers: str, handler: Handler, *, service: str = "payments"
) -> AsyncGenerator[None]:
    subscription = Subscription(
        service=service,
        pool=pool,
        handlers={UserDisabled: handler},
        dead_letters=DeadLetters(service=service, kafka_brokers=kafka_brokers),
        retry=Retry(count=2, backoff_seconds=0.01),
    )
    task = asyncio.create_task(subscription.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def send(producer: AIOKafkaProducer, message: Message, *headers: tuple[str, Any]) -> None:
    await producer.send_and_wait(
        message.TOPIC,
        msgspec.json.encode(message),
        key=str(getattr(message, message.KEY)).encode(),
        headers=[("ce_id", str(new_id()).encode()), ("ce_type", message.TYPE.encode()), *headers],
    )


async def letters_of(letters: Letters, *messages: UserDisabled) -> list[Letter]:
    keys = {str(message.user_id).encode() for message in messages}
    return [letter for letter in await letters.of(DEAD) if letter.key in keys]


async def fail(
    pool: Pool,
    kafka_brokers: str,
    letters: Letters,
    producer: AIOKafkaProducer,
    handler: Handler,
    *messages: UserDisabled,
) -> list[Letter]:
    """The dead letters that these messages become, in their order."""
    handler.faulty |= {message.user_id for message in messages}
    for message in messages:
        await send(producer, message)

    async def all_dead() -> bool:
        return len(await letters_of(letters, *messages)) == len(messages)

    async with subscribed(pool, kafka_brokers, handler):
        await eventually(all_dead)
    by_key = {letter.key: letter for letter in await letters_of(letters, *messages)}
    return [by_key[str(message.user_id).encode()] for message in messages]


async def statuses(letters: Letters, *messages: UserDisabled) -> dict[str, int]:
    return Counter(letter.status for letter in await letters_of(letters, *messages))


def dlq(kafka_brokers: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        (sys.executable, "-m", "libs.messaging.dlq", *arguments),
        env={**os.environ, "KAFKA_BROKERS": kafka_brokers},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def run_dlq(kafka_brokers: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(dlq, kafka_brokers, *arguments)
