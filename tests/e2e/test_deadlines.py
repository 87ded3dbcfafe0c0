"""Deadlines that pass for real, and payments that come too late, in containers with short deadlines."""

from collections.abc import Iterator

import pytest

from tests.system.shop import Shop
from tests.system.test_deadlines_and_faults import (
    test_hold_that_ran_out_is_somebody_elses,
    test_late_payment_gets_its_seats_while_they_are_free,
    test_late_payment_whose_seats_are_gone_is_refunded,
    test_order_that_is_not_paid_in_time_expires_and_frees_its_seats,
    test_payment_whose_webhook_never_comes_is_found_at_the_deadline,
    test_webhooks_doubled_delayed_and_shuffled_issue_once,
    test_wrong_amount_is_refunded_and_sells_nothing,
)

__all__ = [
    "test_hold_that_ran_out_is_somebody_elses",
    "test_late_payment_gets_its_seats_while_they_are_free",
    "test_late_payment_whose_seats_are_gone_is_refunded",
    "test_order_that_is_not_paid_in_time_expires_and_frees_its_seats",
    "test_payment_whose_webhook_never_comes_is_found_at_the_deadline",
    "test_webhooks_doubled_delayed_and_shuffled_issue_once",
    "test_wrong_amount_is_refunded_and_sells_nothing",
]


@pytest.fixture(autouse=True)
def stripe_as_usual(hasty_shop: Shop) -> Iterator[None]:
    yield
    hasty_shop.stripe.control("delivery", {})
    hasty_shop.stripe.control("delivery/release")
