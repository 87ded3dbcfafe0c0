"""The saga under every interleaving.

A machine of Hypothesis plays buyers, banks, an admin, Kafka, Stripe, the workers and the clock: it delays,
doubles and reorders what goes between the services, loses answers, kills processes and lets deadlines pass.
What is drawn as held back waits for the machine; the rest flows by itself. `audit` says what must be true.

Which rule of the saga is played by which rules here, and which checks look at it:

 1. A job asks Stripe until it has an answer: `run_jobs`, `answer`, each `Fate`; no job is left at rest.
 2. What does not match its order is asked of Stripe: `tamper`, `pay_astray`; `_check_money`.
 3. Unpaid at the deadline: `pass_time`, `sweep`, `run_jobs`, `give_up_webhook`; `check_at_the_end`.
 4. The buyer cancels, or the hold ends by itself: `cancel`, `cancel_in_a_race`, `release`; `check_at_rest`.
 5. Take-over of an overdue hold: `rival`, `check_out_late`; `_expected`: what is free can be had.
 6. Late payment: `pay` and `pass_time` with messages held back; one owner (`check_always`), `_check_money`.
 7. Checkout twice: `check_out`; `World.check_out`: the same PaymentIntent.
 8. Admin refund: `refund`, `check_in`; `check_always`: no money back while a ticket is valid.
 9. Event cancelled: `cancel_event`; `check_at_rest`: no ticket, no living hold, no order is left of it.
10. Other events of Stripe: `give_back_in_dashboard`, cards whose refunds fail or wait; `_check_alarms`.
11. A hold keeps its price: `raise_price`; `World.collect`: the order costs what the buyer was told.
12. Quota: `place`; `_expected`: refused exactly when it would be passed.
13. Fresh ids: `check_out` before `hold.placed` has come: 503, and nothing half done.
14. A dead letter is not done: `pay_for_nobody`, `deliver_again`; `check_letters`.

`SAGA_EXAMPLES=1000` looks further, at other examples each time.
"""

import asyncio
import os
from collections.abc import Iterator

import pytest
import stripe
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from payments import cancellations, jobs

from tests.saga.machine import Saga
from tests.saga.world import World

EXAMPLES = int(os.environ.get("SAGA_EXAMPLES", "0"))
# Enough for a hold, an order, a payment and their messages one by one, and for as much again in between.
STEPS = 30

settings.register_profile(
    "saga",
    max_examples=EXAMPLES or 200,
    stateful_step_count=STEPS,
    # The same examples each time, so that a failure is the change's; many more of them are others each time.
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def world(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # One job at a time, and nothing falls due because the machine took its time.
    monkeypatch.setattr(jobs, "BATCH_SIZE", 1)
    monkeypatch.setattr(jobs, "FIRST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(cancellations, "OWN_TRY_SECONDS", 60.0)
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.0)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.0)
    with asyncio.Runner() as runner:
        Saga.runner = runner
        Saga.world = world = World(environment)
        runner.run(world.open())
        try:
            yield world
        finally:
            runner.run(world.close())


def test_every_order_ends_with_tickets_and_money_or_with_neither(world: World) -> None:
    run_state_machine_as_test(Saga, settings=settings.get_profile("saga"))
