"""Two whole stacks on free ports: one as it is delivered, one with short deadlines, to stop parts of."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from embedded.stack import PARTS, Stack
from embedded.testing import running_stack, shared_stack

from tests.system.shop import Shop, Worker, open_shop


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Shared by all workers of the run."""
    with shared_stack("system", PARTS) as stack:
        yield stack


@pytest.fixture(scope="session")
def shop(stack: Stack) -> Iterator[Shop]:
    with open_shop(stack.environment()) as shop:
        yield shop


@pytest.fixture(scope="session")
def hasty_stack() -> Iterator[Stack]:
    """Holds last 8 s and payments 10 s; its tests are in the xdist group `hasty`: each has it alone."""
    with running_stack(PARTS, environ={"HOLD_SECONDS": "8", "PAYMENT_SECONDS": "10"}) as stack:
        yield stack


@pytest.fixture(scope="session")
def hasty_shop(hasty_stack: Stack) -> Iterator[Shop]:
    with open_shop(hasty_stack.environment()) as shop:
        yield shop


@dataclass(frozen=True)
class Process:
    stack: Stack
    name: str

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        pid = self.stack.supervisor.processes()[self.name].pid
        assert pid
        os.kill(pid, number)


@pytest.fixture
def inventory_worker(hasty_stack: Stack) -> Worker:
    return Process(hasty_stack, "inventory-worker")
