"""The OpenTelemetry SDK, put together for one process; the OTEL_* variables say where to and how much."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from libs import tracing
from libs.ids import new_id
from libs.telemetry.metrics import READ, UPTIME, Metric
from libs.telemetry.readings import Labels, Readings
from libs.telemetry.recorder import Recorder
from libs.telemetry.requests import RequestCounts
from libs.telemetry.scrubbed import ScrubbingExporter

EXPORT_METRICS_EVERY_MILLISECONDS = 15_000
STOP_SECONDS = 2.0
"""How long a process that stops waits for what is left to be taken."""


class Telemetry:
    """`requests` and `readings` are where the parts of the process leave their numbers."""

    def __init__(self) -> None:
        self.requests = RequestCounts()
        self.readings = Readings()
        self.on_stop: list[Callable[[], object]] = []


def start(process: str, signals: Sequence[str], *, own: Sequence[Metric] = ()) -> Telemetry:
    telemetry = Telemetry()
    resource = resource_of(process)
    if "traces" in signals:
        record(telemetry, resource=resource, processor=batched(OTLPSpanExporter()))
    if "metrics" in signals:
        every = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or EXPORT_METRICS_EVERY_MILLISECONDS)
        reader = PeriodicExportingMetricReader(
            WithRequests(OTLPMetricExporter(), telemetry.requests), export_interval_millis=every
        )
        measure(telemetry, resource=resource, reader=reader, own=own)
    return telemetry


def resource_of(process: str) -> Resource:
    """What the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) wins."""
    own = {
        "service.name": process,
        "service.namespace": "ticketing",
        "service.instance.id": str(new_id()),
    }
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def batched(exporter: SpanExporter) -> SpanProcessor:
    return BatchSpanProcessor(ScrubbingExporter(exporter))


def record(
    telemetry: Telemetry, *, resource: Resource, processor: SpanProcessor, sampler: Sampler | None = None
) -> None:
    tracing.recorder = Recorder(resource=resource, processor=processor, sampler=sampler)
    telemetry.on_stop.append(processor.shutdown)


def measure(
    telemetry: Telemetry, *, resource: Resource, reader: MetricReader, own: Sequence[Metric] = ()
) -> None:
    provider = MeterProvider(
        [reader], resource=resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
    )
    meter = provider.get_meter("ticketing")
    started = time.monotonic()
    _observe(meter, UPTIME, lambda: [((), time.monotonic() - started)])
    for metric in (*READ, *own):
        _observe(meter, metric, lambda each=metric: telemetry.readings.of(each))
    telemetry.on_stop.append(provider.shutdown)


def _observe(meter: Meter, metric: Metric, read: Callable[[], list[tuple[Labels, float]]]) -> None:
    def observations(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(labels)) for labels, value in read()]

    create = meter.create_observable_gauge if metric.kind == "gauge" else meter.create_observable_counter
    create(metric.name, [observations], unit=metric.unit, description=metric.description)


def stop(telemetry: Telemetry) -> None:
    """Sends what is left, and waits for a backend that is away no longer than a moment."""
    tracing.recorder = None
    # Its own time-outs are 30 s, and longer than a supervisor waits. Daemons do not keep a process.
    threads = [Thread(target=each, daemon=True) for each in telemetry.on_stop]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class WithRequests(MetricExporter):
    """Adds the counts of requests to what the SDK has collected."""

    def __init__(self, exporter: MetricExporter, requests: RequestCounts) -> None:
        super().__init__()
        # The reader asks for these; they follow OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE.
        self._preferred_temporality = exporter._preferred_temporality  # pyright: ignore[reportPrivateUsage]
        self._preferred_aggregation = exporter._preferred_aggregation  # pyright: ignore[reportPrivateUsage]
        self._exporter = exporter
        self._requests = requests

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        added = self._requests.metrics()
        whole = [
            ResourceMetrics(
                each.resource,
                [
                    ScopeMetrics(scope.scope, [*scope.metrics, *added], scope.schema_url)
                    for scope in each.scope_metrics
                ],
                each.schema_url,
            )
            for each in metrics_data.resource_metrics
        ]
        return self._exporter.export(MetricsData(whole), timeout_millis=timeout_millis)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        self._exporter.shutdown(timeout_millis)
