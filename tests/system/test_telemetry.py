"""One purchase is one trace over four processes; the numbers of all eight arrive; neither names anybody."""

import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from embedded.stack import PARTS
from embedded.testing import running_stack
from inventory.measures import MEASURES
from libs.telemetry.metrics import METRICS

from tests.system.otlp import Received, Span, receiving
from tests.system.shop import Client, Shop, eventually, open_shop

PROCESSES = {
    f"{each}-{kind}" for each in ("auth", "catalog", "inventory", "payments") for kind in ("app", "worker")
}
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    with receiving() as received:
        yield received


@pytest.fixture(scope="module")
def shop(received: Received) -> Iterator[Shop]:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    with running_stack(PARTS, environ=environ) as stack, open_shop(stack.environment()) as shop:
        yield shop


TO_THE_TICKETS = [
    ("payments-app", "POST /orders/checkout"),
    ("payments-app", "payment captured"),
    ("payments-worker", "send payment.succeeded"),
    ("payments-worker", "process payment.succeeded"),
    ("payments-worker", "send order.paid"),
    ("inventory-worker", "process order.paid"),
    ("inventory-worker", "send tickets.issued"),
    ("payments-worker", "process tickets.issued"),
]
TO_THE_EXTENDED_HOLD = [
    ("payments-app", "POST /orders/checkout"),
    ("payments-worker", "send order.placed"),
    ("inventory-worker", "process order.placed"),
    ("inventory-worker", "send hold.extended"),
    ("payments-worker", "process hold.extended"),
]
ALL_OF_IT = {*TO_THE_TICKETS, *TO_THE_EXTENDED_HOLD, ("payments-worker", "process hold.placed")}


class Purchase:
    """Of a buyer whose client sends one `traceparent` with all that it asks."""

    def __init__(self, shop: Shop, received: Received) -> None:
        self.trace_id, self.client_span = secrets.token_hex(16), secrets.token_hex(8)
        event = shop.event(seats=2)
        self.buyer: Client = shop.buyer()
        self.buyer.headers["traceparent"] = f"00-{self.trace_id}-{self.client_span}-01"
        seat_id = shop.seats(event)[0]
        self.order: dict[str, Any] = self.buyer.check_out(self.buyer.hold(event, [seat_id]))
        shop.stripe.pay(self.order)
        self.buyer.headers.pop("traceparent")
        self.buyer.order_becomes(self.order, "fulfilled")
        self.spans: list[Span] = eventually(
            lambda: received.trace(self.trace_id),
            until=lambda seen: {(each.service, each.name) for each in seen} >= ALL_OF_IT,
        )
        self.all = received.spans

    def named(self, name: str) -> Span:
        [span] = [each for each in self.spans if each.name == name]
        return span

    def find(self, place: tuple[str, str]) -> list[Span]:
        """The span with this trace's and its own id, once it has arrived."""
        return eventually(
            lambda: [each for each in list(self.all) if (each.trace_id, each.span_id) == place], until=bool
        )

    def way_to(self, span: Span) -> list[tuple[str, str]]:
        """From the root of the trace down to a span: (process, name)."""
        by_id = {each.span_id: each for each in self.spans}
        way = [span]
        while way[0].parent_id in by_id:
            way.insert(0, by_id[way[0].parent_id])
        assert way[0].parent_id == self.client_span
        return [(each.service, each.name) for each in way]


@pytest.fixture(scope="module")
def purchase(shop: Shop, received: Received) -> Purchase:
    return Purchase(shop, received)


def test_purchase_is_one_trace_from_checkout_to_issued_tickets(purchase: Purchase) -> None:
    assert purchase.way_to(purchase.named("process tickets.issued")) == TO_THE_TICKETS
    assert purchase.way_to(purchase.named("process hold.extended")) == TO_THE_EXTENDED_HOLD
    assert purchase.way_to(purchase.named("process hold.placed"))[0] == (
        "inventory-app",
        "POST /reservations",
    )
    services = {"payments-app", "payments-worker", "inventory-app", "inventory-worker"}
    assert {span.service for span in purchase.spans} == services


