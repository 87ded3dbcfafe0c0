"""What an operator calls by `make` on a running stack: the audit, a rebuild, dead letters."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from embedded.stack import PARTS, Stack
from embedded.testing import running_stack

from tests.system.shop import Shop, eventually, open_shop

ROOT = Path(__file__).parents[2]
LETTERS = "payment.succeeded.dlq"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Of its own: here things are put wrong."""
    with running_stack(PARTS) as stack:
        yield stack


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Iterator[Shop]:
    with open_shop(stack.environment()) as shop:
        yield shop


@pytest.fixture
def admin(stack: Stack) -> Iterator[psycopg.Connection]:
    with psycopg.connect(stack.environment()["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        yield conn


def make(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without the addresses that other tests put into this process's environment: make finds its own."""
    known = stack.environment()
    environ = {name: value for name, value in os.environ.items() if name not in known}
    return subprocess.run(
        ("make", *arguments),
        cwd=ROOT,
        env={**environ, "STATE_DIR": str(stack.settings.state)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_audit_passes_and_fails_by_what_is_sold(stack: Stack, shop: Shop, admin: psycopg.Connection) -> None:
    event = shop.event(seats=2)
    done = make(stack, "audit", "GRACE=0")
    assert done.returncode == 0, done.stdout + done.stderr
    # A seat that is sold to an order that nobody has, and no ticket for it.
    seat = shop.seats(event)[0]
    planted = "UPDATE inventory.event_seats SET sold_order_id = %s WHERE event_id = %s AND seat_id = %s"
    admin.execute(planted, ["00000000-0000-7000-8000-000000000001", event["id"], seat])
    done = make(stack, "audit", "GRACE=0")
    assert done.returncode != 0
    assert seat in done.stdout
    admin.execute(planted, [None, event["id"], seat])
    assert make(stack, "audit", "GRACE=0").returncode == 0


def test_rebuild_puts_a_price_right(stack: Stack, shop: Shop, admin: psycopg.Connection) -> None:
    event = shop.event(amount_minor=4500)
    look = "SELECT amount_minor FROM inventory.section_prices WHERE event_id = %s"
    eventually(lambda: admin.execute(look, [event["id"]]).fetchall(), until=lambda rows: rows == [(4500,)])
    admin.execute("UPDATE inventory.section_prices SET amount_minor = 1 WHERE event_id = %s", [event["id"]])
    done = make(stack, "rebuild", "P=inventory.catalog")
    assert done.returncode == 0, done.stdout + done.stderr
    assert admin.execute(look, [event["id"]]).fetchall() == [(4500,)]


async def test_dead_letters_are_listed_shown_replayed_and_discarded(stack: Stack) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.environment()["KAFKA_BROKERS"])
    await producer.start()
    for text in (b"first rubbish", b"second rubbish"):
        await producer.send_and_wait("payment.succeeded", text, partition=0)
    await producer.stop()

    listed = eventually(
        lambda: make(stack, "dlq", f"T={LETTERS}").stdout, until=lambda text: "2 waiting" in text
    )
    assert "Undecodable" in listed
    assert LETTERS in make(stack, "dlq").stdout
    shown = make(stack, "dlq", f"T={LETTERS}", "LETTER=0:0")
    assert "first rubbish" in shown.stdout
    assert "second rubbish" not in shown.stdout

    replayed = make(stack, "dlq", f"T={LETTERS}", "REPLAY=0:0")
    assert "1 sent to payments" in replayed.stdout
    assert "0 done, 1 failed again" in replayed.stdout  # nothing was mended
    assert "2 waiting, 1 replayed" in make(stack, "dlq", f"T={LETTERS}").stdout

    assert make(stack, "dlq", f"T={LETTERS}", "DISCARD=0:1").returncode != 0  # without a reason
    discarded = make(stack, "dlq", f"T={LETTERS}", "DISCARD=0:1", "REASON=a test of ours")
    assert "1 discarded" in discarded.stdout
    left = make(stack, "dlq", f"T={LETTERS}", "ALL=1").stdout
    assert "1 waiting, 1 replayed, 1 discarded" in left
    assert "a test of ours" in left
