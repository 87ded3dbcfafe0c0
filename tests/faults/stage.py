"""The stack as a thing to be struck: signals, stops, and what Stripe's emulator can be told."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil
import psycopg
from embedded.stack import Stack

WAIT_SECONDS = 45.0


class Stage:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.environment = stack.environment()
        self._frozen: set[str] = set()
        self._starting: list[asyncio.Task[None]] = []

    def pid(self, name: str) -> int | None:
        return self.stack.supervisor.processes()[name].pid

    async def pid_when_running(self, name: str) -> int:
        await self.until(lambda: self.pid(name) is not None)
        return self.pid(name) or await self.pid_when_running(name)

    async def freeze(self, name: str) -> None:
        _send(await self.pid_when_running(name), signal.SIGSTOP)
        self._frozen.add(name)

    def thaw(self, *names: str) -> None:
        """One that was killed meanwhile runs anew, or will, and takes no harm."""
        for name in names or tuple(self._frozen):
            self._frozen.discard(name)
            if pid := self.pid(name):
                _send(pid, signal.SIGCONT)

    async def stop(self, name: str) -> None:
        await asyncio.to_thread(self.stack.stop, [name])

    async def start(self, name: str) -> None:
        """Returns when it is ready."""
        await asyncio.to_thread(self.stack.start, [name])

    def begin_start(self, name: str) -> None:
        """Nobody waits for it but `heal`."""
        self._starting.append(asyncio.create_task(self.start(name)))

    async def tell_stripe(self, path: str, body: Any = None) -> Any:
        method = "POST" if path.endswith("release") else "PUT"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            url = f"{self.environment['STRIPE_API_BASE']}/_emulator/{path}"
            return (await client.request(method, url, json=body)).raise_for_status().json()

    async def webhooks(self) -> list[dict[str, Any]]:
        """Each event of Stripe's with its deliveries, oldest first."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            url = f"{self.environment['STRIPE_API_BASE']}/_emulator/events"
            return (await client.get(url)).raise_for_status().json()

    async def sees(self, statement: str, *parameters: Any) -> bool:
        """Whether a statement has a row with something true; False too while there is no database."""

        def look() -> bool:
            try:
                with psycopg.connect(
                    self.environment["ADMIN_DATABASE_URL"], autocommit=True, connect_timeout=2
                ) as conn:
                    row = conn.execute(statement.encode(), parameters).fetchone()
                    return bool(row and row[0])
            except psycopg.OperationalError:
                return False

        return await asyncio.to_thread(look)

    async def until_seen(self, statement: str, *parameters: Any) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not await self.sees(statement, *parameters):
            assert time.monotonic() < deadline, f"never seen: {statement} {parameters}"
            await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            await asyncio.sleep(0.05)

    async def heal(self) -> None:
        """Nothing is struck any more, whatever was."""
        await asyncio.gather(*self._starting)
        self._starting.clear()
        self.thaw()
        await self.tell_stripe("faults", {})
        await self.tell_stripe("delivery", {})
        await self.tell_stripe("delivery/release", {})
        for name, process in self.stack.supervisor.processes().items():
            if not process.is_alive:
                await self.start(name)


def _send(pid: int, number: signal.Signals) -> None:
    """To it and its children: PostgreSQL's backends answer without their postmaster."""
    try:
        process = psutil.Process(pid)
        processes = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return  # killed, and the supervisor has not seen it yet
    for each in processes:
        with suppress(ProcessLookupError):
            os.kill(each.pid, number)
