"""A subscription over a real Kafka: each message's effect once, and none in the way of another key's."""

import asyncio
from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from contracts.messages import HoldReleased
from libs.messaging import dead_letters, envelopes, offsets, subscriptions
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Deliveries, Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.offsets import Offsets
from libs.postgres import Conn, Pool
from messaging_support import (
    DEAD_LETTERS,
    TOPIC,
    effects,
    eventually,
    has_effect,
    headers_of,
    note,
    producing,
    read_all,
    released,
    running,
    send,
    subscription,
)

PARTITION = TopicPartition(TOPIC, 0)


def record(offset: int, partition: TopicPartition = PARTITION) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=None,
        value=None,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )


async def committed(kafka_brokers: str, partition: TopicPartition = PARTITION) -> int:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_brokers, group_id="payments", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([partition])
        return await consumer.committed(partition) or 0
    finally:
        await consumer.stop()


def test_offsets_are_committed_up_to_the_first_unfinished_record_only() -> None:
    offsets = Offsets()
    offsets.advance([record(0), record(1)])
    assert offsets.committable() == {PARTITION: 2}
    offsets.committed({PARTITION: 2})
    assert offsets.committable() == {}
    for each in (record(3), record(5)):
        offsets.begin(each)
    offsets.advance([record(each) for each in range(2, 8)])
    assert offsets.committable() == {PARTITION: 3}
    offsets.finish(record(5))
    assert offsets.committable() == {PARTITION: 3}
    offsets.finish(record(3))
    assert offsets.committable() == {PARTITION: 8}
    offsets.forget()
    assert offsets.committable() == {}


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


async def test_message_delivered_again_to_a_process_that_never_saw_it_has_no_second_effect(
    pool: Pool, kafka_brokers: str
) -> None:
    message = released()
    headers = headers_of(message)
    for later in (released(), released()):
        async with producing(kafka_brokers) as producer:
            await send(producer, message, headers, partition=0)
            await send(producer, later, partition=0)
        work = subscription(pool, kafka_brokers, {HoldReleased: note})
        async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
            await eventually(lambda later=later: has_effect(pool, later))
    assert await has_effect(pool, message)


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


async def test_faulty_message_that_waits_holds_up_no_other_key_and_its_offset_waits_with_it(
    pool: Pool, kafka_brokers: str
) -> None:
    faulty, *others = (released() for _ in range(4))
    behind = released(faulty.hold_id)
    is_mended = False

    async def handle(conn: Conn, message: HoldReleased) -> None:
        if message == faulty and not is_mended:
            raise LookupError("nothing there")
        await note(conn, message)

    async with producing(kafka_brokers) as producer:
        first = await send(producer, faulty, partition=0)
        for message in (behind, *others[:2]):
            await send(producer, message, partition=0)
        work = subscription(
            pool, kafka_brokers, {HoldReleased: handle}, retry=Retry(count=3, backoff_seconds=100)
        )
        async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
            await eventually(lambda: has_effect(pool, *others[:2]))
            # Later batches of the same partition go on too, but for what comes behind it under its key.
            await send(producer, others[2], partition=0)
            await eventually(lambda: has_effect(pool, others[2]))
            assert await effects(pool, faulty.hold_id) == []
            await asyncio.sleep(3 * subscriptions.COMMIT_EVERY_SECONDS)  # commits that must not be
        assert await committed(kafka_brokers) == first
    is_mended = True
    again = subscription(pool, kafka_brokers, {HoldReleased: handle})
    async with running(again.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):

        async def both_in_order() -> bool:
            return await effects(pool, faulty.hold_id) == [str(faulty.event_id), str(behind.event_id)]

        await eventually(both_in_order)

        async def all_committed() -> bool:
            return await committed(kafka_brokers) == first + 5

        await eventually(all_committed)
    assert await has_effect(pool, *others)


@pytest.mark.parametrize("is_decodable", [True, False])
async def test_dead_letter_that_kafka_does_not_take_is_not_lost(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch, is_decodable: bool
) -> None:
    faulty = released()
    refusals = [KafkaError("refused")] * 2
    send_letter = DeadLetters.send

    async def refuse_twice(self: DeadLetters, *args: Any, **kwargs: Any) -> None:
        if refusals:
            raise refusals.pop()
        await send_letter(self, *args, **kwargs)

    async def handle(conn: Conn, message: HoldReleased) -> None:
        if message == faulty:
            raise LookupError("nothing there")
        await note(conn, message)

    monkeypatch.setattr(DeadLetters, "send", refuse_twice)
    async with producing(kafka_brokers) as producer:
        offset = await send(producer, faulty, None if is_decodable else [], partition=0)
    work = subscription(pool, kafka_brokers, {HoldReleased: handle})

    async def is_a_dead_letter() -> bool:
        letters = await read_all(kafka_brokers, DEAD_LETTERS)
        return [each.key for each in letters].count(str(faulty.hold_id).encode()) == 1

    async def is_committed() -> bool:
        return await committed(kafka_brokers) == offset + 1

    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(is_a_dead_letter)
        await eventually(is_committed)
    assert not refusals


