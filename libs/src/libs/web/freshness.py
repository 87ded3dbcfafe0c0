"""Reading what another service has just written, without calling it.

An id minted a moment ago that the projection lacks is probably on its way: it is waited for, a bounded
time and by a bounded number of requests. An older id is missing at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from libs.ids import seconds_since_minted
from libs.web.problems import TemporarilyUnavailable

FRESH_SECONDS = 30.0
WAIT_SECONDS = 2.0
POLL_SECONDS = 0.025

T = TypeVar("T")


class FreshnessGate:
    """Bounds how many requests of a process wait at once."""

    def __init__(self, max_waiting: int = 200) -> None:
        self._free = max_waiting

    async def wait_for(self, find: Callable[[], Awaitable[T | None]]) -> T | None:
        """Asks `find` again and again for up to 2 s; None when it never found anything.

        Raises `TemporarilyUnavailable` when too many requests wait already.
        """
        if self._free <= 0:
            raise TemporarilyUnavailable("Too many requests wait for fresh data. Try again.")
        self._free -= 1
        try:
            deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
            while asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(POLL_SECONDS)
                found = await find()
                if found is not None:
                    return found
            return None
        finally:
            self._free += 1

    async def find_fresh(self, id_: UUID, find: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `find` finds, waited for when `id_` is fresh; None at once when it is old.

        Raises `TemporarilyUnavailable` when a fresh id did not arrive in time.
        """
        found = await find()
        if found is not None or seconds_since_minted(id_) > FRESH_SECONDS:
            return found
        found = await self.wait_for(find)
        if found is None:
            raise TemporarilyUnavailable("This was created a moment ago and is not here yet. Try again.")
        return found
