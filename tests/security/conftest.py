"""The applications of all services at once, and people who call them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import auth.app
import catalog.app
import httpx
import inventory.app
import payments.app
import psycopg
import pytest
import pytest_asyncio
from libs.ids import new_id
from libs.testing import Serve, Tokens
from litestar import Litestar


@pytest.fixture
def apps(environment: dict[str, str]) -> dict[str, Litestar]:
    services = {
        "auth": auth.app,
        "catalog": catalog.app,
        "inventory": inventory.app,
        "payments": payments.app,
    }
    return {name: service.create_app() for name, service in services.items()}


@pytest_asyncio.fixture
async def clients(apps: Mapping[str, Litestar], serve: Serve) -> AsyncGenerator[dict[str, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(serve(app)) for name, app in apps.items()}


@pytest.fixture
def people(environment: dict[str, str], tokens: Tokens) -> dict[str, dict[str, str]]:
    """Headers of nobody, and of an account of each role."""
    headers: dict[str, dict[str, str]] = {"nobody": {}}
    with psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        for role in ("user", "scanner", "admin"):
            values: dict[str, Any] = {"id": new_id(), "email": f"{new_id()}@example.com", "role": role}
            conn.execute(
                "INSERT INTO auth.users (id, email, email_key, name, role, password_phc)"
                " VALUES (%(id)s, %(email)s, %(email)s, 'A', %(role)s, '$argon2id$none')",
                values,
            )
            headers[role] = tokens.issue(values["id"], role=role)
    return headers
