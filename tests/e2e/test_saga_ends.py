"""Every end of the saga again, by the same clients, on the images that ship."""

from tests.system.test_original_client import (
    api,
    test_originals_order_of_calls_from_register_to_webhook,
    test_path_that_nobody_owns_gets_a_problem_document,
)
from tests.system.test_saga_ends import (
    test_admin_refund_voids_the_tickets_frees_the_seats_and_returns_the_money,
    test_buyer_cancels_and_the_seats_are_free_and_cannot_be_paid_any_more,
    test_cancelled_event_refunds_all_its_orders_and_ends_its_holds,
    test_declined_card_then_another_buys_the_tickets,
    test_free_order_is_fulfilled_without_stripe,
    test_refund_is_refused_once_a_ticket_was_used,
    test_refund_made_in_stripes_dashboard_voids_the_tickets,
    test_two_buyers_of_one_seat_make_one_owner,
    test_what_belongs_to_another_is_404,
)

__all__ = [
    "api",
    "test_admin_refund_voids_the_tickets_frees_the_seats_and_returns_the_money",
    "test_buyer_cancels_and_the_seats_are_free_and_cannot_be_paid_any_more",
    "test_cancelled_event_refunds_all_its_orders_and_ends_its_holds",
    "test_declined_card_then_another_buys_the_tickets",
    "test_free_order_is_fulfilled_without_stripe",
    "test_originals_order_of_calls_from_register_to_webhook",
    "test_path_that_nobody_owns_gets_a_problem_document",
    "test_refund_is_refused_once_a_ticket_was_used",
    "test_refund_made_in_stripes_dashboard_voids_the_tickets",
    "test_two_buyers_of_one_seat_make_one_owner",
    "test_what_belongs_to_another_is_404",
]
