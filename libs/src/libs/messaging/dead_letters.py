"""Dead letters: records that could not be processed, as the bytes they were, with the reason beside them.

The reason travels in `dlq_*` headers. `libs.messaging.dlq` shows letters and sends them again, on a topic
that their subscriber alone reads; one that fails again comes back with the failures it had before.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord
from contracts.topics import TOPICS
from msgspec import Struct

from libs.messaging.producers import abandon

log = logging.getLogger(__name__)

MAX_BYTES = 2_097_152
HISTORY_LENGTH = 20

Headers = Sequence[tuple[str, bytes | None]]


class Failure(Struct, frozen=True, rename="camel"):
    """What went wrong before a replay, after how many tries."""

    reason: str
    error: str
    attempts: int
    failed_at: str


class Notes(Struct, frozen=True):
    """What the `dlq_*` headers say; nothing is believed to be there, for anyone may write to a topic.

    `topic`, `partition`, `offset` and `timestamp` (ms) are those of the record that failed first. `attempts`
    counts the tries of the last failure; `history` has those before it, oldest first. `replay` is the name of
    the replay that failed, empty for a first failure.
    """

    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    timestamp: int | None = None
    reason: str = ""
    error: str = ""
    attempts: int = 0
    failed_at: str = ""
    replays: int = 0
    replay: str = ""
    history: tuple[Failure, ...] = ()

    def headers(self) -> list[tuple[str, bytes]]:
        texts = {
            "topic": self.topic,
            "partition": _number(self.partition),
            "offset": _number(self.offset),
            "timestamp": _number(self.timestamp),
            "reason": self.reason,
            "error": self.error,
            "attempts": str(self.attempts),
            "failed_at": self.failed_at,
            "replays": str(self.replays) if self.replays else "",
            "replay": self.replay,
            "history": msgspec.json.encode(self.history).decode() if self.history else "",
        }
        # An error's text may quote what is no text.
        return [
            (f"dlq_{name}", text.encode(errors="backslashreplace")) for name, text in texts.items() if text
        ]


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


def read_notes(headers: Headers) -> Notes:
    texts = {
        name.removeprefix("dlq_"): value.decode(errors="replace")
        for name, value in headers
        if name.startswith("dlq_") and value is not None
    }
    numbers = {
        name: int(text)
        for name in ("partition", "offset", "timestamp", "attempts", "replays")
        if (text := texts.get(name, "")).isascii() and text.isdigit() and len(text) < 19
    }
    try:
        history = msgspec.json.decode(texts.get("history", "[]"), type=tuple[Failure, ...])
    except (msgspec.MsgspecError, RecursionError):
        history = ()
    return Notes(
        topic=texts.get("topic", ""),
        partition=numbers.get("partition"),
        offset=numbers.get("offset"),
        timestamp=numbers.get("timestamp"),
        reason=texts.get("reason", ""),
        error=texts.get("error", ""),
        attempts=numbers.get("attempts", 0),
        failed_at=texts.get("failed_at", ""),
        replays=numbers.get("replays", 0),
        replay=texts.get("replay", ""),
        history=history,
    )


def without_notes(headers: Headers) -> list[tuple[str, bytes | None]]:
    return [(name, value) for name, value in headers if not name.startswith("dlq_")]


def replay_topic(service: str) -> str:
    return f"{service}.replay"


def as_it_was(record: ConsumerRecord[Any, Any], *, service: str) -> ConsumerRecord[Any, Any]:
    """A dead letter that is sent again, as the record that it was; any other record, as it is."""
    if record.topic != replay_topic(service):
        return record
    notes = read_notes(record.headers)
    if notes.topic not in _dead_letter_topics(service):
        return record  # nobody's letter: it has no message either, and becomes one of this topic
    was: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(record)}
    was |= {"topic": notes.topic, "partition": notes.partition or 0, "offset": notes.offset or 0}
    return ConsumerRecord(**was)


def _dead_letter_topics(service: str) -> dict[str, str]:
    return {topic.name: topic.subscribers[service] for topic in TOPICS if service in topic.subscribers}


class DeadLetters:
    """Writes to the dead-letter topics of one subscriber."""

    def __init__(self, *, service: str, kafka_brokers: str) -> None:
        self._service = service
        self._kafka_brokers = kafka_brokers
        self._producer: AIOKafkaProducer | None = None
        self._topics = _dead_letter_topics(service)

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
        was = as_it_was(record, service=self._service)
        topic = self._topics[was.topic]
        log.error("dead letter: %s[%s]@%s -> %s: %r", was.topic, was.partition, was.offset, topic, error)
        # Only a replay has a past: `dlq_*` headers of any other record are its sender's invention.
        past = Notes() if was is record else read_notes(record.headers)
        notes = Notes(
            topic=was.topic,
            partition=was.partition,
            offset=was.offset,
            timestamp=past.timestamp if past.replay else record.timestamp,
            reason=type(error).__name__,
            error=str(error)[:1000],
            attempts=attempts,
            failed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            replays=past.replays,
            replay=past.replay,
            history=past.history,
        )
        headers = [*without_notes(record.headers), *notes.headers()]
        await (await send_as_it_is(self._producer, topic, record, headers=headers))


async def send_as_it_is(
    producer: AIOKafkaProducer, topic: str, record: ConsumerRecord[Any, Any], *, headers: Headers
) -> "asyncio.Future[Any]":
    """Sends a record's key and value to a topic's only partition; the future is Kafka's acknowledgement."""
    # In a batch of its own: send() takes no record without key and value.
    batch = producer.create_batch()
    batch.append(key=record.key, value=record.value, timestamp=None, headers=headers)
    return await producer.send_batch(batch, topic, partition=0)
