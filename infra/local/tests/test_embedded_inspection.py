"""Looking into topics and logs."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from embedded import logs
from embedded.inspection import tail, topics_table
from embedded.problems import Problem
from embedded.settings import Settings
from embedded.stack import Stack
from embedded.testing import running_stack, send_unreadable

MESSAGES: list[tuple[bytes | None, bytes | None]] = [
    (b"order-1", b'{"orderId": "order-1", "note": "\xc3\xa9"}'),
    (b"order-2", b"no JSON \x1b[31m"),
    (None, b"\xff\xfe"),
    (b"order-3", b'"\\ud800"'),
    (b"order-4", b"[" * 100_000),
    (b"order-5", None),
]


@pytest.fixture(scope="module")
def kafka() -> Iterator[str]:
    with running_stack(("kafka",)) as stack:
        yield stack.environment()["KAFKA_BROKERS"]


@pytest.fixture(scope="module")
def brokers(kafka: str) -> str:
    asyncio.run(fill(kafka))
    return kafka


async def fill(brokers: str) -> None:
    """In one of two partitions: one that cannot be read, and is behind the group `readers`, and six more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic("orders", 2, 1), NewTopic("quiet", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    await send_unreadable(producer, "orders", partition=1)
    for key, value in MESSAGES:
        await producer.send_and_wait(
            "orders", value, key=key, partition=1, headers=[("ce_type", b"order.placed")]
        )
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id="readers", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition("orders", 1)])
    await consumer.commit({TopicPartition("orders", 1): 1})
    await consumer.stop()


async def test_topics_show_partitions_messages_and_lag(brokers: str) -> None:
    lines = [line.split() for line in (await topics_table(brokers)).splitlines()]
    assert lines[0] == ["topic", "partitions", "messages", "group", "lag"]
    assert ["orders", "2", "7", "readers", "6"] in lines
    assert ["quiet", "1", "0", "-", "-"] in lines
    assert not any(line[0].startswith("__") for line in lines)


async def test_a_tail_shows_every_kind_of_message(brokers: str) -> None:
    shown: list[str] = []
    async with aclosing(tail(brokers, "orders", from_start=True)) as texts:
        while len(shown) < len(MESSAGES):
            shown.append(await anext(texts))
    json_one, text_one, bytes_one, half_one, deep_one, empty_one = shown
    assert "key order-1" in json_one
    assert "  ce_type: order.placed" in json_one
    assert '  "note": "é"' in json_one
    assert "no JSON \\x1b[31m" in text_one
    assert r"\xff\xfe" in bytes_one
    assert r"\ud800" in half_one
    assert "[[[" in deep_one
    assert "(null)" in empty_one


async def test_an_unknown_topic_is_answered_with_the_known_ones(brokers: str) -> None:
    with pytest.raises(Problem, match="orders, quiet"):
        await anext(tail(brokers, "order", from_start=True))


async def test_without_kafka_there_is_one_line() -> None:
    with pytest.raises(Problem, match="Kafka does not answer"):
        await topics_table("127.0.0.1:1")


def test_a_service_has_two_logs_and_an_unknown_one_is_told(tmp_path: Path) -> None:
    stack = Stack(Settings(tmp_path, 3000))
    assert logs.named(stack, "inventory") == ["inventory", "inventory-worker"]
    assert logs.named(stack, "kafka") == ["kafka"]
    with pytest.raises(Problem, match="one of postgres, redis, kafka"):
        logs.named(stack, "nope")


def test_logs_are_followed_through_a_rotation(tmp_path: Path) -> None:
    stack = Stack(Settings(tmp_path, 3000))
    stack.settings.logs.mkdir()
    log = stack.settings.logs / "auth.log"
    log.write_text("one\ntwo\nthree\n")
    lines = logs.follow(stack, ["auth", "auth-worker"], lines=2)
    assert [next(lines), next(lines)] == ["auth        | two", "auth        | three"]
    log.rename(log.with_suffix(".1"))
    log.write_text("four\n")
    (stack.settings.logs / "auth-worker.log").write_text("five\n")
    assert [next(lines), next(lines)] == ["auth        | four", "auth-worker | five"]
