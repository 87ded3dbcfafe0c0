"""The background process: `python -m auth.worker` sends the outbox and sweeps."""

import uvloop
from libs.messaging.worker import run_worker
from libs.postgres import Pool

from auth import queries
from auth.consumers import HANDLERS
from auth.settings import settings_of


async def forget_old_tokens(pool: Pool) -> None:
    async with pool.connection() as conn:
        await queries.delete_expired_refresh_tokens(conn)


async def forget_old_networks(pool: Pool) -> None:
    async with pool.connection() as conn:
        await queries.forget_old_networks(conn)


if __name__ == "__main__":
    uvloop.run(
        run_worker(
            settings_of("worker"),
            service="auth",
            handlers=HANDLERS,
            sweeps={3600.0: [forget_old_tokens, forget_old_networks]},
        )
    )
