"""What operators do with the containers: scale, replace, look at dead letters and at the books; Postman."""

import asyncio
import os
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from tests.e2e.containers import APPS, ROOT, WORKERS, Containers, trust
from tests.system.shop import Client, Shop, eventually

REQUESTS_PER_SECOND = 200


def buy(shop: Shop) -> None:
    buyer, event = shop.buyer(), shop.event()
    order = buyer.check_out(buyer.hold(event, shop.seats(event)[:2]))
    shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")
    assert len(buyer.tickets(order)) == 2


def assert_books_agree(containers: Containers) -> None:
    """What `make audit` says, of everything, however young."""

    def look() -> tuple[int, str]:
        done = containers.host(sys.executable, "-m", "audit", "--grace", "0", "--all")
        return done.returncode, done.stdout + done.stderr

    eventually(look, until=lambda seen: seen[0] == 0)


@pytest.fixture
def scaled(containers: Containers) -> Iterator[None]:
    scale = ("up", "--wait", "--no-recreate")
    containers.run(*scale, "--scale", "inventory-app=3", "--scale", "inventory-worker=2")
    yield
    containers.run(*scale, "--scale", "inventory-app=1", "--scale", "inventory-worker=1")


@pytest.mark.usefixtures("scaled")
def test_replicas_share_the_work_and_double_nothing(containers: Containers, shop: Shop) -> None:
    apps, workers = containers.of("inventory-app"), containers.of("inventory-worker")
    assert (len(apps), len(workers)) == (3, 2)

    # Requests: each replica has its connections to PostgreSQL in use.
    event = shop.event()
    addresses = {_address(containers, each) for each in apps}

    def busy() -> set[str]:
        for _ in range(30):
            shop.seats(event)
        with psycopg.connect(containers.environment["ADMIN_DATABASE_URL"]) as conn:
            rows = conn.execute(
                "SELECT DISTINCT host(client_addr) FROM pg_stat_activity"
                " WHERE usename = 'inventory_app' AND query LIKE '%seat%'"
                " AND state_change > now() - interval '10 seconds'"
            )
            return {address for (address,) in rows}

    eventually(busy, until=lambda seen: seen >= addresses)

    # Messages: both consumers of the group have partitions of their own.
    brokers = containers.environment["KAFKA_BROKERS"]
    hosts = {_address(containers, each) for each in workers}
    shares = eventually(
        lambda: asyncio.run(_shares(brokers, "inventory")),
        until=lambda seen: len(seen) >= 2 and all(seen.values()),
    )
    assert {host for host, _ in shares} >= hosts

    # The outbox: one of the relays sends, the other stands by (OUTBOX_SHARDS=1).
    def locks() -> list[str]:
        with psycopg.connect(containers.environment["ADMIN_DATABASE_URL"]) as conn:
            rows = conn.execute(
                "SELECT host(client_addr) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE locktype = 'advisory' AND usename = 'inventory_worker' AND granted"
            )
            return [address for (address,) in rows]

    eventually(lambda: set(locks()), until=lambda seen: len(seen) == 1 and seen < hosts)

    for _ in range(5):
        buy(shop)
    assert_books_agree(containers)


def _address(containers: Containers, container: str) -> str:
    """On the network where PostgreSQL and Kafka are."""
    networks = containers.inspect(container)["NetworkSettings"]["Networks"]
    [address] = [each["IPAddress"] for name, each in networks.items() if name.endswith("_back")]
    return address


