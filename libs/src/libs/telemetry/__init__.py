"""Traces and metrics over OTLP, where the standard OTEL_* variables of the environment ask for them.

Without an endpoint, or with OTEL_SDK_DISABLED, nothing is set up and nothing of OpenTelemetry imported.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libs.telemetry.metrics import Metric
    from libs.telemetry.sdk import Telemetry

log = logging.getLogger(__name__)

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL = "http/protobuf"


def is_wanted(signal: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this signal, `traces` or `metrics`, has somewhere to go."""
    name = signal.upper()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get(f"OTEL_{name}_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return bool(environ.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT") or environ.get(_ENDPOINT))


@asynccontextmanager
async def sending(process: str, *, own: Sequence["Metric"] = ()) -> AsyncGenerator["Telemetry | None"]:
    """Sends what this process does under its name, such as `payments-worker`, until the end of the block.

    `own` are metrics that are its service's.
    """
    signals = [signal for signal in ("traces", "metrics") if is_wanted(signal)]
    if not signals:
        yield None
        return
    for name in (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        *(f"OTEL_EXPORTER_OTLP_{each.upper()}_PROTOCOL" for each in signals),
    ):
        if (os.environ.get(name) or _PROTOCOL) != _PROTOCOL:
            log.warning("telemetry is sent as %s: %s=%s is not known", _PROTOCOL, name, os.environ[name])
    # 20 MB and half a second: only who sends pays for it.
    from libs.telemetry.sdk import start, stop  # noqa: PLC0415

    telemetry = start(process, signals, own=own)
    try:
        yield telemetry
    finally:
        await asyncio.to_thread(stop, telemetry)
