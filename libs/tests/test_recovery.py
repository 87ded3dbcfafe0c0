"""A subscription whose Kafka, database, handler or process goes away: it goes on soon, and loses nothing."""

import asyncio
import os
import signal
from typing import Any

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from contracts.messages import HoldReleased
from embedded.stack import Stack
from libs.messaging import subscriptions
from libs.messaging.heartbeat import Heartbeat
from libs.postgres import Conn, Pool, create_pool, is_transient
from messaging_support import (
    DEAD_LETTERS,
    effects,
    eventually,
    has_effect,
    note,
    producing,
    read_all,
    released,
    running,
    send,
    subscription,
)
from psycopg_pool import PoolTimeout


async def test_database_whose_connections_die_again_and_again_costs_no_message(
    pool: Pool, kafka_brokers: str, admin: psycopg.Connection
) -> None:
    messages = [released() for _ in range(200)]

    async def slow(conn: Conn, message: HoldReleased) -> None:
        await note(conn, message)
        await asyncio.sleep(0.002)

    work = subscription(pool, kafka_brokers, {HoldReleased: slow})
    before = len(await read_all(kafka_brokers, DEAD_LETTERS))
    async with (
        producing(kafka_brokers) as producer,
        running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())),
    ):
        for first in range(0, len(messages), 40):
            await asyncio.gather(*(send(producer, each) for each in messages[first : first + 40]))
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'payments_worker' AND application_name = 'ticketing'"
            )

        async def all_had_their_effect() -> bool:
            try:
                return await has_effect(pool, *messages)
            except psycopg.OperationalError:  # ours were ended too
                return False

        await eventually(all_had_their_effect)
    assert len(await read_all(kafka_brokers, DEAD_LETTERS)) == before


async def test_server_that_is_read_only_for_a_while_costs_no_message(
    pool: Pool, kafka_brokers: str, database_url: str, admin: psycopg.Connection
) -> None:
    message = released()
    heartbeat = Heartbeat()
    before = len(await read_all(kafka_brokers, DEAD_LETTERS))

    async def tells() -> bool:
        return heartbeat.status()[1] == "consumer: waiting for the database: ReadOnlySqlTransaction"

    admin.execute("ALTER ROLE payments_worker SET default_transaction_read_only = on")
    try:
        # One connection: another would be a new one, which may write.
        async with producing(kafka_brokers) as producer, create_pool(database_url, max_size=1) as own_pool:
            work = subscription(own_pool, kafka_brokers, {HoldReleased: note})
            async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=heartbeat)):
                await send(producer, message)
                await eventually(tells)
                # From now on for new connections: the one there is stays as it is.
                admin.execute("ALTER ROLE payments_worker RESET default_transaction_read_only")
                await eventually(lambda: has_effect(pool, message))
    finally:
        admin.execute("ALTER ROLE payments_worker RESET default_transaction_read_only")
    assert len(await read_all(kafka_brokers, DEAD_LETTERS)) == before


@pytest.mark.parametrize(
    ("sqlstate", "passes"),
    [
        ("08006", True),  # the connection broke
        ("25006", True),  # read-only transaction
        ("25P03", True),  # stopped for longer than a transaction may be idle
        ("40001", True),  # could not serialize
        ("40P01", True),  # deadlock
        ("53100", True),  # disk full
        ("53300", True),  # too many connections
        ("55P03", True),  # lock time-out
        ("57014", True),  # statement time-out
        ("57P01", True),  # shut down by an administrator
        ("57P02", True),  # crash
        ("57P03", True),  # starting up
        ("22001", False),  # value too long
        ("23505", False),  # unique violation
        ("25P02", False),  # after an error in the same transaction
        ("42501", False),  # may not
        ("42P01", False),  # no such table
    ],
)
def test_what_passes_is_told_from_what_is_wrong(sqlstate: str, passes: bool) -> None:
    assert is_transient(psycopg.errors.lookup(sqlstate)()) == passes


def test_time_out_of_the_pool_and_a_connection_that_was_never_made_pass() -> None:
    assert is_transient(PoolTimeout())
    assert is_transient(psycopg.OperationalError("connection refused"))
    assert not is_transient(ValueError("08006"))


