"""How fast messages go from an outbox through Kafka into a consumer's transaction.

    python -m tests.benchmarks.messaging [MESSAGES] [--durable]

Starts a PostgreSQL and a Kafka of its own, which keep to the second core of the machine; each client that
is measured is one process on the first core. `% of core` is that client's processor time by wall time: far
from 100 means that it waited for the servers. `--durable`: both write through to the disk, as in `make up`.

bare producer   AIOKafkaProducer.send, idempotent, acks=all, batches as large as the relay's, the same records
relay           an outbox full of rows until it is empty: read, sent, acknowledged, deleted
bare consumer   AIOKafkaConsumer.getmany, nothing decoded, nothing committed
subscriber      a subscription: decoded, checked, inbox rows and handlers in one transaction a batch, offsets
                committed. The handler does nothing: what is measured is the messaging
row to commit   500 messages/s, each in a transaction of its own; from the row's `created_at` until the
                consumer's transaction has committed. Writer, relay and subscriber are processes on all cores
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from contracts.messages import HoldReleased
from embedded.testing import running_stack
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Deliveries, Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.outbox import publish
from libs.messaging.relay import run_relay
from libs.messaging.subscriptions import Subscription
from libs.messaging.topics import create_topics
from libs.migrations import migrate, services_from_environment
from libs.postgres import Conn, create_pool, transaction
from libs.tasks import end_tasks

ROOT = Path(__file__).parents[2]
TOPIC = HoldReleased.TOPIC
PER_SECOND = 500
LATENCY_MESSAGES = 5_000
WARM_UP_MESSAGES = 1_000

Environment = dict[str, str]
Records = Sequence[ConsumerRecord[Any, Any]]
Work = Callable[[Environment, int], Coroutine[Any, Any, Any]]


class Figure(NamedTuple):
    messages: int
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.messages / self.seconds:12,.0f}{self.seconds:10.2f}"
            f"{100 * self.cpu_seconds / self.seconds:12.0f}"
        )


class StopWatch:
    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def figure(self, messages: int) -> Figure:
        return Figure(messages, time.perf_counter() - self._started, time.process_time() - self._cpu)


@contextlib.asynccontextmanager
async def working(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end_tasks(task)


def released() -> HoldReleased:
    return HoldReleased(hold_id=new_id(), event_id=new_id(), user_id=new_id(), reason="buyer")


def headers_of(message: HoldReleased) -> list[tuple[str, bytes]]:
    """As the relay sets them."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(new_id()).encode()),
        ("ce_type", message.TYPE.encode()),
        ("ce_source", b"/inventory"),
        ("ce_subject", str(message.hold_id).encode()),
        ("ce_time", b"2030-01-01T00:00:00.000000Z"),
        ("ce_dataschema", b"hold.released.v1.json"),
        ("content-type", b"application/json"),
    ]


async def bare_producer(environment: Environment, count: int) -> Figure:
    messages = [released() for _ in range(count)]
    records = [(str(each.hold_id).encode(), msgspec.json.encode(each), headers_of(each)) for each in messages]
    producer = AIOKafkaProducer(
        bootstrap_servers=environment["KAFKA_BROKERS"],
        enable_idempotence=True,
        acks="all",
        max_batch_size=262_144,
    )
    await producer.start()
    await producer.partitions_for(TOPIC)
    watch = StopWatch()
    for first in range(0, count, 500):
        futures = [
            await producer.send(TOPIC, value, key=key, headers=headers)
            for key, value, headers in records[first : first + 500]
        ]
        await asyncio.gather(*futures)
    figure = watch.figure(count)
    await producer.stop()
    return figure


def inventory_relay(environment: Environment) -> Coroutine[Any, Any, None]:
    return run_relay(
        service="inventory",
        database_url=environment["INVENTORY_WORKER_DATABASE_URL"],
        kafka_brokers=environment["KAFKA_BROKERS"],
        shard=0,
        shards=1,
        heartbeat=Heartbeat(),
    )


async def relay(environment: Environment, count: int) -> Figure:
    with psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        with conn.cursor().copy("COPY inventory.outbox (topic, key, type, body) FROM STDIN") as copy:
            for _ in range(count):
                message = released()
                body = msgspec.json.encode(message).decode()
                copy.write_row((TOPIC, str(message.hold_id), message.TYPE, body))
        conn.execute("VACUUM ANALYZE inventory.outbox")
        watch = StopWatch()
        async with working(inventory_relay(environment)):
            while conn.execute("SELECT 1 FROM inventory.outbox LIMIT 1").fetchone():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            return watch.figure(count)


async def bare_consumer(environment: Environment, count: int) -> Figure:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=environment["KAFKA_BROKERS"],
        group_id="bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=2_200_000,
    )
    await consumer.start()
    first = await consumer.getmany(timeout_ms=20_000, max_records=500)  # joining is not what is measured
    before = seen = sum(len(batch) for batch in first.values())
    watch = StopWatch()
    while seen < count:
        batches = await consumer.getmany(timeout_ms=1000, max_records=500)
        seen += sum(len(batch) for batch in batches.values())
    figure = watch.figure(seen - before)
    await consumer.stop()
    return figure


async def handle_nothing(conn: Conn, message: HoldReleased) -> None:
    pass


