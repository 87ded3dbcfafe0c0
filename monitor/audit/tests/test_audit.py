"""What is planted is found; and in a world in order nothing is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from audit.looks import Sources, Verdict, audit
from audit.report import CHECKS, report
from embedded.testing import running_stack, send_unreadable
from libs.migrations import migrate, services_from_environment

from monitor.audit.tests.plants import (
    PLANTS,
    message_that_stays_in_the_outbox,
    new_order,
    order_that_stays_paid,
    payment_that_we_do_not_know,
    refund_that_never_comes,
    sold_seat_without_ticket,
)
from monitor.audit.tests.world import World

ROOT = Path(__file__).parents[3]
TEMPLATE = "ticketing"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """A PostgreSQL with the services' tables, a Kafka and a Stripe, with nothing in them."""
    with running_stack(("postgres", "kafka", "stripe")) as stack:
        environment = stack.environment()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            folders = [
                ROOT / "services" / service / "migrations"
                for service in ("auth", "catalog", "inventory", "payments")
            ]
            migrate(environment["ADMIN_DATABASE_URL"], services_from_environment(folders))
        yield environment


@pytest.fixture
def sources(servers: dict[str, str]) -> Iterator[Sources]:
    """A database of the test's own, and a Stripe that has forgotten the test before."""
    url = servers["ADMIN_DATABASE_URL"]
    name = f"audited_{uuid4().hex[:8]}"
    server = url.replace(f"/{TEMPLATE}", "/postgres")
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}".encode())
    httpx.post(f"{servers['STRIPE_API_BASE']}/_emulator/reset", json={}).raise_for_status()
    yield Sources(
        url.replace(f"/{TEMPLATE}", f"/{name}"),
        servers["KAFKA_BROKERS"],
        servers["STRIPE_API_BASE"],
        servers["STRIPE_SECRET_KEY"],
    )
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def world(sources: Sources) -> Iterator[World]:
    headers = {"Authorization": f"Bearer {sources.stripe_secret_key}"}
    with (
        psycopg.connect(sources.database_url, autocommit=True) as conn,
        httpx.Client(base_url=sources.stripe_api_base, headers=headers) as stripe,
    ):
        yield World(conn, stripe)


def names(verdict: Verdict) -> set[str]:
    return {each.check.name for each in verdict.certain}


async def test_world_in_order_is_found_in_order(sources: Sources, world: World) -> None:
    world.sell()
    world.sell(seats=1)
    refunded = world.order(world.hold(*world.event(), status="released") | new_order(), "cancelled")
    intent = world.pay(refunded["amount"], refunded["order"])
    world.record(intent, refunded["order"], refunded["amount"])
    refund = world.refund(intent, refunded["amount"], refunded["order"])
    world.do(
        "INSERT INTO payments.refunds VALUES (%(id)s, %(intent)s, %(amount)s, 'eur', 'succeeded')",
        id=refund,
        intent=intent,
        amount=refunded["amount"],
    )
    verdict = await audit(sources, grace_seconds=0)
    assert verdict.certain == []
    assert verdict.exit_code == 0
    assert "Money, seats and messages agree." in report(verdict)
    [euros] = verdict.look.sums
    assert (euros.captured, euros.refunded, euros.tickets) == (31_500, 18_000, 13_500)


ON_KAFKA = {"dead-letters", "message-without-effect"}


def test_every_check_has_a_plant() -> None:
    assert {*PLANTS.values(), *ON_KAFKA} == {check.name for check in CHECKS}


def test_every_check_is_in_the_runbook() -> None:
    headings = (ROOT / "docs" / "runbooks" / "audit.md").read_text().splitlines()
    assert {f"## {check.name}" for check in CHECKS} <= set(headings)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
async def test_planted_inconsistency_is_found(
    sources: Sources, world: World, plant: Callable[[World], UUID | str]
) -> None:
    world.sell()
    id_ = str(plant(world))
    verdict = await audit(sources, grace_seconds=0)
    found = [each for each in verdict.certain if each.check.name == PLANTS[plant]]
    assert any(id_ in each.id or id_ in each.text for each in found), verdict.certain
    assert verdict.exit_code == 1
    assert f"FOUND ({PLANTS[plant]})" in report(verdict)


async def test_what_is_under_way_is_in_flight_and_no_fault(sources: Sources, world: World) -> None:
    order_that_stays_paid(world)
    refund_that_never_comes(world)
    payment_that_we_do_not_know(world)
    message_that_stays_in_the_outbox(world)
    world.do("UPDATE payments.orders SET paid_at = now() WHERE paid_at IS NOT NULL")
    world.do("UPDATE payments.orders SET refunding_at = now() WHERE refunding_at IS NOT NULL")
    world.do("UPDATE inventory.outbox SET created_at = now()")
    verdict = await audit(sources, grace_seconds=60)
    assert (verdict.certain, verdict.exit_code) == ([], 0)
    assert {each.check.name for each in verdict.in_flight} >= {"order-late", "outbox", "payment-unknown-here"}


