"""Gives messages their effect, once: a batch in one transaction, a faulty message apart from the others."""

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord
from contracts.messages import Message
from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled, SerializationFailure

from libs.messaging.dead_letters import DeadLetters, as_it_was
from libs.messaging.envelopes import Delivery, Undecodable, UnknownType, decode
from libs.messaging.offsets import Offsets
from libs.postgres import Conn, Pool, PoolRepair, is_transient, transaction
from libs.tasks import end_tasks
from libs.tracing import continued, current_traceparent, is_recorded, unrecorded

log = logging.getLogger(__name__)

Handler = Callable[[Conn, Any], Awaitable[None]]
Handlers = Mapping[type[Message], Handler]
Key = tuple[str, int, bytes]

LONGEST_PAUSE = 1.0
AT_ONCE = 4
"""Messages that are handled one by one, each in a transaction, at a time."""

# These pass, and say something about one message, not about the database: the others need not wait.
_OF_ONE_MESSAGE = (DeadlockDetected, LockNotAvailable, QueryCanceled, SerializationFailure)


class PartitionsRevoked(Exception):
    """Waiting is pointless: the messages belong to another consumer now."""


class Retry:
    """How often a faulty message is tried again, and the first pause between tries in seconds."""

    def __init__(self, *, count: int, backoff_seconds: float) -> None:
        self.count = count
        self.backoff_seconds = backoff_seconds

    def pause(self, attempt: int) -> float:
        return self.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.7, 1.3)  # noqa: S311