async def subscribe(environment: Environment, told: Callable[[Records], None], done: Awaitable[Any]) -> None:
    """Consumes until `done`; tells of each batch once its transaction has committed."""
    handle = Deliveries.handle

    async def handle_and_tell(self: Deliveries, records: Records) -> None:
        await handle(self, records)
        told(records)

    Deliveries.handle = handle_and_tell
    pool = create_pool(environment["PAYMENTS_WORKER_DATABASE_URL"], max_size=8)
    await pool.open()
    work = Subscription(
        service="payments",
        pool=pool,
        handlers={HoldReleased: handle_nothing},
        dead_letters=DeadLetters(service="payments", kafka_brokers=environment["KAFKA_BROKERS"]),
        retry=Retry(count=3, backoff_seconds=0.1),
    )
    async with working(work.run(kafka_brokers=environment["KAFKA_BROKERS"], heartbeat=Heartbeat())):
        await done
        await asyncio.sleep(0.5)  # the last offsets are committed
    await pool.close()


async def subscriber(environment: Environment, count: int) -> Figure:
    before = seen = 0
    watch: StopWatch | None = None
    done: asyncio.Future[Figure] = asyncio.get_running_loop().create_future()

    def told(records: Records) -> None:
        nonlocal before, seen, watch
        seen += len(records)
        if watch is None:
            watch, before = StopWatch(), seen
        elif seen >= count and not done.done():
            done.set_result(watch.figure(seen - before))

    await subscribe(environment, told, done)
    return done.result()


async def write_steadily(environment: Environment, count: int) -> None:
    pool = create_pool(environment["INVENTORY_DATABASE_URL"], max_size=8)
    await pool.open()
    due: asyncio.Queue[None] = asyncio.Queue()

    async def write() -> None:
        while True:
            await due.get()
            async with transaction(pool) as conn:
                await publish(conn, released())
            due.task_done()

    writers = [asyncio.create_task(write()) for _ in range(8)]
    started = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / PER_SECOND - time.perf_counter()))
        due.put_nowait(None)
    await due.join()
    await end_tasks(*writers)
    await pool.close()


async def relay_for_ever(environment: Environment, count: int) -> None:
    await inventory_relay(environment)


async def wait_from_row_to_commit(environment: Environment, count: int) -> list[float]:
    """Seconds for each message, in their order."""
    waits: list[float] = []
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def told(records: Records) -> None:
        now = time.time()
        for record in records:
            written = datetime.fromisoformat(dict(record.headers)["ce_time"].decode()).timestamp()
            waits.append(now - written)
        if len(waits) >= count and not done.done():
            done.set_result(None)

    await subscribe(environment, told, done)
    return waits


class Client:
    """One client: a process of its own, on some cores."""

    def __init__(self, work: Work, environment: Environment, count: int, *, cores: set[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._answer, far_end = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_run, args=(far_end, work, environment, count, cores), daemon=True
        )
        self._process.start()
        far_end.close()

    def result(self, *, seconds: float = 120) -> Any:
        if not self._answer.poll(seconds):
            sys.exit(f"benchmark: a client is not done after {seconds:.0f} s")
        answer = self._answer.recv()
        self._process.join()
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _run(answer: Connection, work: Work, environment: Environment, count: int, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    answer.send(asyncio.Runner(loop_factory=uvloop.new_event_loop).run(work(environment, count)))


def prepare(environment: Environment) -> None:
    os.environ.update(environment)
    folders = [ROOT / "services" / service / "migrations" for service in ("inventory", "payments")]
    migrate(environment["ADMIN_DATABASE_URL"], services_from_environment(folders))
    asyncio.run(create_topics(environment["KAFKA_BROKERS"]))


def show_rates(environment: Environment, count: int, *, cores: set[int]) -> None:
    print(f"{'':16}{'messages/s':>12}{'seconds':>10}{'% of core':>12}", flush=True)
    # The producer's and the relay's messages, all of them, are what the consumers read.
    for name, work, messages in (
        ("bare producer", bare_producer, count),
        ("relay", relay, count),
        ("bare consumer", bare_consumer, 2 * count),
        ("subscriber", subscriber, 2 * count),
    ):
        print(f"{name:16}{Client(work, environment, messages, cores=cores).result()}", flush=True)


def show_latency(environment: Environment, *, cores: set[int]) -> None:
    count = WARM_UP_MESSAGES + LATENCY_MESSAGES
    far_end = Client(wait_from_row_to_commit, environment, count, cores=cores)
    sender = Client(relay_for_ever, environment, 0, cores=cores)
    # What is written until all have started counts as warming up.
    writer = Client(write_steadily, environment, count, cores=cores)
    waits = sorted(1000 * each for each in far_end.result()[WARM_UP_MESSAGES:])
    writer.result()
    sender.stop()
    p50, p99 = statistics.median(waits), waits[int(len(waits) * 0.99)]
    print(f"{'row to commit':16}p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {waits[-1]:.1f} ms, {PER_SECOND}/s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.messaging")
    parser.add_argument("messages", nargs="?", type=int, default=50_000)
    parser.add_argument("--durable", action="store_true")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:2] or cores)  # the servers inherit it
    with running_stack(("postgres", "kafka"), durable=arguments.durable) as stack:
        environment = stack.environment()
        prepare(environment)
        show_rates(environment, arguments.messages, cores={cores[0]})
        show_latency(environment, cores=set(cores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
