"""Connections and transactions. A function that takes `conn` never commits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from libs import tracing
from libs.statements import statement_attributes

Conn = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Conn]

# A server whose machine is gone is noticed in some 10 s, not after the two hours of the kernel's settings.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}

# SQLSTATEs of faults that pass: connection gone, no resources, shutdown, locks, a server that is no primary
# (any more, or yet), a process that was stopped in the middle of a transaction.
_TRANSIENT_CLASSES = ("08", "53", "57")
_TRANSIENT_CODES = ("40001", "40P01", "55P03", "25006", "25P03")


def create_pool(url: str, *, max_size: int = 10) -> Pool:
    """A pool of autocommit connections, not yet open.

    A caller waits at most 2 s for a connection and at most 200 callers wait; beyond that the pool raises
    `PoolTimeout` or `TooManyRequests`.
    """
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=max_size,
        open=False,
        timeout=2,
        max_waiting=200,
        reconnect_timeout=5,
        kwargs={
            "autocommit": True,
            "connect_timeout": 3,
            "application_name": "ticketing",
            # Looked for once: without telemetry a statement costs nothing more.
            "cursor_factory": AsyncCursor if tracing.recorder is None else _RecordedCursor,
            **KEEPALIVES,
        },
    )


class _RecordedCursor(AsyncCursor[Any]):
    """Each statement of recorded work is a span of it: its text with placeholders, and never a value."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        if tracing.current_span() is None:
            return await super().execute(query, params, **options)
        name, attributes = statement_attributes(query)
        with tracing.step(name, kind="client", attributes=attributes):
            return await super().execute(query, params, **options)


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncGenerator[Conn]:
    """A connection within one transaction: committed at the end, rolled back by an exception."""
    async with pool.connection() as conn, conn.transaction():
        yield conn


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed later without anyone mending anything."""
    if isinstance(error, PoolTimeout | TooManyRequests):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_TRANSIENT_CLASSES) or error.sqlstate in _TRANSIENT_CODES


class PoolRepair:
    """Takes connections that are of no use out of a pool, one repair at a time.

    After a restart of PostgreSQL every pooled connection is stale, and each would fail one request. After a
    fail-over they may be alive and at a server that is read-only now: those fail for ever.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._running: asyncio.Task[None] | None = None

    def start(self, error: BaseException) -> None:
        """Begins what `error`, a transient one, calls for."""
        if self._running is None or self._running.done():
            is_read_only = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
            self._running = asyncio.create_task(self._pool.drain() if is_read_only else self._pool.check())
