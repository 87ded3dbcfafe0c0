"""The projection of inventory's holds, built again from its topic."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from contracts.messages import (
    HeldSeat,
    HoldConfirmed,
    HoldExpired,
    HoldExtended,
    HoldLost,
    HoldPlaced,
    HoldReleased,
    Message,
)
from embedded.testing import running_stack
from libs.ids import new_id
from libs.messaging.rebuilds import Projection, Result, rebuild
from libs.messaging.topics import create_topics
from libs.migrations import migrate, services_from_environment
from libs.postgres import Conn, Pool, create_pool, transaction
from msgspec.structs import replace
from payments.consumers import HANDLERS
from payments.rebuild import PROJECTIONS

HOLDS = PROJECTIONS[0]
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Servers of its own: a rebuild reads everything that its topic holds."""
    with running_stack(("postgres", "kafka")) as stack, pytest.MonkeyPatch.context() as patch:
        environment = stack.environment()
        for name, value in environment.items():
            patch.setenv(name, value)
        folder = Path(__file__).parents[1] / "migrations"
        migrate(environment["ADMIN_DATABASE_URL"], services_from_environment([folder]))
        asyncio.run(create_topics(environment["KAFKA_BROKERS"]))
        yield environment


@pytest_asyncio.fixture
async def pool(servers: dict[str, str]) -> AsyncGenerator[Pool]:
    pool = create_pool(servers["PAYMENTS_WORKER_DATABASE_URL"])
    await pool.open()
    yield pool
    await pool.close()


class Inventory:
    """Tells of holds on the topic, and payments handles it, or does not."""

    def __init__(self, producer: AIOKafkaProducer, pool: Pool) -> None:
        self._producer = producer
        self._pool = pool

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self._producer.send_and_wait(
                message.TOPIC,
                msgspec.json.encode(message),
                key=str(getattr(message, message.KEY)).encode(),
                headers=[("ce_id", str(new_id()).encode()), ("ce_type", message.TYPE.encode())],
            )

    async def handle(self, *messages: Message) -> None:
        for message in messages:
            async with transaction(self._pool) as conn:
                await HANDLERS[type(message)](conn, message)


@pytest_asyncio.fixture
async def inventory(servers: dict[str, str], pool: Pool) -> AsyncGenerator[Inventory]:
    producer = AIOKafkaProducer(bootstrap_servers=servers["KAFKA_BROKERS"])
    await producer.start()
    yield Inventory(producer, pool)
    await producer.stop()


def placed() -> HoldPlaced:
    seat = HeldSeat(
        seat_id=new_id(), section="A", row="1", seat_number=1, tier_id=new_id(), amount_minor=4500
    )
    return HoldPlaced(
        hold_id=new_id(),
        event_id=new_id(),
        user_id=new_id(),
        seats=[seat],
        amount_minor=4500,
        currency="eur",
        placed_at=NOW,
        expires_at=NOW + timedelta(minutes=10),
    )


def story(kind: str) -> list[Any]:
    """A hold and how it went on."""
    hold = placed()
    ids: dict[str, Any] = {"hold_id": hold.hold_id, "event_id": hold.event_id, "user_id": hold.user_id}
    extended = HoldExtended(**ids, order_id=new_id(), expires_at=NOW + timedelta(minutes=15))
    match kind:
        case "extended":
            return [hold, extended]
        case "lost":
            return [hold, HoldLost(**ids, order_id=new_id(), reason="expired")]
        case "released":
            return [hold, HoldReleased(**ids, reason="buyer")]
        case "expired":
            return [hold, HoldExpired(**ids, expired_at=hold.expires_at)]
        case "revived":
            return [hold, HoldExpired(**ids, expired_at=hold.expires_at), extended]
        case "confirmed":
            return [hold, extended, HoldConfirmed(**ids, order_id=extended.order_id)]
        case _:
            return [hold]


async def rebuilt(servers: dict[str, str], projection: Any = HOLDS) -> Result:
    return await rebuild(
        projection,
        database_url=servers["PAYMENTS_WORKER_DATABASE_URL"],
        kafka_brokers=servers["KAFKA_BROKERS"],
    )


