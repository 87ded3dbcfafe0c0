"""What a worker looks at every few seconds: numbers that cost a query, kept for whoever collects metrics."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from libs.postgres import is_transient
from libs.telemetry.metrics import Metric

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0

Labels = tuple[tuple[str, str], ...]
Values = dict[tuple[Metric, Labels], float]
Look = Callable[[], Awaitable[Values]]


class Readings:
    """The last values; of what could not be read there are none, rather than old ones."""

    def __init__(self) -> None:
        self._values: dict[Look, Values] = {}

    async def keep_fresh(self, *looks: Look, every_seconds: float = LOOK_EVERY_SECONDS) -> None:
        while True:
            for look in looks:
                try:
                    async with asyncio.timeout(LOOK_EVERY_SECONDS):
                        self._values[look] = await look()
                except Exception as error:
                    # That a server is away the process says in other ways.
                    level = logging.DEBUG if is_transient(error) else logging.WARNING
                    log.log(level, "not measured: %r", error)
                    self._values.pop(look, None)
            await asyncio.sleep(every_seconds)

    def of(self, metric: Metric) -> list[tuple[Labels, float]]:
        values = list(self._values.values())
        return [
            (labels, value) for each in values for (name, labels), value in each.items() if name is metric
        ]


def values(metric: Metric, counted: Mapping[str, float], **labels: str) -> Values:
    """One value for each of the metric's last label."""
    last = metric.labels[-1]
    return {(metric, (*labels.items(), (last, name))): float(value) for name, value in counted.items()}
