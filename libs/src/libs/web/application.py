"""Puts a service's HTTP application together."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.router import Router
from litestar.routes import BaseRoute, HTTPRoute
from litestar.static_files import create_static_files_router
from litestar.types import ASGIApp, ControllerRouterHandler, Message, Receive, Scope, Send

from libs.logs import configure_logging
from libs.postgres import PoolRepair, create_pool
from libs.settings import ServiceSettings
from libs.tasks import end_tasks
from libs.tracing import start_trace
from libs.web.access import GUARDS, provide_caller, provide_visitor
from libs.web.bodies import StrictRequest
from libs.web.buckets import Buckets, RateLimit
from libs.web.freshness import FreshnessGate
from libs.web.health import ReadinessProbe, health_router
from libs.web.idempotency import idempotency_middleware
from libs.web.limits import RequestLimits, limits_middleware
from libs.web.problems import EXCEPTION_HANDLERS
from libs.web.sizes import sizes_middleware
from libs.web.tokens import TokenVerifier

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


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
    configure_logging(settings.log_level)
    documentation = f"/{service}/docs/assets"
    app = Litestar(
        route_handlers=[
            *routes,
            health_router(service),
            create_static_files_router(
                documentation,
                directories=[str(files("swagger_ui") / "static")],
                guards=[GUARDS[0]],
                include_in_schema=False,
            ),
        ],
        lifespan=[_resources(settings), *lifespan],
        dependencies={"caller": Provide(provide_caller), "visitor": Provide(provide_visitor)},
        exception_handlers=EXCEPTION_HANDLERS,
        request_class=StrictRequest,
        request_max_body_size=settings.body_limit,
        middleware=[_trace_and_headers, sizes_middleware, limits_middleware, idempotency_middleware],
        cors_config=CORSConfig(
            allow_origins=settings.allowed_origins,
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
            expose_headers=["ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After"],
        )
        if settings.allowed_origins
        else None,
        openapi_config=OpenAPIConfig(
            title=title,
            version="1.0.0",
            openapi_router=_DocumentationRouter(f"/{service}", route_handlers=[], include_in_schema=False),
            use_handler_docstrings=True,
            components=Components(
                security_schemes={"token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
            ),
            render_plugins=[
                JsonRenderPlugin(),
                SwaggerRenderPlugin(
                    path="/docs",
                    favicon=f"<link rel='icon' href='{documentation}/favicon-32x32.png'>",
                    js_url=f"{documentation}/swagger-ui-bundle.js",
                    css_url=f"{documentation}/swagger-ui.css",
                    standalone_preset_js_url=f"{documentation}/swagger-ui-standalone-preset.js",
                ),
            ],
        ),
        logging_config=None,
    )
    app.state.freshness_gate = FreshnessGate()
    app.state.request_limits = RequestLimits(settings, limits)
    _refuse_open_routes(app)
    _refuse_unknown_limits(app)
    return app


class _DocumentationRouter(Router):
    """Without Litestar's own HTML page for other paths below it: those get a problem document."""

    def register(self, value: ControllerRouterHandler) -> list[BaseRoute]:
        if getattr(getattr(value, "fn", None), "__name__", "") == "handle_schema_path_not_found":
            return []
        return super().register(value)


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
        refreshing = asyncio.create_task(verifier.refresh())
        try:
            yield
        finally:
            probe.is_draining = True
            await end_tasks(refreshing)
            await buckets.close()
            await probe.close()
            await pool.close()

    return lifespan


def _refuse_open_routes(app: Litestar) -> None:
    for path, handler in route_handlers(app):
        if len(access_rules(handler)) != 1:
            raise ValueError(f"{path}: {handler} names no access rule, or several (libs.web.access)")


def route_handlers(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler]]:
    """(path, handler) of every route of ours; Litestar's own serve OPTIONS and the documentation."""
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]
        for handler in handlers:
            is_options = isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}
            is_documentation = handler.fn.__module__.startswith(("litestar._openapi", "litestar.openapi"))
            if not is_options and not is_documentation:
                yield route.path, handler


def _refuse_unknown_limits(app: Litestar) -> None:
    limits: RequestLimits = app.state.request_limits
    for route in app.routes:
        for handler in getattr(route, "route_handlers", []):
            name = handler.opt.get("limit")
            if name is not None and not limits.has(name):
                raise ValueError(f"{route.path}: {handler} names an unknown limit: {name}")


def access_rules(handler: BaseRouteHandler) -> list[str]:
    """Names of its guards and of those of the routers above it."""
    guards = [guard for layer in handler.ownership_layers for guard in layer.guards or []]
    return [guard.__name__ for guard in GUARDS if guard in guards]


def _trace_and_headers(app: ASGIApp) -> ASGIApp:
    """Continues the caller's trace and adds security headers to every answer."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        start_trace(headers.get(b"traceparent", b"").decode("latin-1"))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SECURITY_HEADERS]
            await send(message)

        await app(scope, receive, send_with_headers)

    return middleware
