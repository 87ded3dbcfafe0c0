"""W3C trace context (https://www.w3.org/TR/trace-context/) of the work in progress."""

import re
import secrets
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def start_trace(parent: str | None = None) -> str:
    """Makes the work from here on a child of `parent`, or a new trace, and returns its `traceparent`."""
    match = _TRACEPARENT.fullmatch(parent or "")
    trace_id, flags = (match[1], match[3]) if match else (secrets.token_hex(16), "00")
    traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"
    _current.set(traceparent)
    return traceparent


def current_traceparent() -> str:
    return _current.get() or start_trace()


def current_trace_id() -> str:
    return current_traceparent().split("-")[1]


def set_request_id(given: str | None) -> str:
    """Names the request in progress, by the client's name for it or else a new one; log lines carry it."""
    request_id = given or secrets.token_hex(16)
    _request_id.set(request_id)
    return request_id


def current_request_id() -> str | None:
    return _request_id.get()