def test_batch_is_linked_to_the_messages_in_it_and_they_to_it(purchase: Purchase) -> None:
    for name in ("order.placed", "payment.succeeded", "order.paid", "tickets.issued"):
        message, sent = purchase.named(f"process {name}"), purchase.named(f"send {name}")
        assert (message.kind, sent.kind) == (CONSUMER, PRODUCER)
        [batch_of] = message.links
        [batch] = purchase.find(batch_of)
        assert (batch.name, batch.service) == ("process batch", message.service)
        assert batch.trace_id != purchase.trace_id
        assert (purchase.trace_id, sent.span_id) in batch.links


def test_webhook_is_a_trace_of_its_own_to_which_the_capture_is_linked(purchase: Purchase) -> None:
    [learnt_in] = purchase.named("payment captured").links
    [webhook] = purchase.find(learnt_in)
    assert (webhook.service, webhook.name) == ("payments-app", "POST /orders/webhook")


def test_statements_and_requests_to_stripe_are_spans_of_what_asked_for_them(purchase: Purchase) -> None:
    checkout = purchase.named("POST /orders/checkout")
    assert checkout.kind == SERVER
    children = {each.name: each for each in purchase.spans if each.parent_id == checkout.span_id}
    stripe = children["POST /v1/payment_intents"]
    assert (stripe.kind, stripe.attributes["http.response.status_code"]) == (CLIENT, 200)
    insert = children["INSERT outbox"]
    assert insert.kind == CLIENT
    assert insert.attributes["db.system.name"] == "postgresql"
    assert "%s" in insert.attributes["db.query.text"]


def test_spans_name_no_person_and_no_thing(purchase: Purchase) -> None:
    texts = [each.name for each in purchase.all]
    texts += [f"{key}={value}" for each in purchase.all for key, value in each.attributes.items()]
    assert len(texts) > 100
    for text in texts:
        assert not UUID.search(text), text
        assert not re.search(r"@example|pi_\w{8}|eyJ", text), text


def test_health_checks_are_not_recorded(purchase: Purchase) -> None:
    assert not [each.name for each in purchase.all if each.name.endswith(("/health", "/ready"))]


def test_all_processes_send_their_numbers(purchase: Purchase, received: Received) -> None:
    eventually(
        lambda: {each.service for each in received.latest("process.uptime")},
        until=lambda seen: seen == PROCESSES,
    )
    sold = eventually(
        lambda: received.latest("ticketing.seats.sold"),
        until=lambda seen: seen[-1:] != [] and seen[-1].value >= 1,
    )
    assert [each.service for each in sold] == ["inventory-worker"]
    lag = eventually(
        lambda: {each.labels["topic"]: each.value for each in received.latest("ticketing.consumer.lag")},
        until=lambda seen: seen.get("payments.orders") == 0,
    )
    assert lag["payments.orders"] == 0
    eventually(
        lambda: {
            each.labels["group"]
            for each in received.latest("ticketing.consumer.messages")
            if each.labels["outcome"] == "handled" and each.value
        },
        until=lambda seen: seen >= {"inventory", "payments"},
    )
    letters = eventually(lambda: received.latest("ticketing.dead_letters"), until=bool)
    assert {each.value for each in letters} == {0}
    workers = {each for each in PROCESSES if "worker" in each}
    for name in ("ticketing.outbox.rows", "ticketing.outbox.oldest_age", "ticketing.relays"):
        eventually(
            lambda each=name: {point.service for point in received.latest(each)},
            until=lambda seen: seen == workers,
        )


def test_requests_are_counted_by_the_template_of_their_route(purchase: Purchase, received: Received) -> None:
    assert purchase.buyer.request("GET", "/events/nothing/that/there/is").status_code == 404
    for name in ("http.server.request.duration", "http.server.request.count"):
        points = eventually(
            lambda each=name: received.latest(each),
            until=lambda seen: any(each.labels["http.response.status_code"] == 404 for each in seen),
        )
        checkouts = [each for each in points if each.labels.get("http.route") == "/orders/checkout"]
        assert [
            (each.service, each.value, each.labels["http.response.status_code"]) for each in checkouts
        ] == [("payments-app", 1, 200)]
        for point in points:
            assert not re.search(r"\d{3}|nothing", point.labels.get("http.route", "")), point


def test_nothing_is_sent_that_is_not_declared(purchase: Purchase, received: Received) -> None:
    declared = {each.name: set(each.labels) for each in (*METRICS, *MEASURES)}
    assert {each.metric for each in received.points} == set(declared)
    for point in received.points:
        assert set(point.labels) <= declared[point.metric], point
