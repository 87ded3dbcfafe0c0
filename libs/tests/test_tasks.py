"""Tasks end when they are told to."""

import asyncio
from contextlib import suppress

from libs.tasks import end_tasks


async def test_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    async def lose_one() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    stubborn, quick = asyncio.create_task(lose_one()), asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks(stubborn, quick, again_after_seconds=0.01)
    assert stubborn.cancelled()
    assert quick.cancelled()
