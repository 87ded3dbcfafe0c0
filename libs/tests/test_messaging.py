"""Outbox to effect over a real Kafka: in order, once, and nothing that arrives stops a partition."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from contracts.messages import HoldReleased
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.outbox import publish
from libs.messaging.relay import run_relay
from libs.messaging.subscriptions import Handlers, Retry, Subscription
from libs.postgres import Conn, Pool, transaction
from psycopg import Rollback

TOPIC = "inventory.holds"
DEAD_LETTERS = "inventory.holds.payments.dlq"

# One Kafka and one consumer group: these tests run one after another.
pytestmark = pytest.mark.xdist_group("messaging")


def released(hold_id: UUID | None = None) -> HoldReleased:
    return HoldReleased(hold_id=hold_id or new_id(), event_id=new_id(), user_id=new_id(), reason="buyer")


def headers_of(message: HoldReleased) -> list[tuple[str, bytes]]:
    return [("ce_id", str(new_id()).encode()), ("ce_type", message.TYPE.encode())]


async def note(conn: Conn, message: HoldReleased) -> None:
    await conn.execute(
        "INSERT INTO effects (key, note) VALUES (%s, %s)", [str(message.hold_id), str(message.event_id)]
    )


async def effects(pool: Pool, key: UUID) -> list[str]:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT note FROM effects WHERE key = %s ORDER BY ctid", [str(key)])
        return [row[0] for row in await cursor.fetchall()]


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


def subscription(pool: Pool, kafka_brokers: str, handlers: Handlers) -> Subscription:
    return Subscription(
        service="payments",
        pool=pool,
        handlers=handlers,
        dead_letters=DeadLetters(service="payments", kafka_brokers=kafka_brokers),
        retry=Retry(count=2, backoff_seconds=0.01),
    )


def relay(database_url: str, kafka_brokers: str) -> Awaitable[None]:
    return run_relay(
        service="payments",
        database_url=database_url,
        kafka_brokers=kafka_brokers,
        shard=0,
        shards=1,
        heartbeat=Heartbeat(),
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


async def test_outbox_row_becomes_a_cloud_event_in_the_order_of_its_key(
    pool: Pool, database_url: str, kafka_brokers: str
) -> None:
    hold_id = new_id()
    messages = [released(hold_id) for _ in range(30)]
    for message in messages:
        async with transaction(pool) as conn:
            await publish(conn, message)
    # Two relays, one lock: each row is sent once.
    async with running(relay(database_url, kafka_brokers), relay(database_url, kafka_brokers)):
        await eventually(lambda: outbox_is_empty(pool))
    records = [each for each in await read_all(kafka_brokers, TOPIC) if each.key == str(hold_id).encode()]
    assert [json.loads(each.value or b"")["eventId"] for each in records] == [
        str(each.event_id) for each in messages
    ]
    headers = dict(records[0].headers)
    assert (headers["ce_type"], headers["ce_source"]) == (b"hold.released", b"/payments")
    assert headers["ce_subject"] == str(hold_id).encode()
    assert {"ce_id", "ce_time", "traceparent"} <= set(headers)


async def test_message_rolled_back_is_never_sent(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await publish(conn, released())
        raise Rollback
    assert await outbox_is_empty(pool)


async def test_message_too_large_to_send_holds_up_its_own_key_only(
    pool: Pool, database_url: str, kafka_brokers: str, servers: dict[str, str]
) -> None:
    large, behind, other = new_id(), new_id(), new_id()
    async with transaction(pool) as conn:
        await conn.execute(
            "INSERT INTO outbox (topic, key, type, body) VALUES (%s, %s, 'hold.released', %s)",
            [TOPIC, str(large), "x" * 1_100_000],
        )
        await publish(conn, released(large), released(behind), released(other))

    async def keys() -> set[str]:
        async with pool.connection() as conn:
            return {row[0] for row in await (await conn.execute("SELECT key FROM outbox")).fetchall()}

    async def only_the_large_one_is_left() -> bool:
        return await keys() == {str(large)}

    async with running(relay(database_url, kafka_brokers)):
        await eventually(only_the_large_one_is_left)
    with psycopg.connect(servers["ADMIN_DATABASE_URL"], autocommit=True) as admin:
        admin.execute("DELETE FROM payments.outbox")


async def test_relay_whose_connection_is_killed_goes_on(
    pool: Pool, database_url: str, kafka_brokers: str, servers: dict[str, str]
) -> None:
    async with running(relay(database_url, kafka_brokers)):
        for _ in range(3):
            with psycopg.connect(servers["ADMIN_DATABASE_URL"], autocommit=True) as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'payments-relay%'"
                )
            async with transaction(pool) as own:
                await publish(own, released())
            await eventually(lambda: outbox_is_empty(pool))


async def test_message_delivered_twice_has_its_effect_once(pool: Pool, kafka_brokers: str) -> None:
    message = released()
    other = released(message.hold_id)
    headers = headers_of(message)
    async with producing(kafka_brokers) as producer:
        for _ in range(3):
            await send(producer, message, headers)
        await send(producer, other)
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):

        async def done() -> bool:
            return str(other.event_id) in await effects(pool, message.hold_id)

        await eventually(done)
    assert await effects(pool, message.hold_id) == [str(message.event_id), str(other.event_id)]


@asynccontextmanager
async def producing(kafka_brokers: str) -> AsyncGenerator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_brokers, max_request_size=2_000_000)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(
    producer: AIOKafkaProducer, message: HoldReleased, headers: list[tuple[str, bytes]] | None = None
) -> None:
    await producer.send_and_wait(
        TOPIC,
        msgspec.json.encode(message),
        key=str(message.hold_id).encode(),
        headers=headers or headers_of(message),
    )


async def test_garbage_becomes_dead_letters_as_the_bytes_it_was_and_stops_nothing(
    pool: Pool, kafka_brokers: str
) -> None:
    good = released()
    key = str(good.hold_id).encode()
    ce_type = ("ce_type", b"hold.released")
    ce_id = ("ce_id", b"garbage")
    garbage: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        (key, b"not json", [ce_id, ce_type]),
        (key, b"{}", [ce_id, ce_type]),
        (key, None, [ce_id, ce_type]),
        (None, b"{}", []),
        (key, b"\xff\xfe", [ce_id, ce_type]),
        (key, b"{}", [ce_id, ("ce_type", b"\xff")]),
        (key, b"{}", [("ce_id", b"\xff"), ce_type]),
        (key, b"{}", [ce_id, ce_type, ("ce_dataschema", b"hold.released.v99.json")]),
        (key, b"x" * 1_000_000, [ce_id, ce_type]),
        (key, b'{"holdId": 7}', [ce_id, ce_type]),
        (b"somebody else", None, [ce_id, ("ce_type", b"order.paid")]),
    ]
    skipped = (key, b"{}", [ce_id, ("ce_type", b"hold.from_the_future")])
    before = len(await read_all(kafka_brokers, DEAD_LETTERS))
    async with producing(kafka_brokers) as producer:
        for record_key, value, headers in (*garbage, skipped):
            await producer.send_and_wait(TOPIC, value, key=record_key, headers=headers)
        await send(producer, good)
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):

        async def done() -> bool:
            return await effects(pool, good.hold_id) == [str(good.event_id)]

        await eventually(done)

        async def all_dead() -> bool:
            return len(await read_all(kafka_brokers, DEAD_LETTERS)) == before + len(garbage)

        await eventually(all_dead)
    letters = (await read_all(kafka_brokers, DEAD_LETTERS))[before:]
    assert sorted(each.value or b"" for each in letters) == sorted(value or b"" for _, value, _ in garbage)
    assert {dict(each.headers)["dlq_topic"] for each in letters} == {TOPIC.encode()}


async def test_faulty_message_is_tried_again_then_dead_lettered_and_others_go_on(
    pool: Pool, kafka_brokers: str
) -> None:
    faulty, good, later = released(), released(), released()
    tries: list[UUID] = []

    async def handle(conn: Conn, message: HoldReleased) -> None:
        await note(conn, message)
        if message.hold_id == faulty.hold_id:
            tries.append(message.hold_id)
            raise LookupError("nothing there")

    async with producing(kafka_brokers) as producer:
        for message in (faulty, good, later):
            await send(producer, message)
    work = subscription(pool, kafka_brokers, {HoldReleased: handle})

    async def letters() -> list[ConsumerRecord[Any, Any]]:
        records = await read_all(kafka_brokers, DEAD_LETTERS)
        return [each for each in records if each.key == str(faulty.hold_id).encode()]

    async def done() -> bool:
        return bool(await letters()) and bool(await effects(pool, later.hold_id))

    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(done)
    headers = dict((await letters())[0].headers)
    assert (headers["dlq_attempts"], headers["dlq_reason"]) == (b"3", b"LookupError")
    assert await effects(pool, faulty.hold_id) == []
    assert await effects(pool, good.hold_id) == [str(good.event_id)]
    # The dead letter leaves no inbox mark: a replay may claim it.
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT 1 FROM inbox WHERE message_id = %s", [headers["ce_id"].decode()])
        assert await cursor.fetchone() is None


async def test_fault_that_passes_is_waited_for_and_costs_no_try(pool: Pool, kafka_brokers: str) -> None:
    message = released()
    faults = [psycopg.errors.LockNotAvailable()] * 6

    async def handle(conn: Conn, each: HoldReleased) -> None:
        if each.hold_id == message.hold_id and faults:
            raise faults.pop()
        await note(conn, each)

    async with producing(kafka_brokers) as producer:
        await send(producer, message)
    work = subscription(pool, kafka_brokers, {HoldReleased: handle})

    async def done() -> bool:
        return await effects(pool, message.hold_id) == [str(message.event_id)]

    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(done)


async def test_consumer_killed_again_and_again_and_joined_by_another_loses_and_doubles_nothing(
    pool: Pool, kafka_brokers: str
) -> None:
    messages = [released() for _ in range(300)]
    async with producing(kafka_brokers) as producer:
        await asyncio.gather(*(send(producer, each) for each in messages))

    async def slow(conn: Conn, message: HoldReleased) -> None:
        await note(conn, message)
        await asyncio.sleep(0.001)

    async def seen() -> int:
        async with pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT count(*) FROM effects WHERE key = ANY (%s)",
                [[str(each.hold_id) for each in messages]],
            )
            row = await cursor.fetchone()
            return row[0] if row else 0

    for _ in range(3):
        work = subscription(pool, kafka_brokers, {HoldReleased: slow})
        task = asyncio.create_task(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat()))
        done, _ = await asyncio.wait([task], timeout=0.7)
        assert not done
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def all_seen() -> bool:
        return await seen() >= len(messages)

    works = [subscription(pool, kafka_brokers, {HoldReleased: slow}) for _ in range(2)]
    async with running(*(each.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat()) for each in works)):
        await eventually(all_seen)
    for message in messages:
        assert await effects(pool, message.hold_id) == [str(message.event_id)]
