"""Anything may arrive on a topic: it becomes a dead letter, as the bytes it was, or is skipped and counted.

What comes after it is handled, by the services' own handlers.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import catalog.consumers
import inventory.consumers
import msgspec
import payments.consumers
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from contracts.messages import MESSAGE_TYPES
from contracts.topics import TOPICS, Topic
from embedded.testing import running_stack, send_unreadable
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Handlers, Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.subscriptions import Subscription
from libs.messaging.topics import create_topics
from libs.migrations import migrate, services_from_environment
from libs.postgres import create_pool
from libs.tasks import end_tasks

ROOT = Path(__file__).parents[2]
HANDLERS: dict[str, Handlers] = {
    "catalog": catalog.consumers.HANDLERS,
    "inventory": inventory.consumers.HANDLERS,
    "payments": payments.consumers.HANDLERS,
}
# Those that carry dead letters back have no messages of their own: libs/tests/test_letters.py.
HEARD = [topic for topic in TOPICS if topic.subscribers and topic.messages]
# One of each topic; their examples speak of the same event, hold and order.
GOOD = {
    "auth.users": "user.disabled",
    "catalog.events": "event.created",
    "catalog.seat-maps": "seat-map.part",
    "inventory.holds": "hold.placed",
    "payments.orders": "order.placed",
    "payment.succeeded": "payment.succeeded",
    "inventory.tickets": "tickets.issued",
}


Headers = list[tuple[str, bytes | None]]


class Sent(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Headers


def good(message_type: str) -> Sent:
    value = (ROOT / f"contracts/examples/{message_type}.v1.json").read_bytes()
    struct = MESSAGE_TYPES[(message_type, 1)]
    key = str(getattr(msgspec.json.decode(value, type=struct), struct.KEY)).encode()
    return Sent(key, value, [("ce_id", str(new_id()).encode()), ("ce_type", message_type.encode())])


UNREADABLE: Headers = [("??", b"")]


def garbage(topic: Topic) -> dict[str, Sent]:
    key, value, headers = good(GOOD[topic.name])
    ce_id, ce_type = headers
    elsewhere = next(each for each in TOPICS if each.name != topic.name).messages[0]
    kinds = {
        "not JSON": Sent(key, b"not json", headers),
        "no object": Sent(key, b"[]", headers),
        "wrong schema": Sent(key, b"{}", headers),
        "not a number": Sent(key, b'{"version": NaN}', headers),
        "null body": Sent(key, None, headers),
        "empty body": Sent(key, b"", headers),
        "no UTF-8": Sent(key, b"\xff\xfe", headers),
        "nested deeply": Sent(key, b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", headers),
        "1 MB of noise": Sent(key, bytes(range(256)) * 3906, headers),
        "no headers": Sent(key, value, []),
        "no ce_id": Sent(key, value, [ce_type]),
        "no ce_type": Sent(key, value, [ce_id]),
        "ce_id no UTF-8": Sent(key, value, [("ce_id", b"\xff"), ce_type]),
        "ce_type no UTF-8": Sent(key, value, [ce_id, ("ce_type", b"\xff")]),
        "ce_id with a null byte": Sent(key, value, [("ce_id", b"a\x00b"), ce_type]),
        "ce_id twice": Sent(key, value, [ce_id, ce_id, ce_type]),
        "huge ce_id": Sent(key, value, [("ce_id", b"7" * 100_000), ce_type]),
        "unknown version": Sent(
            key, value, [*headers, ("ce_dataschema", f"{GOOD[topic.name]}.v99.json".encode())]
        ),
        "no version": Sent(key, value, [*headers, ("ce_dataschema", b"latest")]),
        "somebody else's key": Sent(str(new_id()).encode(), value, headers),
        "no key": Sent(None, value, headers),
        "nothing at all": Sent(None, None, []),
        "null header": Sent(key, value, [("ce_id", None), ce_type]),
        "header's name no UTF-8": Sent(None, None, UNREADABLE),
        "of another topic": Sent(*good(elsewhere)),
    }
    if topic.name == "inventory.holds":
        # Sound JSON that PostgreSQL cannot store: the handler fails.
        kinds["null character"] = Sent(key, (value or b"").replace(b'"A"', b'"\\u0000"'), headers)
    return kinds


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with running_stack(("postgres", "kafka")) as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment().items():
            patch.setenv(name, value)
        folders = [ROOT / "services" / service / "migrations" for service in (*HANDLERS, "auth")]
        migrate(stack.environment()["ADMIN_DATABASE_URL"], services_from_environment(folders))
        yield stack.environment()


async def read_to_end(kafka_brokers: str, *topics: str) -> list[ConsumerRecord[Any, Any]]:
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=kafka_brokers, auto_offset_reset="earliest", metadata_max_age_ms=1000
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        records: list[ConsumerRecord[Any, Any]] = []
        while any([await consumer.position(each) < end for each, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def has_read_everything(kafka_brokers: str, service: str) -> bool:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_brokers, group_id=service, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(topic.name, number)
            for topic in HEARD
            if service in topic.subscribers
            for number in range(topic.partitions)
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        return all([(await consumer.committed(each) or 0) == end for each, end in ends.items()])
    finally:
        await consumer.stop()


async def test_garbage_on_every_topic_becomes_dead_letters_and_the_messages_after_it_are_handled(
    environment: dict[str, str],
) -> None:
    brokers = environment["KAFKA_BROKERS"]
    await create_topics(brokers)
    heartbeats = {service: Heartbeat() for service in HANDLERS}
    admin = psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True)
    async with AsyncExitStack() as exits:
        exits.callback(admin.close)
        producer = AIOKafkaProducer(bootstrap_servers=brokers, max_request_size=1_100_000)
        await producer.start()
        exits.push_async_callback(producer.stop)

        async def send(topic: Topic, sent: Sent) -> None:
            if sent.headers == UNREADABLE:
                await send_unreadable(producer, topic.name)
                return
            # As other clients do, which send records without key and value.
            batch = producer.create_batch()
            batch.append(key=sent.key, value=sent.value, timestamp=None, headers=sent.headers)
            await (await producer.send_batch(batch, topic.name, partition=0))

        tasks: list[asyncio.Task[None]] = []
        for service, handlers in HANDLERS.items():
            pool = create_pool(environment[f"{service.upper()}_WORKER_DATABASE_URL"])
            await pool.open()
            exits.push_async_callback(pool.close)
            work = Subscription(
                service=service,
                pool=pool,
                handlers=handlers,
                dead_letters=DeadLetters(service=service, kafka_brokers=brokers),
                retry=Retry(count=3, backoff_seconds=0.02),
            )
            tasks.append(asyncio.create_task(work.run(kafka_brokers=brokers, heartbeat=heartbeats[service])))
        exits.push_async_callback(end_tasks, *tasks)

        async def until_all_is_read() -> None:
            async with asyncio.timeout(60):
                for service, task in zip(HANDLERS, tasks, strict=True):
                    while not task.done() and not await has_read_everything(brokers, service):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                    assert not task.done()

        for topic in HEARD:
            for sent in garbage(topic).values():
                await send(topic, sent)
            await send(
                topic,
                good(GOOD[topic.name])._replace(
                    headers=[("ce_id", b"1"), ("ce_type", b"thing.from_the_future")]
                ),
            )
        with pytest.raises(MessageSizeTooLargeError):  # it would not fit into a dead letter
            await send(HEARD[0], Sent(None, b"x" * 1_300_000, []))
        await until_all_is_read()
        sound = {topic.name: good(GOOD[topic.name]) for topic in HEARD}
        for name in GOOD:  # in the order of a sale
            topic = next(each for each in HEARD if each.name == name)
            await send(topic, sound[name])
            await until_all_is_read()
            if name == "inventory.holds":
                admin.execute(
                    """
                    INSERT INTO payments.orders
                           (id, hold_id, event_id, user_id, status, amount_minor, currency, seats, expires_at,
                            payment_intent_id, client_secret)
                    SELECT '018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c02', id, event_id, user_id, 'pending', 4500,
                           'eur', seats, now() + interval '1 hour', 'pi_3PExample', 'secret'
                      FROM payments.holds
                    """
                )

    for topic in HEARD:
        for service, letters_topic in topic.subscribers.items():
            letters = await read_to_end(brokers, letters_topic)
            expected = garbage(topic)
            assert {each.value for each in letters} == {each.value for each in expected.values()}
            assert len(letters) == len(expected), (topic.name, service)
            assert all(dict(each.headers)["dlq_reason"] for each in letters)
            found = admin_query(
                environment, f"SELECT count(*) FROM {service}.inbox WHERE message_id = %s", sound[topic.name]
            )
            assert found == 1
    assert admin_query(environment, "SELECT status FROM payments.orders", None) == "fulfilled"
    for service, heartbeat in heartbeats.items():
        heard = [topic for topic in HEARD if service in topic.subscribers]
        assert heartbeat.counts["skipped"] == len(heard)
        assert heartbeat.counts["dead letters"] == sum(len(garbage(topic)) for topic in heard)


def admin_query(environment: dict[str, str], statement: str, sent: Sent | None) -> Any:
    with psycopg.connect(environment["ADMIN_DATABASE_URL"]) as conn:
        parameters = [(dict(sent.headers)["ce_id"] or b"").decode()] if sent else None
        row = conn.execute(statement, parameters).fetchone()  # pyright: ignore[reportCallIssue, reportArgumentType]
        return row[0] if row else None
