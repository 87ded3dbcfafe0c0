"""A few faults of the suite, and what its judge calls lost and doubled."""

import math
import random
from typing import Any, cast

import pytest

from tests.faults.clients import Buyer, Purchase
from tests.faults.kafka_away import take_kafka_away
from tests.faults.matrix import STEPS, drawn, matrix
from tests.faults.settlement import Ending, settle
from tests.faults.suite import open_suite, struck_stack

REPRESENTATIVE = (
    "kill -9 payments-worker after webhook",
    "kill -9 inventory-worker after paid",
    "restart postgres after pay",
    "redis flushed",
)


async def test_what_dies_under_load_loses_and_doubles_nothing() -> None:
    faults = {fault.name: fault for fault in matrix()}
    with struck_stack() as stack:
        async with open_suite(stack, seed=1, buyers=2, rest_seconds=0.3, say=print) as suite:
            for name in REPRESENTATIVE:
                result = await suite.strike(faults[name])
                assert math.isfinite(result.recovery_seconds), result
                assert result.faults == []
            result = await take_kafka_away(suite, seconds=5, seed=1)
            assert math.isfinite(result.recovery_seconds), result
            outcome = await suite.conclude()
    assert outcome.faults == []
    assert outcome.settlement.sold > len(REPRESENTATIVE)


def test_matrix_kills_every_process_between_every_pair_of_steps() -> None:
    names = [fault.name for fault in matrix()]
    assert len(set(names)) == len(names)
    for service in ("auth", "catalog", "inventory", "payments"):
        for process in (service, f"{service}-worker"):
            assert {f"kill -9 {process} after {step}" for step in STEPS} <= set(names)
            assert f"pause {process}" in names


def test_draw_is_repeated_by_its_seed_and_covers_every_target_before_any_twice() -> None:
    faults = matrix()
    assert [each.name for each in drawn(faults, seed=3)] == [each.name for each in drawn(faults, seed=3)]
    assert drawn(faults, seed=3) != drawn(faults, seed=4)
    targets = {(fault.kind, fault.target) for fault in faults}
    assert {(fault.kind, fault.target) for fault in drawn(faults, seed=5)[: len(targets)]} == targets


def purchase(**told: Any) -> Purchase:
    return Purchase(cast(Buyer, None), ["a", "b"], order_id=f"o{random.randrange(10**9)}", **told)


PAID = (9000,)


@pytest.mark.parametrize(
    ("told", "end", "fault"),
    [
        ({"was_told_paid": True}, Ending("fulfilled", ("a", "b"), PAID, 0), None),
        ({"was_told_paid": True}, Ending("refunded", (), PAID, 9000), None),
        ({}, Ending("expired", (), (), 0), None),
        ({"was_told_paid": True}, Ending("expired", (), (), 0), "lost"),
        ({"was_told_paid": True}, Ending("vanished", (), (), 0), "lost"),
        ({"was_told_paid": True}, Ending("paid", (), PAID, 0), "unanswered"),
        ({}, Ending("cancelled", (), PAID, 0), "unanswered"),
        ({}, Ending("fulfilled", ("a",), PAID, 0), "unanswered"),
        ({"was_told_tickets": True}, Ending("refunded", (), PAID, 9000), "lost"),
        ({"wants_refund": True}, Ending("fulfilled", ("a", "b"), PAID, 0), "lost"),
        ({}, Ending("fulfilled", ("a", "b"), (9000, 9000), 0), "doubled"),
        ({}, Ending("fulfilled", ("a", "b", "c"), PAID, 0), "doubled"),
        ({}, Ending("pending", (), (), 0), "lost"),
        ({}, Ending("expired", ("a", "b"), (), 0), "unpaid"),
        ({}, Ending("refunded", ("a", "b"), PAID, 9000), "unpaid"),
    ],
)
def test_judge_knows_what_is_lost_and_doubled(told: dict[str, Any], end: Ending, fault: str | None) -> None:
    settlement = settle([(purchase(**told), end)])
    assert settlement.count(fault or "") == (1 if fault else 0), settlement


def test_judge_sees_a_seat_with_two_owners() -> None:
    end = Ending("fulfilled", ("a", "b"), PAID, 0)
    assert settle([(purchase(), end), (purchase(), end)]).count("doubled") == 2