async def _shares(brokers: str, group: str) -> dict[tuple[str, str], int]:
    """(host, member) -> the partitions that it has, of all groups whose name begins so."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        groups = [name for name, _ in await admin.list_consumer_groups() if name.startswith(group)]
        shares: dict[tuple[str, str], int] = {}
        for told in await admin.describe_consumer_groups(groups):
            answer: Any = told
            for _, _, _, _, _, members, *_ in answer.groups:
                for member, _, host, _, assignment in members:
                    shares[(host.strip("/"), member)] = len(assignment)
        return shares
    finally:
        await admin.close()


def test_every_service_is_replaced_under_load_without_a_failed_request(
    containers: Containers, shop: Shop
) -> None:
    event, buyer = shop.event(), shop.buyer()
    before = {service: containers.of(service) for service in (*APPS, *WORKERS)}
    answers = asyncio.run(_replace_under_load(containers, buyer, event["id"]))
    for service, old in before.items():
        new = containers.of(service)
        assert len(new) == len(old)
        assert not set(new) & set(old)
    assert {answer for answer in answers if answer != "200"} == set(), answers
    assert answers["200"] > REQUESTS_PER_SECOND * 10
    buy(shop)
    assert_books_agree(containers)


async def _replace_under_load(containers: Containers, buyer: Client, event_id: str) -> Counter[str]:
    """What 200 requests a second were answered, to all four services, while each of them is replaced."""
    paths = ["/auth/me", f"/events/{event_id}", f"/events/{event_id}/seats", "/orders", "/tickets", "/events"]
    answers: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def ask(http: httpx.AsyncClient, path: str) -> None:
        try:
            answer = await http.get(path, headers=buyer.headers)
        except httpx.TransportError as error:
            answers[f"{path}: {error!r}"] += 1
        else:
            answers["200" if answer.status_code == 200 else f"{path}: {answer.status_code}"] += 1

    async def load(http: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        start, number = loop.time(), 0
        async with asyncio.TaskGroup() as asking:
            while not is_over.is_set():
                asking.create_task(ask(http, paths[number % len(paths)]))
                number += 1
                await asyncio.sleep(max(0.0, start + number / REQUESTS_PER_SECOND - loop.time()))

    limits = httpx.Limits(max_connections=100)
    async with (
        httpx.AsyncClient(
            base_url=containers.environment["GATEWAY_URL"],
            verify=trust(),
            timeout=30,
            trust_env=False,
            limits=limits,
        ) as http,
        asyncio.TaskGroup() as running,
    ):
        running.create_task(load(http))
        rollout = await asyncio.create_subprocess_exec(
            ROOT / "infra/containers/rollout.sh", *APPS, *WORKERS, stderr=asyncio.subprocess.PIPE
        )
        _, said = await rollout.communicate()
        is_over.set()
    assert rollout.returncode == 0, said.decode()
    return answers


def test_dead_letter_is_listed_read_replayed_and_discarded(containers: Containers) -> None:
    topic, noise = "payments.orders.inventory.dlq", f"noise {secrets.token_hex(8)}"
    asyncio.run(_publish(containers.environment["KAFKA_BROKERS"], "payments.orders", noise.encode()))

    def dlq(*arguments: str) -> str:
        return containers.run(
            "exec", "-T", "inventory-worker", "python", "-m", "libs.messaging.dlq", *arguments
        )

    listed = eventually(lambda: dlq(topic), until=lambda seen: noise in seen)
    letter = next(word for word in listed.split() if word.startswith("0:"))
    assert "payments.orders" in dlq(topic, "--letter", letter)
    dlq(topic, "--replay", letter)
    # It is as bad as before, and comes back as another letter.
    again = eventually(lambda: dlq(topic), until=lambda seen: noise in seen and letter not in seen.split())
    back = next(word for word in again.split() if word.startswith("0:"))
    dlq(topic, "--discard", back, "--reason", "a test")
    assert noise not in dlq(topic)
    assert "a test" in dlq(topic, "--all")


async def _publish(brokers: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


@pytest.mark.skipif(
    not shutil.which("npm") and os.environ.get("E2E") != "required",
    reason="npm is missing, which newman comes with: install Node.js, then `make e2e`",
)
@pytest.mark.usefixtures("shop")
def test_postman_collection_passes_over_https(containers: Containers) -> None:
    done = containers.host("api/run.sh", containers.environment["GATEWAY_URL"])
    assert done.returncode == 0, done.stdout + done.stderr
