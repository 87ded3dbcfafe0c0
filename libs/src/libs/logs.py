"""Log lines go to standard error, one per record, with the trace and the request they belong to.

What libs.scrubbing knows is taken out of them, also of stack traces."""

import logging

from libs.scrubbing import scrub
from libs.tracing import current_request_id, current_trace_id


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.trace_id = current_trace_id()
        record.request_id = current_request_id() or "-"
        return scrub(super().format(record))


class _OncePerWhile(logging.Filter):
    """Of aiokafka the same complaint twice a minute: with Kafka away it has some sixty a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        if record.created - self._said_at.get(record.msg, 0) < 30:
            return False
        if len(self._said_at) > 100:
            self._said_at.clear()
        self._said_at[record.msg] = record.created
        return True


def configure_logging(level: str) -> None:
    """Sets the level (`debug`, `info`, `warning`, `error`) and the shape of all log lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        _Formatter("%(asctime)s %(levelname)s %(name)s trace=%(trace_id)s request=%(request_id)s %(message)s")
    )
    handler.addFilter(_OncePerWhile())
    names = logging.getLevelNamesMapping()
    logging.basicConfig(handlers=[handler], level=names.get(level.upper(), logging.INFO), force=True)
    # These tell each request or reconnection: the services say it once, in their own words.
    for name, quiet in (("httpx", logging.WARNING), ("stripe", logging.WARNING), ("aiokafka", logging.ERROR)):
        logging.getLogger(name).setLevel(quiet)
