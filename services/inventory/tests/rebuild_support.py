"""What tests of a rebuild share: messages of catalog and auth, the worker, and a look at the projections."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString
from uuid import UUID

import msgspec
import psycopg
from aiokafka import AIOKafkaProducer
from contracts.messages import EventPublished, Message, SeatMapPart
from embedded.testing import send_unreadable
from inventory.consumers import HANDLERS
from inventory.rebuild import PROJECTIONS
from libs.ids import new_id
from libs.messaging.dead_letters import DeadLetters
from libs.messaging.deliveries import Retry
from libs.messaging.heartbeat import Heartbeat
from libs.messaging.rebuilds import Projection, Result, rebuild
from libs.messaging.subscriptions import Subscription
from libs.postgres import Pool
from msgspec.structs import replace

from services.inventory.tests.support import Buyer, Deliver, OnSale, make_event, paid

CATALOG, REVOCATIONS = PROJECTIONS


class Topics:
    """Catalog and auth, as far as their messages go."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def send(self, *messages: Message) -> None:
        for message in messages:
            await self._producer.send_and_wait(
                message.TOPIC,
                msgspec.json.encode(message),
                key=str(getattr(message, message.KEY)).encode(),
                headers=[("ce_id", str(new_id()).encode()), ("ce_type", message.TYPE.encode())],
            )

    async def send_garbage(self, topic: str, value: bytes | None) -> None:
        await self._producer.send_and_wait(topic, value, key=b"x")

    async def send_unreadable(self, topic: str) -> None:
        await send_unreadable(self._producer, topic)


@asynccontextmanager
async def working(environment: dict[str, str], pool: Pool) -> AsyncGenerator[None]:
    """The consumers of inventory's worker."""
    brokers = environment["KAFKA_BROKERS"]
    subscription = Subscription(
        service="inventory",
        pool=pool,
        handlers=HANDLERS,
        dead_letters=DeadLetters(service="inventory", kafka_brokers=brokers),
        retry=Retry(count=1, backoff_seconds=0.01),
    )
    task = asyncio.create_task(subscription.run(kafka_brokers=brokers, heartbeat=Heartbeat()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def rebuilt(
    environment: dict[str, str], projection: Projection = CATALOG, *, forget: bool = False
) -> Result:
    return await rebuild(
        projection,
        database_url=environment["INVENTORY_WORKER_DATABASE_URL"],
        kafka_brokers=environment["KAFKA_BROKERS"],
        forget=forget,
    )


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        (sys.executable, *arguments), capture_output=True, text=True, check=False, timeout=60
    )


async def rows(pool: Pool, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
    async with pool.connection() as conn:
        return await (await conn.execute(query, parameters)).fetchall()


async def execute(environment: dict[str, str], *statements: LiteralString, event_id: UUID) -> None:
    """As someone who may do anything."""
    async with await psycopg.AsyncConnection.connect(environment["ADMIN_DATABASE_URL"]) as conn:
        await conn.execute("SET search_path = inventory")
        for statement in statements:
            await conn.execute(statement, {"event_id": event_id})


async def projection_tables(pool: Pool) -> dict[str, list[tuple[Any, ...]]]:
    """The whole tables; a seat's claim as far as it means something: its sale, its living hold."""
    return {
        "events": await rows(pool, "SELECT * FROM events ORDER BY event_id"),
        "section_prices": await rows(pool, "SELECT * FROM section_prices ORDER BY event_id, section"),
        "seat_map_parts": await rows(pool, "SELECT * FROM seat_map_parts ORDER BY event_id, version, part"),
        "event_seats": await rows(
            pool,
            """
            SELECT seat.event_id, seat_id, section, row_name, seat_number, hold.hold_id, sold_order_id
              FROM event_seats seat
              LEFT JOIN holds hold ON hold.event_id = seat.event_id AND hold.hold_id = seat.hold_id
               AND hold.status IN ('active', 'confirmed')
             ORDER BY 1, 2
            """,
        ),
    }


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # it is asked of a server
            await asyncio.sleep(0.02)


async def known(pool: Pool, *events: EventPublished) -> None:
    """Until the worker has handled these versions, and their maps."""

    async def all_known() -> bool:
        found = await rows(
            pool,
            "SELECT event_id, version FROM events"
            " WHERE event_id = ANY (%s) AND built_version = seat_map_version",
            [event.event_id for event in events],
        )
        return {(event.event_id, event.version) for event in events} <= set(found)

    await eventually(all_known)


def in_parts(event: OnSale, size: int, *, version: int = 1) -> list[SeatMapPart]:
    seats = event.seat_map.seats
    chunks = [seats[start : start + size] for start in range(0, len(seats), size)]
    return [
        SeatMapPart(event_id=event.event_id, version=version, part=number, parts=len(chunks), seats=chunk)
        for number, chunk in enumerate(chunks, start=1)
    ]


async def put_on_sale(topics: Topics, pool: Pool) -> list[OnSale]:
    """Events of several pasts: in parts, changed, with a second map, without seats, with a map to come."""
    plain, parts, changed, second_map, empty = (make_event(count) for count in (10, 30, 10, 20, 0))
    await topics.send(plain.published, plain.seat_map)
    await topics.send(*in_parts(parts, 7), parts.published)
    tier = replace(changed.published.tiers[0], amount_minor=9900)
    newest = replace(changed.published, version=3, tiers=[tier])
    await topics.send(changed.published, changed.seat_map, newest)
    draft = replace(second_map.published, version=1, status="draft", seat_count=10)
    first = replace(second_map.seat_map, seats=second_map.seat_map.seats[:10])
    await topics.send(draft, first, replace(second_map.published, seat_map_version=2))
    await topics.send(*in_parts(second_map, 6, version=2))
    await topics.send(empty.published)
    events = [plain, parts, changed, second_map, empty]
    unfinished = make_event(10)
    await topics.send(unfinished.published, in_parts(unfinished, 4)[0])
    await known(
        pool, *(event.published for event in events[:2]), newest, second_map.published, empty.published
    )

    async def has_a_part() -> bool:
        found = await rows(pool, "SELECT 1 FROM seat_map_parts WHERE event_id = %s", unfinished.event_id)
        return len(found) == 1

    await eventually(has_a_part)
    return events


async def buy(buyer: Buyer, deliver: Deliver, event_id: UUID, seat_ids: list[UUID]) -> bool:
    answer = await buyer.try_hold(event_id, seat_ids)
    assert answer.status_code in (200, 409), answer.text
    if answer.status_code == 409:
        assert answer.json()["code"] == "seats_unavailable", answer.text
        return False
    order = buyer.order_placed(answer.json())
    await deliver(order, paid(order))
    return True
