"""What all tests share: real servers, a database for each parallel worker, and access tokens."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from contracts.topics import TOPICS
from embedded.services import DEFAULTS
from embedded.testing import shared_stack
from libs.migrations import migrate, services_from_environment
from libs.testing import Serve, Tokens, serve_in_this_loop
from psycopg import sql

ROOT = Path(__file__).parent
SERVICES = sorted({topic.owner for topic in TOPICS})


@pytest.fixture(scope="session")
def backing() -> Iterator[dict[str, str]]:
    """Addresses of a PostgreSQL, a Redis and a Kafka that all workers of this run share."""
    with shared_stack("services") as stack:
        yield stack.environment()


@pytest.fixture(scope="session")
def environment(backing: dict[str, str], worker_id: str) -> Iterator[dict[str, str]]:
    """The environment of the services, with all schemas migrated in a database of this worker's own."""
    name = f"ticketing_{worker_id}"
    with psycopg.connect(backing["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    own = {
        key: re.sub(r"/ticketing(?=$|\?)", f"/{name}", value) if key.endswith("DATABASE_URL") else value
        for key, value in backing.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in own.items():
            patch.setenv(key, value)
        patch.setenv("ENVIRONMENT", "embedded")
        patch.setenv("JWKS_URL", "http://127.0.0.1:1/no-auth-here")
        for key, value in DEFAULTS.items():
            patch.setenv(key, value)
        with psycopg.connect(backing["ADMIN_DATABASE_URL"], autocommit=True) as conn:
            # Roles belong to the server that all workers share: one worker at a time makes them.
            conn.execute("SELECT pg_advisory_lock(hashtext('migrations of a worker'))")
            folders = [ROOT / "services" / service / "migrations" for service in SERVICES]
            migrate(own["ADMIN_DATABASE_URL"], services_from_environment(folders))
        yield own


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def serve(tokens: Tokens) -> Serve:
    """Runs an application in the test's own event loop; it trusts `tokens`."""
    return partial(serve_in_this_loop, tokens=tokens)
