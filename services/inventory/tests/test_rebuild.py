"""Projections thrown away and built again from their topics, while buyers buy and the worker works."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from contracts.messages import EventPublished, UserDisabled
from embedded.services import DEFAULTS
from embedded.testing import running_stack
from inventory.consumers import HANDLERS
from inventory.rebuild import PROJECTIONS
from libs.ids import new_id
from libs.messaging.rebuilds import CannotRebuild, Projection
from libs.messaging.topics import create_topics
from libs.migrations import migrate, services_from_environment
from libs.postgres import Conn, Pool, transaction
from libs.testing import Tokens
from msgspec.structs import replace

from services.inventory.tests.rebuild_support import (
    CATALOG,
    REVOCATIONS,
    Topics,
    buy,
    command,
    eventually,
    execute,
    in_parts,
    known,
    projection_tables,
    put_on_sale,
    rebuilt,
    rows,
    working,
)
from services.inventory.tests.support import Buyer, Deliver, make_event

# They share a Kafka whose topics hold the messages of all of them: one after another.
pytestmark = pytest.mark.xdist_group("rebuild")


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Servers of its own: a rebuild reads everything that its topics hold."""
    with running_stack(("postgres", "kafka", "redis")) as stack, pytest.MonkeyPatch.context() as patch:
        environment = stack.environment()
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("JWKS_URL", "http://127.0.0.1:1/no-auth-here")
        # Whoever looks all the time, from one address, looks as often as the machine is slow.
        patch.setenv("RATE_LIMIT_MAX", DEFAULTS["RATE_LIMIT_MAX"])
        folder = Path(__file__).parents[1] / "migrations"
        migrate(environment["ADMIN_DATABASE_URL"], services_from_environment([folder]))
        asyncio.run(create_topics(environment["KAFKA_BROKERS"]))
        yield environment


@pytest_asyncio.fixture
async def topics(environment: dict[str, str]) -> AsyncGenerator[Topics]:
    producer = AIOKafkaProducer(bootstrap_servers=environment["KAFKA_BROKERS"])
    await producer.start()
    yield Topics(producer)
    await producer.stop()


@pytest_asyncio.fixture
async def worker(environment: dict[str, str], worker_pool: Pool) -> AsyncGenerator[None]:
    async with working(environment, worker_pool):
        yield


async def test_rebuilt_projection_is_the_live_one_while_buyers_buy_and_the_catalog_changes(
    environment: dict[str, str],
    worker: None,
    topics: Topics,
    worker_pool: Pool,
    client: httpx.AsyncClient,
    deliver: Deliver,
    tokens: Tokens,
) -> None:
    events = await put_on_sale(topics, worker_pool)
    on_sale = events[:4]
    before = await projection_tables(worker_pool)
    stop = asyncio.Event()
    bought: list[UUID] = []

    async def buy_and_let_go(number: int) -> None:
        for event in on_sale:
            for seat_id in event.seat_ids[number::3]:
                if stop.is_set():
                    return
                buyer = Buyer(client, tokens)  # each may hold so many times a minute
                hold = await buyer.try_hold(event.event_id, [seat_id])
                assert hold.status_code == 200, hold.text
                path = f"/reservations/{hold.json()['id']}"
                assert (await client.delete(path, headers=buyer.headers)).status_code == 204
                if await buy(Buyer(client, tokens), deliver, event.event_id, [seat_id]):
                    bought.append(seat_id)

    async def look() -> None:
        while not stop.is_set():
            for event in on_sale:
                answer = await client.get(f"/events/{event.event_id}/seats")
                assert answer.status_code == 200
                assert {each["id"] for each in answer.json()} == {str(each) for each in event.seat_ids}

    async def change() -> list[EventPublished]:
        newest = [on_sale[0].published]
        while not stop.is_set():
            tier = replace(newest[0].tiers[0], amount_minor=newest[0].tiers[0].amount_minor + 1)
            newest[0] = replace(newest[0], version=newest[0].version + 1, tiers=[tier])
            await topics.send(newest[0])
            await known(worker_pool, newest[0])
        added = make_event(10)
        await topics.send(added.published, added.seat_map)
        return [newest[0], added.published]

    changing = asyncio.create_task(change())
    traffic = [asyncio.create_task(look()), *(asyncio.create_task(buy_and_let_go(i)) for i in range(3))]
    for _ in range(6):
        assert (await rebuilt(environment)).changed <= 2  # what the worker had not handled yet
    stop.set()
    await asyncio.gather(*traffic)
    assert bought
    await known(worker_pool, *await changing)
    after = await projection_tables(worker_pool)
    # Nothing that was not changed on purpose is different, and each seat belongs to whom it was sold.
    changed = on_sale[0].event_id
    for table in ("events", "section_prices", "seat_map_parts"):
        unchanged = [row for row in before[table] if row[0] != changed]
        assert [row for row in after[table] if row in unchanged] == unchanged, table
    places = [row[:5] for row in before["event_seats"]]
    assert [row[:5] for row in after["event_seats"] if row[:5] in places] == places
    sold = await rows(
        worker_pool,
        "SELECT event_id, seat_id, order_id FROM tickets WHERE status <> 'void' ORDER BY event_id, seat_id",
    )
    assert {seat_id for _, seat_id, _ in sold} == set(bought)
    assert [(row[0], row[1], row[6]) for row in after["event_seats"] if row[6]] == sold
    # With nobody about, a rebuild finds nothing to change.
    assert (await rebuilt(environment)).changed == 0
    assert await projection_tables(worker_pool) == after


