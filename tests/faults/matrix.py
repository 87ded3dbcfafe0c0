"""Every fault of the suite: what is struck, and at which moment of a purchase.

A fault strikes while the load goes on and a marked purchase is at a given step. To hold that purchase between
two steps for as long as it takes to strike, the process that would take the next one is stopped meanwhile.
"""

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.faults.clients import Buyer, Purchase
from tests.faults.stage import Stage

SERVICES = ("auth", "catalog", "inventory", "payments")
PROCESSES = tuple(name for service in SERVICES for name in (service, f"{service}-worker"))
SESSION_SECONDS = 6.0
PAUSE_SECONDS = SESSION_SECONDS + 2.0
"""Longer than a consumer's session: the group goes on without it."""
STRESS_SECONDS = 6.0
"""So long do webhooks come wrongly, or Stripe fail."""

# After which step of a purchase the fault strikes. `hold`: placed, and payments does not know; `checkout`:
# the order is made, and inventory does not know; `pay`: Stripe has the money, and has not said so; `webhook`:
# stored and not acted on; `paid`: the order is paid, and inventory does not know; `issue`: there are tickets,
# and payments does not know.
STEPS = ("hold", "checkout", "pay", "webhook", "paid", "issue")
Strike = Callable[[Stage], Awaitable[float]]
"""Strikes, and returns when the fault ended, on the monotonic clock: from then on nobody lends a hand."""


@dataclass(frozen=True)
class Fault:
    kind: str
    target: str
    strike: Strike
    step: str | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}".strip() + (f" after {self.step}" if self.step else "")


async def lead_to(step: str, stage: Stage, buyer: Buyer, draw: random.Random) -> Purchase:
    """A purchase that is at this step, and stays there until what is stopped goes on."""
    if step == "hold":
        await stage.freeze("inventory-worker")
    while True:
        purchase = await buyer.hold(draw=draw, seats=2)
        if purchase is None:
            continue
        if step == "hold":
            return purchase
        if step == "checkout":
            await stage.until_seen("SELECT true FROM payments.holds WHERE id = %s", purchase.hold_id)
            await stage.freeze("payments-worker")
        if not await buyer.check_out(purchase):
            stage.thaw()
            continue
        break
    if step == "checkout":
        return purchase
    await stage.tell_stripe("delivery", {"hold": True})
    await buyer.pay(purchase)
    if step == "pay":
        return purchase
    order_id = purchase.order_id
    await stage.freeze("payments-worker" if step == "webhook" else "inventory-worker")
    await release_webhooks(stage)
    if step == "webhook":
        await stage.until_seen(
            "SELECT true FROM payments.stripe_events"
            " WHERE payment_intent_id = %s AND type = 'payment_intent.succeeded'",
            purchase.intent_id,
        )
        return purchase
    await stage.until_seen("SELECT status <> 'pending' FROM payments.orders WHERE id = %s", order_id)
    if step == "paid":
        return purchase
    await stage.until_seen("SELECT count(*) = 0 FROM payments.outbox WHERE key = %s", order_id)
    await stage.freeze("payments-worker")
    stage.thaw("inventory-worker")
    await stage.until_seen(
        "SELECT true FROM inventory.sales WHERE order_id = %s AND status <> 'placed'", order_id
    )
    return purchase


async def release_webhooks(stage: Stage) -> None:
    await stage.tell_stripe("delivery", {})
    await stage.tell_stripe("delivery/release", {})


async def go_on(stage: Stage) -> None:
    """The steps after the one that the marked purchase was held at."""
    stage.thaw()
    await release_webhooks(stage)


# --- strikes


def kill(target: str) -> Strike:
    async def strike(stage: Stage) -> float:
        os.kill(await stage.pid_when_running(target), signal.SIGKILL)
        return time.monotonic()

    return strike


async def restart_kafka(stage: Stage) -> float:
    await stage.stop("kafka")
    stage.begin_start("kafka")
    return time.monotonic()


async def restart_postgres(stage: Stage) -> float:
    """Immediate mode: no checkpoint, no good-byes. The supervisor starts it anew."""
    os.kill(await stage.pid_when_running("postgres"), signal.SIGQUIT)
    return time.monotonic()


def pause(target: str) -> Strike:
    async def strike(stage: Stage) -> float:
        await stage.freeze(target)
        await asyncio.sleep(PAUSE_SECONDS)
        stage.thaw(target)
        return time.monotonic()

    return strike


async def flush_redis(stage: Stage) -> float:
    address = urlsplit(stage.environment["REDIS_URL"])

    def flush() -> None:
        with socket.create_connection((address.hostname, address.port or 6379), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(100).startswith(b"+OK")

    await asyncio.to_thread(flush)
    return time.monotonic()


async def stop_redis(stage: Stage) -> float:
    await stage.stop("redis")
    await asyncio.sleep(STRESS_SECONDS)
    stage.begin_start("redis")
    return time.monotonic()


def disturb_webhooks(settings: dict[str, Any]) -> Strike:
    async def strike(stage: Stage) -> float:
        await stage.tell_stripe("delivery", settings)
        await asyncio.sleep(STRESS_SECONDS)
        ended_at = time.monotonic()
        await release_webhooks(stage)
        return ended_at

    return strike


def fail_stripe(fault: dict[str, Any]) -> Strike:
    async def strike(stage: Stage) -> float:
        await stage.tell_stripe("faults", fault)
        await asyncio.sleep(STRESS_SECONDS)
        await stage.tell_stripe("faults", {})
        return time.monotonic()

    return strike


def matrix() -> list[Fault]:
    """All of it but Kafka's long absence, which has clients of its own (`kafka_away`)."""
    at_steps = [
        *(("kill -9", process, kill(process)) for process in PROCESSES),
        ("restart", "kafka", restart_kafka),
        ("restart", "postgres", restart_postgres),
    ]
    whenever = [
        *(("pause", name, pause(name)) for name in ("kafka", "postgres", "redis", *PROCESSES)),
        ("redis", "flushed", flush_redis),
        ("redis", "stopped", stop_redis),
        ("webhooks", "doubled", disturb_webhooks({"copies": 3})),
        ("webhooks", "delayed", disturb_webhooks({"delaySeconds": 2})),
        ("webhooks", "reordered", disturb_webhooks({"copies": 2, "delaySeconds": 0.5, "shuffle": True})),
        ("webhooks", "withheld", disturb_webhooks({"hold": True})),
        ("stripe", "answers 500", fail_stripe({"status": 500})),
        ("stripe", "answers 500 after the effect", fail_stripe({"status": 500, "after": True})),
        ("stripe", "cuts the connection after the effect", fail_stripe({"after": True})),
        ("stripe", "times out", fail_stripe({"delaySeconds": 4})),
        ("stripe", "refuses refunds", fail_stripe({"status": 503, "path": "/v1/refunds"})),
    ]
    return [
        *(Fault(kind, target, strike, step) for step in STEPS for kind, target, strike in at_steps),
        *(Fault(kind, target, strike) for kind, target, strike in whenever),
    ]


def drawn(faults: list[Fault], *, seed: int) -> list[Fault]:
    """In random order, all kinds and targets early: a short draw still covers them."""
    draw = random.Random(seed)
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in draw.sample(faults, len(faults)):
        groups.setdefault((fault.kind, fault.target), []).append(fault)
    order: list[Fault] = []
    while groups:
        order += [group.pop() for group in draw.sample(list(groups.values()), len(groups))]
        groups = {key: group for key, group in groups.items() if group}
    return order
