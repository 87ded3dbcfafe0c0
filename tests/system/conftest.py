"""Two whole stacks on free ports: one as it is delivered, one with short deadlines, to stop parts of."""

from collections.abc import Iterator

import pytest
from embedded.stack import PARTS, Stack
from embedded.testing import running_stack, shared_stack

from tests.system.shop import Shop, open_shop


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """Shared by all workers of the run."""
    with shared_stack("system", PARTS) as stack, open_shop(stack.environment()) as shop:
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
