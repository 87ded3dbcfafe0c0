"""One project of containers for the run; without an engine tests are skipped, or fail with E2E=required."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.containers import Containers, missing, running_containers, trust
from tests.system.shop import Shop, Worker, open_shop


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {
        each.longrepr[2].removeprefix("Skipped: ") for each in skipped if isinstance(each.longrepr, tuple)
    }
    for reason in reasons:
        terminalreporter.section("the containers were not tested", yellow=True)
        terminalreporter.line(reason)


@pytest.fixture(scope="session")
def containers() -> Iterator[Containers]:
    reason = missing()
    if reason and os.environ.get("E2E") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with running_containers() as containers:
        yield containers


@pytest.fixture(scope="session")
def shop(containers: Containers) -> Iterator[Shop]:
    """Its clients come over HTTPS and verify the certificate."""
    with open_shop(containers.environment, verify=trust()) as shop:
        yield shop


@pytest.fixture(scope="module")
def hasty_shop(containers: Containers, shop: Shop) -> Iterator[Shop]:
    """Holds last 8 s and payments 10 s, by settings alone; then they are as they were."""
    changed = ("inventory-app", "inventory-worker", "payments-app", "payments-worker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLD_SECONDS", "8")
        patch.setenv("PAYMENT_SECONDS", "10")
        containers.run("up", "--wait", *changed)
        yield shop
    containers.run("up", "--wait", *changed)


@dataclass(frozen=True)
class Container:
    containers: Containers
    service: str

    def pause(self) -> None:
        self.containers.run("pause", self.service)

    def resume(self) -> None:
        self.containers.run("unpause", self.service)


@pytest.fixture
def inventory_worker(containers: Containers) -> Worker:
    return Container(containers, "inventory-worker")
