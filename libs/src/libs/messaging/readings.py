"""What a worker's telemetry tells of its outbox, its relays, its consumer and its dead letters."""

from collections import Counter
from collections.abc import Awaitable, Callable

from libs.messaging.heartbeat import Heartbeat
from libs.messaging.letters import SOURCES, open_letters
from libs.messaging.subscriptions import Subscription
from libs.postgres import Pool
from libs.telemetry.metrics import (
    DEAD_LETTERS,
    LAG,
    MESSAGES,
    OUTBOX_AGE,
    OUTBOX_ROWS,
    RELAYS,
    SUBSCRIBED,
    Metric,
)
from libs.telemetry.readings import Look, Values, values

MOST_ROWS = 100_000
"""Of the outbox that are counted: more takes long, and says nothing new."""


def outbox_readings(pool: Pool) -> Look:
    async def look() -> Values:
        async with pool.connection() as conn:
            cursor = await conn.execute(
                """
                SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT %s) AS counted),
                       coalesce((SELECT extract(epoch FROM clock_timestamp() - created_at)::float
                                   FROM outbox ORDER BY id LIMIT 1), 0)
                """,
                [MOST_ROWS],
            )
            row = await cursor.fetchone()
        return {(OUTBOX_ROWS, ()): row[0], (OUTBOX_AGE, ()): row[1]} if row else {}

    return look


def relay_readings(heartbeat: Heartbeat) -> Look:
    async def look() -> Values:
        return {(RELAYS, ()): heartbeat.count_ready("relay")}

    return look


def consumer_readings(subscription: Subscription, heartbeat: Heartbeat, *, group: str) -> Look:
    async def look() -> Values:
        return {
            **values(LAG, subscription.lag, group=group),
            **values(SUBSCRIBED, subscription.partitions()),
            **values(MESSAGES, heartbeat.counts, group=group),
        }

    return look


def dead_letter_readings(service: str, kafka_brokers: str) -> Look:
    topics = [topic for topic, source in SOURCES.items() if source.service == service]

    async def look() -> Values:
        if not topics:
            return {}
        waiting: Counter[str] = Counter()
        async with open_letters(kafka_brokers) as letters:
            for topic in topics:
                waiting[topic] = sum(each.status == "waiting" for each in await letters.of(topic))
        return values(DEAD_LETTERS, waiting)

    return look


def measured(metric: Metric, measure: Callable[[Pool], Awaitable[int]], pool: Pool) -> Look:
    async def look() -> Values:
        return {(metric, ()): await measure(pool)}

    return look
