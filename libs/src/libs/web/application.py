"""Puts a service's HTTP application together."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar, Response
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from libs.logs import configure_logging
from libs.postgres import PoolRepair, create_pool
from libs.settings import ServiceSettings
from libs.tasks import end_tasks
from libs.telemetry import sending
from libs.telemetry.pools import pool_readings
from libs.web.access import GUARDS, provide_caller, provide_visitor
from libs.web.bodies import StrictRequest
from libs.web.buckets import Buckets, RateLimit
from libs.web.documentation import documentation_routers
from libs.web.edge import Edge
from libs.web.freshness import FreshnessGate
from libs.web.health import ReadinessProbe, health_router
from libs.web.idempotency import idempotency_middleware, provide_attempt
from libs.web.limits import RequestLimits, limits_middleware
from libs.web.openapi import Document, build_document
from libs.web.problems import EXCEPTION_HANDLERS
from libs.web.queries import queries_middleware
from libs.web.sizes import sizes_middleware
from libs.web.tokens import TokenVerifier
from libs.web.tracer import RequestTracer

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

_ALLOWED_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Traceparent",
    "X-Request-Id",
]
_EXPOSED_HEADERS = [
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
]


def create_service_app(
    settings: ServiceSettings,
    *,
    service: str,
    title: str,
    routes: Sequence[ControllerRouterHandler],
    lifespan: Sequence[Lifespan] = (),
    limits: Sequence[RateLimit] = (),
) -> Litestar:
    """An application with a pool (`state.pool`), access control, problems, health and documentation.

    Raises `ValueError` when a route names no access rule, or a limit that is not among `limits`.
    """
    configure_logging(settings.log_level, settings.log_format)

    def document() -> Document:
        return build_document(app, title=title)

    app = Litestar(
        route_handlers=[
            *routes,
            health_router(service),
            *documentation_routers(service, document),
        ],
        lifespan=[_telemetry(service), _resources(settings), *lifespan],
        dependencies={
            "caller": Provide(provide_caller),
            "visitor": Provide(provide_visitor),
            "attempt": Provide(provide_attempt),
        },
        exception_handlers=EXCEPTION_HANDLERS,
        request_class=StrictRequest,
        request_max_body_size=settings.body_limit,
        middleware=[limits_middleware, queries_middleware, idempotency_middleware],
        cors_config=CORSConfig(
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
        )
        if settings.allowed_origins
        else None,
        openapi_config=None,
        logging_config=None,
    )
    edge = Edge(sizes_middleware(app.asgi_handler), allowed_hosts=settings.host_names)
    app.asgi_handler = app.state.tracer = RequestTracer(edge)
    app.state.edge = edge
    app.state.drain_seconds = settings.drain_seconds
    app.state.build_document = document
    app.state.freshness_gate = FreshnessGate()
    app.state.request_limits = RequestLimits(settings, limits)
    _tell_all_methods(app)
    _refuse_open_routes(app)
    _refuse_unknown_limits(app)
    return app


def _telemetry(service: str) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with sending(f"{service}-app") as telemetry:
            app.state.tracer.telemetry = telemetry
            try:
                yield
            finally:
                app.state.tracer.telemetry = None

    return lifespan


def _resources(settings: ServiceSettings) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        pool = create_pool(settings.database_url)
        await pool.open()
        verifier = TokenVerifier(jwks_url=settings.jwks_url, pool=pool)
        buckets = Buckets(settings.redis_url)
        probe = ReadinessProbe(pool=pool, redis_url=settings.redis_url, kafka_brokers=settings.kafka_brokers)
        app.state.pool = pool
        app.state.pool_repair = PoolRepair(pool)
        app.state.token_verifier = verifier
        app.state.buckets = buckets
        app.state.readiness_probe = probe
        await verifier.load_revocations()
        refreshing = [asyncio.create_task(verifier.refresh())]
        if (telemetry := app.state.tracer.telemetry) is not None:
            refreshing.append(asyncio.create_task(telemetry.readings.keep_fresh(pool_readings(pool))))
        try:
            yield
        finally:
            app.state.edge.is_draining = True
            await end_tasks(*refreshing)
            await buckets.close()
            await probe.close()
            await pool.close()

    return lifespan


def _tell_all_methods(app: Litestar) -> None:
    """Litestar's `OPTIONS` tells those of the first handler of a path alone, and no `HEAD`."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            methods = {*route.methods, *(["HEAD"] if "GET" in route.methods else [])}
            options, _ = route.route_handler_map["OPTIONS"]
            options._fn = _options(", ".join(sorted(methods)))  # pyright: ignore[reportPrivateUsage]


def _options(allowed: str) -> Any:
    def answer(**_: object) -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allowed}, media_type="text/plain")

    return answer


def _refuse_open_routes(app: Litestar) -> None:
    for path, handler in route_handlers(app):
        if len(access_rules(handler)) != 1:
            raise ValueError(f"{path}: {handler} names no access rule, or several (libs.web.access)")


def route_handlers(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler]]:
    """(path, handler) of every route of ours; Litestar's own serve OPTIONS."""
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]
        for handler in handlers:
            is_options = isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}
            if not is_options:
                yield route.path, handler


def _refuse_unknown_limits(app: Litestar) -> None:
    limits: RequestLimits = app.state.request_limits
    for path, handler in route_handlers(app):
        name = handler.opt.get("limit")
        if name is not None and not limits.has(name):
            raise ValueError(f"{path}: {handler} names an unknown limit: {name}")


def access_rules(handler: BaseRouteHandler) -> list[str]:
    """Names of its guards and of those of the routers above it."""
    guards = [guard for layer in handler.ownership_layers for guard in layer.guards or []]
    return [guard.__name__ for guard in GUARDS if guard in guards]