async def rows(pool: Pool, query: Any, *parameters: Any) -> list[tuple[Any, ...]]:
    async with pool.connection() as conn:
        return await (await conn.execute(query, parameters)).fetchall()


async def holds(pool: Pool) -> list[tuple[Any, ...]]:
    return await rows(pool, "SELECT * FROM holds ORDER BY id")


async def order(servers: dict[str, str], hold_id: UUID) -> UUID:
    """A pending order that has the hold, as a checkout leaves it."""
    order_id = new_id()
    async with await psycopg.AsyncConnection.connect(servers["ADMIN_DATABASE_URL"]) as conn:
        await conn.execute(
            """
            INSERT INTO payments.orders
                   (id, hold_id, event_id, user_id, status, amount_minor, currency, seats, expires_at)
            SELECT %(order_id)s, id, event_id, user_id, 'pending', amount_minor, currency, seats, expires_at
              FROM payments.holds WHERE id = %(hold_id)s
            """,
            {"order_id": order_id, "hold_id": hold_id},
        )
        await conn.execute("UPDATE payments.holds SET order_id = %s WHERE id = %s", [order_id, hold_id])
    return order_id


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda each: each.name)
def test_rebuild_handles_every_message_of_its_topics_that_the_worker_handles(projection: Projection) -> None:
    handled = {message for message in HANDLERS if message.TOPIC in projection.topics}
    assert set(projection.handlers) == handled


async def test_damaged_and_lost_holds_come_back_and_keep_their_orders(
    servers: dict[str, str], pool: Pool, inventory: Inventory
) -> None:
    kinds = ("active", "extended", "lost", "released", "expired", "revived", "confirmed")
    stories = [story(kind) for kind in kinds]
    for messages in stories:
        await inventory.say(*messages)
        await inventory.handle(*messages)
    # Told of before the topic begins: its placing is not there, or nothing at all.
    half_told, forgotten = story("released"), story("active")
    await inventory.handle(*half_told, *forgotten)
    await inventory.say(half_told[1])
    await order(servers, stories[1][0].hold_id)
    before = await holds(pool)
    assert (await rebuilt(servers)).changed == 0

    async with await psycopg.AsyncConnection.connect(servers["ADMIN_DATABASE_URL"]) as conn:
        told = [messages[0].hold_id for messages in stories]
        await conn.execute(
            "UPDATE payments.holds"
            " SET amount_minor = 1, status = 'active', expires_at = now(), expired_at = now()"
            " WHERE id = ANY (%s)",
            [told],
        )
        await conn.execute("DELETE FROM payments.holds WHERE id = ANY (%s)", [told[2:4]])
    assert (await rebuilt(servers)).changed == len(stories)
    assert await holds(pool) == before


async def test_end_of_a_hold_that_payments_had_not_heard_of_cancels_its_order(
    servers: dict[str, str], pool: Pool, inventory: Inventory
) -> None:
    hold, lost = story("lost")
    await inventory.say(hold, lost)
    await inventory.handle(hold)
    order_id = await order(servers, hold.hold_id)
    await rebuilt(servers)
    jobs = await rows(pool, "SELECT kind, reason FROM stripe_jobs WHERE order_id = %s", order_id)
    assert jobs == [("cancel_intent", "hold_ended")]


async def test_message_about_a_hold_that_comes_meanwhile_is_not_lost(
    servers: dict[str, str], pool: Pool, inventory: Inventory
) -> None:
    # One that payments knows, with a price that is wrong, and one that it had not heard of.
    known, unknown = story("released"), story("released")
    await inventory.say(known[0], unknown[0])
    await inventory.handle(known[0])
    async with transaction(pool) as conn:
        await conn.execute("UPDATE holds SET amount_minor = 1")
    released = {messages[0].hold_id: messages for messages in (known, unknown)}

    async def lock(conn: Conn, hold_id: UUID) -> None:
        if hold_id in released:
            await inventory.say(released[hold_id][1])
            await inventory.handle(*released[hold_id])
        await HOLDS.lock(conn, hold_id)

    await rebuilt(servers, replace(HOLDS, lock=lock))
    found = await rows(pool, "SELECT status, amount_minor FROM holds WHERE id = ANY (%s)", list(released))
    assert found == [("released", 4500)] * 2
