"""What payments refuses, with its code and status, and what its messages can be wrong about."""

from libs.web.problems import Problem


class InvalidSignature(Problem):
    """The body is not signed by Stripe with a secret of ours, or was signed too long ago."""

    code = "invalid_signature"
    status = 401
    cure = (
        "Sign the bytes of the body with the secret of this endpoint, and send them "
        "unchanged, within 5 minutes."
    )


class HoldOver(Problem):
    """The hold ended: its seats may be someone else's by now."""

    code = "hold_over"
    status = 410
    cure = "Make a new reservation."


class OrderOver(Problem):
    """The hold's order was cancelled, expired or refunded; a hold has one order."""

    code = "order_over"
    status = 410
    cure = "Make a new reservation."


class OrderNotCancellable(Problem):
    """Only an order that waits for its payment can be cancelled."""

    code = "order_not_cancellable"
    status = 409
    cure = "Ask for a refund instead."


class OrderNeverPaid(Problem):
    """Nothing was paid, so nothing can be given back."""

    code = "order_never_paid"
    status = 409
    cure = "Nothing needs to be done."


class PaymentNotPossible(Problem):
    """Stripe does not take a payment of this amount in this currency."""

    code = "payment_not_possible"
    status = 409
    cure = "Choose seats of another price: Stripe has a least and a greatest amount for each currency."


class UnknownOrder(Exception):
    """A message names an order that is not here: it is tried again and then dead-lettered."""


class MessageContradictsOrder(Exception):
    """A message that the order's state rules out: it is tried again and then dead-lettered."""


class NotYet(Exception):
    """A job has no definite answer yet: ask again later."""


class LeaseLost(Exception):
    """The job is another worker's by now, or done: what was found out here is dropped."""
