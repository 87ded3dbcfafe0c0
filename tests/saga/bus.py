"""Kafka in the machine's hands: which message reaches whom, when, and how often.

Rows leave the outboxes as a relay takes them; records reach a service through the code that a subscription
hands its batches to, inbox and transaction included. Within a topic and key the order is kept, as Kafka does;
everything else is the caller's.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from contracts.messages import MESSAGE_TYPES, Message
from contracts.topics import TOPICS
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Deliveries, Handler, Handlers, Retry
from libs.postgres import Conn, Pool
from libs.tracing import current_trace_id


class Crash(BaseException):
    """The worker dies after the work and before the commit."""


class Sent(NamedTuple):
    """A row of an outbox. `told_at` is how much time had passed in the world when it was written."""

    topic: str
    key: str
    id: str
    type: str
    version: int
    body: str
    told_at: timedelta


@dataclass(eq=False)
class Queue:
    """What a subscriber hears under one key of a topic: so much of it was `read`."""

    subscriber: str
    topic: str
    messages: list[Sent] = field(default_factory=list[Sent])
    read: int = 0

    @property
    def unread(self) -> list[Sent]:
        return self.messages[self.read :]


class Letter(NamedTuple):
    subscriber: str
    type: str
    message_id: str
    error: Exception


class _Letters(DeadLetters):
    """Dead letters kept here in place of a topic."""

    def __init__(self, service: str, letters: list[Letter]) -> None:
        super().__init__(service=service, kafka_brokers="")
        self._letters = letters
        self._name = service

    async def send(self, record: ConsumerRecord[Any, Any], *, error: Exception, attempts: int) -> None:
        headers = dict(record.headers)
        self._letters.append(
            Letter(self._name, headers["ce_type"].decode(), headers["ce_id"].decode(), error)
        )


class Subscriber:
    """A service's deliveries, with a look at which message its handlers work on, and a crash on order."""

    def __init__(self, service: str, pool: Pool, handlers: Handlers, letters: list[Letter]) -> None:
        self._wanted = {message.TYPE for message in handlers}
        self._letters = letters
        self._done: set[str] = set()
        self._ran: list[str] = []
        self._crash_at = 0
        self._offset = 0
        self._deliveries = Deliveries(
            service=service,
            pool=pool,
            handlers={message: self._watched(handler) for message, handler in handlers.items()},
            dead_letters=_Letters(service, letters),
            retry=Retry(count=0, backoff_seconds=0),
        )

    def _watched(self, handler: Handler) -> Handler:
        async def run(conn: Conn, message: Any) -> None:
            self._ran.append(str(UUID(current_trace_id())))
            await handler(conn, message)
            if len(self._ran) == self._crash_at:
                raise Crash

        return run

    async def hear(self, messages: list[Sent], *, now: timedelta, crash: bool) -> bool:
        """Whether it was committed. Each message must have its effect once, however often it comes."""
        new = {each.id for each in messages if each.type in self._wanted} - self._done
        self._ran, self._crash_at = [], len(new) if crash else 0
        dead_before = len(self._letters)
        records = [_record(each, offset, now) for offset, each in enumerate(messages, start=self._offset)]
        self._offset += len(records)
        is_crashed = False
        try:
            await self._deliveries.handle(records)
        except* Crash:
            is_crashed = True
        assert self._done.isdisjoint(self._ran), "a message had its effect again"
        if is_crashed:
            await self._deliveries.let_go()
            return False
        while any(self._is_unfinished(record) for record in records):
            self._deliveries.changed.clear()
            await self._deliveries.changed.wait()
        dead = {letter.message_id for letter in self._letters[dead_before:]}
        assert new <= {*self._ran, *dead}, "a message had no effect"
        self._done |= new - dead
        return True

    def _is_unfinished(self, record: ConsumerRecord[Any, Any]) -> bool:
        partition = TopicPartition(record.topic, record.partition)
        return self._deliveries.offsets.committable()[partition] <= record.offset

    def forget(self, message_id: str) -> None:
        self._done.discard(message_id)