async def test_handler_that_never_comes_back_is_left_and_the_message_handled_anew(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "HANGING_SECONDS", 1.0)
    message = released()
    hangs = [True]

    async def handle(conn: Conn, each: HoldReleased) -> None:
        if each == message and hangs:
            hangs.clear()
            await asyncio.Event().wait()
        await note(conn, each)

    async with producing(kafka_brokers) as producer:
        await send(producer, message)
    work = subscription(pool, kafka_brokers, {HoldReleased: handle})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())):
        await eventually(lambda: has_effect(pool, message))


async def test_consumer_whose_handler_does_not_come_back_is_not_ready_though_it_was_started(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "STUCK_SECONDS", 2.0)
    monkeypatch.setattr(subscriptions, "PROBE_SECONDS", 0.5)
    message, may_end, heartbeat = released(), asyncio.Event(), Heartbeat()

    async def handle(conn: Conn, each: HoldReleased) -> None:
        if each == message:
            await may_end.wait()
        await note(conn, each)

    async def is_told() -> bool:
        return heartbeat.status()[1].startswith("consumer: no progress for ")

    async def is_ready() -> bool:
        return heartbeat.status() == ("ready", "")

    async with producing(kafka_brokers) as producer:
        await send(producer, message)
    work = subscription(pool, kafka_brokers, {HoldReleased: handle})
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=heartbeat)):
        await eventually(is_told)
        may_end.set()
        await eventually(lambda: has_effect(pool, message))
        await eventually(is_ready)


@pytest.mark.parametrize("can_ask", [True, False])
async def test_consumer_that_stops_reading_is_built_anew(
    pool: Pool, kafka_brokers: str, monkeypatch: pytest.MonkeyPatch, can_ask: bool
) -> None:
    monkeypatch.setattr(subscriptions, "STUCK_SECONDS", 2.0)
    monkeypatch.setattr(subscriptions, "PROBE_SECONDS", 0.5)
    first, second = released(), released()
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    async with (
        producing(kafka_brokers) as producer,
        running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())),
    ):
        await send(producer, first)
        await eventually(lambda: has_effect(pool, first))

        is_asked = asyncio.Event()

        async def nothing_comes(**_: Any) -> dict[Any, Any]:
            is_asked.set()
            await asyncio.sleep(0.1)
            return {}

        async def no_answer(_: Any) -> dict[Any, Any]:
            raise KafkaConnectionError("to this consumer alone")

        work._consumer.getmany = nothing_comes  # pyright: ignore[reportPrivateUsage]
        if not can_ask:
            work._consumer.end_offsets = no_answer  # pyright: ignore[reportPrivateUsage]
        await is_asked.wait()  # what was asked before would get the message
        await send(producer, second)
        await eventually(lambda: has_effect(pool, second))


async def test_consumer_tells_that_kafka_is_away_and_goes_on_soon_after_it_is_back(
    pool: Pool, kafka_brokers: str, stack: Stack
) -> None:
    heartbeat = Heartbeat()
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    before, after = released(), released()
    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=heartbeat)):
        async with producing(kafka_brokers) as producer:
            await send(producer, before)
        await eventually(lambda: has_effect(pool, before))
        await asyncio.to_thread(stack.stop, ["kafka"])

        async def tells() -> bool:
            return heartbeat.status() == ("waiting", "consumer: waiting for Kafka")

        await eventually(tells)
        await asyncio.to_thread(stack.start, ["kafka"])
        async with producing(kafka_brokers) as producer:
            await send(producer, after)
        await eventually(lambda: has_effect(pool, after), seconds=15)


