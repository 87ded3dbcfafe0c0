"""Looking into Kafka: topics, messages, lags, and the messages of one topic as they come."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from libs.messaging.reading import read_some
from libs.messaging.texts import body_text, safe, text_of

from embedded.problems import Problem
from embedded.terminal import table

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its words at a start are no news for a reader


async def topics_table(brokers: str) -> str:
    """Topics with partitions and messages, and how many of them each group has still to read."""
    async with _admin(brokers) as admin, _consumer(brokers) as consumer:
        partitions = await _partitions(admin)
        begins = await _of_each(consumer.beginning_offsets, partitions)
        ends = await _of_each(consumer.end_offsets, partitions)
        lags = await _lags(admin, begins, ends)
    rows: list[tuple[str, ...]] = [("topic", "partitions", "messages", "group", "lag")]
    for topic, of_topic in sorted(partitions.items()):
        messages = sum(ends[one] - begins[one] for one in of_topic)
        groups = sorted(lags[topic].items()) or [("-", None)]
        for number, (group, lag) in enumerate(groups):
            first = (topic, str(len(of_topic)), str(messages)) if number == 0 else ("", "", "")
            rows.append((*first, group, "-" if lag is None else str(lag)))
    return table(rows, right=frozenset({1, 2, 4}))


async def tail(brokers: str, topic: str, *, from_start: bool) -> AsyncGenerator[str]:
    """Every message of the topic as text, without an end."""
    async with _admin(brokers) as admin:
        partitions = await _partitions(admin)
    if topic not in partitions:
        raise Problem(
            f"there is no topic {topic or 'without a name'}: say T=, one of {', '.join(sorted(partitions))}"
        )
    async with _consumer(brokers) as consumer:
        consumer.assign(partitions[topic])
        if from_start:
            await consumer.seek_to_beginning(*partitions[topic])
        else:
            await consumer.seek_to_end(*partitions[topic])
        while True:
            for messages in (await read_some(consumer, *partitions[topic], timeout_ms=500)).values():
                for message in messages:
                    yield render(message)


async def end_offsets(brokers: str) -> dict[TopicPartition, int]:
    """Where each partition of every topic ends now."""
    async with _admin(brokers) as admin, _consumer(brokers) as consumer:
        return await _of_each(consumer.end_offsets, await _partitions(admin))


async def messages_since(
    brokers: str, begins: dict[TopicPartition, int]
) -> "list[ConsumerRecord[bytes | None, bytes | None]]":
    """What was added to the partitions since they ended at `begins`, oldest first."""
    ends = await end_offsets(brokers)
    wanted = {one: begin for one, begin in begins.items() if ends.get(one, 0) > begin}
    messages: list[ConsumerRecord[bytes | None, bytes | None]] = []
    async with _consumer(brokers) as consumer:
        consumer.assign(list(wanted))
        for one, begin in wanted.items():
            consumer.seek(one, begin)
        while any([await consumer.position(one) < ends[one] for one in wanted]):
            for batch in (await read_some(consumer, *wanted, timeout_ms=100)).values():
                messages += batch
    return sorted(messages, key=lambda message: message.timestamp)


def render(message: "ConsumerRecord[bytes | None, bytes | None]") -> str:
    """One message for the screen: where and when, key, headers, body."""
    at = datetime.fromtimestamp(message.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    lines = [f"{message.topic} {message.partition}:{message.offset}  {at}  key {text_of(message.key)}"]
    lines += [f"  {safe(name)}: {text_of(value)}" for name, value in message.headers]
    return "\n".join([*lines, body_text(message.value), ""])


@asynccontextmanager
async def _consumer(brokers: str) -> AsyncGenerator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def _admin(brokers: str) -> AsyncGenerator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    try:
        await admin.start()
        yield admin
    except KafkaConnectionError:
        raise Problem(f"Kafka does not answer at {brokers}: see make status") from None
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, list[TopicPartition]]:
    """Of every topic that is not Kafka's own, by name."""
    names = sorted(name for name in await admin.list_topics() if not name.startswith("__"))
    if not names:
        return {}  # to describe none would be to describe all
    return {
        topic["topic"]: sorted(
            TopicPartition(topic["topic"], one["partition"]) for one in topic["partitions"]
        )
        for topic in await admin.describe_topics(names)
    }


async def _of_each(
    ask: Callable[[list[TopicPartition]], Awaitable[dict[TopicPartition, int]]],
    partitions: dict[str, list[TopicPartition]],
) -> dict[TopicPartition, int]:
    """Topics that are asked about in one question are looked for one after another, 0.1 s each."""
    answers = await asyncio.gather(*(ask(of_topic) for of_topic in partitions.values()))
    return {one: offset for answer in answers for one, offset in answer.items()}


async def _lags(
    admin: AIOKafkaAdminClient, begins: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> dict[str, dict[str, int]]:
    """Messages not read yet, by topic and group; a partition never committed counts as unread."""
    lags: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for group, *_ in await admin.list_consumer_groups():
        offsets = await admin.list_consumer_group_offsets(group)
        for topic in {one.topic for one in offsets}:
            for one in (one for one in ends if one.topic == topic):
                at = offsets[one].offset if one in offsets and offsets[one].offset >= 0 else begins[one]
                lags[topic][group] += max(0, ends[one] - at)
    return lags
