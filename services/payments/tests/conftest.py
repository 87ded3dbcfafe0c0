"""Payments against real servers: its application, its worker's parts, the Stripe emulator as a process."""

from collections.abc import AsyncGenerator, Generator
from signal import SIGKILL
from typing import LiteralString

import psycopg
import pytest
import pytest_asyncio
import stripe
from libs.postgres import create_pool
from libs.testing import Serve, Tokens
from payments.app import create_app
from payments.stripe_client import StripeGateway
from psycopg.rows import TupleRow
from stripe_emulator.testing import SECRET_KEY, WEBHOOK_SECRET, Emulator

from services.payments.tests.support import Buyer, Postbox, Shop

TABLES: LiteralString = (
    "holds, orders, payments, refunds, stripe_events, stripe_jobs, outbox, inbox, token_revocations"
)


@pytest.fixture(scope="session")
def shared_postbox() -> Generator[Postbox]:
    postbox = Postbox()
    yield postbox
    postbox.close()


@pytest.fixture(scope="session")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory, shared_postbox: Postbox) -> Generator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("stripe"), shared_postbox.url)
    emulator.start()
    yield emulator
    emulator.end(SIGKILL)


@pytest.fixture
def emulator(shared_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Empty, and known to the service's settings. The SDK's retries follow each other at once."""
    shared_emulator.control("POST", "reset")
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.0)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.0)
    monkeypatch.setenv("STRIPE_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", f"whsec_next,{WEBHOOK_SECRET}")
    monkeypatch.setenv("STRIPE_API_BASE", shared_emulator.url)
    monkeypatch.setenv("STRIPE_TIMEOUT_SECONDS", "2")
    return shared_emulator


@pytest_asyncio.fixture
async def shop(
    environment: dict[str, str], serve: Serve, tokens: Tokens, emulator: Emulator, shared_postbox: Postbox
) -> AsyncGenerator[Shop]:
    shared_postbox.letters.clear()
    app = create_app()
    pool = create_pool(environment["PAYMENTS_WORKER_DATABASE_URL"], max_size=8)
    await pool.open()
    admin_conn = await psycopg.AsyncConnection[TupleRow].connect(
        environment["ADMIN_DATABASE_URL"], autocommit=True, options="-c search_path=payments"
    )
    await admin_conn.execute(f"TRUNCATE {TABLES}")
    async with (
        serve(app) as client,
        StripeGateway(secret_key=SECRET_KEY, api_base=emulator.url, timeout_seconds=2) as gateway,
    ):
        yield Shop(
            client,
            tokens,
            app_pool=app.state.pool,
            pool=pool,
            admin_conn=admin_conn,
            stripe=gateway,
            emulator=emulator,
            postbox=shared_postbox,
        )
    await admin_conn.close()
    await pool.close()


@pytest.fixture
def buyer(shop: Shop) -> Buyer:
    return shop.buyer()
