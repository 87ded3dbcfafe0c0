"""A subscription whose partitions are taken from it."""

import asyncio

import psycopg
from aiokafka import TopicPartition
from contracts.messages import HoldReleased
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Deliveries, Retry
from libs.postgres import Pool
from messaging_support import TOPIC, eventually, producing, read_all, released, send, subscription


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
