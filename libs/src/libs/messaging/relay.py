"""The relay sends what lies in the outbox, in order per key, and deletes what the broker acknowledged.

Rows are read without a cursor over ids: nothing is skipped when transactions commit out of sequence, and
a relay killed anywhere loses nothing. One relay holds the advisory lock of its shard, so that two never
send the same row at once. A message is sent at least once; the inbox makes its effect single.
"""

import asyncio
import logging
import time
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from psycopg.rows import class_row

from libs.messaging.heartbeat import Heartbeat

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
BATCH_SIZE = 500
WARN_AFTER_SECONDS = 5.0


class OutboxRow(NamedTuple):
    id: int
    topic: str
    key: str
    message_id: UUID
    type: str
    version: int
    body: str
    traceparent: str | None
    created_at: datetime


async def run_relay(
    *, service: str, database_url: str, kafka_brokers: str, shard: int, shards: int, heartbeat: Heartbeat
) -> None:
    """Relays one shard of a service's outbox for ever; a lost database or broker is waited for."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                database_url, autocommit=True, connect_timeout=3, application_name=f"{service}-relay-{shard}"
            ) as conn:
                await _wait_for_turn(conn, service=service, shard=shard, shards=shards, heartbeat=heartbeat)
                await _relay_with_producer(
                    conn,
                    service=service,
                    kafka_brokers=kafka_brokers,
                    shard=shard,
                    shards=shards,
                    heartbeat=heartbeat,
                )
        except (psycopg.OperationalError, KafkaError, OSError) as error:
            heartbeat.report("relay", f"waiting: {type(error).__name__}")
            log.warning("relay %s waits: %s", shard, error)
            await asyncio.sleep(0.5)


async def _wait_for_turn(
    conn: psycopg.AsyncConnection[Any], *, service: str, shard: int, shards: int, heartbeat: Heartbeat
) -> None:
    while True:
        cursor = await conn.execute(
            "SELECT pg_try_advisory_lock(hashtext(%s), %s)", [f"relay:{service}:{shards}", shard]
        )
        row = await cursor.fetchone()
        if row and row[0]:
            return
        heartbeat.report("relay", "standing by")
        await asyncio.sleep(0.5)


async def _relay_with_producer(
    conn: psycopg.AsyncConnection[Any],
    *,
    service: str,
    kafka_brokers: str,
    shard: int,
    shards: int,
    heartbeat: Heartbeat,
) -> None:
    # An idempotent producer that met a fatal error fails every later send: it is built anew each time.
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka_brokers,
        enable_idempotence=True,
        acks="all",
        max_request_size=1_048_576,
        client_id=f"{service}-relay-{shard}",
        request_timeout_ms=10_000,
        metadata_max_age_ms=30_000,
    )
    try:
        await producer.start()
        log.info("relay %s of %s sends", shard + 1, shards)
        while True:
            rows = await _oldest_rows(conn, shard=shard, shards=shards)
            heartbeat.report("relay", "ready")
            if not rows:
                await asyncio.sleep(POLL_SECONDS)
                continue
            sent = await _send(producer, service, rows, heartbeat)
            await conn.execute("DELETE FROM outbox WHERE id = ANY(%s)", [sent])
            if len(sent) < len(rows):
                await asyncio.sleep(0.2)
    finally:
        await _stop_quickly(producer)


async def _oldest_rows(conn: psycopg.AsyncConnection[Any], *, shard: int, shards: int) -> list[OutboxRow]:
    async with conn.cursor(row_factory=class_row(OutboxRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, topic, key, message_id, type, version, body, traceparent, created_at
              FROM outbox
             WHERE bucket %% %(shards)s = %(shard)s
             ORDER BY id
             LIMIT %(limit)s
            """,
            {"shard": shard, "shards": shards, "limit": BATCH_SIZE},
        )
        return await cursor.fetchall()


async def _send(
    producer: AIOKafkaProducer, service: str, rows: list[OutboxRow], heartbeat: Heartbeat
) -> list[int]:
    """Sends rows in order and returns the ids that are acknowledged."""
    sending: list[tuple[OutboxRow, asyncio.Future[Any]]] = []
    blocked_keys: set[tuple[str, str]] = set()
    for row in rows:
        if (row.topic, row.key) in blocked_keys:
            continue
        try:
            future: Any = await producer.send(
                row.topic, value=row.body.encode(), key=row.key.encode(), headers=_headers(service, row)
            )
        except MessageSizeTooLargeError:
            # Nothing that is repeated will mend it: it stays, with what follows under its key, for a person.
            log.error("message %s (%s) is too large to be sent", row.message_id, row.type)  # noqa: TRY400
            blocked_keys.add((row.topic, row.key))
        else:
            sending.append((row, future))
    await _acknowledged([future for _, future in sending], oldest=rows[0], heartbeat=heartbeat)
    for _, future in sending:
        future.result()  # an error ends this producer: what it sent without an answer is sent again
    return [row.id for row, _ in sending]


async def _acknowledged(
    futures: list[asyncio.Future[Any]], *, oldest: OutboxRow, heartbeat: Heartbeat
) -> None:
    started = time.monotonic()
    pending: set[asyncio.Future[Any]] = set(futures)
    while pending:
        _, pending = await asyncio.wait(pending, timeout=WARN_AFTER_SECONDS)
        if pending:
            age = (datetime.now(oldest.created_at.tzinfo) - oldest.created_at).total_seconds()
            heartbeat.report("relay", f"waiting for Kafka, oldest message {age:.0f} s")
            log.warning(
                "Kafka has not acknowledged for %.0f s; the oldest message in the outbox is %.0f s old",
                time.monotonic() - started,
                age,
            )


def _headers(service: str, row: OutboxRow) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0, Kafka protocol binding, binary mode."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(row.message_id),
        "ce_type": row.type,
        "ce_source": f"/{service}",
        "ce_subject": row.key,
        "ce_time": row.created_at.isoformat(),
        "ce_dataschema": f"{row.type}.v{row.version}.json",
        "content-type": "application/json",
    }
    if row.traceparent:
        headers["traceparent"] = row.traceparent
        headers["correlation_id"] = row.traceparent.split("-")[1]
    return [(name, value.encode()) for name, value in headers.items()]


async def _stop_quickly(producer: AIOKafkaProducer) -> None:
    # stop() flushes, which with Kafka away never ends; what was not acknowledged is still in the outbox.
    try:
        async with asyncio.timeout(2):
            await producer.stop()
    except (TimeoutError, KafkaError):
        log.warning("the Kafka producer did not stop in time")
