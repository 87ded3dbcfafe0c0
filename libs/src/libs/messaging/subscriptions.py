"""A service's subscription: batches from Kafka, one transaction a batch, each message's effect once.

The inbox row is written in the transaction that does the work. Offsets are committed after it, for each
partition, and only for a contiguous prefix of finished messages. A fault that passes (database gone, lock
time-out) is waited for; a faulty message is tried again and then becomes a dead letter, as the bytes it was.
"""

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from contracts.topics import TOPICS
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Deliveries, Handlers, PartitionsRevoked, Retry
from libs.messaging.heartbeat import Heartbeat
from libs.postgres import Pool
from libs.tasks import end_tasks

log = logging.getLogger(__name__)

MAX_BATCH = 500
COMMIT_EVERY_SECONDS = 0.1
"""What was handled since is delivered again after a crash, and known to the inbox."""
SESSION_MILLISECONDS = 6_000
PROBE_SECONDS = 3.0
"""Between two questions to Kafka whether there is something to read."""
STUCK_SECONDS = 12.0
"""Longer than a session: a consumer that is behind and does not read, or to whom alone Kafka does not answer,
is built anew."""
HANGING_SECONDS = 100.0
"""Longer than a transaction may last: a handler that takes this long never comes back."""
START_SECONDS = 15.0
STOP_SECONDS = 20.0
CAREFUL_SECONDS = 60.0
WARN_EVERY_SECONDS = 10.0


