"""What is sent, when, and that nothing depends on its being taken."""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from libs.logs import configure_logging
from libs.telemetry import is_wanted, sending
from libs.telemetry.metrics import LAG, METRICS, OUTBOX_AGE, prometheus_names
from libs.telemetry.readings import Readings, values
from libs.telemetry.requests import BOUNDARIES, RequestCounts
from libs.telemetry.scrubbed import ScrubbingExporter
from libs.telemetry.sdk import Telemetry, record, resource_of
from libs.tracing import continued
from libs.web.tracer import RequestTracer
from litestar import Litestar, get
from litestar.params import FromPath
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from libs import tracing

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        ({}, ""),
        ({ENDPOINT: ""}, ""),
        ({ENDPOINT: "http://x"}, "traces metrics"),
        ({ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "True"}, ""),
        ({ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "none"}, "metrics"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, "traces"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, "metrics"),
    ],
)
def test_environment_says_what_is_sent(environ: dict[str, str], signals: str) -> None:
    assert [each for each in ("traces", "metrics") if is_wanted(each, environ)] == signals.split()


def test_environment_names_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resource_of("auth-app").attributes["service.name"] == "auth-app"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    resource = resource_of("auth-app").attributes
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("other", "test")


@pytest.fixture
def silent_backend() -> Iterator[str]:
    """It takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def sending_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("Otel")]


async def test_backend_that_is_silent_holds_up_neither_work_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, silent_backend: str
) -> None:
    monkeypatch.setenv(ENDPOINT, silent_backend)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    async with sending("test"):
        for _ in range(1000):
            with continued(None, "work"):
                pass
    # Its end was not waited for: what cannot be sent is lost with the process.
    waiting = sending_threads()
    assert waiting
    assert all(each.daemon for each in waiting)
    assert tracing.recorder is None


async def test_backend_that_is_away_is_told_of_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    try:
        configure_logging("info")
        async with sending("test"):
            for _ in range(20):
                with continued(None, "work"):
                    await asyncio.sleep(0.01)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = [line for line in capsys.readouterr().err.splitlines() if "opentelemetry" in line]
    assert len(lines) == 1, lines


def test_requests_are_counted_in_the_buckets_of_the_conventions() -> None:
    counts = RequestCounts()
    for seconds in (0.001, 0.005, 0.0051, 0.2, 60):
        counts.add("GET", "/events", 200, seconds)
    counts.add("POST", "", 404, 0.1)
    duration, count = [each.data for each in counts.metrics()]
    points: Any = duration.data_points
    events, unknown = points
    assert events.explicit_bounds == BOUNDARIES
    assert [number for number in events.bucket_counts if number] == [2, 1, 1, 1]
    assert (events.bucket_counts[0], events.bucket_counts[-1], events.count) == (2, 1, 5)
    assert (events.min, events.max, round(events.sum, 4)) == (0.001, 60, 60.2111)
    assert events.attributes["http.route"] == "/events"
    assert "http.route" not in unknown.attributes
    totals: Any = count.data_points
    assert [point.value for point in totals] == [5, 1]


async def test_reading_that_fails_leaves_no_old_value() -> None:
    answers: Iterator[Any] = iter([{(OUTBOX_AGE, ()): 1.0}, OSError("away")])
    asked = asyncio.Event()

    async def look() -> Any:
        answer = next(answers, None)
        if answer is None:
            asked.set()
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        seen.append(readings.of(OUTBOX_AGE))
        return answer

    seen: list[Any] = []
    readings = Readings()
    task = asyncio.create_task(readings.keep_fresh(look, every_seconds=0))
    await asked.wait()
    assert readings.of(OUTBOX_AGE) == []
    task.cancel()
    await asyncio.wait([task])


async def test_values_have_the_labels_of_their_metric() -> None:
    assert values(LAG, {"payments.orders": 3}, group="inventory") == {
        (LAG, (("group", "inventory"), ("topic", "payments.orders"))): 3.0
    }


def test_names_in_prometheus() -> None:
    names = {each.name: prometheus_names(each)[0] for each in METRICS}
    assert names["http.server.request.duration"] == "http_server_request_duration_seconds_bucket"
    assert names["http.server.request.count"] == "http_server_request_count_total"
    assert names["ticketing.outbox.rows"] == "ticketing_outbox_rows"


@get("/things/{thing_id:int}")
async def thing(thing_id: FromPath[int]) -> dict[str, str]:
    if thing_id == 0:
        raise RuntimeError("nothing")
    return {"traceparent": tracing.current_traceparent()}


@get("/things/health")
async def health() -> str:
    return "ok"


class Served(NamedTuple):
    client: httpx.AsyncClient
    telemetry: Telemetry
    exporter: InMemorySpanExporter

    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def requests(self) -> dict[tuple[Any, ...], int]:
        """By method, route and status."""
        points: Any = self.telemetry.requests.metrics()[1].data.data_points
        names = ("http.request.method", "http.route", "http.response.status_code")
        return {tuple(point.attributes.get(name) for name in names): point.value for point in points}


@pytest_asyncio.fixture
async def served() -> AsyncGenerator[Served]:
    telemetry, exporter = Telemetry(), InMemorySpanExporter()
    record(
        telemetry, resource=resource_of("test"), processor=SimpleSpanProcessor(ScrubbingExporter(exporter))
    )
    app = Litestar([thing, health], openapi_config=None, logging_config=None)
    tracer = RequestTracer(app.asgi_handler)
    tracer.telemetry = telemetry
    app.asgi_handler = tracer
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Served(client, telemetry, exporter)
    tracing.recorder = None


async def test_request_is_a_span_named_by_the_template_of_its_route(served: Served) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = await served.client.get("/things/12345?who=ada", headers={"traceparent": parent})
    [span] = served.spans()
    assert span.name == "GET /things/{thing_id}"
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/things/{thing_id}",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    assert (span.context.trace_id, span.parent.span_id) == (int("a" * 32, 16), int("b" * 16, 16))
    assert answer.json()["traceparent"] == f"00-{'a' * 32}-{span.context.span_id:016x}-01"
    assert span.status.is_ok


async def test_answer_of_ours_that_is_an_error_is_one_of_the_span(served: Served) -> None:
    assert (await served.client.get("/things/0")).status_code == 500
    assert (await served.client.get("/nothing/here")).status_code == 404
    failed, missing = served.spans()
    assert (failed.status.is_ok, failed.attributes["error.type"]) == (False, "500")
    assert (missing.status.is_ok, missing.name) == (True, "GET")


async def test_labels_are_few_whatever_clients_send(served: Served) -> None:
    for number in range(1, 6):
        await served.client.get(f"/things/{number}")
        await served.client.get(f"/nothing/{number}")
        await served.client.request(f"VERB{number}", "/things/1")
    assert served.requests() == {
        ("GET", "/things/{thing_id}", 200): 5,
        ("GET", None, 404): 5,
        ("_OTHER", None, 405): 5,
    }


async def test_health_is_counted_and_not_recorded(served: Served) -> None:
    await served.client.get("/things/health")
    assert served.requests() == {("GET", "/things/health", 200): 1}
    assert served.spans() == []
