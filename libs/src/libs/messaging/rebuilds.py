"""Rebuilding a projection from its topics while its service runs.

The topics are read from their beginning into temporary tables of the projection's own shape, by the same
statements that feed the live ones: an unqualified table name means the temporary one on this connection. Then
the live rows are replaced key by key. Under the key's lock the copy first catches up with its topics, so that
it is never behind what the live rows know; what comes later waits for the lock and finds the newer state.

Neither the inbox nor the offsets of the service are touched: a message that the rebuild knew first changes
nothing when the service comes to it. Who is killed leaves whole keys, old or new; the copy goes with the
connection, and the next run starts from the beginning.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from contracts.topics import TOPICS
from msgspec import Struct
from psycopg import sql

from libs.messaging.deliveries import Handlers
from libs.messaging.envelopes import Undecodable, UnknownType, decode
from libs.messaging.reading import read_some
from libs.postgres import Conn, is_transient
from libs.settings import ServiceSettings, read_settings

ANSWER_SECONDS = 20.0
"""How long Kafka may say nothing before the rebuild gives up."""

Key = UUID


class Projection(Struct, frozen=True, kw_only=True):
    """What a rebuild needs to know of a projection.

    `handlers` write to `tables` by their bare names, as those of the service do, and lock nothing else.
    `copied_keys` lists what is to be compared, `live_keys` what the topics should tell of. `lock` keeps the
    service from changing the live rows of a key until the end of the transaction, `replace` makes them what
    the copy says and returns whether that changed any; live tables are named with their schema.
    """

    service: str
    name: str
    topics: tuple[str, ...]
    tables: tuple[str, ...]
    handlers: Handlers
    copied_keys: Callable[[Conn], Awaitable[set[Key]]]
    live_keys: Callable[[Conn], Awaitable[set[Key]]]
    lock: Callable[[Conn, Key], Awaitable[None]]
    replace: Callable[[Conn, Key], Awaitable[bool]]


class Result(Struct, frozen=True):
    """`skipped` messages could not be handled, as when they first came."""

    messages: int
    skipped: int
    keys: int
    changed: int


class CannotRebuild(Exception):
    """The topics do not hold what the projection was made of; nothing was changed."""


async def rebuild(
    projection: Projection,
    *,
    database_url: str,
    kafka_brokers: str,
    forget: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Returns when the live rows are what the topics say. `forget` deletes rows of which no topic tells.

    Raises `CannotRebuild`, `KafkaError`, `psycopg.OperationalError`.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_brokers, enable_auto_commit=False, max_partition_fetch_bytes=2_200_000
    )
    # Where topics end is asked on a connection of its own: on the other one it would wait behind a fetch.
    asker = AIOKafkaConsumer(bootstrap_servers=kafka_brokers, enable_auto_commit=False)
    async with await psycopg.AsyncConnection.connect(
        database_url, autocommit=True, connect_timeout=3, application_name=f"{projection.service}-rebuild"
    ) as conn:
        try:
            await consumer.start()
            await asker.start()
            for table in projection.tables:
                await conn.execute(
                    sql.SQL("CREATE TEMPORARY TABLE {0} (LIKE {1}.{0} INCLUDING ALL)").format(
                        sql.Identifier(table), sql.Identifier(projection.service)
                    )
                )
            copy = _Copy(projection, consumer, asker, conn, say)
            await copy.start(kafka_brokers)
            await copy.catch_up()
            unknown = await projection.live_keys(conn) - await projection.copied_keys(conn)
            if unknown:
                # What the service knew then, the topics have told by now.
                await copy.catch_up()
                unknown -= await projection.copied_keys(conn)
            if unknown and not forget:
                raise CannotRebuild(
                    f"of {len(unknown)} the topics tell nothing, of {min(unknown)} for one: was a topic made"
                    " anew? To delete them: FORGET=1 (--forget)"
                )
            for table in projection.tables:
                await conn.execute(sql.SQL("ANALYZE pg_temp.{}").format(sql.Identifier(table)))
            keys = sorted(unknown | await projection.copied_keys(conn))
            changed = 0
            for number, key in enumerate(keys, start=1):
                changed += await _replace(projection, conn, copy, key)
                copy.tell(f"{number} of {len(keys)} compared, {changed} were different")
            return Result(copy.messages, copy.skipped, len(keys), changed)
        finally:
            await asker.stop()
            await consumer.stop()


class _Copy:
    """The temporary tables, fed from the topics."""

    def __init__(
        self,
        projection: Projection,
        consumer: AIOKafkaConsumer,
        asker: AIOKafkaConsumer,
        conn: Conn,
        say: Callable[[str], None],
    ) -> None:
        self._projection = projection
        self._consumer = consumer
        self._asker = asker
        self._conn = conn
        self._say = say
        self._told_at = time.monotonic()
        self._next: dict[TopicPartition, int] = {}
        self.messages = 0
        self.skipped = 0

    async def start(self, kafka_brokers: str) -> None:
        for topic in TOPICS:
            if topic.name not in self._projection.topics:
                continue
            places = await _partitions(kafka_brokers, topic.name)
            begins = await self._asker.beginning_offsets(places)
            if topic.retention_days is None and any(begins.values()):
                raise CannotRebuild(f"{topic.name} has lost its first messages: should it not keep them all?")
            self._next |= begins
        self._consumer.assign(list(self._next))
        self.rewind(self._next)

    async def catch_up(self) -> None:
        """Handles every message that the topics hold at this moment."""
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await self._asker.end_offsets(list(self._next))
        heard_at = time.monotonic()
        while behind := [place for place, end in ends.items() if self._next[place] < end]:
            for place, records in (await read_some(self._consumer, *behind, timeout_ms=500)).items():
                heard_at = time.monotonic()
                for record in records:
                    await self._handle(record)
                    self._next[place] = record.offset + 1
                    self.tell(f"{self.messages} of {self.messages + self._missing(ends)} messages")
            for place in behind:
                # Past records that are none of ours to see: control records, compacted ones.
                self._next[place] = max(self._next[place], await self._consumer.position(place))
            if time.monotonic() - heard_at > ANSWER_SECONDS:
                raise TimeoutError

    @property
    def positions(self) -> dict[TopicPartition, int]:
        return dict(self._next)

    def rewind(self, positions: dict[TopicPartition, int]) -> None:
        self._next = dict(positions)
        for place, offset in positions.items():
            self._consumer.seek(place, offset)

    def tell(self, text: str) -> None:
        if time.monotonic() - self._told_at > 1:
            self._told_at = time.monotonic()
            self._say(text)

    def _missing(self, ends: dict[TopicPartition, int]) -> int:
        return sum(max(end - self._next[place], 0) for place, end in ends.items())

    async def _handle(self, record: ConsumerRecord[Any, Any]) -> None:
        self.messages += 1
        try:
            message = decode(record).message
            handle = self._projection.handlers.get(type(message))
            if handle is not None:
                async with self._conn.transaction():
                    await handle(self._conn, message)
        except UnknownType:
            pass
        except Undecodable:
            self.skipped += 1
        except psycopg.Error as error:
            if is_transient(error):
                raise
            self.skipped += 1


async def _partitions(kafka_brokers: str, topic: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_brokers)
    await admin.start()
    try:
        if topic not in await admin.list_topics():
            raise CannotRebuild(f"Kafka has no topic {topic}")
        [description] = await admin.describe_topics([topic])
        return [TopicPartition(topic, each["partition"]) for each in description["partitions"]]
    finally:
        await admin.close()


async def _replace(projection: Projection, conn: Conn, copy: _Copy, key: Key) -> bool:
    while True:
        positions = copy.positions
        try:
            async with conn.transaction():
                await projection.lock(conn, key)
                await copy.catch_up()
                return await projection.replace(conn, key)
        except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable):
            # The copy was rolled back with it, so that its messages are read again.
            copy.rewind(positions)


def main(service: str, projections: Sequence[Projection]) -> int:
    """`python -m <service>.rebuild NAME`, on the settings of the service's worker."""
    known = {projection.name: projection for projection in projections}
    parser = argparse.ArgumentParser(prog=f"{service}.rebuild", description=__doc__)
    parser.add_argument("projection", choices=sorted(known))
    parser.add_argument("--forget", action="store_true", help="delete what no topic tells of")
    arguments = parser.parse_args()
    settings = read_settings(ServiceSettings, service=service, process="worker")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    projection = known[arguments.projection]
    name = f"{service}.{projection.name}"
    started = time.monotonic()
    try:
        result = asyncio.run(
            rebuild(
                projection,
                database_url=settings.database_url,
                kafka_brokers=settings.kafka_brokers,
                forget=arguments.forget,
                say=lambda text: print(f"{name}: {text}", flush=True),
            )
        )
    except CannotRebuild as error:
        return _complain(f"{name}: {error}. Nothing was changed.")
    except (KafkaError, TimeoutError, OSError) as error:
        return _complain(f"{name}: Kafka at {settings.kafka_brokers} does not answer: {error}. Run it again.")
    except psycopg.OperationalError as error:
        return _complain(f"{name}: the database: {str(error).strip()}. Run it again.")
    except KeyboardInterrupt:
        return 130
    print(
        f"{name}: rebuilt from {result.messages} messages in {time.monotonic() - started:.1f} s:"
        f" {result.changed} of {result.keys} were different."
    )
    if result.skipped:
        print(f"{result.skipped} messages could not be handled: they became dead letters when they came.")
    return 0


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1
