"""The relay sends what lies in the outbox, in order per key, and deletes what the broker acknowledged.

Rows are read without a cursor over ids: nothing is skipped when transactions commit out of sequence, and
a relay killed anywhere loses nothing. A relay holds the advisory locks of the buckets that it sends, so that
two never send the same row at once, however many shards each believes there are. A message is sent at least
once; the inbox makes its effect single.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row

from libs.messaging.heartbeat import Heartbeat
from libs.messaging.producers import abandon
from libs.postgres import KEEPALIVES, is_transient
from libs.tracing import continued, is_recorded

log = logging.getLogger(__name__)

BUCKETS = 64
"""Of the column `bucket`; a relay of shard s of n has those whose number modulo n is s."""

# After less than a full batch the outbox is left alone for 2 ms: what comes together goes together. When it
# is empty the database looks every 10 ms (`wait_for_outbox`); we do, when there is what Kafka refuses.
PAUSE_SECONDS = 0.002
REFUSED_PAUSE_SECONDS = 0.02
BATCH_SIZE = 500
WARN_EVERY_SECONDS = 10.0
START_SECONDS = 15.0
ACKNOWLEDGE_SECONDS = 15.0
# A topic may be made any moment; a message becomes smaller, or its limit larger, by a person only.
TOPIC_AGAIN_SECONDS = 5.0
KEY_AGAIN_SECONDS = 60.0

# The broker refuses the record, not the producer: sent again it is refused again.
_FAULTS_OF_A_RECORD = (InvalidTimestampError, MessageSizeTooLargeError, RecordListTooLargeError)
_FAULTS_OF_A_TOPIC = (InvalidTopicError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)


_OPTIONS = (
    # In the order of the primary key, always: of a table that is empty most of the time the planner knows
    # nothing, and reading and sorting all of a backlog for each batch is slow.
    "-c enable_seqscan=off -c enable_sort=off",
    # The server notices a worker whose machine is gone, and with it the locks are free, in some 10 s.
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
)


class OutboxRow(NamedTuple):
    id: int
    topic: str
    key: str
    message_id: str
    type: str
    version: int
    body: str
    traceparent: str | None
    created_at: str


async def run_relay(
    *, service: str, database_url: str, kafka_brokers: str, shard: int, shards: int, heartbeat: Heartbeat
) -> None:
    """Relays one shard of a service's outbox for ever; a lost database or broker is waited for."""
    relay = _Relay(
        service=service, kafka_brokers=kafka_brokers, shard=shard, shards=shards, heartbeat=heartbeat
    )
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                make_conninfo(
                    database_url,
                    connect_timeout=3,
                    application_name=f"{service}-relay-{shard}",
                    options=" ".join(_OPTIONS),
                    **KEEPALIVES,
                ),
                autocommit=True,
                row_factory=namedtuple_row,
            ) as conn:
                await relay.run(conn)
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            relay.tell(f"waiting for the database: {type(error).__name__}")
            await asyncio.sleep(0.5)


