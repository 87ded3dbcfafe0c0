"""W3C trace context (https://www.w3.org/TR/trace-context/) of the work in progress.

Every piece of work has a `traceparent`: log lines, problem documents and messages carry it. Spans are
recorded only while `recorder` is set, which libs.telemetry does when the environment asks for it, and of the
traces that are sampled.
"""

import random
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from libs.telemetry.recorder import Recorder

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | bool]

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

recorder: "Recorder | None" = None

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)
_span: ContextVar["Span | None"] = ContextVar("span", default=None)


def parse_traceparent(text: str | None) -> tuple[str, str, bool] | None:
    """(trace id, span id, whether the trace is recorded); None when it is none."""
    match = _TRACEPARENT.fullmatch(text) if text else None
    return (match[1], match[2], bool(int(match[3], 16) & 1)) if match else None


def is_recorded(traceparent: str | None) -> bool:
    """Whether spans that continue this trace are recorded here."""
    parsed = None if recorder is None else parse_traceparent(traceparent)
    return parsed is not None and parsed[2]


def start_trace(parent: str | None = None, *, trace_id: int = 0) -> str:
    """Makes the work from here on a child of `parent`, or a new trace, and returns its `traceparent`.

    Nothing of it is recorded. `trace_id` is that of the new trace, if it has one already.
    """
    # Ids need not be hard to guess, and secrets' cost a tenth of a request.
    span_id = random.getrandbits(64) or 1
    match = _TRACEPARENT.fullmatch(parent) if parent else None
    if match:
        traceparent = f"00-{match[1]}-{span_id:016x}-{match[3]}"
    else:
        traceparent = f"00-{trace_id or random.getrandbits(128) or 1:032x}-{span_id:016x}-00"
    _current.set(traceparent)
    _span.set(None)
    return traceparent


def set_span(span: "Span", traceparent: str) -> None:
    """Makes the work from here on that of a recorded span."""
    _current.set(traceparent)
    _span.set(span)


def current_span() -> "Span | None":
    """The recorded span of the work in progress."""
    return _span.get()


def current_traceparent() -> str:
    return _current.get() or start_trace()


def current_trace_id() -> str:
    return current_traceparent().split("-")[1]


@contextmanager
def step(name: str, *, kind: Kind = "internal", attributes: Attributes | None = None) -> Generator[None]:
    """A part of the work in progress: a span of its own if that is recorded."""
    if recorder is None or _span.get() is None:
        yield
        return
    with recorder.child(name, kind=kind, attributes=attributes):
        yield


@contextmanager
def continued(
    traceparent: str | None,
    name: str,
    *,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    links: Sequence[str | None] = (),
) -> Generator[str]:
    """Work that goes on with a trace begun elsewhere; without one it is a new trace. Yields its own.

    `links` are traceparents of what else it belongs to.
    """
    before = _current.get(), _span.get()
    try:
        if recorder is None:
            yield start_trace(traceparent)
        else:
            with recorder.continued(traceparent, name, kind=kind, attributes=attributes, links=links) as own:
                yield own
    finally:
        _current.set(before[0])
        _span.set(before[1])


class unrecorded:  # noqa: N801  # it reads as `continued` does
    """Work that goes on with a trace of which nothing is recorded: cheap, for messages by the thousand."""

    def __init__(self, traceparent: str | None) -> None:
        self._traceparent = traceparent
        self._before = _current.get(), _span.get()

    def __enter__(self) -> None:
        start_trace(self._traceparent)

    def __exit__(self, *_: object) -> None:
        _current.set(self._before[0])
        _span.set(self._before[1])


def set_request_id(given: str | None) -> str:
    """Names the request in progress, by the client's name for it or else a new one; log lines carry it."""
    request_id = given or f"{random.getrandbits(128):032x}"
    _request_id.set(request_id)
    return request_id


def current_request_id() -> str | None:
    return _request_id.get()
