"""Checks of Kafka: dead letters, and messages that a subscriber passed by without a trace in its inbox."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from psycopg import sql

from audit.books import schemas_with
from audit.findings import Check, Finding

DEAD_LETTERS = Check(
    "dead-letters",
    "no dead letter waits",
    "a message was given up: what it should have done has not been done, and nobody has decided about it",
)
CONSUMED_HAS_EFFECT = Check(
    "message-without-effect",
    "a message that was consumed is in its consumer's inbox",
    "an offset was committed past a message whose work was not done",
)
CHECKS = (DEAD_LETTERS, CONSUMED_HAS_EFFECT)

DEAD_LETTER_SUFFIX = ".dlq"
# What an operator did with which letter.
DECISIONS = "dead-letters.audit"
ANSWER_SECONDS = 15.0
"""Kafka that says nothing for this long is away."""
CHUNK = 5_000
NAMED = 20
"""So many messages without effect are named for each consumer and type."""


class Passed(NamedTuple):
    """A message that a consumer group has committed past."""

    id: str
    type: str
    place: str


class Messages(NamedTuple):
    findings: list[Finding]
    compared: int


async def read_messages(brokers: str, database_url: str, *, after: datetime | None) -> Messages:
    """Raises `KafkaError`, `OSError`, `TimeoutError` when Kafka does not answer.

    Offsets are read before inboxes: a message that is consumed meanwhile is no suspect. `after` leaves out
    what was published before; inboxes are emptied of what is older than their topics keep.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, request_timeout_ms=5_000)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False, request_timeout_ms=5_000)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await admin.start()
            await consumer.start()
            committed = await _committed(admin)
            dead_letter_partitions = await _partitions(admin, suffix=DEAD_LETTER_SUFFIX)
            ends = await consumer.end_offsets(dead_letter_partitions)
            decision_ends = await consumer.end_offsets(await _partitions(admin, suffix=DECISIONS))
        decided = {_decided(each) async for each in _records(consumer, decision_ends, None)}
        waiting: dict[str, set[str]] = defaultdict(set)
        given_up: set[str] = set()
        async for letter in _records(consumer, ends, None):
            given_up.add(_header(letter, "ce_id"))
            identity = _identity(letter)
            if (letter.topic, identity) not in decided:
                waiting[letter.topic].add(identity)
        findings = [
            Finding(DEAD_LETTERS, topic, f"{len(letters)} letters") for topic, letters in waiting.items()
        ]
        count = 0
        if any(committed.values()):
            with psycopg.connect(database_url, connect_timeout=5, application_name="audit") as conn:
                conn.read_only = True
                conn.autocommit = True
                for group in sorted(committed.keys() & set(schemas_with(conn, "inbox"))):
                    passed, missing = await _without_effect(conn, consumer, group, committed[group], after)
                    count += passed
                    findings += [
                        Finding(
                            CONSUMED_HAS_EFFECT, each.id, f"{each.type} at {each.place}, consumed by {group}"
                        )
                        for each in missing
                        if each.id not in given_up
                    ]
        return Messages(findings, count)
    finally:
        await consumer.stop()
        await admin.close()


async def _committed(admin: AIOKafkaAdminClient) -> dict[str, dict[TopicPartition, int]]:
    """Offsets by consumer group. A service's group has the service's name, as its schema and inbox have."""
    groups = [name for name, *_ in await admin.list_consumer_groups()]
    committed: dict[str, dict[TopicPartition, int]] = {}
    for group in groups:
        offsets = await admin.list_consumer_group_offsets(group)
        committed[group] = {partition: each.offset for partition, each in offsets.items() if each.offset > 0}
    return committed


async def _partitions(admin: AIOKafkaAdminClient, *, suffix: str) -> list[TopicPartition]:
    topics = [name for name in await admin.list_topics() if name.endswith(suffix)]
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in (await admin.describe_topics(topics) if topics else [])
        for partition in topic["partitions"]
    ]


async def _without_effect(
    conn: psycopg.Connection,
    consumer: AIOKafkaConsumer,
    group: str,
    committed: dict[TopicPartition, int],
    after: datetime | None,
) -> tuple[int, list[Passed]]:
    """How many messages the group has passed, and those that its inbox lacks.

    Types of which it has none at all are those that it has no use for.
    """
    known_types: set[str] = set()
    missing: dict[str, list[Passed]] = defaultdict(list)
    count = 0
    chunk: list[Passed] = []

    def look() -> None:
        ids = [each.id for each in chunk]
        statement = sql.SQL("SELECT message_id FROM {} WHERE consumer = %s AND message_id = ANY(%s)")
        rows = conn.execute(statement.format(sql.Identifier(group, "inbox")), [group, ids]).fetchall()
        known = {row[0] for row in rows}
        for each in chunk:
            if each.id in known:
                known_types.add(each.type)
            elif len(missing[each.type]) < NAMED:
                missing[each.type].append(each)
        chunk.clear()

    async for record in _records(consumer, committed, after):
        id_, type_ = _header(record, "ce_id"), _header(record, "ce_type")
        if id_ and type_ and "\0" not in id_:  # others are noise, and were dead-lettered
            chunk.append(Passed(id_, type_, f"{record.topic}[{record.partition}]@{record.offset}"))
            count += 1
        if len(chunk) == CHUNK:
            look()
    look()
    return count, [each for type_ in sorted(known_types) for each in missing[type_]]


async def _records(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], after: datetime | None
) -> AsyncIterator[ConsumerRecord[Any, Any]]:
    """Everything before these offsets."""
    if not ends:
        return
    consumer.assign(list(ends))
    async with asyncio.timeout(ANSWER_SECONDS):
        starts = await consumer.beginning_offsets(list(ends))
        if after is not None:
            since = int(after.timestamp() * 1000)
            for partition, found in (await consumer.offsets_for_times(dict.fromkeys(ends, since))).items():
                starts[partition] = found.offset if found else ends[partition]
    for partition, end in ends.items():
        place, at_most = starts[partition], None
        consumer.seek(partition, place)
        heard_at = time.monotonic()
        while place < end:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    batches = await consumer.getmany(partition, timeout_ms=1_000, max_records=at_most)
                    position = await consumer.position(partition)
            except UnicodeDecodeError:
                # A header whose name is no UTF-8. One by one up to that record, and over it.
                place, at_most = (place, 1) if at_most is None else (place + 1, None)
                consumer.seek(partition, place)
                continue
            if position > place:
                place, heard_at = position, time.monotonic()
            elif time.monotonic() - heard_at > ANSWER_SECONDS:
                raise TimeoutError
            for record in batches.get(partition, ()):
                if record.offset < end:
                    yield record


def _identity(letter: ConsumerRecord[Any, Any]) -> str:
    """The same for copies of one failure: the replay that failed, or the place of the record that did."""
    if replay := _header(letter, "dlq_replay"):
        return replay
    topic, partition, offset, at = (
        _header(letter, f"dlq_{name}") for name in ("topic", "partition", "offset", "timestamp")
    )
    return (
        f"{topic}/{partition}:{offset}@{at}"
        if topic and offset.isdigit()
        else f"{letter.partition}:{letter.offset}"
    )


def _decided(record: ConsumerRecord[Any, Any]) -> tuple[str, str]:
    try:
        decision = json.loads(record.value or b"")
        return decision["topic"], decision["identity"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _header(record: ConsumerRecord[Any, Any], name: str) -> str:
    for key, value in record.headers:
        if key == name and value is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it may be null
            return value.decode(errors="replace")
    return ""
