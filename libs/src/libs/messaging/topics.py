"""Creates the topics of the contracts and their dead-letter topics; those that exist are left alone.

python -m libs.messaging.topics       reads KAFKA_BROKERS
"""

import asyncio
import os
import sys
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from contracts.topics import DEAD_LETTER_AUDIT, TOPICS, Topic

from libs.messaging.dead_letters import MAX_BYTES

DEAD_LETTER_RETENTION_DAYS = 90
LARGEST_BATCH = 1_200_000
"""Bytes: the largest message that a relay sends, and some. A dead letter is that and its reasons: it fits."""

_LARGE = {"max.message.bytes": str(MAX_BYTES)}


def _retention(days: int | None) -> dict[str, str]:
    milliseconds = -1 if days is None else days * 24 * 3600 * 1000
    return {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}


def _new_topics(topic: Topic, replication_factor: int) -> list[NewTopic]:
    configs = _retention(topic.retention_days)
    # Without messages of its own it carries dead letters that are sent again.
    configs |= {"max.message.bytes": str(LARGEST_BATCH)} if topic.messages else _LARGE
    topics = [NewTopic(topic.name, topic.partitions, replication_factor, topic_configs=configs)]
    for dead_letters in topic.subscribers.values():
        configs = _retention(DEAD_LETTER_RETENTION_DAYS) | _LARGE
        topics.append(NewTopic(dead_letters, 1, replication_factor, topic_configs=configs))
    return topics


async def create_topics(kafka_brokers: str, *, replication_factor: int = 1) -> list[str]:
    """Returns the names of the topics that were not there before."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_brokers)
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        audit = NewTopic(DEAD_LETTER_AUDIT, 1, replication_factor, topic_configs=_retention(None))
        wanted = [audit, *(new for topic in TOPICS for new in _new_topics(topic, replication_factor))]
        missing = [new for new in wanted if new.name not in existing]
        if not missing:
            return []
        response: Any = await admin.create_topics(missing)
        for name, code, *_ in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"topic {name}")
        return [new.name for new in missing]
    finally:
        await admin.close()


if __name__ == "__main__":
    try:
        names = asyncio.run(create_topics(os.environ["KAFKA_BROKERS"]))
    except KeyError:
        sys.exit("topics: KAFKA_BROKERS is not set")
    except KafkaError as error:
        sys.exit(f"topics: Kafka at {os.environ['KAFKA_BROKERS']} did not take them: {error}")
    print(f"topics: {len(names)} created")
