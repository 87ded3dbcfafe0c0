"""The background process: `python -m catalog.worker` consumes, sends the outbox and sweeps."""

import asyncio

from libs.messaging.worker import run_worker
from libs.postgres import Pool

from catalog.consumers import HANDLERS
from catalog.queries import tokens
from catalog.settings import settings_for


async def forget_old_revocations(pool: Pool) -> None:
    async with pool.connection() as conn:
        await tokens.delete_old_revocations(conn)


if __name__ == "__main__":
    asyncio.run(
        run_worker(
            settings_for("worker"),
            service="catalog",
            handlers=HANDLERS,
            sweeps={3600.0: [forget_old_revocations]},
        )
    )