class Deliveries:
    """What one consumer group's member has in hand between two rebalances.

    A message that fails is tried again beside everything else, and with it wait only the later messages of
    its key. `offsets` knows which are unfinished; `changed` is set when there is something to commit.
    """

    def __init__(
        self, *, service: str, pool: Pool, handlers: Handlers, dead_letters: DeadLetters, retry: Retry
    ) -> None:
        self._service = service
        self._pool = pool
        self._repair = PoolRepair(pool)
        self._handlers = handlers
        self._handled_types = {message.TYPE for message in handlers}
        self._dead_letters = dead_letters
        self._retry = retry
        self._about: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": service,
        }
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[Key, deque[Delivery]] = {}
        self._retries: set[asyncio.Task[None]] = set()
        self._skipped_types: set[str] = set()
        self.offsets = Offsets()
        self.changed = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.progress_at = time.monotonic()
        self.waits_for = ""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.revoked = False

    async def handle(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        """Returns when each record has had its effect, is a dead letter, or waits to be tried again."""
        wanted: list[Delivery] = []
        for record in records:
            try:
                # Its place stays the one on the replay topic: that is where an offset is committed.
                delivery = decode(as_it_was(record, service=self._service))._replace(record=record)
                self._require_handled_version(delivery.message)
            except UnknownType as unknown:
                self._skip(str(unknown))
            except Undecodable as error:
                await self._bury(record, error=error, attempts=1)
            else:
                if type(delivery.message) not in self._handlers:
                    self.counts["not for us"] += 1
                elif waiting := self._waiting.get(_key(delivery)):
                    self.offsets.begin(record)
                    waiting.append(delivery)
                else:
                    wanted.append(delivery)
        if wanted:
            await self._handle_together(wanted)
        self.offsets.advance(records)
        self.progress_at = time.monotonic()
        self.changed.set()

    def _require_handled_version(self, message: Message) -> None:
        # Of a type that nobody here handles no version is missed; of one that is, this would be a loss.
        if message.TYPE in self._handled_types and type(message) not in self._handlers:
            raise Undecodable(f"version {message.VERSION} of {message.TYPE} is not handled here")

    def _skip(self, what: str) -> None:
        self.counts["skipped"] += 1
        if what not in self._skipped_types and len(self._skipped_types) < 100:
            self._skipped_types.add(what)
            log.warning("skipped, as will be all of its kind: %s", what)

    async def _handle_together(self, deliveries: list[Delivery]) -> None:
        try:
            await self._when_database_is_there(lambda: self._apply(deliveries))
        except PartitionsRevoked:
            raise
        except Exception as error:
            log.info("a batch of %s is done one by one: %r", len(deliveries), error)
            by_key: dict[Key, list[Delivery]] = {}
            for delivery in deliveries:
                by_key.setdefault(_key(delivery), []).append(delivery)
            try:
                async with asyncio.TaskGroup() as group:
                    for same_key in by_key.values():
                        group.create_task(self._handle_one_by_one(same_key))
            except* PartitionsRevoked:
                raise PartitionsRevoked from error

    async def _handle_one_by_one(self, same_key: list[Delivery]) -> None:
        for done, delivery in enumerate(same_key):
            try:
                async with self._at_once:
                    await self._when_database_is_there(lambda each=delivery: self._apply([each]))
            except PartitionsRevoked:
                raise
            except Exception as error:
                for each in same_key[done:]:
                    self.offsets.begin(each.record)
                self._waiting[_key(delivery)] = deque(same_key[done:])
                task = asyncio.create_task(self._try_again(_key(delivery), error))
                self._retries.add(task)
                task.add_done_callback(self._retry_ended)
                return

    async def _try_again(self, key: Key, error: Exception | None) -> None:
        """Works off the messages of a key whose first one has just failed with `error`."""
        waiting = self._waiting[key]
        while waiting:
            delivery = waiting[0]
            attempts = 1 if error is not None and not is_transient(error) else 0
            pause = self._retry.backoff_seconds
            while True:
                if error is not None:
                    if not is_transient(error):
                        if attempts > self._retry.count:
                            await self._bury(delivery.record, error=error, attempts=attempts)
                            break
                        pause = self._retry.pause(attempts)
                    log.warning("%s failed, again in %.1f s: %r", delivery.message.TYPE, pause, error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
                try:
                    async with self._at_once:
                        await self._when_database_is_there(lambda each=delivery: self._apply([each]))
                    break
                except PartitionsRevoked:
                    raise
                except Exception as again:
                    error = again
                    attempts += not is_transient(again)
            error = None
            waiting.popleft()
            self.offsets.finish(delivery.record)
            self.changed.set()
        del self._waiting[key]

    def _retry_ended(self, task: asyncio.Task[None]) -> None:
        self._retries.discard(task)
        error = None if task.cancelled() else task.exception()
        # Whose partitions are being given up is given up with them.
        if error and not isinstance(error, PartitionsRevoked) and not self.failed.done():
            self.failed.set_exception(error)

    async def _bury(self, record: ConsumerRecord[Any, Any], *, error: Exception, attempts: int) -> None:
        await self._dead_letters.send(record, error=error, attempts=attempts)
        self.counts["dead letters"] += 1
        self.progress_at = time.monotonic()

    async def _apply(self, deliveries: Sequence[Delivery]) -> None:
        recorded = [each.traceparent for each in deliveries if is_recorded(each.traceparent)]
        if not recorded:
            await self._apply_together(deliveries)
            return
        about = self._about | {"messaging.batch.message_count": len(deliveries)}
        # A span has one parent, and a batch many: it is linked to them.
        with continued(None, "process batch", kind="consumer", attributes=about, links=recorded):
            await self._apply_together(deliveries)

    async def _apply_together(self, deliveries: Sequence[Delivery]) -> None:
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
                    await self._give_effect(conn, delivery)
                    self.progress_at = time.monotonic()
        self.counts["handled"] += len(deliveries)
        self.progress_at = time.monotonic()

    async def _give_effect(self, conn: Conn, delivery: Delivery) -> None:
        handler, record = self._handlers[type(delivery.message)], delivery.record
        if not is_recorded(delivery.traceparent):
            with unrecorded(delivery.traceparent):
                await handler(conn, delivery.message)
            return
        about = self._about | {
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        with continued(
            delivery.traceparent,
            f"process {delivery.message.TYPE}",
            kind="consumer",
            attributes=about,
            links=[current_traceparent()],
        ):
            await handler(conn, delivery.message)

    async def _when_database_is_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Raises what `work` raises, but for the database being away: that is waited for."""
        pause = 0.05
        while True:
            try:
                await work()
            except Exception as error:
                if not is_transient(error) or isinstance(error, _OF_ONE_MESSAGE):
                    raise
                if self.revoked:
                    raise PartitionsRevoked from error
                if not self.waits_for:
                    log.warning("waiting for the database: %s", error)
                self.waits_for = f"waiting for the database: {type(error).__name__}"
                self.progress_at = time.monotonic()
                self._repair.start(error)
            else:
                self.waits_for = ""
                return
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    async def let_go(self) -> None:
        """Ends what is still being tried: another consumer will read it."""
        await end_tasks(*self._retries)
        self.failed = asyncio.get_running_loop().create_future()
        self._waiting.clear()
        self.offsets.forget()


def _key(delivery: Delivery) -> Key:
    return (delivery.record.topic, delivery.record.partition, delivery.record.key or b"")
