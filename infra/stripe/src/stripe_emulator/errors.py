"""Refusals in Stripe's envelope (https://docs.stripe.com/api/errors)."""

from typing import Literal

import msgspec

from stripe_emulator.objects import Json, PaymentIntent

ErrorType = Literal["api_error", "card_error", "idempotency_error", "invalid_request_error"]


class ApiError(Exception):
    """An answer that is not 200. Raised after a change of state it does not undo it: a declined card
    leaves its failed charge and its events behind."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: ErrorType = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        payment_intent: PaymentIntent | None = None,
        details: Json | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        error: Json = {"type": kind, "message": message}
        if code is not None:
            error["code"] = code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param is not None:
            error["param"] = param
        if payment_intent is not None:
            error["payment_intent"] = payment_intent
        # Encoded here, for the intent may change before the answer is written.
        self.body = msgspec.json.encode({"error": error | (details or {})})


def no_such(kind: str, object_id: str, *, param: str, status: int = 404) -> ApiError:
    """404 for an object of the path, 400 for one that a parameter names."""
    return ApiError(status, f"No such {kind}: '{object_id}'", code="resource_missing", param=param)


def unexpected_state(message: str, intent: PaymentIntent) -> ApiError:
    """The intent is in a state that does not allow what was asked; it is part of the answer."""
    return ApiError(400, message, code="payment_intent_unexpected_state", payment_intent=intent)


def injected(status: int) -> ApiError:
    """The answer of a fault that the control surface asked for."""
    if status == 429:
        return ApiError(429, "Too many requests hit the API too quickly.", code="rate_limit")
    if status == 409:
        return ApiError(409, "This object cannot be accessed right now. Try again.", code="lock_timeout")
    if status < 500:
        return ApiError(status, f"A fault was injected: {status}.")
    return ApiError(status, f"A fault was injected: {status}.", kind="api_error")
