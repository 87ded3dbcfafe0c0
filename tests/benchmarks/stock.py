"""The services with OpenTelemetry's own ASGI middleware in place of libs.web.tracer, to compare the two."""

import os
from typing import Any

import catalog.app
import inventory.app
from libs.telemetry.sdk import batched, resource_of
from litestar import Litestar
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "STOCK_EXPORTER_ENDPOINT"
"""In place of OTEL_EXPORTER_OTLP_ENDPOINT, which would set up the services' own telemetry too."""


def _traced(app: Litestar, service: str) -> Litestar:
    provider = TracerProvider(resource=resource_of(f"{service}-app"))
    provider.add_span_processor(batched(OTLPSpanExporter(endpoint=f"{os.environ[ENDPOINT]}/v1/traces")))
    # The two say "an ASGI application" with types of their own.
    inner: Any = app.asgi_handler
    outer: Any = OpenTelemetryMiddleware(inner, tracer_provider=provider)
    app.asgi_handler = outer
    return app


def catalog_app() -> Litestar:
    return _traced(catalog.app.create_app(), "catalog")


def inventory_app() -> Litestar:
    return _traced(inventory.app.create_app(), "inventory")