async def test_damaged_and_lost_rows_come_back_with_the_seats_owners(
    environment: dict[str, str],
    worker: None,
    topics: Topics,
    worker_pool: Pool,
    client: httpx.AsyncClient,
    deliver: Deliver,
    tokens: Tokens,
) -> None:
    events = await put_on_sale(topics, worker_pool)
    for event in events[:4]:
        ids = event.seat_ids
        assert await buy(Buyer(client, tokens), deliver, event.event_id, ids[:2])
        await Buyer(client, tokens).hold(event.event_id, ids[2:4])
        let_go = Buyer(client, tokens)
        hold = await let_go.hold(event.event_id, ids[4:5])
        await client.delete(f"/reservations/{hold['id']}", headers=let_go.headers)
    before = await projection_tables(worker_pool)
    everything = await rows(worker_pool, "SELECT * FROM event_seats ORDER BY event_id, seat_id")

    plain, parts, changed, second_map, _ = (event.event_id for event in events)
    await execute(environment, "DELETE FROM events WHERE event_id = %(event_id)s", event_id=plain)
    await execute(
        environment,
        "UPDATE events SET version = 999, status = 'cancelled' WHERE event_id = %(event_id)s",
        "UPDATE event_seats SET section = 'Z', seat_number = 7 WHERE event_id = %(event_id)s",
        event_id=parts,
    )
    await execute(
        environment,
        "UPDATE section_prices SET amount_minor = 1 WHERE event_id = %(event_id)s",
        "INSERT INTO section_prices VALUES (%(event_id)s, 'Z', %(event_id)s, 1)",
        "INSERT INTO event_seats VALUES (%(event_id)s, %(event_id)s, 'Z', NULL, NULL)",
        event_id=changed,
    )
    await execute(
        environment,
        "INSERT INTO seat_map_parts VALUES (%(event_id)s, 9, 1, 2, '[]')",
        "UPDATE events SET built_version = NULL WHERE event_id = %(event_id)s",
        event_id=second_map,
    )
    done = await asyncio.to_thread(command, "-m", "inventory.rebuild", "catalog")
    assert done.returncode == 0, done.stderr
    assert ": 4 of " in done.stdout
    assert await projection_tables(worker_pool) == before
    assert await rows(worker_pool, "SELECT * FROM event_seats ORDER BY event_id, seat_id") == everything

    # Thrown away whole.
    async with await psycopg.AsyncConnection.connect(environment["ADMIN_DATABASE_URL"]) as conn:
        await conn.execute("SET search_path = inventory")
        await conn.execute("TRUNCATE events, section_prices, seat_map_parts, event_seats")
    assert (await rebuilt(environment)).changed > 4
    assert await projection_tables(worker_pool) == before
    # And they sell as before: the sold and the held ones not, the others yes.
    answer = await Buyer(client, tokens).try_hold(plain, events[0].seat_ids[1:6])
    assert answer.json()["seatIds"] == [str(each) for each in events[0].seat_ids[1:4]]
    assert await buy(Buyer(client, tokens), deliver, plain, events[0].seat_ids[4:6])


