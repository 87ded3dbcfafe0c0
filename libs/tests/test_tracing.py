"""Spans: which are recorded, whose children they are, and what they do not tell."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from libs.postgres import create_pool
from libs.statements import statement_attributes
from libs.telemetry.scrubbed import ScrubbingExporter
from libs.telemetry.sdk import Telemetry, record, resource_of
from libs.tracing import continued, current_traceparent, start_trace, step, unrecorded
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from libs import tracing

TRACE = "1" * 32
RECORDED = f"00-{TRACE}-{'2' * 16}-01"
UNRECORDED = f"00-{TRACE}-{'2' * 16}-00"

Recording = Callable[[Sampler], InMemorySpanExporter]


@pytest.fixture
def recording() -> Iterator[Recording]:
    def start(sampler: Sampler) -> InMemorySpanExporter:
        exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(ScrubbingExporter(exporter))
        record(Telemetry(), resource=resource_of("test"), processor=processor, sampler=sampler)
        return exporter

    yield start
    tracing.recorder = None


@pytest.fixture
def spans(recording: Recording) -> InMemorySpanExporter:
    return recording(ParentBased(ALWAYS_ON))


def named(spans: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in spans.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_work_continues_the_trace_that_it_was_given(spans: InMemorySpanExporter) -> None:
    before = start_trace()
    with continued(RECORDED, "outer") as outer:
        assert current_traceparent() == outer
        with step("inner", attributes={"n": 1}):
            inner = current_traceparent()
        assert current_traceparent() == outer
    assert current_traceparent() == before
    outer_span, inner_span = named(spans)["outer"], named(spans)["inner"]
    assert outer == "00-{}-{}-01".format(*ids(outer_span))
    assert inner == "00-{}-{}-01".format(*ids(inner_span))
    assert (ids(outer_span)[0], outer_span.parent.span_id) == (TRACE, int("2" * 16, 16))
    assert inner_span.parent.span_id == outer_span.context.span_id


def test_trace_that_is_not_recorded_elsewhere_is_not_recorded_here(spans: InMemorySpanExporter) -> None:
    with continued(UNRECORDED, "outer") as outer, step("inner"):
        assert outer[:36] == UNRECORDED[:36]
        assert outer.endswith("-00")
        assert outer != UNRECORDED
    assert spans.get_finished_spans() == ()


def test_root_that_is_not_sampled_says_so_to_whoever_continues_it(recording: Recording) -> None:
    spans = recording(ParentBased(TraceIdRatioBased(0)))
    with continued(None, "root") as root, step("inner"):
        assert root.endswith("-00")
        assert len(root) == 55
    assert spans.get_finished_spans() == ()


def test_share_of_traces_is_sampled_and_each_is_whole(recording: Recording) -> None:
    spans = recording(ParentBased(TraceIdRatioBased(0.25)))
    roots: list[str] = []
    for _ in range(1000):
        with continued(None, "root") as root, step("inner"):
            roots.append(root)
    sampled = {root[3:35] for root in roots if root.endswith("-01")}
    assert 150 < len(sampled) < 350
    for name in ("root", "inner"):
        assert {ids(span)[0] for span in spans.get_finished_spans() if span.name == name} == sampled
    assert len({root[3:35] for root in roots}) == 1000


def test_batch_is_recorded_if_something_in_it_is(recording: Recording) -> None:
    spans = recording(ParentBased(TraceIdRatioBased(0)))
    with continued(None, "batch", links=[UNRECORDED, None, RECORDED]):
        with unrecorded(UNRECORDED), step("of a message that is not recorded"):
            assert current_traceparent().endswith("-00")
        with step("of the batch"):
            pass
    assert list(named(spans)) == ["of the batch", "batch"]
    batch = named(spans)["batch"]
    assert batch.parent is None
    assert [link.context.span_id for link in batch.links] == [int("2" * 16, 16)] * 2


def test_always_off_is_off(recording: Recording) -> None:
    spans = recording(ALWAYS_OFF)
    with continued(RECORDED, "child") as own, continued(None, "batch", links=[RECORDED]):
        assert own.endswith("-00")
    assert spans.get_finished_spans() == ()


def test_error_is_told_by_its_kind_and_not_by_its_text(spans: InMemorySpanExporter) -> None:
    def fail() -> None:
        with continued(RECORDED, "work"), step("part"):
            raise ValueError("ada@example.com has no ticket")

    with pytest.raises(ValueError, match="ada"):
        fail()
    for span in named(spans).values():
        assert span.attributes["error.type"] == "ValueError"
        assert not span.status.is_ok
        assert span.status.description is None
        assert span.events == ()


def test_spans_are_scrubbed(spans: InMemorySpanExporter) -> None:
    attributes: Any = {
        "who": "ada@example.com",
        "secret": "pi_123_secret_abc",
        "many": ["Bearer abc.def", "fine"],
        "number": 4242,
    }
    with continued(RECORDED, "mail to ada@example.com", attributes=attributes):
        span: Any = tracing.current_span()
        span.add_event("card", {"pan": "4242 4242 4242 4242"})
        span.set_status(span.status.status_code.ERROR, "password=hunter22")
    [told] = spans.get_finished_spans()
    assert told.name == "mail to [e-mail]"
    assert dict(told.attributes or {}) == {
        "who": "[e-mail]",
        "secret": "pi_123_secret_[key]",
        "many": ["Bearer [token]", "fine"],
        "number": 4242,
    }
    assert dict(told.events[0].attributes or {}) == {"pan": "[number]"}
    assert told.status.description == "password=[hidden]"


async def test_tasks_have_the_span_of_who_started_them(spans: InMemorySpanExporter) -> None:
    async def work(name: str) -> None:
        with step(name):
            await asyncio.sleep(0)

    with continued(RECORDED, "parent"):
        await asyncio.gather(*(work(str(number)) for number in range(3)))
    parent = named(spans)["parent"].context.span_id
    assert {named(spans)[str(number)].parent.span_id for number in range(3)} == {parent}


async def test_statement_of_recorded_work_is_a_span(spans: InMemorySpanExporter, database_url: str) -> None:
    async with create_pool(database_url) as pool, pool.connection() as conn:
        await conn.execute("SELECT 1")
        assert spans.get_finished_spans() == ()
        with continued(RECORDED, "work"):
            cursor = await conn.execute("SELECT key FROM effects WHERE key = %s", ["ada"])
            assert await cursor.fetchone() is None
    statement = named(spans)["SELECT effects"]
    assert statement.parent.span_id == named(spans)["work"].context.span_id
    assert statement.attributes["db.query.text"] == "SELECT key FROM effects WHERE key = %s"
    assert "ada" not in str(dict(statement.attributes))


async def test_pool_without_telemetry_has_plain_cursors(database_url: str) -> None:
    async with create_pool(database_url) as pool, pool.connection() as conn:
        assert conn.cursor_factory.__module__.startswith("psycopg")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("SELECT id\n  FROM orders WHERE id = %s", "SELECT orders"),
        ("INSERT INTO inbox (id) SELECT id FROM unnest(%s) AS id", "INSERT inbox"),
        ("UPDATE holds SET status = %s", "UPDATE holds"),
        ("SELECT outcome FROM place_hold(%s, %s)", "SELECT place_hold"),
        ("WITH done AS (DELETE FROM outbox) SELECT 1", "WITH outbox"),
        ("SELECT 1", "SELECT"),
        (b"anything", "SQL"),
    ],
)
def test_statement_is_named_by_what_it_does_to_what(query: object, name: str) -> None:
    assert statement_attributes(query)[0] == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "0" * 32 + "-" + "2" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        RECORDED.upper().replace("1", "A"),
        RECORDED + "-x",
        "ff" + RECORDED[2:],
    ],
)
def test_what_is_no_traceparent_starts_a_trace(text: str) -> None:
    own = start_trace(text)
    assert own.endswith("-00")
    assert text[3:35] != own[3:35]


def test_without_an_endpoint_nothing_of_the_sdk_is_imported() -> None:
    program = """
import asyncio, sys
import libs.web.application, libs.messaging.worker
from libs.telemetry import sending
async def main():
    async with sending("test") as telemetry:
        assert telemetry is None
asyncio.run(main())
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
print([name for name in sys.modules if name.startswith(parts)])
"""
    for environment in (
        {},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"
