"""A service's subscription: batches from Kafka, one transaction a batch, each message's effect once.

The inbox row is written in the transaction that does the work. Offsets are committed after it, for each
partition, and only for a contiguous prefix of finished messages. A fault that passes (database gone, lock
time-out) is waited for; a faulty message is tried again and then becomes a dead letter, as the bytes it was.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from contracts.messages import Message
from contracts.topics import TOPICS
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage

from libs.messaging.dead_letters import DeadLetters
from libs.messaging.envelopes import Delivery, Undecodable, UnknownType, decode
from libs.messaging.heartbeat import Heartbeat
from libs.postgres import Conn, Pool, is_transient, transaction
from libs.tracing import start_trace

log = logging.getLogger(__name__)

Handler = Callable[[Conn, Any], Awaitable[None]]
Handlers = Mapping[type[Message], Handler]

# FastStream waits this long for a batch and, when there was none, as long again: it bounds the added latency.
POLL_MILLISECONDS = 10
MAX_BATCH = 500
SESSION_MILLISECONDS = 6_000
STUCK_SECONDS = 60.0


class Retry:
    """How often a faulty message is tried again, and the first pause between tries in seconds."""

    def __init__(self, *, count: int, backoff_seconds: float) -> None:
        self.count = count
        self.backoff_seconds = backoff_seconds

    def pause(self, attempt: int) -> float:
        return self.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.7, 1.3)  # noqa: S311


class Subscription:
    """One consumer group: the service's own name, over all topics whose contract lists it."""

    def __init__(
        self, *, service: str, pool: Pool, handlers: Handlers, dead_letters: DeadLetters, retry: Retry
    ) -> None:
        self._service = service
        self._pool = pool
        self._handlers = handlers
        self._dead_letters = dead_letters
        self._retry = retry
        self._working = asyncio.Lock()
        self._revoked = False

    async def handle_batch(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        """Gives every record its effect, once; returns when all are done or dead letters."""
        deliveries: list[Delivery] = []
        for record in records:
            try:
                deliveries.append(decode(record))
            except UnknownType as unknown:
                log.info("skipped: %s", unknown)
            except Undecodable as error:
                await self._dead_letters.send(record, error=error, attempts=1)
        wanted = [each for each in deliveries if type(each.message) in self._handlers]
        if not wanted:
            return
        try:
            await self._until_faults_pass(lambda: self._apply(wanted))
        except Exception as error:
            if is_transient(error):
                raise
            # One of them is faulty: find out which; the others need not wait for it.
            by_key: dict[bytes, list[Delivery]] = {}
            for delivery in wanted:
                by_key.setdefault(delivery.record.key or b"", []).append(delivery)
            async with asyncio.TaskGroup() as group:
                for same_key in by_key.values():
                    group.create_task(self._apply_one_by_one(same_key))

    async def _apply_one_by_one(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            attempt = 1
            while True:
                try:
                    await self._until_faults_pass(lambda each=delivery: self._apply([each]))
                except Exception as error:
                    if is_transient(error):
                        raise
                    if attempt > self._retry.count:
                        await self._dead_letters.send(delivery.record, error=error, attempts=attempt)
                        break
                    log.warning("%s failed, try %s: %r", delivery.message.TYPE, attempt, error)
                    await asyncio.sleep(self._retry.pause(attempt))
                    attempt += 1
                else:
                    break

    async def _apply(self, deliveries: list[Delivery]) -> None:
        async with transaction(self._pool) as conn:
            cursor = await conn.execute(
                """
                INSERT INTO inbox (message_id, consumer)
                SELECT id, %(consumer)s FROM unnest(%(ids)s::text[]) AS id ORDER BY id
                ON CONFLICT DO NOTHING
                RETURNING message_id
                """,
                {"ids": [each.id for each in deliveries], "consumer": self._service},
            )
            new: set[str] = {row[0] for row in await cursor.fetchall()}
            for delivery in deliveries:
                if delivery.id in new:
                    new.remove(delivery.id)  # a second copy in the same batch has no effect
                    start_trace(delivery.traceparent)
                    await self._handlers[type(delivery.message)](conn, delivery.message)

    async def _until_faults_pass(self, work: Callable[[], Awaitable[None]]) -> None:
        pause = 0.05
        while True:
            try:
                return await work()
            except Exception as error:
                if not is_transient(error) or self._revoked:
                    raise
                log.warning("waiting %.2f s: %s", pause, error)
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311
            pause = min(pause * 2, 2.0)

    async def run(self, *, kafka_brokers: str, heartbeat: Heartbeat) -> None:
        """Consumes for ever; a broker that is away is waited for."""
        topics = [topic.name for topic in TOPICS if self._service in topic.subscribers]
        while topics:
            broker = KafkaBroker(kafka_brokers, apply_types=False, logger=None, graceful_timeout=5)
            subscriber = broker.subscriber(
                *topics,
                group_id=self._service,
                batch=True,
                max_records=MAX_BATCH,
                batch_timeout_ms=POLL_MILLISECONDS,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MILLISECONDS,
                heartbeat_interval_ms=SESSION_MILLISECONDS // 4,
                max_partition_fetch_bytes=2_200_000,
                ack_policy=AckPolicy.MANUAL,
                parser=_raw_message,
                decoder=_raw_records,
                listener=_Listener(self),
            )

            # One parameter only: FastStream spreads a list over several.
            subscriber(partial(self._consume, subscriber))
            try:
                await self._dead_letters.start()
                await broker.start()
                await self._watch(subscriber, heartbeat)
            except (KafkaError, OSError) as error:
                heartbeat.report("consumer", f"waiting for Kafka: {type(error).__name__}")
                log.warning("consumer waits: %s", error)
            finally:
                await broker.stop()
                await self._dead_letters.stop()
            await asyncio.sleep(0.5)

    async def _consume(self, subscriber: Any, records: list[ConsumerRecord[Any, Any]]) -> None:
        async with self._working:
            try:
                await self.handle_batch(records)
            except Exception:
                # Only a rebalance or a broker that refuses dead letters ends a batch early. The offsets stay
                # where they are; what is still ours is read again.
                log.exception("a batch was given up")
                for partition in {TopicPartition(each.topic, each.partition) for each in reversed(records)}:
                    first = min(
                        each.offset for each in records if (each.topic, each.partition) == tuple(partition)
                    )
                    with suppress(IllegalStateError):  # no longer ours
                        subscriber.consumer.seek(partition, first)
                await asyncio.sleep(0.2)
                return
            offsets: dict[TopicPartition, int] = {}
            for record in records:
                offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
            try:
                await subscriber.consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                log.info("offsets not committed after a rebalance: the inbox knows what was done")

    async def _watch(self, subscriber: Any, heartbeat: Heartbeat) -> None:
        """Returns when the consumer has stopped making progress, so that it is built anew."""
        last_progress = time.monotonic()
        last_polls: dict[TopicPartition, int] = {}
        while True:
            consumer = subscriber.consumer
            assigned = consumer.assignment()
            polls = {partition: consumer.last_poll_timestamp(partition) for partition in assigned}
            if self._working.locked() or polls != last_polls:
                last_progress = time.monotonic()
                last_polls = polls
            if assigned or time.monotonic() - last_progress < STUCK_SECONDS:
                heartbeat.report("consumer", "ready" if assigned else "joining its group")
            if time.monotonic() - last_progress > STUCK_SECONDS:
                log.error("no progress for %.0f s: the consumer is built anew", STUCK_SECONDS)
                return
            await asyncio.sleep(0.5)

    async def finish_before_rebalance(self) -> None:
        """Lets the batch in progress end before its partitions go to another member."""
        self._revoked = True
        try:
            async with self._working:
                pass
        finally:
            self._revoked = False


class _Listener(ConsumerRebalanceListener):
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # aiokafka awaits it
        self, revoked: set[TopicPartition]
    ) -> None:
        await self._subscription.finish_before_rebalance()

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, assigned: set[TopicPartition]
    ) -> None:
        pass


async def _raw_message(records: tuple[ConsumerRecord[Any, Any], ...]) -> KafkaAckableMessage:
    # FastStream's own parser decodes every header as UTF-8 and fails the whole batch on one that is not.
    return KafkaAckableMessage(
        body=b"", raw_message=records, headers={}, batch_headers=[], consumer=None, message_id="", path={}
    )


async def _raw_records(message: KafkaAckableMessage) -> list[ConsumerRecord[Any, Any]]:
    return list(message.raw_message)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