class _Relay:
    def __init__(
        self, *, service: str, kafka_brokers: str, shard: int, shards: int, heartbeat: Heartbeat
    ) -> None:
        self._service = service
        self._kafka_brokers = kafka_brokers
        self._shard = shard
        self._buckets = list(range(shard, BUCKETS, shards))
        self._heartbeat = heartbeat
        self._part = "relay" if shards == 1 else f"relay {shard + 1} of {shards}"
        self._warned_at = -WARN_EVERY_SECONDS
        # Topics, and topic + key, that Kafka does not take, and when to try them again.
        self._refused: dict[str, float] = {}
        self._one_by_one = False

    def tell(self, trouble: str) -> None:
        """Says what the relay waits for: always in the heartbeat, in the log not all the time."""
        self._heartbeat.report(self._part, trouble)
        if time.monotonic() - self._warned_at > WARN_EVERY_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("%s: %s", self._part, trouble)

    async def run(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Raises `psycopg.Error`; a new connection is needed then."""
        await self._wait_for_turn(conn)
        while True:
            try:
                await self._relay(conn)
            except (KafkaError, OSError, TimeoutError) as error:
                await self._tell_about_kafka(conn, error)
                await asyncio.sleep(0.5)

    async def _wait_for_turn(self, conn: psycopg.AsyncConnection[Any]) -> None:
        while True:
            cursor = await conn.execute(
                """
                SELECT bool_and(pg_try_advisory_lock(hashtext(%s), bucket))
                  FROM unnest(%s::int[]) AS bucket
                """,
                [f"relay:{self._service}", self._buckets],
            )
            row = await cursor.fetchone()
            if row and row[0]:
                return
            # Some belong to another relay, perhaps of another number of shards: all or none.
            await conn.execute("SELECT pg_advisory_unlock_all()")
            self._heartbeat.report(self._part, "standing by")
            await asyncio.sleep(random.uniform(0.3, 0.7))  # noqa: S311

    async def _relay(self, conn: psycopg.AsyncConnection[Any]) -> None:
        # An idempotent producer that met a fatal error fails every later send: it is built anew each time.
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka_brokers,
            enable_idempotence=True,
            acks="all",
            max_batch_size=262_144,
            max_request_size=1_048_576,
            client_id=f"{self._service}-relay-{self._shard}",
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await producer.start()
            log.info("%s sends", self._part)
            sent: list[int] = []
            while True:
                rows = await self._next_rows(conn, sent=sent)
                sent = []
                self._heartbeat.report(self._part, "ready")
                if rows:
                    sent = await self._send(conn, producer, rows)
                    if len(rows) < BATCH_SIZE:
                        await asyncio.sleep(PAUSE_SECONDS)
                elif self._refused:
                    await asyncio.sleep(REFUSED_PAUSE_SECONDS)
                else:
                    await conn.execute("SELECT wait_for_outbox(%s)", [self._buckets])
        finally:
            await abandon(producer)

    async def _next_rows(self, conn: psycopg.AsyncConnection[Any], *, sent: list[int]) -> Sequence[OutboxRow]:
        """The oldest rows but for those that were sent, which it deletes: one round trip, one commit."""
        now = time.monotonic()
        self._refused = {what: again_at for what, again_at in self._refused.items() if again_at > now}
        cursor = await conn.execute(
            """
            WITH done AS (DELETE FROM outbox WHERE id = ANY(%(sent)s))
            SELECT id, topic, key, message_id::text, type, version, body, traceparent,
                   to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at
              FROM outbox
             WHERE bucket = ANY(%(buckets)s) AND id <> ALL(%(sent)s)
               AND topic <> ALL(%(refused)s) AND topic || ' ' || key <> ALL(%(refused)s)
             ORDER BY id
             LIMIT %(limit)s
            """,
            {
                "sent": sent,
                "buckets": self._buckets,
                "refused": list(self._refused),
                "limit": BATCH_SIZE,
            },
        )
        return await cursor.fetchall()

    async def _send(
        self, conn: psycopg.AsyncConnection[Any], producer: AIOKafkaProducer, rows: Sequence[OutboxRow]
    ) -> list[int]:
        """Sends rows in order and returns the ids that are acknowledged."""
        sending: list[tuple[OutboxRow, asyncio.Future[Any]]] = []
        for row in rows:
            if row.topic in self._refused or f"{row.topic} {row.key}" in self._refused:
                continue
            try:
                await _find_topic(producer, row.topic)
                future: Any = await self._send_one(producer, row)
                if self._one_by_one:
                    await self._acknowledged(conn, [future])
                    future.result()
            except _FAULTS_OF_A_TOPIC as error:
                self._refuse(row.topic, TOPIC_AGAIN_SECONDS, error)
            except _FAULTS_OF_A_RECORD as error:
                self._refuse(f"{row.topic} {row.key}", KEY_AGAIN_SECONDS, error)
                if self._one_by_one:
                    raise  # what the broker refused leaves a gap in this producer's sequence
            else:
                sending.append((row, future))
        await self._acknowledged(conn, [future for _, future in sending])
        for _, future in sending:
            # Any error ends this producer: what it sent without an answer is sent again.
            if isinstance(error := future.exception(), _FAULTS_OF_A_RECORD):
                self._one_by_one = True  # one of many that went together: find out which
            if error is not None:
                raise error
        self._one_by_one = False
        return [row.id for row, _ in sending]

    async def _send_one(self, producer: AIOKafkaProducer, row: OutboxRow) -> "asyncio.Future[Any]":
        if not is_recorded(row.traceparent):
            return await producer.send(
                row.topic, value=row.body.encode(), key=row.key.encode(), headers=self._headers(row)
            )
        about = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.destination.name": row.topic,
        }
        with continued(row.traceparent, f"send {row.type}", kind="producer", attributes=about) as own:
            headers = self._headers(row._replace(traceparent=own))
            return await producer.send(
                row.topic, value=row.body.encode(), key=row.key.encode(), headers=headers
            )

    def _refuse(self, what: str, seconds: float, error: Exception) -> None:
        # It stays in the outbox, with what follows under its key; everything else goes on.
        log.error("%s: Kafka does not take %s: %r; tried again in %.0f s", self._part, what, error, seconds)
        self._refused[what] = time.monotonic() + seconds

    async def _acknowledged(
        self, conn: psycopg.AsyncConnection[Any], futures: Sequence[asyncio.Future[Any]]
    ) -> None:
        """Returns when all are done; raises `KafkaTimeoutError` when Kafka is silent for long."""
        pending = set(futures)
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        while pending:
            done, pending = await asyncio.wait(pending, timeout=2)
            if done:
                deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
            elif time.monotonic() > deadline:
                raise KafkaTimeoutError("no acknowledgement")
            else:
                await self._tell_about_kafka(conn, None)

    async def _tell_about_kafka(
        self, conn: psycopg.AsyncConnection[Any], error: BaseException | None
    ) -> None:
        cursor = await conn.execute(
            """
            SELECT extract(epoch FROM clock_timestamp() - created_at)::float
              FROM outbox WHERE bucket = ANY(%s) ORDER BY id LIMIT 1
            """,
            [self._buckets],
        )
        row = await cursor.fetchone()
        oldest = f", the oldest message is {row[0]:.0f} s old" if row else ", there is nothing to send"
        reason = f" ({type(error).__name__})" if error else ""
        self.tell(f"waiting for Kafka{reason}{oldest}")

    def _headers(self, row: OutboxRow) -> list[tuple[str, bytes]]:
        """CloudEvents 1.0, Kafka protocol binding, binary mode."""
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", row.message_id.encode()),
            ("ce_type", row.type.encode()),
            ("ce_source", f"/{self._service}".encode()),
            ("ce_subject", row.key.encode()),
            ("ce_time", row.created_at.encode()),
            ("ce_dataschema", f"{row.type}.v{row.version}.json".encode()),
            ("content-type", b"application/json"),
        ]
        if row.traceparent:
            headers.append(("traceparent", row.traceparent.encode()))
            # FastStream's OpenTelemetry middleware links a batch to records with this header only.
            headers.append(("correlation_id", row.traceparent[3:35].encode()))
        return headers


async def _find_topic(producer: AIOKafkaProducer, topic: str) -> None:
    """Raises `UnknownTopicOrPartitionError` when Kafka says so; when it says nothing, another `KafkaError`.

    The producer's own look-up repeats its question as long as a request may take, and tells neither apart.
    """
    if producer.client.cluster.partitions_for_topic(topic) is None:
        cluster = await producer.client.fetch_all_metadata()
        if cluster.partitions_for_topic(topic) is None:
            raise UnknownTopicOrPartitionError(topic)
        await producer.partitions_for(topic)