async def test_partition_is_not_read_on_while_too_much_of_it_waits(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "MAX_UNFINISHED", 3)
    monkeypatch.setattr(subscriptions, "MAX_BATCH", 1)
    faulty = released()
    behind = [released(faulty.hold_id) for _ in range(6)]
    beyond, elsewhere = released(), released()
    is_mended = asyncio.Event()

    async def handle(conn: Conn, message: HoldReleased) -> None:
        if message == faulty and not is_mended.is_set():
            raise psycopg.errors.LockNotAvailable
        await note(conn, message)

    async with producing(kafka_brokers) as producer:
        for message in (faulty, *behind, beyond):
            await send(producer, message, partition=0)
        work = subscription(pool, kafka_brokers, {HoldReleased: handle})
        async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
            await eventually(lambda: is_paused(work))
            await send(producer, elsewhere, partition=1)
            await eventually(lambda: has_effect(pool, elsewhere))
            assert await effects(pool, beyond.hold_id) == []
            is_mended.set()
            await eventually(lambda: has_effect(pool, beyond))
    assert await effects(pool, faulty.hold_id) == [str(each.event_id) for each in (faulty, *behind)]


async def is_paused(work: subscriptions.Subscription) -> bool:
    consumer = work._consumer  # pyright: ignore[reportPrivateUsage]
    return consumer is not None and PARTITION in consumer.paused()


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


async def test_message_whose_lock_is_taken_waits_alone(pool: Pool, kafka_brokers: str) -> None:
    locked, other = released(), released()
    is_free = asyncio.Event()

    async def handle(conn: Conn, message: HoldReleased) -> None:
        if message == locked and not is_free.is_set():
            raise psycopg.errors.LockNotAvailable
        await note(conn, message)

    async with producing(kafka_brokers) as producer:
        await send(producer, locked, partition=0)
        await send(producer, other, partition=0)
    work = subscription(pool, kafka_brokers, {HoldReleased: handle})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(lambda: has_effect(pool, other))
        is_free.set()
        await eventually(lambda: has_effect(pool, locked))


async def test_version_without_a_handler_is_a_dead_letter_where_another_version_has_one(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NewerHoldReleased(HoldReleased, frozen=True, kw_only=True, rename="camel"):
        VERSION: ClassVar[int] = 2

    decoder = msgspec.json.Decoder(NewerHoldReleased)
    monkeypatch.setitem(envelopes._DECODERS, ("hold.released", 2), decoder)  # pyright: ignore[reportPrivateUsage]
    newer, older = released(), released()
    heartbeat = Heartbeat()
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    async with producing(kafka_brokers) as producer:
        await send(
            producer, newer, [*headers_of(newer), ("ce_dataschema", b"hold.released.v2.json")], partition=0
        )
        await send(producer, older, partition=0)
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=heartbeat)):
        await eventually(lambda: has_effect(pool, older))
    letters = await read_all(kafka_brokers, DEAD_LETTERS)
    letter = next(each for each in letters if each.key == str(newer.hold_id).encode())
    assert dict(letter.headers)["dlq_error"] == b"version 2 of hold.released is not handled here"


async def test_messages_without_a_handler_are_counted(pool: Pool, kafka_brokers: str) -> None:
    message = released()
    heartbeat = Heartbeat()
    async with producing(kafka_brokers) as producer:
        await send(producer, message)
    work = subscription(pool, kafka_brokers, {})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=heartbeat)):

        async def is_counted() -> bool:
            return heartbeat.counts["not for us"] == 1

        await eventually(is_counted)


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_record_of_any_compression_is_read(pool: Pool, kafka_brokers: str, compression: str) -> None:
    message = released()
    producer = AIOKafkaProducer(bootstrap_servers=kafka_brokers, compression_type=compression)
    await producer.start()
    await send(producer, message)
    await producer.stop()
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(lambda: has_effect(pool, message))


async def test_message_whose_dead_letter_cannot_be_written_keeps_its_offset(
    pool: Pool, kafka_brokers: str
) -> None:
    async def refuse(_: Conn, message: HoldReleased) -> None:
        raise ValueError(message.reason)

    deliveries = Deliveries(
        service="payments",
        pool=pool,
        handlers={HoldReleased: refuse},
        dead_letters=DeadLetters(service="payments", kafka_brokers=kafka_brokers),  # not started: it cannot
        retry=Retry(count=0, backoff_seconds=0.01),
    )
    with pytest.raises(RuntimeError, match="dead letters are not started"):
        await deliveries.handle([record(0)])
    assert deliveries.offsets.committable() == {}

    message = released()
    faulty = replace(
        record(1),
        value=msgspec.json.encode(message),
        headers=tuple(headers_of(message)),
        key=str(message.hold_id).encode(),
    )
    await deliveries.handle([faulty])
    with pytest.raises(RuntimeError, match="dead letters are not started"):
        await deliveries.failed
    assert deliveries.offsets.committable() == {PARTITION: 1}


async def test_dead_letter_that_kafka_does_not_acknowledge_is_not_written(
    kafka_brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send_unacknowledged(*_: object, **__: object) -> asyncio.Future[None]:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_exception(KafkaError("the broker died"))
        return sent

    letters = DeadLetters(service="payments", kafka_brokers=kafka_brokers)
    await letters.start()
    monkeypatch.setattr(dead_letters, "send_as_it_is", send_unacknowledged)
    with pytest.raises(KafkaError, match="the broker died"):
        await letters.send(record(0), error=LookupError("nothing there"), attempts=1)
    await letters.stop()
