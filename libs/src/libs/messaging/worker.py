"""The background process of a service: consumers, outbox relay, sweepers."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping

from libs.logs import configure_logging
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Handlers, Retry
from libs.messaging.heartbeat import STALE_SECONDS, Heartbeat
from libs.messaging.readings import (
    consumer_readings,
    dead_letter_readings,
    measured,
    outbox_readings,
    relay_readings,
)
from libs.messaging.relay import run_relay
from libs.messaging.subscriptions import Subscription
from libs.postgres import Pool, PoolRepair, create_pool, is_transient
from libs.revocations import forget_old_revocations
from libs.settings import ServiceSettings
from libs.tasks import end_tasks
from libs.telemetry import sending
from libs.telemetry.metrics import Metric
from libs.telemetry.pools import pool_readings
from libs.telemetry.readings import Readings
from libs.tracing import start_trace

log = logging.getLogger(__name__)

# More than consumers and relay take to stop, less than a supervisor waits.
CLEAN_UP_SECONDS = 8.0

# Between two looks at dead letters, for which their topics are read.
LETTERS_SECONDS = 60.0

Sweep = Callable[[Pool], Awaitable[object]]
Measure = Callable[[Pool], Awaitable[int]]


async def run_worker(
    settings: ServiceSettings,
    *,
    service: str,
    handlers: Handlers,
    sweeps: Mapping[float, list[Sweep]],
    measures: Mapping[Metric, Measure] | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT. `sweeps` maps a period in seconds to what is done that often.

    `measures` are metrics of the service's own, and how they are read.
    """
    configure_logging(settings.log_level, settings.log_format)
    measures = measures or {}
    async with sending(f"{service}-worker", own=tuple(measures)) as telemetry:
        await _work(
            settings,
            service=service,
            handlers=handlers,
            sweeps=sweeps,
            measures=measures,
            readings=None if telemetry is None else telemetry.readings,
        )


async def _work(
    settings: ServiceSettings,
    *,
    service: str,
    handlers: Handlers,
    sweeps: Mapping[float, list[Sweep]],
    measures: Mapping[Metric, Measure],
    readings: Readings | None,
) -> None:
    pool = create_pool(settings.database_url, max_size=8)
    await pool.open()
    heartbeat = Heartbeat()
    subscription = Subscription(
        service=service,
        pool=pool,
        handlers=handlers,
        dead_letters=DeadLetters(service=service, kafka_brokers=settings.kafka_brokers),
        retry=Retry(
            count=settings.kafka_payment_consumer_max_retries,
            backoff_seconds=settings.kafka_payment_consumer_retry_backoff_ms / 1000,
        ),
    )
    housekeeping: list[Sweep] = [_forget_old_inbox_rows, _forget_old_answers, _forget_old_revocations]
    work: list[Awaitable[None]] = [
        run_relay(
            service=service,
            database_url=settings.database_url,
            kafka_brokers=settings.kafka_brokers,
            shard=shard,
            shards=settings.outbox_shards,
            heartbeat=heartbeat,
        )
        for shard in range(settings.outbox_shards)
    ]
    if settings.worker_health_file:
        work.append(heartbeat.write(settings.worker_health_file))
    work.extend(
        _repeat(sweep, pool, period, heartbeat)
        for period, group in [*sweeps.items(), (600.0, housekeeping)]
        for sweep in group
    )
    if handlers:
        work.append(subscription.run(kafka_brokers=settings.kafka_brokers, heartbeat=heartbeat))
    if readings is not None:
        looks = [pool_readings(pool), outbox_readings(pool), relay_readings(heartbeat)]
        looks += [measured(metric, measure, pool) for metric, measure in measures.items()]
        if handlers:
            looks.append(consumer_readings(subscription, heartbeat, group=service))
        work.append(readings.keep_fresh(*looks))
        letters = dead_letter_readings(service, settings.kafka_brokers)
        work.append(readings.keep_fresh(letters, every_seconds=LETTERS_SECONDS))
    try:
        await _until_stopped(work)
    finally:
        await pool.close()


async def _until_stopped(work: list[Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    tasks = [asyncio.ensure_future(each) for each in work]
    stopping = asyncio.create_task(stop.wait())
    # A part that ends by an error ends the process: the supervisor starts a fresh one.
    await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    await end_tasks(*tasks, stopping, again_after_seconds=CLEAN_UP_SECONDS)
    failures = [
        result
        for result in await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(result, Exception)
    ]
    if failures:
        raise ExceptionGroup("the worker ends", failures)


async def _repeat(sweep: Sweep, pool: Pool, period: float, heartbeat: Heartbeat) -> None:
    repair = PoolRepair(pool)
    # One that rests for longer than the heartbeat is fresh would look like one that hangs.
    tells = period < STALE_SECONDS
    while True:
        start_trace()
        try:
            await sweep(pool)
            if tells:
                heartbeat.report("sweeper", "ready")
        except Exception as error:
            if not is_transient(error):
                raise
            if tells:
                heartbeat.report("sweeper", f"waiting: {type(error).__name__}")
            log.warning("%s waits: %s", getattr(sweep, "__name__", sweep), error)
            repair.start(error)
        await asyncio.sleep(period)


async def _forget_old_inbox_rows(pool: Pool) -> None:
    # Longer than any topic that is not kept for good holds its messages; those that are kept are replayed
    # on purpose only, and their consumers look at versions.
    async with pool.connection() as conn:
        await conn.execute("DELETE FROM inbox WHERE received_at < now() - interval '30 days'")


async def _forget_old_answers(pool: Pool) -> None:
    async with pool.connection() as conn:
        await conn.execute("DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'")


async def _forget_old_revocations(pool: Pool) -> None:
    async with pool.connection() as conn:
        await forget_old_revocations(conn)
