"""Counts of requests, kept by ourselves: the SDK's instruments take 50 microseconds for each request."""

import time
from bisect import bisect_left
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from libs.telemetry import metrics

# OpenTelemetry's semantic conventions name these.
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

Key = tuple[str, str, int]


class RequestCounts:
    """By method, route template and status: few, whatever clients send."""

    def __init__(self) -> None:
        self._started = time.time_ns()
        self._series: dict[Key, _Series] = {}

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.add(seconds)

    def metrics(self) -> list[Metric]:
        now = time.time_ns()
        series = list(self._series.items())
        if not series:  # without points they would be refused
            return []
        durations = [
            HistogramDataPoint(
                attributes={**_labels(key), "url.scheme": "http"},
                start_time_unix_nano=self._started,
                time_unix_nano=now,
                count=sum(each.buckets),
                sum=each.sum,
                bucket_counts=list(each.buckets),
                explicit_bounds=BOUNDARIES,
                min=each.min,
                max=each.max,
            )
            for key, each in series
        ]
        counts = [
            NumberDataPoint(
                attributes=_labels(key),
                start_time_unix_nano=self._started,
                time_unix_nano=now,
                value=sum(each.buckets),
            )
            for key, each in series
        ]
        cumulative = AggregationTemporality.CUMULATIVE
        return [
            _metric(metrics.REQUEST_DURATION, Histogram(durations, cumulative)),
            _metric(metrics.REQUEST_COUNT, Sum(counts, cumulative, is_monotonic=True)),
        ]


class _Series:
    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDARIES) + 1)
        self.sum = 0.0
        self.min = float("inf")
        self.max = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDARIES, seconds)] += 1
        self.sum += seconds
        self.min = min(self.min, seconds)
        self.max = max(self.max, seconds)


def _labels(key: Key) -> dict[str, str | int]:
    method, route, status = key
    labels: dict[str, str | int] = {"http.request.method": method, "http.response.status_code": status}
    return {**labels, "http.route": route} if route else labels


def _metric(declared: metrics.Metric, data: Any) -> Metric:
    return Metric(declared.name, declared.description, declared.unit, data)
