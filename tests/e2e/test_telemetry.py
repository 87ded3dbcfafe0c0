"""What Jaeger and Prometheus can tell of a purchase that was made in the containers."""

import secrets
import time
from typing import Any

import httpx
import pytest

from tests.e2e.containers import APPS, WORKERS, Containers
from tests.system.shop import Shop, eventually

WAIT_SECONDS = 90.0
"""Spans become metrics, Prometheus fetches them, and a rate needs two of them."""


@pytest.fixture(scope="module")
def trace_id(shop: Shop) -> str:
    """Of a purchase whose client sent its `traceparent`, as a browser's tracing does."""
    trace_id = secrets.token_hex(16)
    event, buyer = shop.event(), shop.buyer()
    seats = shop.seats(event)[:2]
    buyer.headers["traceparent"] = f"00-{trace_id}-{secrets.token_hex(8)}-01"
    order = buyer.check_out(buyer.hold(event, seats))
    del buyer.headers["traceparent"]
    shop.stripe.pay(order)
    buyer.order_becomes(order, "fulfilled")
    return trace_id


def test_purchase_is_one_trace_in_jaeger(containers: Containers, trace_id: str) -> None:
    wanted = {
        ("inventory-app", "POST /reservations"),
        ("payments-app", "POST /orders/checkout"),
        ("inventory-worker", "process order.placed"),
        ("payments-worker", "process payment.succeeded"),
        ("inventory-worker", "process order.paid"),
        ("inventory-worker", "send tickets.issued"),
        ("payments-worker", "process tickets.issued"),
    }

    def seen() -> set[tuple[str, str]]:
        answer = httpx.get(f"{containers.jaeger_url}/api/traces/{trace_id}", trust_env=False)
        if answer.status_code == 404:
            return set()
        [trace] = answer.json()["data"]
        names = {key: process["serviceName"] for key, process in trace["processes"].items()}
        return {(names[span["processID"]], span["operationName"]) for span in trace["spans"]}

    eventually(seen, until=lambda found: found >= wanted)


def test_monitor_tab_has_rates_and_durations_of_operations(containers: Containers, shop: Shop) -> None:
    def points(metric: str, **more: str) -> list[float]:
        shop.admin.get("/orders")  # a rate is that of a count that grows
        query = {
            "service": "payments-app",
            "groupByOperation": "true",
            "endTs": str(int(time.time() * 1000)),
            "lookback": str(10 * 60 * 1000),
            "step": "5000",
            "ratePer": "60000",
            "spanKind": "server",
            **more,
        }
        answer = httpx.get(f"{containers.jaeger_url}/api/metrics/{metric}", params=query, trust_env=False)
        assert answer.status_code == 200, answer.text
        return [
            point["gaugeValue"]["doubleValue"]
            for each in answer.json()["metrics"]
            if {"name": "operation", "value": "GET /orders"} in each["labels"]
            for point in each["metricPoints"]
            if isinstance(point["gaugeValue"]["doubleValue"], float)
        ]

    for metric, more in (("calls", {}), ("latencies", {"quantile": "0.95"})):
        eventually(
            lambda metric=metric, more=more: points(metric, **more),
            until=lambda values: any(value > 0 for value in values),
            seconds=WAIT_SECONDS,
        )


def test_prometheus_has_requests_by_route_and_a_sign_of_life_of_every_process(
    containers: Containers, trace_id: str
) -> None:
    def ask(query: str) -> list[dict[str, Any]]:
        url = f"{containers.prometheus_url}/api/v1/query"
        answer = httpx.get(url, params={"query": query}, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]

    eventually(
        lambda: {each["metric"]["service_name"] for each in ask("process_uptime_seconds")},
        until=lambda found: found >= {*APPS, *WORKERS},
        seconds=WAIT_SECONDS,
    )
    for name in ("http_server_request_duration_seconds_count", "http_server_request_count_total"):
        query = f'sum({name}{{http_route="/orders/checkout", http_response_status_code="200"}})'
        eventually(
            lambda query=query: [float(each["value"][1]) for each in ask(query)],
            until=lambda found: found != [] and found[0] >= 1,
            seconds=WAIT_SECONDS,
        )
    rules = httpx.get(f"{containers.prometheus_url}/api/v1/rules", trust_env=False).json()
    assert any(group["rules"] for group in rules["data"]["groups"])


def test_alert_rules_do_what_their_tests_say(containers: Containers) -> None:
    tests = "/etc/prometheus/rules/tests/ticketing.yml"
    writable = "TMPDIR=/prometheus"
    said = containers.run("exec", "-T", "-e", writable, "prometheus", "promtool", "test", "rules", tests)
    assert "SUCCESS" in said
