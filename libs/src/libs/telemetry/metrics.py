"""The metrics of all processes: docs/telemetry.md tells of each. A service may have some of its own."""

from typing import Literal

from msgspec import Struct


class Metric(Struct, frozen=True):
    """`labels` have few values each: routes by their template, topics, groups, parts of a worker."""

    name: str
    kind: Literal["histogram", "counter", "gauge"]
    unit: str
    description: str
    labels: tuple[str, ...] = ()


_REQUEST_LABELS = ("http.request.method", "http.route", "http.response.status_code")

REQUEST_DURATION = Metric(
    "http.server.request.duration",
    "histogram",
    "s",
    "How long requests took, until their answer was sent",
    (*_REQUEST_LABELS, "url.scheme"),
)
REQUEST_COUNT = Metric(
    "http.server.request.count", "counter", "{request}", "Requests answered", _REQUEST_LABELS
)
UPTIME = Metric(
    "process.uptime", "gauge", "s", "How long the process has run; of one that is gone there is none"
)
POOL_USED = Metric(
    "ticketing.pool.used", "gauge", "{connection}", "Connections to the database that work at the moment"
)
POOL_WAITING = Metric("ticketing.pool.waiting", "gauge", "{request}", "Who waits for such a connection")
OUTBOX_ROWS = Metric("ticketing.outbox.rows", "gauge", "{row}", "Messages that wait to be sent")
OUTBOX_AGE = Metric(
    "ticketing.outbox.oldest_age", "gauge", "s", "How long the oldest of them has waited; 0 without"
)
RELAYS = Metric(
    "ticketing.relays", "gauge", "{relay}", "Relays of this process that hold their shard and send"
)
SUBSCRIBED = Metric(
    "ticketing.consumer.partitions", "gauge", "{partition}", "Partitions that this process reads", ("topic",)
)
LAG = Metric(
    "ticketing.consumer.lag",
    "gauge",
    "{message}",
    "Messages that this process has yet to handle; the sum over a group is the group's",
    ("group", "topic"),
)
MESSAGES = Metric(
    "ticketing.consumer.messages",
    "counter",
    "{message}",
    "Messages by what became of them: handled, skipped, not for us, dead letters",
    ("group", "outcome"),
)
DEAD_LETTERS = Metric(
    "ticketing.dead_letters",
    "gauge",
    "{message}",
    "Dead letters about which nobody has decided yet",
    ("topic",),
)
READ = (
    POOL_USED,
    POOL_WAITING,
    OUTBOX_ROWS,
    OUTBOX_AGE,
    RELAYS,
    SUBSCRIBED,
    LAG,
    MESSAGES,
    DEAD_LETTERS,
)
"""What the parts of a process look at and leave in its `Readings`."""

METRICS = (REQUEST_DURATION, REQUEST_COUNT, UPTIME, *READ)


def prometheus_names(metric: Metric) -> list[str]:
    """What OpenTelemetry's Prometheus exporter makes of it."""
    name = metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
    match metric.kind:
        case "counter":
            return [f"{name}_total"]
        case "gauge":
            return [name]
        case _:
            return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
