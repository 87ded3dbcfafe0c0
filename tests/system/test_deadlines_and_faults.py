"""Deadlines that pass for real, late payments, and parts that are away in the middle of a purchase."""

import itertools
import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from embedded.settings import SERVICES
from embedded.stack import Stack

from tests.system.shop import Client, Shop, Worker, eventually


@pytest.fixture(autouse=True)
def everything_as_usual(hasty_shop: Shop, hasty_stack: Stack, inventory_worker: Worker) -> Iterator[None]:
    yield
    inventory_worker.resume()
    hasty_shop.stripe.control("faults", {})
    hasty_shop.stripe.control("delivery", {})
    hasty_shop.stripe.control("delivery/release")
    hasty_stack.up()


def test_hold_that_ran_out_is_somebody_elses(hasty_shop: Shop) -> None:
    buyer, rival, event = hasty_shop.buyer(), hasty_shop.buyer(), hasty_shop.event()
    seats = hasty_shop.seats(event)[:2]
    hold = buyer.hold(event, seats)
    wish = {"eventId": event["id"], "seatIds": seats[:1]}
    eventually(
        lambda: rival.request("POST", "/reservations", wish).status_code, until=lambda status: status == 200
    )
    assert buyer.get(f"/reservations/{hold['id']}")["status"] == "expired"
    assert seats[1] in hasty_shop.seats(event)
    buyer.call("POST", "/orders/checkout", {"reservationId": hold["id"]}, expect=410)


def test_order_that_is_not_paid_in_time_expires_and_frees_its_seats(hasty_shop: Shop) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    order = buyer.check_out(buyer.hold(event, hasty_shop.seats(event)[:2]))
    buyer.order_becomes(order, "expired")
    assert hasty_shop.stripe.intent(order)["status"] == "canceled"
    assert hasty_shop.stripe.confirm(order).status_code == 400
    eventually(lambda: hasty_shop.seats(event), until=lambda free: len(free) == 10)


def test_payment_whose_webhook_never_comes_is_found_at_the_deadline(hasty_shop: Shop) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    hasty_shop.stripe.control("delivery", {"hold": True})
    order = buyer.check_out(buyer.hold(event, hasty_shop.seats(event)[:2]))
    hasty_shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")
    hasty_shop.stripe.control("delivery/release")
    assert len(buyer.tickets(order)) == 2


def test_webhooks_doubled_delayed_and_shuffled_issue_once(hasty_shop: Shop) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    hasty_shop.stripe.control("delivery", {"copies": 3, "shuffle": True, "delaySeconds": 0.2})
    order = buyer.check_out(buyer.hold(event, hasty_shop.seats(event)[:2]))
    hasty_shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")
    assert len(buyer.tickets(order)) == 2


