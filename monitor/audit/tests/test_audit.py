"""Inconsistencies made by hand, each of which is found; and a world in order, in which nothing is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
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


def new_order() -> dict[str, Any]:
    return {"order": uuid4()}


# --- each plants one thing, and returns the id by which it is found


def seat_sold_twice(world: World) -> UUID:
    sold = world.sell()
    world.do("DROP INDEX inventory.tickets_valid_seat")
    world.ticket({**sold, "order": world.sell()["order"]}, sold["seat_ids"][0])
    return sold["seat_ids"][0]


def sold_seat_without_ticket(world: World) -> UUID:
    sold = world.sell()
    world.do("DELETE FROM inventory.tickets WHERE seat_id = %(seat)s", seat=sold["seat_ids"][0])
    return sold["seat_ids"][0]


def ticket_whose_seat_is_free(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE inventory.event_seats SET sold_order_id = NULL, hold_id = NULL")
    return sold["seat_ids"][1]


def held_seat_that_another_hold_has(world: World) -> UUID:
    event_id, seats = world.event()
    robbed = world.hold(event_id, seats[:2])
    world.hold(event_id, seats[1:3])
    return robbed["hold"]


def confirmed_hold_without_order(world: World) -> UUID:
    sold = world.sell()
    world.do("ALTER TABLE payments.payments DROP CONSTRAINT payments_order_id_fkey")
    world.do("DELETE FROM payments.orders")
    return sold["hold"]


def hold_past_its_deadline(world: World) -> UUID:
    hold = world.hold(*world.event())
    world.do("UPDATE inventory.holds SET expires_at = now() - interval '5 minutes'")
    return hold["hold"]


def cancelled_event_with_valid_tickets(world: World) -> UUID:
    sold = world.sell()
    world.do(
        "UPDATE catalog.events SET status = 'cancelled', version = 2, updated_at = now() - interval '1 hour'"
    )
    world.do("UPDATE inventory.events SET status = 'cancelled', version = 2")
    return sold["event"]


def fulfilled_order_with_too_few_tickets(world: World) -> UUID:
    sold = world.sell()
    seat = sold["seat_ids"][0]
    world.do("UPDATE inventory.tickets SET status = 'void' WHERE seat_id = %(seat)s", seat=seat)
    world.do("UPDATE inventory.event_seats SET sold_order_id = NULL WHERE seat_id = %(seat)s", seat=seat)
    return sold["order"]


def ticket_without_payment(world: World) -> UUID:
    sold = world.sell()
    world.do("DELETE FROM payments.payments")
    return sold["order"]


def tickets_of_an_order_that_expired(world: World) -> UUID:
    sold = world.sell()
    world.do(
        "UPDATE payments.orders"
        " SET status = 'expired', ended_at = paid_at, paid_at = NULL, fulfilled_at = NULL"
    )
    return sold["order"]


def tickets_of_another_user_than_the_buyer(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE inventory.tickets SET user_id = gen_random_uuid()")
    return sold["order"]


def fulfilled_order_of_which_inventory_knows_no_sale(world: World) -> UUID:
    sold = world.sell()
    world.do("DELETE FROM inventory.sales")
    return sold["order"]


def sale_that_was_rejected_after_all(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE inventory.sales SET status = 'rejected'")
    return sold["order"]


def order_of_another_amount_than_its_hold(world: World) -> UUID:
    sold = world.sell()
    world.do("UPDATE payments.orders SET amount_minor = 100")
    return sold["order"]


def hold_with_two_orders(world: World) -> UUID:
    sold = world.sell()
    world.do("ALTER TABLE payments.orders DROP CONSTRAINT orders_hold_id_key")
    world.order({**sold, "order": uuid4()}, "cancelled")
    return sold["hold"]


def hold_that_payments_never_heard_of(world: World) -> UUID:
    hold = world.hold(*world.event())
    world.do("DELETE FROM payments.holds WHERE id = %(hold)s", **hold)
    return hold["hold"]


def hold_that_payments_has_at_another_price(world: World) -> UUID:
    hold = world.hold(*world.event())
    world.do("UPDATE payments.holds SET amount_minor = 1 WHERE id = %(hold)s", **hold)
    return hold["hold"]


def event_that_inventory_has_in_part(world: World) -> UUID:
    event_id, seats = world.event()
    world.do("DELETE FROM inventory.event_seats WHERE seat_id = %(seat)s", seat=seats[0])
    return event_id


def payment_that_we_do_not_know(world: World) -> str:
    order = world.order(world.hold(*world.event(), status="released"), "cancelled")
    return world.pay(order["amount"], order["order"])


def payment_of_an_order_that_is_not_there(world: World) -> str:
    return world.pay(4500, uuid4())


def paid_order_that_stripe_does_not_know(world: World) -> str:
    sold = world.sell()
    world.do("ALTER TABLE payments.payments DROP CONSTRAINT IF EXISTS payments_pkey CASCADE")
    world.do(
        "UPDATE payments.payments SET payment_intent_id = 'pi_invented' WHERE order_id = %(order)s", **sold
    )
    return "pi_invented"


def captured_amount_that_differs(world: World) -> str:
    sold = world.sell()
    answer = world.stripe.put(f"/_emulator/payment_intents/{sold['intent']}", json={"amount": 1})
    assert answer.status_code == 200, answer.text
    return sold["intent"]


def payment_without_ticket_or_refund(world: World) -> UUID:
    hold = world.hold(*world.event(), status="released") | new_order()
    return world.order(hold, "cancelled", intent=world.pay(hold["amount"], hold["order"]))["order"]


def tickets_and_the_money_back(world: World) -> UUID:
    sold = world.sell()
    world.refund(sold["intent"], sold["amount"])
    return sold["order"]


def second_payment_of_an_order(world: World) -> UUID:
    sold = world.sell()
    world.record(world.pay(sold["amount"], sold["order"]), sold["order"], sold["amount"])
    return sold["order"]


def two_refunds_of_one_payment(world: World) -> str:
    sold = world.sell()
    for _ in range(2):
        world.refund(sold["intent"], 4500, sold["order"])
    return sold["intent"]


def refund_that_stripe_does_not_know(world: World) -> str:
    sold = world.sell()
    world.do(
        "INSERT INTO payments.refunds VALUES ('re_invented', %(intent)s, 4500, 'eur', 'succeeded')", **sold
    )
    return "re_invented"


def order_that_stays_paid(world: World) -> UUID:
    hold = world.hold(*world.event()) | new_order()
    return world.order(hold, "paid", intent=world.pay(hold["amount"], hold["order"]))["order"]


def order_that_stays_pending(world: World) -> UUID:
    return world.order(world.hold(*world.event()), "pending")["order"]


def refund_that_never_comes(world: World) -> UUID:
    hold = world.hold(*world.event(), status="released") | new_order()
    return world.order(hold, "refunding", intent=world.pay(hold["amount"], hold["order"]))["order"]


def money_that_no_ticket_explains(world: World) -> str:
    sold = world.sell()
    world.do("UPDATE inventory.tickets SET status = 'void' WHERE order_id = %(order)s", **sold)
    return f"eur {sold['amount']}"


def message_that_stays_in_the_outbox(world: World) -> str:
    world.do(
        "INSERT INTO inventory.outbox (topic, key, type, body, created_at)"
        " VALUES ('inventory.holds', 'k', 'hold.placed', '{}', now() - interval '1 hour')"
    )
    return "inventory.outbox/1"


PLANTS: dict[Callable[[World], UUID | str], str] = {
    seat_sold_twice: "seat-twice",
    sold_seat_without_ticket: "seat-without-ticket",
    ticket_whose_seat_is_free: "ticket-without-seat",
    held_seat_that_another_hold_has: "hold-without-seats",
    confirmed_hold_without_order: "hold-without-order",
    hold_past_its_deadline: "hold-not-ended",
    cancelled_event_with_valid_tickets: "cancelled-event",
    fulfilled_order_with_too_few_tickets: "order-without-tickets",
    ticket_without_payment: "ticket-without-payment",
    tickets_of_an_order_that_expired: "ticket-without-payment",
    tickets_of_another_user_than_the_buyer: "ticket-without-payment",
    fulfilled_order_of_which_inventory_knows_no_sale: "sale-and-order",
    sale_that_was_rejected_after_all: "sale-and-order",
    order_of_another_amount_than_its_hold: "order-amount",
    hold_with_two_orders: "hold-with-two-orders",
    hold_that_payments_never_heard_of: "hold-projection",
    hold_that_payments_has_at_another_price: "hold-projection",
    event_that_inventory_has_in_part: "event-projection",
    payment_that_we_do_not_know: "payment-unknown-here",
    payment_of_an_order_that_is_not_there: "payment-unknown-here",
    paid_order_that_stripe_does_not_know: "payment-unknown-to-stripe",
    captured_amount_that_differs: "payment-amount",
    payment_without_ticket_or_refund: "payment-without-ticket",
    tickets_and_the_money_back: "payment-without-ticket",
    second_payment_of_an_order: "payment-without-ticket",
    two_refunds_of_one_payment: "refund-twice",
    refund_that_stripe_does_not_know: "refund-differs",
    order_that_stays_paid: "order-late",
    order_that_stays_pending: "order-late",
    refund_that_never_comes: "order-late",
    money_that_no_ticket_explains: "sums",
    message_that_stays_in_the_outbox: "outbox",
}
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
