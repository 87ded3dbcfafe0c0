"""The background process of a service: consumers, outbox relay, sweepers."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping

from libs.logs import configure_logging
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Handlers, Retry
from libs.messaging.heartbeat import STALE_SECONDS, Heartbeat
from libs.messaging.relay import run_relay
from libs.messaging.subscriptions import Subscription
from libs.postgres import Pool, PoolRepair, create_pool, is_transient
from libs.revocations import forget_old_revocations
from libs.settings import ServiceSettings
from libs.tasks import end_tasks
from libs.tracing import start_trace

log = logging.getLogger(__name__)

# More than consumers and relay take to stop, less than a supervisor waits.
CLEAN_UP_SECONDS = 8.0

Sweep = Callable[[Pool], Awaitable[object]]


async def run_worker(
    settings: ServiceSettings,
    *,
    service: str,
    handlers: Handlers,
    sweeps: Mapping[float, list[Sweep]],
) -> None:
    """Runs until SIGTERM or SIGINT. `sweeps` maps a period in seconds to what is done that often."""
    configure_logging(settings.log_level)
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
