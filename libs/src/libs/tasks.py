"""Ending tasks, for certain."""

import asyncio
from typing import Any


async def end_tasks(*tasks: asyncio.Task[Any], again_after_seconds: float = 0.5) -> None:
    """Cancels tasks and returns when all have ended, however they did; their results stay on them.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, with which psycopg waits, loses a cancellation
    that comes just as its own wait is over (https://github.com/python/cpython/issues/86296). The pause before
    another one is the time that a task has for its clean-up.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_after_seconds)