class Bus:
    def __init__(self, services: Mapping[str, tuple[Pool, Handlers]]) -> None:
        self.letters: list[Letter] = []
        self._services = services
        self._queues: dict[tuple[str, str, str], Queue] = {}
        self._subscribers: dict[str, Subscriber] = {}

    def clear(self) -> None:
        self.letters.clear()
        self._queues.clear()
        self._subscribers = {
            name: Subscriber(name, pool, handlers, self.letters)
            for name, (pool, handlers) in self._services.items()
        }

    def take(self, sent: Iterable[Sent]) -> None:
        """What a relay sends, in the order of the outbox."""
        for each in sent:
            topic = next(topic for topic in TOPICS if topic.name == each.topic)
            for subscriber in topic.subscribers:
                queue = self._queues.setdefault(
                    (subscriber, each.topic, each.key), Queue(subscriber, each.topic)
                )
                queue.messages.append(each)

    def pending(self) -> list[Queue]:
        return [queue for queue in self._queues.values() if queue.unread]

    def heard(self, topic: str) -> list[tuple[Queue, int]]:
        """Each message of a topic that was read, with its place in its queue."""
        queues = [queue for queue in self._queues.values() if queue.topic == topic]
        return [(queue, place) for queue in queues for place in range(queue.read)]

    def told(self) -> Counter[tuple[str, str]]:
        """How often each type of message was sent under each key."""
        return Counter(
            (message.type, message.key) for queue in self._queues.values() for message in queue.messages
        )

    async def deliver(self, queues: list[Queue], count: int, *, now: timedelta, crash: bool = False) -> None:
        """The next messages of these queues, which are of one subscriber, in one batch."""
        batch = [message for queue in queues for message in queue.unread[:count]]
        if await self._subscribers[queues[0].subscriber].hear(batch, now=now, crash=crash):
            for queue in queues:
                queue.read = min(queue.read + count, len(queue.messages))

    async def deliver_again(self, queue: Queue, place: int, count: int, *, now: timedelta) -> None:
        """What was read before, from one place on: an offset was not committed, or a topic replayed."""
        again = queue.messages[place : min(place + count, queue.read)]
        await self._subscribers[queue.subscriber].hear(again, now=now, crash=False)

    def forget(self, queue: Queue, place: int) -> Sent:
        """For a message whose inbox row is gone: it may have its effect again."""
        message = queue.messages[place]
        self._subscribers[queue.subscriber].forget(message.id)
        return message


def _record(sent: Sent, offset: int, now: timedelta) -> ConsumerRecord[bytes, bytes]:
    headers = {
        # The trace tells the handlers' watcher which message it is.
        "traceparent": f"00-{UUID(sent.id).hex}-{'1' * 16}-00",
        "ce_id": sent.id,
        "ce_type": sent.type,
        "ce_dataschema": f"{sent.type}.v{sent.version}.json",
    }
    value = _at(sent, now).encode()
    return ConsumerRecord(
        topic=sent.topic,
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=sent.key.encode(),
        value=value,
        checksum=None,
        serialized_key_size=len(sent.key),
        serialized_value_size=len(value),
        headers=[(name, text.encode()) for name, text in headers.items()],
    )


def _at(sent: Sent, now: timedelta) -> str:
    """The message with its times as much in the past as the world has moved since."""
    if sent.told_at == now:
        return sent.body
    message: Message = msgspec.json.decode(sent.body, type=MESSAGE_TYPES[sent.type, sent.version])
    earlier = {
        name: value - (now - sent.told_at)
        for name in message.__struct_fields__
        if isinstance(value := getattr(message, name), datetime)
    }
    return msgspec.json.encode(msgspec.structs.replace(message, **earlier)).decode()