async def test_rebuild_killed_halfway_leaves_whole_events_and_runs_again(
    environment: dict[str, str], worker: None, topics: Topics, worker_pool: Pool
) -> None:
    events = await put_on_sale(topics, worker_pool)
    before = await projection_tables(worker_pool)
    async with await psycopg.AsyncConnection.connect(environment["ADMIN_DATABASE_URL"]) as conn:
        await conn.execute("UPDATE inventory.section_prices SET amount_minor = 1, tier_id = event_id")
        await conn.execute("UPDATE inventory.event_seats SET section = 'Z'")
    killed = (
        "import os, sys\n"
        "from inventory import rebuild\n"
        "from inventory.queries import rebuilds as queries\n"
        "real, done = queries.replace_event, []\n"
        "async def replace(conn, event_id):\n"
        "    changed = await real(conn, event_id)\n"
        "    done.append(changed)\n"
        "    if sum(done) == 3: os.kill(os.getpid(), 9)\n"
        "    return changed\n"
        "import msgspec\n"
        "projection = msgspec.structs.replace(rebuild.PROJECTIONS[0], replace=replace)\n"
        "sys.argv[1:] = ['catalog']\n"
        "sys.exit(rebuild.main('inventory', (projection,)))\n"
    )
    died = await asyncio.to_thread(command, "-c", killed)
    assert died.returncode == -signal.SIGKILL, died.stderr

    async def stages() -> set[tuple[Any, ...]]:
        return set(
            await rows(
                worker_pool,
                """
                SELECT DISTINCT event_id, seat.section = 'Z', price.amount_minor = 1
                  FROM event_seats seat JOIN section_prices price USING (event_id)
                 WHERE event_id = ANY (%s)
                """,
                [event.event_id for event in events],
            )
        )

    # Each event is as it was or as it should be, nothing in between.
    assert all(bad_seats == bad_prices for _, bad_seats, bad_prices in await stages())
    await rebuilt(environment)
    assert await projection_tables(worker_pool) == before


async def test_message_that_comes_while_an_event_is_replaced_is_not_lost(
    environment: dict[str, str], worker: None, topics: Topics, worker_pool: Pool
) -> None:
    event = make_event(10)
    await topics.send(event.published, event.seat_map)
    await known(worker_pool, event.published)
    newer = replace(event.published, version=3, seat_map_version=2)
    half, other_half = in_parts(event, 5, version=2)

    async def lock(conn: Conn, event_id: UUID) -> None:
        """Between the copy and the lock the worker hears of a new version and of half of its map."""
        if event_id == event.event_id and deadlocks:
            await topics.send(half, newer)

            async def heard() -> bool:
                found = await rows(
                    worker_pool,
                    "SELECT 1 FROM events JOIN seat_map_parts USING (event_id)"
                    " WHERE event_id = %s AND events.version = 3",
                    event_id,
                )
                return bool(found)

            await eventually(heard)
        await CATALOG.lock(conn, event_id)

    deadlocks = [psycopg.errors.DeadlockDetected()]

    async def replace_event(conn: Conn, event_id: UUID) -> bool:
        """The copy has heard it too by now; a rollback makes it forget."""
        if event_id == event.event_id and deadlocks:
            raise deadlocks.pop()
        return await CATALOG.replace(conn, event_id)

    await rebuilt(environment, replace(CATALOG, lock=lock, replace=replace_event))
    assert not deadlocks
    await topics.send(other_half)
    await known(worker_pool, newer)


async def test_worker_that_is_behind_finds_nothing_left_to_do(
    environment: dict[str, str], topics: Topics, worker_pool: Pool
) -> None:
    event = make_event(10)
    await topics.send(event.published, *in_parts(event, 4))
    await rebuilt(environment)
    before = await projection_tables(worker_pool)
    assert len([row for row in before["event_seats"] if row[0] == event.event_id]) == 10
    marker = make_event(0)
    await topics.send(marker.published)
    async with working(environment, worker_pool):
        await known(worker_pool, marker.published)
    after = await projection_tables(worker_pool)
    after["events"] = [row for row in after["events"] if row[0] != marker.event_id]
    after["section_prices"] = [row for row in after["section_prices"] if row[0] != marker.event_id]
    assert after == before


async def test_what_no_topic_tells_of_is_deleted_only_when_that_is_asked_for(
    environment: dict[str, str], worker: None, topics: Topics, worker_pool: Pool, deliver: Deliver
) -> None:
    event, stray = make_event(10), make_event(10)
    await topics.send(event.published, event.seat_map)
    await known(worker_pool, event.published)
    before = await projection_tables(worker_pool)
    await deliver(stray.published, stray.seat_map)
    with_stray = await projection_tables(worker_pool)
    refused = await asyncio.to_thread(command, "-m", "inventory.rebuild", "catalog")
    assert refused.returncode == 1
    assert f"of 1 the topics tell nothing, of {stray.event_id} for one" in refused.stderr
    assert await projection_tables(worker_pool) == with_stray
    await rebuilt(environment, forget=True)
    assert await projection_tables(worker_pool) == before


