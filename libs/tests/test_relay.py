"""The outbox's way to Kafka: nothing lost, in order per key, and no row in the way of another key's."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from contracts.messages import HoldReleased
from embedded.stack import Stack
from libs.ids import new_id
from libs.messaging import relay as relays
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.outbox import publish
from libs.postgres import Pool, transaction
from messaging_support import (
    TOPIC,
    eventually,
    outbox_is_empty,
    read_all,
    relay,
    released,
    running,
)
from psycopg import Rollback


async def publish_each(pool: Pool, *messages: HoldReleased) -> None:
    """Each in a transaction of its own."""
    for message in messages:
        async with transaction(pool) as conn:
            await publish(conn, message)


def write(admin: psycopg.Connection, topic: str, key: UUID | str, body: str) -> None:
    admin.execute(
        "INSERT INTO payments.outbox (topic, key, type, body) VALUES (%s, %s, 'hold.released', %s)",
        [topic, str(key), body],
    )


async def sent_of(kafka_brokers: str, *keys: UUID) -> list[str]:
    """The event ids of these keys' messages, as they lie in the topic."""
    wanted = {str(key).encode() for key in keys}
    records = await read_all(kafka_brokers, TOPIC)
    return [json.loads(each.value or b"")["eventId"] for each in records if each.key in wanted]


def keys_in_outbox(admin: psycopg.Connection) -> set[str]:
    return {row[0] for row in admin.execute("SELECT key FROM payments.outbox").fetchall()}


@asynccontextmanager
async def topic_administration(kafka_brokers: str) -> AsyncGenerator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_brokers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make_topic(kafka_brokers: str, name: str, **configs: str) -> None:
    async with topic_administration(kafka_brokers) as client:
        await client.create_topics([NewTopic(name, 1, 1, topic_configs=configs)])


async def test_outbox_row_becomes_a_cloud_event_in_the_order_of_its_key(
    pool: Pool, database_url: str, kafka_brokers: str
) -> None:
    hold_id = new_id()
    messages = [released(hold_id) for _ in range(30)]
    await publish_each(pool, *messages)
    # Two relays, one lock: each row is sent once.
    async with running(relay(database_url, kafka_brokers), relay(database_url, kafka_brokers)):
        await eventually(lambda: outbox_is_empty(pool))
    assert await sent_of(kafka_brokers, hold_id) == [str(each.event_id) for each in messages]
    records = [each for each in await read_all(kafka_brokers, TOPIC) if each.key == str(hold_id).encode()]
    headers = dict(records[0].headers)
    assert (headers["ce_type"], headers["ce_source"]) == (b"hold.released", b"/payments")
    assert headers["ce_subject"] == str(hold_id).encode()
    assert {"ce_id", "ce_time", "traceparent"} <= set(headers)


async def test_message_rolled_back_is_never_sent(pool: Pool) -> None:
    async with transaction(pool) as conn:
        await publish(conn, released())
        raise Rollback
    assert await outbox_is_empty(pool)


async def test_transaction_that_commits_late_loses_none_of_its_messages(
    pool: Pool, database_url: str, kafka_brokers: str
) -> None:
    late, early = released(), released()
    async with running(relay(database_url, kafka_brokers)):
        async with transaction(pool) as conn:
            await publish(conn, late)  # takes the lower id
            await publish_each(pool, early)

            async def early_is_sent() -> bool:
                return await sent_of(kafka_brokers, early.hold_id) == [str(early.event_id)]

            await eventually(early_is_sent)
        await eventually(lambda: outbox_is_empty(pool))
    assert await sent_of(kafka_brokers, late.hold_id) == [str(late.event_id)]


async def test_relays_that_believe_in_different_numbers_of_shards_never_send_the_same_row(
    pool: Pool, database_url: str, kafka_brokers: str
) -> None:
    keys = [new_id() for _ in range(40)]
    messages = [released(key) for _ in range(10) for key in keys]
    fleet = [
        relay(database_url, kafka_brokers, shard=shard, shards=shards)
        for shards in (1, 2, 3)
        for shard in range(shards)
    ]
    async with running(*fleet):
        await publish_each(pool, *messages)
        await eventually(lambda: outbox_is_empty(pool))
    sent = await sent_of(kafka_brokers, *keys)
    assert len(sent) == len(messages)
    for key in keys:
        own = {str(each.event_id): None for each in messages if each.hold_id == key}
        assert [each for each in sent if each in own] == list(own)


async def test_every_row_has_its_relay_when_the_number_of_shards_changes(
    pool: Pool, database_url: str, kafka_brokers: str
) -> None:
    for shards in (1, 3, 2):
        fleet = [relay(database_url, kafka_brokers, shard=shard, shards=shards) for shard in range(shards)]
        async with running(*fleet):
            await publish_each(pool, *(released() for _ in range(50)))
            await eventually(lambda: outbox_is_empty(pool))


async def test_message_too_large_to_send_holds_up_its_own_key_only(
    pool: Pool, database_url: str, kafka_brokers: str, admin: psycopg.Connection
) -> None:
    large, other = new_id(), new_id()
    write(admin, TOPIC, large, "x" * 1_100_000)
    await publish_each(pool, released(large), released(other))

    async def only_the_large_one_is_left() -> bool:
        return keys_in_outbox(admin) == {str(large)}

    async with running(relay(database_url, kafka_brokers)):
        await eventually(only_the_large_one_is_left)
    assert await sent_of(kafka_brokers, large) == []


