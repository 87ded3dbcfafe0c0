"""Dead letters: records that could not be processed, as the bytes they were, with the reason beside them."""

import logging
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord
from contracts.topics import TOPICS

from libs.messaging.producers import abandon

log = logging.getLogger(__name__)

MAX_BYTES = 2_097_152


class DeadLetters:
    """Writes to the dead-letter topics of one subscriber."""

    def __init__(self, *, service: str, kafka_brokers: str) -> None:
        self._service = service
        self._kafka_brokers = kafka_brokers
        self._producer: AIOKafkaProducer | None = None
        self._topics = {
            topic.name: topic.subscribers[service] for topic in TOPICS if service in topic.subscribers
        }

    async def start(self) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka_brokers,
            acks="all",
            enable_idempotence=True,
            max_request_size=MAX_BYTES,
            client_id=f"{self._service}-dead-letters",
        )
        await self._producer.start()

    async def stop(self) -> None:
        if self._producer is not None:
            await abandon(self._producer)
            self._producer = None

    async def send(self, record: ConsumerRecord[Any, Any], *, error: Exception, attempts: int) -> None:
        """Returns once the broker has acknowledged; only then may the record's offset be committed."""
        if self._producer is None:
            raise RuntimeError("dead letters are not started")
        topic = self._topics[record.topic]
        log.error(
            "dead letter: %s[%s]@%s -> %s: %r", record.topic, record.partition, record.offset, topic, error
        )
        reasons = {
            "dlq_topic": record.topic,
            "dlq_partition": str(record.partition),
            "dlq_offset": str(record.offset),
            "dlq_subscriber": self._service,
            "dlq_reason": type(error).__name__,
            "dlq_error": str(error)[:1000],
            "dlq_attempts": str(attempts),
            "dlq_failed_at": datetime.now(UTC).isoformat(),
        }
        original = [(name, value) for name, value in record.headers if not name.startswith("dlq_")]
        # In a batch of its own, to the topic's only partition: send() takes no record without key and value.
        batch = self._producer.create_batch()
        batch.append(
            key=record.key,
            value=record.value,
            timestamp=None,
            headers=[*original, *((name, value.encode()) for name, value in reasons.items())],
        )
        await (await self._producer.send_batch(batch, topic, partition=0))
