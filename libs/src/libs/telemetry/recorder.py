"""Spans of the traces that are sampled; of the others nothing is made but their ids."""

import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes as OtelAttributes

from libs import tracing
from libs.tracing import Attributes, Kind

_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_ROOT = Context()


class _Ids(IdGenerator):
    """Gives a new trace the id about which the sampler was asked."""

    def __init__(self) -> None:
        self.next_trace_id = 0

    def generate_span_id(self) -> int:
        return random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        trace_id, self.next_trace_id = self.next_trace_id, 0
        return trace_id or random.getrandbits(128) or 1


class _LinkBased(Sampler):
    """What belongs to a recorded trace by a link alone is recorded with it, as a parent would decide it."""

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: OtelAttributes = None,
        links: Sequence[Link] | None = None,
        trace_state: object = None,
    ) -> SamplingResult:
        if links and any(link.context.trace_flags.sampled for link in links):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._otherwise.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return f"LinkBased{{{self._otherwise.get_description()}}}"


class Recorder:
    """`sampler` is by default that of OTEL_TRACES_SAMPLER."""

    def __init__(
        self, *, resource: Resource, processor: SpanProcessor, sampler: Sampler | None = None
    ) -> None:
        self._ids = _Ids()
        provider = TracerProvider(
            resource=resource, sampler=sampler, id_generator=self._ids, shutdown_on_exit=False
        )
        # Asked about what has neither a parent nor links, before anything is made for it.
        self._root = provider.sampler
        self._asks_parent = isinstance(provider.sampler, ParentBased)
        if self._asks_parent:
            provider.sampler = _LinkBased(provider.sampler)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("ticketing")

    def start(
        self,
        traceparent: str | None,
        name: str,
        *,
        kind: Kind,
        attributes: Attributes | None = None,
        links: Sequence[str | None] = (),
    ) -> Span | None:
        """Begins work that goes on with a trace, or a new one; None when that is not recorded."""
        context, trace_id = _ROOT, 0
        if (parent := tracing.parse_traceparent(traceparent)) is not None:
            if self._asks_parent and not parent[2]:
                tracing.start_trace(traceparent)
                return None
            context = _context_of(parent)
        elif not links:
            trace_id = random.getrandbits(128) or 1
            asked = self._root.should_sample(_ROOT, trace_id, name, _KINDS[kind])
            if asked.decision is Decision.DROP:
                tracing.start_trace(trace_id=trace_id)
                return None
        self._ids.next_trace_id = trace_id
        span = self._tracer.start_span(
            name, context=context, kind=_KINDS[kind], attributes=attributes, links=_links(links)
        )
        own = _traceparent_of(span.get_span_context())
        if not span.is_recording():
            tracing.start_trace(own)
            return None
        tracing.set_span(span, own)
        return span

    def end_request(self, span: Span, *, method: str, route: str, scheme: str, status: int) -> None:
        """The span of a request, once its route and answer are known."""
        span.set_attributes(
            {"http.request.method": method, "url.scheme": scheme, "http.response.status_code": status}
        )
        if route:
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        span.end()

    @contextmanager
    def continued(
        self,
        traceparent: str | None,
        name: str,
        *,
        kind: Kind,
        attributes: Attributes | None,
        links: Sequence[str | None],
    ) -> Generator[str]:
        """The caller puts the work that was in progress back."""
        span = self.start(traceparent, name, kind=kind, attributes=attributes, links=links)
        if span is None:
            yield tracing.current_traceparent()
        else:
            with _ending(span):
                yield tracing.current_traceparent()

    @contextmanager
    def child(self, name: str, *, kind: Kind, attributes: Attributes | None) -> Generator[None]:
        """A part of the recorded work in progress."""
        parent, before = tracing.current_span(), tracing.current_traceparent()
        assert parent is not None  # noqa: S101  # libs.tracing has looked
        span = self._tracer.start_span(
            name, context=set_span_in_context(parent, _ROOT), kind=_KINDS[kind], attributes=attributes
        )
        tracing.set_span(span, _traceparent_of(span.get_span_context()))
        try:
            with _ending(span):
                yield
        finally:
            tracing.set_span(parent, before)


@contextmanager
def _ending(span: Span) -> Generator[None]:
    # Of an error its kind alone: its text may name persons, and the log has it.
    try:
        yield
    except BaseException as error:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()


def _context_of(parent: tuple[str, str, bool]) -> Context:
    trace_id, span_id, is_sampled = parent
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    remote = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(remote), _ROOT)


def _traceparent_of(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _links(traceparents: Sequence[str | None]) -> list[Link]:
    found = [tracing.parse_traceparent(each) for each in traceparents]
    return [
        Link(
            SpanContext(
                int(each[0], 16), int(each[1], 16), is_remote=True, trace_flags=TraceFlags(int(each[2]))
            )
        )
        for each in found
        if each is not None
    ]