async def test_message_that_the_broker_refuses_holds_up_its_own_key_only(
    pool: Pool, database_url: str, kafka_brokers: str, admin: psycopg.Connection
) -> None:
    topic = f"small-{new_id()}"
    await make_topic(kafka_brokers, topic, **{"max.message.bytes": "2000"})
    large = new_id()
    write(admin, topic, large, "x" * 5000)
    write(admin, topic, large, "behind")
    for number in range(20):
        write(admin, topic, new_id(), str(number))
    await publish_each(pool, released())

    async def only_the_large_one_is_left() -> bool:
        return keys_in_outbox(admin) == {str(large)}

    async with running(relay(database_url, kafka_brokers)):
        await eventually(only_the_large_one_is_left)
    values = {each.value for each in await read_all(kafka_brokers, topic)}
    assert values == {str(number).encode() for number in range(20)}


async def test_topic_that_is_missing_holds_up_its_own_messages_only_and_until_it_is_made(
    pool: Pool,
    database_url: str,
    kafka_brokers: str,
    admin: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "TOPIC_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(relays, "BATCH_SIZE", 20)
    topic, key = f"missing-{new_id()}", new_id()
    for number in range(50):  # more than a batch: they would fill each one
        write(admin, topic, key, str(number))
    await publish_each(pool, released())

    async def only_the_missing_one_is_left() -> bool:
        return keys_in_outbox(admin) == {str(key)}

    async with running(relay(database_url, kafka_brokers)):
        await eventually(only_the_missing_one_is_left)
        await make_topic(kafka_brokers, topic)
        await eventually(lambda: outbox_is_empty(pool))
    assert [each.value for each in await read_all(kafka_brokers, topic)] == [
        str(number).encode() for number in range(50)
    ]


async def test_producer_that_died_is_built_anew(
    pool: Pool, database_url: str, kafka_brokers: str, admin: psycopg.Connection
) -> None:
    topic = f"made-again-{new_id()}"
    await make_topic(kafka_brokers, topic)
    async with running(relay(database_url, kafka_brokers)):
        write(admin, topic, new_id(), "first")
        await eventually(lambda: outbox_is_empty(pool))
        async with topic_administration(kafka_brokers) as client:
            await client.delete_topics([topic])
        await make_topic(kafka_brokers, topic)
        # The broker knows nothing of this producer's sequence any more: OutOfOrderSequenceNumber is fatal.
        for number in range(3):
            write(admin, topic, new_id(), str(number))
            await eventually(lambda: outbox_is_empty(pool), seconds=40)
    assert {b"0", b"1", b"2"} <= {each.value for each in await read_all(kafka_brokers, topic)}


async def test_relay_whose_connection_is_killed_goes_on(
    pool: Pool, database_url: str, kafka_brokers: str, admin: psycopg.Connection
) -> None:
    async with running(relay(database_url, kafka_brokers)):
        for _ in range(3):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'payments-relay%'"
            )
            await publish_each(pool, released())
            await eventually(lambda: outbox_is_empty(pool))


async def test_relay_killed_between_sending_and_deleting_sends_again_in_order(
    pool: Pool, database_url: str, kafka_brokers: str, admin: psycopg.Connection
) -> None:
    hold_id = new_id()
    messages = [released(hold_id) for _ in range(5)]
    await publish_each(pool, *messages)
    admin.execute(
        "CREATE FUNCTION payments.crash() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''killed''; END';"
        "CREATE TRIGGER crash BEFORE DELETE ON payments.outbox FOR EACH ROW EXECUTE FUNCTION payments.crash()"
    )
    try:
        with pytest.raises(psycopg.errors.RaiseException):
            await relay(database_url, kafka_brokers)
    finally:
        admin.execute("DROP FUNCTION payments.crash CASCADE")
    async with running(relay(database_url, kafka_brokers)):
        await eventually(lambda: outbox_is_empty(pool))
    order = [str(each.event_id) for each in messages]
    assert await sent_of(kafka_brokers, hold_id) == order + order


async def test_kafka_away_is_waited_for_with_a_word_about_the_oldest_message_now_and_then(
    pool: Pool,
    database_url: str,
    kafka_brokers: str,
    stack: Stack,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "ACKNOWLEDGE_SECONDS", 0.5)
    caplog.set_level(logging.WARNING, logger="libs")
    running_one, starting_one = Heartbeat(), Heartbeat()
    messages = [released() for _ in range(700)]
    async with running(relay(database_url, kafka_brokers, heartbeat=running_one)):
        await eventually(lambda: is_ready(running_one))
        await asyncio.to_thread(stack.stop, ["kafka"])
        await publish_each(pool, *messages)

        async def tells_the_age() -> bool:
            return "waiting for Kafka" in running_one.status()[1] and "s old" in running_one.status()[1]

        await eventually(tells_the_age)
        before = len(asyncio.all_tasks())
        async with asyncio.timeout(10):
            for _ in range(4):  # producers come and go
                await asyncio.sleep(1)  # the passing of time is what is tested
        assert len(asyncio.all_tasks()) <= before + 5
    async with running(relay(database_url, kafka_brokers, heartbeat=starting_one)):

        async def tells_it_too() -> bool:
            return "waiting for Kafka" in starting_one.status()[1] and "s old" in starting_one.status()[1]

        await eventually(tells_it_too)
        own = [each for each in caplog.records if each.name == relays.log.name]
        assert 2 <= len(own) <= 6
        await asyncio.to_thread(stack.start, ["kafka"])
        await eventually(lambda: outbox_is_empty(pool), seconds=15)
    sent = await sent_of(kafka_brokers, *(each.hold_id for each in messages))
    assert set(sent) == {str(each.event_id) for each in messages}


async def is_ready(heartbeat: Heartbeat) -> bool:
    return heartbeat.status()[0] == "ready"
