"""Log lines go to standard error, one per record, with the trace and the request they belong to.

Text for people, or JSON for whoever collects them (`LOG_FORMAT`). What libs.scrubbing knows is taken out of
them, also of stack traces."""

import logging
from datetime import UTC, datetime
from typing import Literal

import msgspec

from libs.scrubbing import scrub
from libs.tracing import current_request_id, current_trace_id, current_traceparent

_TEXT = "%(asctime)s %(levelname)s %(name)s trace=%(trace_id)s request=%(request_id)s %(message)s"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.trace_id = current_trace_id()
        record.request_id = current_request_id() or "-"
        return scrub(super().format(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        _, trace_id, span_id, flags = current_traceparent().split("-")
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": scrub(record.getMessage()),
            "traceId": trace_id,
            "spanId": span_id,
            "traceFlags": flags,
            "requestId": current_request_id(),
        }
        if record.exc_info:
            line["exception"] = scrub(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


class _OncePerWhile(logging.Filter):
    """Of some libraries a complaint twice a minute: with Kafka away aiokafka has sixty a second, each kind of
    which is heard; of a backend of telemetry that is away one word is enough.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("opentelemetry"):
            kind = "opentelemetry"
        elif record.name.startswith("aiokafka"):
            kind = record.msg
        else:
            return True
        if record.created - self._said_at.get(kind, 0) < 30:
            return False
        if len(self._said_at) > 100:
            self._said_at.clear()
        self._said_at[kind] = record.created
        return True


def configure_logging(level: str, shape: Literal["text", "json"] = "text") -> None:
    """Sets the level (`debug`, `info`, `warning`, `error`) and the shape of all log lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if shape == "json" else _Formatter(_TEXT))
    handler.addFilter(_OncePerWhile())
    names = logging.getLevelNamesMapping()
    logging.basicConfig(handlers=[handler], level=names.get(level.upper(), logging.INFO), force=True)
    # These tell each request or reconnection: the services say it once, in their own words.
    for name, quiet in (("httpx", logging.WARNING), ("stripe", logging.WARNING), ("aiokafka", logging.ERROR)):
        logging.getLogger(name).setLevel(quiet)
