"""What the tests of messaging share: messages, a relay, a subscription, and a look at what came of them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from contracts.messages import HoldReleased
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Handlers, Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.relay import run_relay
from libs.messaging.subscriptions import Subscription
from libs.postgres import Conn, Pool

TOPIC = "inventory.holds"
DEAD_LETTERS = "inventory.holds.payments.dlq"


def released(hold_id: UUID | None = None) -> HoldReleased:
    return HoldReleased(hold_id=hold_id or new_id(), event_id=new_id(), user_id=new_id(), reason="buyer")


def headers_of(message: HoldReleased) -> list[tuple[str, bytes]]:
    return [("ce_id", str(new_id()).encode()), ("ce_type", message.TYPE.encode())]


async def note(conn: Conn, message: HoldReleased) -> None:
    """A handler: its effect is a row."""
    await conn.execute(
        "INSERT INTO effects (key, note) VALUES (%s, %s)", [str(message.hold_id), str(message.event_id)]
    )


async def effects(pool: Pool, key: UUID) -> list[str]:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT note FROM effects WHERE key = %s ORDER BY number", [str(key)])
        return [row[0] for row in await cursor.fetchall()]


async def has_effect(pool: Pool, *messages: HoldReleased) -> bool:
    """Whether each of these, and nothing else of their keys, had its effect once."""
    return all([await effects(pool, each.hold_id) == [str(each.event_id)] for each in messages])


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # it is asked of a server
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncGenerator[None]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def subscription(
    pool: Pool, kafka_brokers: str, handlers: Handlers, *, retry: Retry | None = None
) -> Subscription:
    return Subscription(
        service="payments",
        pool=pool,
        handlers=handlers,
        dead_letters=DeadLetters(service="payments", kafka_brokers=kafka_brokers),
        retry=retry or Retry(count=2, backoff_seconds=0.01),
    )


def relay(
    database_url: str,
    kafka_brokers: str,
    *,
    shard: int = 0,
    shards: int = 1,
    heartbeat: Heartbeat | None = None,
) -> Awaitable[None]:
    return run_relay(
        service="payments",
        database_url=database_url,
        kafka_brokers=kafka_brokers,
        shard=shard,
        shards=shards,
        heartbeat=heartbeat or Heartbeat(),
    )


async def read_all(kafka_brokers: str, topic: str) -> list[ConsumerRecord[Any, Any]]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka_brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        wanted = {partition for partition, end in ends.items() if end > 0}
        records: list[ConsumerRecord[Any, Any]] = []
        while wanted:
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
            positions = {each: await consumer.position(each) for each in wanted}
            wanted = {each for each in wanted if positions[each] < ends[each]}
        return records
    finally:
        await consumer.stop()


async def outbox_is_empty(pool: Pool) -> bool:
    async with pool.connection() as conn:
        return await (await conn.execute("SELECT 1 FROM outbox LIMIT 1")).fetchone() is None


@asynccontextmanager
async def producing(kafka_brokers: str) -> AsyncGenerator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_brokers, max_request_size=2_000_000)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(
    producer: AIOKafkaProducer,
    message: HoldReleased,
    headers: list[tuple[str, bytes]] | None = None,
    *,
    partition: int | None = None,
) -> int:
    """Returns the record's offset."""
    sent = await producer.send_and_wait(
        TOPIC,
        msgspec.json.encode(message),
        key=str(message.hold_id).encode(),
        headers=headers_of(message) if headers is None else headers,
        partition=partition,
    )
    return sent.offset
