"""The HTTP process: routes, Stripe's client, all wiring on one screen."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from libs.web.application import create_service_app
from litestar import Litestar

from payments.routes import ROUTES
from payments.settings import settings_of
from payments.stripe_client import StripeGateway


def create_app() -> Litestar:
    settings = settings_of("app")

    @asynccontextmanager
    async def stripe_gateway(app: Litestar) -> AsyncGenerator[None]:
        async with StripeGateway(
            secret_key=settings.stripe_secret_key,
            api_base=settings.stripe_api_base,
            timeout_seconds=settings.stripe_timeout_seconds,
        ) as app.state.stripe:
            yield

    app = create_service_app(
        settings,
        service="payments",
        title="Payments: orders, payments, refunds",
        routes=ROUTES,
        lifespan=[stripe_gateway],
    )
    app.state.payment_seconds = settings.payment_seconds
    app.state.webhook_secrets = settings.webhook_secrets
    return app
