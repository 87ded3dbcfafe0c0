"""A short run of `make fuzz`."""

from collections.abc import Iterator

import pytest
from embedded.settings import SERVICES
from embedded.stack import PARTS
from embedded.testing import running_stack

from tests.fuzz.campaign import CALLERS, ENVIRONMENT, WHOLE, Campaign, Part
from tests.system.shop import Shop, open_shop


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with running_stack(PARTS, environ=ENVIRONMENT) as stack, open_shop(stack.environment()) as shop:
        yield shop


def test_every_answer_to_made_up_requests_is_what_the_documents_say(shop: Shop) -> None:
    campaign = Campaign(shop, seed=1)
    parts = [Part(service, "admin", ("examples", "fuzzing"), 2) for service in SERVICES]
    parts += [
        Part(service, caller, ("fuzzing",), 1) for service in SERVICES for caller in ("nobody", "buyer")
    ]
    for _ in campaign.run([*parts, Part(WHOLE, "buyer", ("stateful",), 5)]):
        pass
    tally = campaign.tally
    assert tally.is_clean, "\n\n".join([*tally.errors, *(str(each) for each in tally.failures.values())])
    assert set(tally.cases) == {(service, caller) for service in SERVICES for caller in CALLERS}
    assert tally.cases.total() > 200
    # Refusals alone would prove little.
    done = {operation for _, operation, status in tally.answers if status < 300}
    assert {"POST /venues", "POST /auth/login", "GET /events/{event_id}/seats", "GET /orders"} <= done
