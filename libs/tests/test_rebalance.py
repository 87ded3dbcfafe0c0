"""Partitions that go from one consumer to another: whoever has one finishes what is in it, nobody else."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from contracts.messages import HoldReleased
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Deliveries, Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.subscriptions import Subscription
from libs.postgres import Conn, Pool
from messaging_support import (
    TOPIC,
    eventually,
    has_effect,
    note,
    producing,
    read_all,
    released,
    running,
    send,
    subscription,
)

PARTITIONS = [TopicPartition(TOPIC, number) for number in range(6)]


async def all_is_committed(kafka_brokers: str) -> bool:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_brokers, group_id="payments", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(PARTITIONS)
        ends = await consumer.end_offsets(PARTITIONS)
        return all([(await consumer.committed(each) or 0) == end for each, end in ends.items()])
    finally:
        await consumer.stop()


async def one_to_each_partition(kafka_brokers: str) -> list[HoldReleased]:
    messages = [released() for _ in PARTITIONS]
    async with producing(kafka_brokers) as producer:
        for message, partition in zip(messages, PARTITIONS, strict=True):
            await send(producer, message, partition=partition.partition)
    return messages


async def test_message_that_waits_to_be_tried_again_goes_with_its_partition(
    pool: Pool, kafka_brokers: str
) -> None:
    messages = await one_to_each_partition(kafka_brokers)
    tries: Counter[UUID] = Counter()
    is_mended = asyncio.Event()

    async def handle(conn: Conn, message: HoldReleased) -> None:
        if message in messages and not is_mended.is_set():
            tries[message.hold_id] += 1
            raise psycopg.errors.LockNotAvailable
        await note(conn, message)

    async def tried(*wanted: HoldReleased) -> bool:
        return all(tries[each.hold_id] > 2 for each in wanted)

    first = subscription(pool, kafka_brokers, {HoldReleased: handle})
    second = subscription(pool, kafka_brokers, {HoldReleased: note})
    async with running(first.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(lambda: tried(*messages))
        async with running(second.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):

            async def some_went() -> bool:
                done = [each for each in messages if await has_effect(pool, each)]
                return 0 < len(done) == second.partitions()[TOPIC]

            await eventually(some_went)
            left = [each for each in messages if not await has_effect(pool, each)]
            # The first goes on with its own: nothing that it had of the others' has stopped it.
            tries.clear()
            await eventually(lambda: tried(*left))
            assert {each.hold_id for each in left} == set(tries)
            is_mended.set()
            await eventually(lambda: has_effect(pool, *messages))
            await eventually(lambda: all_is_committed(kafka_brokers))
        # Now all come back, and nothing that was left of them then stands in the way.
        await eventually(lambda: has_all_partitions(first))
        later = await one_to_each_partition(kafka_brokers)
        await eventually(lambda: has_effect(pool, *later))
        await eventually(lambda: all_is_committed(kafka_brokers))


@pytest.mark.parametrize("is_early", [True, False], ids=["while they go", "when they are gone"])
async def test_what_was_read_before_the_partitions_went_is_left_to_whoever_has_them_now(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    first, second = (subscription(pool, kafka_brokers, {HoldReleased: note}) for _ in range(2))
    is_reading, is_read, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    read, release, take = first._read, first.release_partitions, first.take_partitions  # pyright: ignore[reportPrivateUsage]

    async def read_slowly() -> list[Any]:
        if goes_on.is_set():
            return await read()
        is_reading.set()
        records: list[Any] = []
        while len(records) < len(PARTITIONS):
            records += await read()
        is_read.set()
        await goes_on.wait()
        return records

    async def release_first() -> None:
        await release()
        if is_early:
            goes_on.set()

    def take_first() -> None:
        take()
        goes_on.set()

    async with running(first.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(lambda: has_all_partitions(first))
        await eventually(lambda: all_is_committed(kafka_brokers))
        monkeypatch.setattr(first, "_read", read_slowly)
        monkeypatch.setattr(first, "release_partitions", release_first)
        monkeypatch.setattr(first, "take_partitions", take_first)
        await is_reading.wait()  # what was read before would get the messages
        messages = await one_to_each_partition(kafka_brokers)
        await is_read.wait()
        async with running(second.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
            await eventually(lambda: has_effect(pool, *messages))
            await eventually(lambda: all_is_committed(kafka_brokers))


async def test_batch_in_progress_is_finished_before_its_partitions_go(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_in_progress, is_asked = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def handle(conn: Conn, message: HoldReleased) -> None:
        await note(conn, message)
        is_in_progress.set()
        await is_asked.wait()
        await asyncio.sleep(0.1)
        order.append("finished")

    first = subscription(pool, kafka_brokers, {HoldReleased: handle})
    second = subscription(pool, kafka_brokers, {HoldReleased: note})
    release, let_go = first.release_partitions, first._deliveries.let_go  # pyright: ignore[reportPrivateUsage]

    async def release_first() -> None:
        is_asked.set()
        await release()

    async def let_first_go() -> None:
        order.append("let go")
        await let_go()

    async with running(first.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(lambda: has_all_partitions(first))
        monkeypatch.setattr(first, "release_partitions", release_first)
        monkeypatch.setattr(first._deliveries, "let_go", let_first_go)  # pyright: ignore[reportPrivateUsage]
        messages = await one_to_each_partition(kafka_brokers)
        await is_in_progress.wait()
        async with running(second.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
            await eventually(lambda: has_effect(pool, *messages))
            await eventually(lambda: all_is_committed(kafka_brokers))
    assert order[: order.index("let go")].count("finished") > 0


async def test_message_that_is_tried_again_is_given_up_with_its_partition_and_nothing_else_is(
    pool: Pool, kafka_brokers: str
) -> None:
    message, errors = (
        released(),
        [ValueError(), ValueError(), psycopg.OperationalError("the database is away")],
    )

    async def fail(*_: object) -> None:
        raise errors.pop(0) if len(errors) > 1 else errors[0]

    deliveries = Deliveries(
        service="payments",
        pool=pool,
        handlers={HoldReleased: fail},
        dead_letters=DeadLetters(service="payments", kafka_brokers=kafka_brokers),
        retry=Retry(count=2, backoff_seconds=0.01),
    )
    async with producing(kafka_brokers) as producer:
        await send(producer, message)
    key = str(message.hold_id).encode()
    await deliveries.handle([each for each in await read_all(kafka_brokers, TOPIC) if each.key == key])
    deliveries.revoked = True

    async def is_given_up() -> bool:
        return not deliveries._retries  # pyright: ignore[reportPrivateUsage]

    await eventually(is_given_up)
    assert not deliveries.failed.done()


async def test_consumer_that_looks_for_an_unreadable_record_and_has_no_partitions_leaves_time_to_others(
    pool: Pool, kafka_brokers: str
) -> None:
    class WithoutPartitions:
        assignment = paused = set[TopicPartition]

    work = subscription(pool, kafka_brokers, {})
    work._consumer = WithoutPartitions()  # pyright: ignore[reportPrivateUsage]
    look = asyncio.create_task(work._read_one())  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(0)
    assert not look.done()
    assert await look == []


async def has_all_partitions(work: Subscription) -> bool:
    return work.partitions()[TOPIC] == len(PARTITIONS)