async def test_garbage_on_the_topics_is_counted_and_stops_nothing(
    environment: dict[str, str], worker: None, topics: Topics, worker_pool: Pool
) -> None:
    before = (await rebuilt(environment)).skipped
    await topics.send_garbage("catalog.events", b"not json")
    await topics.send_garbage("catalog.seat-maps", None)
    await topics.send_unreadable("catalog.events")
    event = make_event(10)
    # No integer column takes it: the worker makes it a dead letter.
    await topics.send(replace(event.published, version=2**40))
    await topics.send(event.published, event.seat_map)
    await known(worker_pool, event.published)
    done = await asyncio.to_thread(command, "-m", "inventory.rebuild", "catalog")
    assert done.returncode == 0, done.stderr
    assert f"{before + 3} messages could not be handled" in done.stdout
    assert ": 0 of " in done.stdout


async def test_revocations_are_rebuilt_and_one_that_comes_meanwhile_is_not_lost(
    environment: dict[str, str], worker: None, topics: Topics, worker_pool: Pool
) -> None:
    now = datetime.now(UTC)
    wrong, lost, again, late, old = (new_id() for _ in range(5))
    await topics.send(
        *(UserDisabled(user_id=user, disabled_at=now) for user in (wrong, lost, again)),
        UserDisabled(user_id=old, disabled_at=now - timedelta(days=2)),
    )
    wanted = {wrong: now, lost: now, again: now + timedelta(seconds=1), late: now + timedelta(seconds=2)}

    async def live() -> dict[UUID, datetime]:
        found = await rows(worker_pool, "SELECT user_id, not_before FROM token_revocations")
        return {user: at for user, at in found if user in wanted}

    async def all_known() -> bool:
        return set(await live()) == {wrong, lost, again}

    await eventually(all_known)
    async with transaction(worker_pool) as conn:
        await conn.execute("DELETE FROM token_revocations WHERE user_id = ANY (%s)", [[lost, old]])
        await conn.execute(
            "UPDATE token_revocations SET not_before = %s WHERE user_id = %s",
            [now + timedelta(days=300), wrong],
        )

    async def lock(conn: Conn, user_id: UUID) -> None:
        if user_id in (again, wrong):
            await topics.send(
                UserDisabled(user_id=again, disabled_at=wanted[again]),
                UserDisabled(user_id=late, disabled_at=wanted[late]),
            )

            async def heard() -> bool:
                return (await live()).get(late) == wanted[late]

            await eventually(heard)
        await REVOCATIONS.lock(conn, user_id)

    await rebuilt(environment, replace(REVOCATIONS, lock=lock))
    assert await live() == wanted
    assert (await rebuilt(environment, REVOCATIONS)).changed == 0


async def test_topic_that_lost_its_first_messages_is_no_source_of_a_rebuild(
    environment: dict[str, str], worker: None, topics: Topics, worker_pool: Pool
) -> None:
    # The last test of this file: the topic cannot be had back.
    event = make_event(10)
    await topics.send(event.published, event.seat_map)
    await known(worker_pool, event.published)
    before = await projection_tables(worker_pool)
    admin = AIOKafkaAdminClient(bootstrap_servers=environment["KAFKA_BROKERS"])
    await admin.start()
    place = TopicPartition("catalog.seat-maps", 0)
    for partition in range(3):
        place = TopicPartition("catalog.seat-maps", partition)
        await admin.delete_records({place: RecordsToDelete(before_offset=-1)})
    await admin.close()
    with pytest.raises(CannotRebuild, match=r"catalog\.seat-maps has lost its first messages"):
        await rebuilt(environment, forget=True)
    assert await projection_tables(worker_pool) == before


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda each: each.name)
def test_rebuild_handles_every_message_of_its_topics_that_the_worker_handles(projection: Projection) -> None:
    handled = {message for message in HANDLERS if message.TOPIC in projection.topics}
    assert set(projection.handlers) == handled


def test_command_says_what_is_wrong_in_one_line(environment: dict[str, str]) -> None:
    away = subprocess.run(
        (sys.executable, "-m", "inventory.rebuild", "catalog"),
        env={**os.environ, "KAFKA_BROKERS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (away.returncode, away.stdout, away.stderr.count("\n")) == (1, "", 1)
    assert "Kafka at 127.0.0.1:1 does not answer" in away.stderr
    assert "invalid choice: 'tickets'" in command("-m", "inventory.rebuild", "tickets").stderr
