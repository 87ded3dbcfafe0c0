"""A loop that works when it is rung, or when the moment has come that its work asked for. It never polls."""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)
AFTER_A_FAULT_SECONDS = 1.0


class Alarm:
    def __init__(self, work: Callable[[], float | None]) -> None:
        """`work` returns the seconds until it wants to be called again; None: only when rung."""
        self._work = work
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def run(self) -> None:
        while True:
            self._rung.clear()
            try:
                wait = self._work()
            except Exception:  # a full disk, say: nothing is lost, for the state is what is on the disk
                log.exception("background work failed, trying again")
                wait = AFTER_A_FAULT_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._rung.wait()
            except TimeoutError:
                pass