def paid_while_inventory_is_away(
    shop: Shop, worker: Worker, buyer: Client, event: dict[str, Any], seats: list[str]
) -> dict[str, Any]:
    """An order that is paid, but whose hold inventory never extended, and whose deadline has passed."""
    hold = buyer.hold(event, seats)
    with psycopg.connect(shop.environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        eventually(
            lambda: conn.execute("SELECT count(*) FROM inventory.outbox").fetchone(),
            until=lambda row: row == (0,),
        )
    worker.pause()
    order = buyer.check_out(hold)
    shop.stripe.pay(order)
    buyer.order_becomes(order, "paid")
    eventually(
        lambda: buyer.get(f"/reservations/{hold['id']}")["status"], until=lambda status: status == "expired"
    )
    return order


def test_late_payment_gets_its_seats_while_they_are_free(hasty_shop: Shop, inventory_worker: Worker) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    seats = hasty_shop.seats(event)[:2]
    order = paid_while_inventory_is_away(hasty_shop, inventory_worker, buyer, event, seats)
    inventory_worker.resume()
    buyer.order_becomes(order, "fulfilled")
    assert len(buyer.tickets(order)) == 2


def test_late_payment_whose_seats_are_gone_is_refunded(hasty_shop: Shop, inventory_worker: Worker) -> None:
    buyer, rival, event = hasty_shop.buyer(), hasty_shop.buyer(), hasty_shop.event()
    seats = hasty_shop.seats(event)[:2]
    order = paid_while_inventory_is_away(hasty_shop, inventory_worker, buyer, event, seats)
    taken = rival.hold(event, seats[:1])
    with psycopg.connect(hasty_shop.environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        # However slowly the worker starts on this machine, the rival's hold outlives it.
        conn.execute(
            "UPDATE inventory.holds SET expires_at = now() + interval '1 hour' WHERE hold_id = %s",
            [taken["id"]],
        )
    inventory_worker.resume()
    buyer.order_becomes(order, "refunded")
    assert buyer.tickets(order) == []
    assert hasty_shop.stripe.refunded(order) == 9000


def test_wrong_amount_is_refunded_and_sells_nothing(hasty_shop: Shop) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    order = buyer.check_out(buyer.hold(event, hasty_shop.seats(event)[:2]))
    intent_id = hasty_shop.stripe.intent(order)["id"]
    hasty_shop.stripe.control(f"payment_intents/{intent_id}", {"amount": 100})
    hasty_shop.stripe.pay(order)
    buyer.order_becomes(order, "refunded")
    assert hasty_shop.stripe.refunded(order) == 100
    assert buyer.tickets(order) == []
    eventually(lambda: hasty_shop.seats(event), until=lambda free: len(free) == 10)


def test_checkout_goes_through_once_stripe_is_back(hasty_shop: Shop) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    hold = buyer.hold(event, hasty_shop.seats(event)[:1])
    hasty_shop.stripe.control("faults", {"status": 500, "path": "/v1/payment_intents"})
    refused = buyer.request("POST", "/orders/checkout", {"reservationId": hold["id"]})
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    hasty_shop.stripe.control("faults", {})
    order = buyer.check_out(hold)
    hasty_shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")


def test_purchase_survives_kill_9_of_every_process_of_ours(hasty_shop: Shop, hasty_stack: Stack) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    order = buyer.check_out(buyer.hold(event, hasty_shop.seats(event)[:2]))
    hasty_shop.stripe.pay(order)
    services = ("auth", "catalog", "inventory", "payments")
    for process in hasty_stack.supervisor.processes().values():
        if process.name.removesuffix("-worker") in services and process.pid:
            os.kill(process.pid, signal.SIGKILL)
    hasty_stack.up()
    buyer.order_becomes(order, "fulfilled")
    assert len(buyer.tickets(order)) == 2


def test_kafka_may_be_away_when_stripe_reports_a_payment(hasty_shop: Shop, hasty_stack: Stack) -> None:
    buyer, event = hasty_shop.buyer(), hasty_shop.event()
    hasty_shop.stripe.control("delivery", {"hold": True})
    order = buyer.check_out(buyer.hold(event, hasty_shop.seats(event)[:2]))
    hasty_shop.stripe.pay(order)
    hasty_stack.stop(["kafka"])
    hasty_shop.stripe.control("delivery", {})
    hasty_shop.stripe.control("delivery/release")
    eventually(
        lambda: hasty_shop.stripe.http.get("/_emulator/events").json(),
        until=lambda events: all(d["deliveredAt"] for each in events for d in each["deliveries"]),
    )
    hasty_stack.up()
    buyer.order_becomes(order, "fulfilled")
    assert len(buyer.tickets(order)) == 2


def test_redis_may_be_away(hasty_shop: Shop, hasty_stack: Stack) -> None:
    hasty_stack.stop(["redis"])
    event = hasty_shop.event()
    assert event["id"] in [each["id"] for each in hasty_shop.buyer().get("/events")]
    eventually(
        lambda: hasty_shop.admin.get("/catalog/ready").get("degraded"), until=lambda names: names == ["redis"]
    )


def hammer(
    request: Callable[[], httpx.Request], answers: list[httpx.Response], over: threading.Event
) -> None:
    with httpx.Client(timeout=30, trust_env=False) as http:
        while not over.is_set():
            answers.append(http.send(request()))


@pytest.mark.parametrize("service", SERVICES)
def test_restart_of_an_app_under_load_costs_no_request(
    hasty_shop: Shop, hasty_stack: Stack, service: str
) -> None:
    """SIGTERM: whatever it has taken it answers, and nothing is done that is answered otherwise."""
    buyer, mark = hasty_shop.buyer(), secrets.token_hex(4)
    numbers = itertools.count()

    def request() -> httpx.Request:
        url = hasty_shop.environment["GATEWAY_URL"]
        match service:
            case "catalog":
                body = {"name": "N", "email": "o@example.com", "slug": f"{mark}-{next(numbers)}"}
                return httpx.Request("POST", f"{url}/organizers", json=body, headers=hasty_shop.admin.headers)
            case _:
                path = {"auth": "/auth/me", "inventory": "/reservations", "payments": "/orders"}[service]
                return httpx.Request("GET", f"{url}{path}", headers=buyer.headers)

    before, over = hasty_stack.supervisor.processes()[service].pid, threading.Event()
    assert before
    answers: list[httpx.Response] = []
    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(hammer, request, answers, over) for _ in range(8)]
        try:
            eventually(lambda: len(answers), until=lambda number: number > 100)
            os.kill(before, signal.SIGTERM)
            eventually(
                lambda: (hasty_stack.supervisor.processes()[service].pid, hasty_stack.trouble(service)),
                until=lambda seen: seen[0] != before and seen[1] is None,
            )
        finally:
            over.set()
        for each in running:
            each.result()
    done = [answer for answer in answers if answer.status_code < 300]
    # Of a restart that takes longer than the gateway waits.
    later = [answer for answer in answers if answer.status_code == 503]
    assert len(done) + len(later) == len(answers), Counter(answer.status_code for answer in answers)
    assert {answer.json()["code"] for answer in later} <= {"temporarily_unavailable"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in later)
    assert len(done) > 100
    if service == "catalog":
        made = [each["slug"] for each in hasty_shop.admin.get("/organizers") if each["slug"].startswith(mark)]
        assert len(made) == len(done)