async def test_consumer_stays_a_member_of_its_group_while_kafka_is_away(
    pool: Pool, kafka_brokers: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one would have to wait for the end of the old one's session."""
    monkeypatch.setattr(subscriptions, "PROBE_SECONDS", 0.3)
    heartbeat = Heartbeat()
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    before, after = released(), released()

    async def tells() -> bool:
        return heartbeat.status() == ("waiting", "consumer: waiting for Kafka")

    async with running(work.run(kafka_brokers=kafka_brokers, heartbeat=heartbeat)):
        async with producing(kafka_brokers) as producer:
            await send(producer, before)
        await eventually(lambda: has_effect(pool, before))
        members = await members_of_group(kafka_brokers)
        await asyncio.to_thread(stack.stop, ["kafka"])
        await eventually(tells)
        with monkeypatch.context() as patch:
            patch.setattr(subscriptions, "STUCK_SECONDS", 3.0)
            await asyncio.sleep(5.0)  # their passing is what is tested
        await asyncio.to_thread(stack.start, ["kafka"])
        async with producing(kafka_brokers) as producer:
            await send(producer, after)
        await eventually(lambda: has_effect(pool, after))

        async def are_the_same() -> bool:  # once Kafka has loaded its groups
            return await members_of_group(kafka_brokers) == members

        await eventually(are_the_same)


async def members_of_group(kafka_brokers: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_brokers)
    await admin.start()
    try:
        response: Any
        [response] = await admin.describe_consumer_groups(["payments"])
        [group] = response.groups
        return [member[0] for member in group[5]]
    finally:
        await admin.close()


async def test_kafka_paused_for_longer_than_a_session_costs_no_message(
    pool: Pool, kafka_brokers: str, stack: Stack
) -> None:
    work = subscription(pool, kafka_brokers, {HoldReleased: note})
    before, after = released(), released()
    kafka = pid_of(stack, "kafka")
    async with (
        producing(kafka_brokers) as producer,
        running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())),
    ):
        await send(producer, before)
        await eventually(lambda: has_effect(pool, before))
        os.kill(kafka, signal.SIGSTOP)
        await asyncio.sleep(subscriptions.SESSION_MILLISECONDS / 1000 + 1)  # its passing is what is tested
        os.kill(kafka, signal.SIGCONT)
        await send(producer, after)
        await eventually(lambda: has_effect(pool, after), seconds=15)


async def test_postgresql_that_crashes_half_way_costs_no_message(
    pool: Pool, kafka_brokers: str, stack: Stack
) -> None:
    messages = [released() for _ in range(100)]
    is_half_way = asyncio.Event()

    async def slow(conn: Conn, message: HoldReleased) -> None:
        await note(conn, message)
        if message == messages[50]:
            is_half_way.set()
        await asyncio.sleep(0.005)

    work = subscription(pool, kafka_brokers, {HoldReleased: slow})
    async with (
        producing(kafka_brokers) as producer,
        running(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat())),
    ):
        await asyncio.gather(*(send(producer, each) for each in messages))
        await is_half_way.wait()
        os.kill(pid_of(stack, "postgres"), signal.SIGQUIT)  # what pg_ctl -m immediate does
        await asyncio.to_thread(stack.start, ["postgres"])

        async def all_had_their_effect() -> bool:
            try:
                return await has_effect(pool, *messages)
            except (psycopg.OperationalError, PoolTimeout):
                return False

        await eventually(all_had_their_effect, seconds=15)


def pid_of(stack: Stack, name: str) -> int:
    pid = stack.supervisor.processes()[name].pid
    assert pid
    return pid


async def test_consumer_killed_again_and_again_and_joined_by_another_loses_and_doubles_nothing(
    pool: Pool, kafka_brokers: str
) -> None:
    messages = [released() for _ in range(300)]
    async with producing(kafka_brokers) as producer:
        await asyncio.gather(*(send(producer, each) for each in messages))

    async def slow(conn: Conn, message: HoldReleased) -> None:
        await note(conn, message)
        await asyncio.sleep(0.001)

    async def seen() -> int:
        async with pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT count(*) FROM effects WHERE key = ANY (%s)",
                [[str(each.hold_id) for each in messages]],
            )
            row = await cursor.fetchone()
            return row[0] if row else 0

    for _ in range(3):
        work = subscription(pool, kafka_brokers, {HoldReleased: slow})
        task = asyncio.create_task(work.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat()))
        done, _ = await asyncio.wait([task], timeout=0.7)
        assert not done
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def all_seen() -> bool:
        return await seen() >= len(messages)

    works = [subscription(pool, kafka_brokers, {HoldReleased: slow}) for _ in range(2)]
    async with running(*(each.run(kafka_brokers=kafka_brokers, heartbeat=Heartbeat()) for each in works)):
        await eventually(all_seen)
    for message in messages:
        assert await effects(pool, message.hold_id) == [str(message.event_id)]