class Subscription:
    """One consumer group: the service's own name, over all topics whose contract lists it."""

    def __init__(
        self, *, service: str, pool: Pool, handlers: Handlers, dead_letters: DeadLetters, retry: Retry
    ) -> None:
        self._service = service
        self._dead_letters = dead_letters
        self._deliveries = Deliveries(
            service=service, pool=pool, handlers=handlers, dead_letters=dead_letters, retry=retry
        )
        self._consumer: Any = None
        self._working = asyncio.Lock()
        # How many messages of each assigned topic have not been read, when Kafka was last asked.
        self.lag: Counter[str] = Counter()
        self._has_joined = False
        self._is_kafka_away = False
        self._current_at = 0.0
        self._careful_until = 0.0
        self._warned_at = -WARN_EVERY_SECONDS

    async def run(self, *, kafka_brokers: str, heartbeat: Heartbeat) -> None:
        """Consumes for ever; a broker that is away is waited for."""
        heartbeat.counts = self._deliveries.counts
        topics = [topic.name for topic in TOPICS if self._service in topic.subscribers]
        while topics:
            broker = KafkaBroker(
                kafka_brokers,
                logger=None,
                consumer_only=True,  # nor does it make topics: the contracts say what they are like
                request_timeout_ms=10_000,
                metadata_max_age_ms=10_000,
            )
            # Without a handler: FastStream's own loop waits in vain for as long as it has waited for a batch,
            # rests 5 s after an error, and decodes every header as UTF-8.
            subscriber: Any = broker.subscriber(
                *topics,
                group_id=self._service,
                batch=True,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MILLISECONDS,
                heartbeat_interval_ms=SESSION_MILLISECONDS // 4,
                max_partition_fetch_bytes=2_200_000,
                fetch_max_bytes=16_777_216,
                ack_policy=AckPolicy.MANUAL,
                listener=_Listener(self),
            )
            try:
                async with asyncio.timeout(
                    START_SECONDS
                ):  # both would ask a Kafka that is half there for ever
                    await self._dead_letters.start()
                    await broker.start()
                self._consumer = subscriber.consumer
                await self._consume(kafka_brokers, heartbeat)
            except (KafkaError, OSError) as error:
                heartbeat.report("consumer", f"waiting for Kafka: {type(error).__name__}")
                self._warn("waiting for Kafka: %r", error)
            finally:
                await self._stop(broker)
            await asyncio.sleep(0.5)

    async def _stop(self, broker: KafkaBroker) -> None:
        # A consumer that does not stop would go on consuming beside the next one: the process ends instead.
        async with asyncio.timeout(STOP_SECONDS):
            await self._deliveries.let_go()
            await broker.stop()
            await self._dead_letters.stop()

    def _warn(self, text: str, *what: object) -> None:
        if time.monotonic() - self._warned_at > WARN_EVERY_SECONDS:
            self._warned_at = time.monotonic()
            log.warning(text, *what)

    async def _consume(self, kafka_brokers: str, heartbeat: Heartbeat) -> None:
        """Returns when the consumer has stopped making progress, so that it is built anew."""
        self._current_at = time.monotonic()
        work = [
            asyncio.create_task(each)
            for each in (
                self._read_for_ever(),
                self._commit_for_ever(),
                self._probe_for_ever(kafka_brokers),
            )
        ]
        try:
            while True:
                silence = time.monotonic() - max(self._deliveries.progress_at, self._current_at)
                heartbeat.report("consumer", self._status(silence))
                done, _ = await asyncio.wait(
                    [*work, self._deliveries.failed], timeout=0.5, return_when=asyncio.FIRST_COMPLETED
                )
                for each in done:
                    each.result()
                if silence > (HANGING_SECONDS if self._working.locked() else STUCK_SECONDS):
                    log.error("no progress for %.0f s: the consumer is built anew", silence)
                    return
        finally:
            await end_tasks(*work)
            await self._commit_quickly()

    async def _read_for_ever(self) -> None:
        while True:
            records = await (self._read_one() if time.monotonic() < self._careful_until else self._read())
            if not records:
                continue
            async with self._working:
                try:
                    await self._deliveries.handle(await self._still_ours(records))
                except PartitionsRevoked:
                    log.info("a batch was given up: its partitions go to another consumer")
            self._hold_back()

    async def _read(self) -> list[ConsumerRecord[Any, Any]]:
        try:
            batches = await self._consumer.getmany(timeout_ms=500, max_records=MAX_BATCH)
        except UnicodeDecodeError as error:
            # The name of a header. aiokafka has lost its place, perhaps in other partitions too: from the
            # committed offsets on, again, until we have met that record.
            self._careful_until = time.monotonic() + CAREFUL_SECONDS
            raise KafkaError(f"a record that cannot be read: {error}") from error
        return [record for batch in batches.values() for record in batch]

    async def _read_one(self) -> list[ConsumerRecord[Any, Any]]:
        """Steps over a record that cannot be read; what is known of it is returned in its place."""
        for partition in self._consumer.assignment() - self._consumer.paused():
            try:
                for records in (
                    await self._consumer.getmany(partition, timeout_ms=20, max_records=1)
                ).values():
                    return records
            except UnicodeDecodeError as error:
                offset = await self._consumer.position(partition)
                self._consumer.seek(partition, offset + 1)
                self._careful_until = 0.0
                unreadable = ("unreadable", str(error).encode())
                return [
                    ConsumerRecord(
                        topic=partition.topic,
                        partition=partition.partition,
                        offset=offset,
                        timestamp=0,
                        timestamp_type=0,
                        key=None,
                        value=None,
                        checksum=None,
                        serialized_key_size=-1,
                        serialized_value_size=-1,
                        headers=(unreadable,),
                    )
                ]
        await asyncio.sleep(0.02)  # perhaps there was no partition to wait for
        return []

    async def _still_ours(self, records: list[ConsumerRecord[Any, Any]]) -> list[ConsumerRecord[Any, Any]]:
        """Without those of a partition that a rebalance took, or put back, since they were fetched."""
        if not self._has_joined:  # its partitions are on their way, and it is not told yet which come back
            return []
        ends = {TopicPartition(each.topic, each.partition): each.offset + 1 for each in records}
        ours: set[TopicPartition] = set()
        for partition, end in ends.items():
            with suppress(IllegalStateError):
                if await self._consumer.position(partition) >= end:
                    ours.add(partition)
        if len(ours) == len(ends):
            return records
        return [each for each in records if TopicPartition(each.topic, each.partition) in ours]

    def _hold_back(self) -> None:
        consumer = self._consumer
        paused = consumer.paused()
        for partition in consumer.assignment():
            if self._deliveries.offsets.is_too_far_ahead(partition):
                consumer.pause(partition)
            elif partition in paused:
                consumer.resume(partition)

    async def _commit_for_ever(self) -> None:
        while True:
            await self._deliveries.changed.wait()
            self._deliveries.changed.clear()
            self._hold_back()
            await self._commit()
            await asyncio.sleep(COMMIT_EVERY_SECONDS)

    async def _commit(self) -> None:
        offsets = self._deliveries.offsets.committable()
        if offsets:
            try:
                await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                log.info("offsets not committed after a rebalance: the inbox knows what was done")
            else:
                self._deliveries.offsets.committed(offsets)

    async def _commit_quickly(self) -> None:
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(2):
                await self._commit()

    def _status(self, silence: float) -> str:
        if not self._has_joined:
            return "joining its group"
        if self._is_kafka_away:
            return "waiting for Kafka"
        if silence > STUCK_SECONDS:
            return f"no progress for {silence:.0f} s"
        return self._deliveries.waits_for or "ready"

    async def _probe_for_ever(self, kafka_brokers: str) -> None:
        """Asks Kafka itself how far there is to read: a consumer that is stuck does not know."""
        while True:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    is_behind = await self._has_more_to_read()
            except (KafkaError, TimeoutError) as error:
                self._is_kafka_away = True
                self.lag = Counter()
                self._warn("waiting for Kafka: %r", error)
                # While it is away this consumer is kept: once it is back it goes on as the member that Kafka
                # remembers. A new one would wait until the session of this one is over.
                if not self._working.locked() and not await _is_answering(kafka_brokers):
                    self._current_at = time.monotonic()
            else:
                self._is_kafka_away = False
                if self._has_joined and not is_behind and not self._working.locked():
                    self._current_at = time.monotonic()
            await asyncio.sleep(PROBE_SECONDS)

    async def _has_more_to_read(self) -> bool:
        consumer = self._consumer
        ends = await consumer.end_offsets(list(consumer.assignment()))
        behind = {each: max(0, end - await consumer.position(each)) for each, end in ends.items()}
        self.lag = Counter()
        for each, count in behind.items():
            self.lag[each.topic] += count
        return any(count for each, count in behind.items() if each not in consumer.paused())

    def partitions(self) -> Counter[str]:
        """How many of each topic are this consumer's."""
        assigned = self._consumer.assignment() if self._consumer is not None and self._has_joined else ()
        return Counter(each.topic for each in assigned)

    async def release_partitions(self) -> None:
        """Lets the batch in progress end, and gives up the rest, before the partitions go elsewhere."""
        self._has_joined = False
        self._deliveries.revoked = True
        try:
            async with self._working:
                await self._commit_quickly()
                await self._deliveries.let_go()
        finally:
            self._deliveries.revoked = False

    def take_partitions(self) -> None:
        self._has_joined = True
        self._current_at = time.monotonic()


async def _is_answering(kafka_brokers: str) -> bool:
    """Whether any broker answers somebody who has never asked it before."""
    hosts = collect_hosts(kafka_brokers)
    return any(await asyncio.gather(*(_is_broker_answering(host, port) for host, port, _ in hosts)))


async def _is_broker_answering(host: str, port: int) -> bool:
    # With its own time-out: a client's bootstrap that is cancelled from outside leaves its connection open.
    try:
        connection = await create_conn(host, port, request_timeout_ms=int(PROBE_SECONDS * 1000))
    except (KafkaError, OSError, TimeoutError):
        return False
    connection.close()
    return True


class _Listener(ConsumerRebalanceListener):
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # aiokafka awaits it
        self, revoked: set[TopicPartition]
    ) -> None:
        await self._subscription.release_partitions()

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, assigned: set[TopicPartition]
    ) -> None:
        self._subscription.take_partitions()
