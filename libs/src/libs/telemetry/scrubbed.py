"""Spans leave the process without what libs.scrubbing knows, whoever wrote it on them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from libs.scrubbing import scrub

# Most texts on spans are route templates and statements.
_scrub = lru_cache(maxsize=2000)(scrub)


class ScrubbingExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_scrubbed(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _scrubbed(span: ReadableSpan) -> ReadableSpan:
    status = span.status
    return ReadableSpan(
        name=_scrub(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_scrubbed_attributes(span.attributes),
        events=[
            Event(event.name, _scrubbed_attributes(event.attributes), event.timestamp)
            for event in span.events
        ],
        links=[Link(link.context, _scrubbed_attributes(link.attributes)) for link in span.links],
        kind=span.kind,
        status=Status(status.status_code, _scrub(status.description)) if status.description else status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _scrubbed_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _scrubbed_value(value) for name, value in (attributes or {}).items()}


def _scrubbed_value(value: Any) -> Any:
    if isinstance(value, str):
        return _scrub(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_scrubbed_value(each) for each in value]
    return value