async def test_what_passes_while_it_looks_is_no_fault(sources: Sources, world: World) -> None:
    """Void tickets of an order that does not know yet carry no time: they are looked at for the grace."""
    sold = world.sell()
    world.do("UPDATE inventory.tickets SET status = 'void'")
    world.do("UPDATE inventory.sales SET status = 'voided'")
    world.do("UPDATE inventory.event_seats SET sold_order_id = NULL")
    world.do(
        """
        CREATE FUNCTION payments.heal() RETURNS void LANGUAGE sql AS $$
            UPDATE payments.orders SET status = 'refunding', refund_reason = 'tickets_voided',
                   refunding_at = now() $$
        """
    )
    looked = 0

    class Healing(Sources):
        """The message arrives between the first look and the second."""

        @property
        def stripe_api_base(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
            nonlocal looked
            looked += 1
            if looked == 1:
                world.do("SELECT payments.heal()")
            return sources.stripe_api_base

    verdict = await audit(Healing(*sources), grace_seconds=30)
    assert looked > 1
    assert (verdict.certain, verdict.exit_code) == ([], 0), sold


async def test_dead_letter_and_message_without_effect_are_found(sources: Sources, world: World) -> None:
    world.sell()
    topics = ["audited.orders", "audited.orders.inventory.dlq", "dead-letters.audit"]
    admin = AIOKafkaAdminClient(bootstrap_servers=sources.kafka_brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    try:
        producer = AIOKafkaProducer(bootstrap_servers=sources.kafka_brokers)
        await producer.start()
        for topic, id_, type_ in (
            (topics[0], b"done", b"order.paid"),
            (topics[0], b"lost", b"order.paid"),
            (topics[0], b"given-up", b"order.paid"),
            (topics[0], b"no\0text", b"order.paid"),
            (topics[0], b"of-no-use", b"order.noted"),
            (topics[0], b"not-consumed-yet", b"order.paid"),
            (topics[1], b"given-up", b"order.paid"),
        ):
            if id_ == b"lost":
                await send_unreadable(producer, topic)
            await producer.send_and_wait(topic, b"{}", headers=[("ce_id", id_), ("ce_type", type_)])
        # Letters of which an operator has decided wait no more, nor do their copies.
        place = {"dlq_topic": "audited.orders", "dlq_partition": "0", "dlq_offset": "7", "dlq_timestamp": "1"}
        headers = [(name, text.encode()) for name, text in place.items()]
        for _ in range(2):
            await producer.send_and_wait(topics[1], b"{}", headers=headers)
        await producer.send_and_wait(topics[1], b"{}", headers=[*headers, ("dlq_replay", b"first#1")])
        for identity in ("audited.orders/0:7@1", "first#1"):
            decision = json.dumps({"topic": topics[1], "identity": identity, "action": "discarded"})
            await producer.send_and_wait(topics[2], decision.encode())
        await producer.stop()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=sources.kafka_brokers, group_id="inventory", enable_auto_commit=False
        )
        await consumer.start()
        consumer.assign([TopicPartition(topics[0], 0)])
        await consumer.commit({TopicPartition(topics[0], 0): 6})
        await consumer.stop()
        world.do("INSERT INTO inventory.inbox (message_id, consumer) VALUES ('done', 'inventory')")

        verdict = await audit(sources, grace_seconds=0)
        found = {each.check.name: each for each in verdict.certain}
        assert set(found) == ON_KAFKA, verdict.certain
        assert found["dead-letters"].id == topics[1]
        assert found["dead-letters"].text == "1 letters"
        assert found["message-without-effect"].id == "lost"
    finally:
        await admin.delete_topics(topics)
        await admin.close()


async def test_what_cannot_be_looked_at_is_said_and_is_not_well(sources: Sources, world: World) -> None:
    world.sell()
    nowhere = "http://127.0.0.1:1"
    verdict = await audit(
        sources._replace(kafka_brokers="127.0.0.1:1", stripe_api_base=nowhere), grace_seconds=0
    )
    assert (verdict.certain, verdict.exit_code) == ([], 2)
    assert [each.split()[0] for each in verdict.look.unseen] == ["Kafka", "Stripe"]
    sold_seat_without_ticket(world)
    verdict = await audit(sources._replace(stripe_api_base=nowhere), grace_seconds=0)
    assert verdict.exit_code == 1
    away = sources._replace(database_url="postgresql://nobody:x@127.0.0.1:1/x")
    assert (await audit(away, grace_seconds=0)).exit_code == 2


def test_command_needs_a_role_that_may_only_read(sources: Sources, world: World) -> None:
    world.sell()
    world.do("CREATE ROLE audited_reader LOGIN PASSWORD 'x' IN ROLE pg_read_all_data")
    environment = {
        "PATH": os.environ["PATH"],
        "ADMIN_DATABASE_URL": re.sub(r"//[^@]*@", "//audited_reader:x@", sources.database_url),
        "KAFKA_BROKERS": sources.kafka_brokers,
        "STRIPE_API_BASE": sources.stripe_api_base,
        "STRIPE_SECRET_KEY": sources.stripe_secret_key,
    }
    command = (sys.executable, "-m", "audit", "--grace", "0")

    def run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603

    done = run(environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    sold_seat_without_ticket(world)
    assert run(environment).returncode == 1
    for wrong in ("--grace=soon", "--days=-1", "--days=nan"):
        done = subprocess.run((*command, wrong), env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 2
        assert "invalid number from 0 on value" in done.stderr
    del environment["STRIPE_SECRET_KEY"]
    without = run(environment)
    assert without.returncode == 2
    assert "STRIPE_SECRET_KEY" in without.stderr
