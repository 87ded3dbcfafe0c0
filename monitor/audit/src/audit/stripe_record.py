"""Stripe's own record, as its API lists it (https://docs.stripe.com/api/pagination), read only."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx

PAGE = 100
TRIES = 4
FAILED = ("failed", "canceled")


class Intent(NamedTuple):
    id: str
    status: str
    received_minor: int
    currency: str
    order_id: str | None
    """What its metadata names; None: it is no payment of an order of ours."""
    created_at: datetime


class Charge(NamedTuple):
    id: str
    payment_intent_id: str | None
    captured_minor: int
    currency: str
    created_at: datetime


class StripeRefund(NamedTuple):
    id: str
    payment_intent_id: str | None
    amount_minor: int
    currency: str
    status: str
    created_at: datetime
    order_id: str | None

    @property
    def is_failed(self) -> bool:
        return self.status in FAILED


@dataclass
class StripeRecord:
    intents: dict[str, Intent]
    charges: list[Charge]
    """Those that succeeded."""
    refunds: dict[str, StripeRefund]


def read_stripe(api_base: str, secret_key: str, *, after: datetime | None) -> StripeRecord:
    """Raises `httpx.HTTPError`. `after` leaves out what was made before."""
    headers = {"Authorization": f"Bearer {secret_key}"}
    with httpx.Client(base_url=api_base, headers=headers, timeout=20) as client:
        # What happens between two lists is seen by the later one alone: a payment that is known to have
        # succeeded has its charge then, and a refund is never missed.
        intents = [_intent(each) for each in _pages(client, "/v1/payment_intents", after)]
        charges = [
            _charge(each) for each in _pages(client, "/v1/charges", after) if each["status"] == "succeeded"
        ]
        refunds = [_refund(each) for each in _pages(client, "/v1/refunds", after)]
    return StripeRecord({each.id: each for each in intents}, charges, {each.id: each for each in refunds})


def _pages(client: httpx.Client, path: str, after: datetime | None) -> Iterator[dict[str, Any]]:
    parameters: dict[str, str | int] = {"limit": PAGE}
    if after is not None:
        parameters["created[gte]"] = int(after.timestamp())
    while True:
        page = _page(client, path, parameters)
        yield from page["data"]
        if not page["has_more"]:
            return
        parameters["starting_after"] = page["data"][-1]["id"]


def _page(client: httpx.Client, path: str, parameters: dict[str, str | int]) -> dict[str, Any]:
    for last in (False,) * (TRIES - 1) + (True,):
        try:
            return client.get(path, params=parameters).raise_for_status().json()
        except httpx.HTTPStatusError as error:
            if last or (error.response.status_code < 500 and error.response.status_code != 429):
                raise
        except httpx.TransportError:
            if last:
                raise
    raise AssertionError


def _intent(each: dict[str, Any]) -> Intent:
    return Intent(
        each["id"],
        each["status"],
        each["amount_received"],
        each["currency"],
        (each["metadata"] or {}).get("orderId"),
        _time(each["created"]),
    )


def _charge(each: dict[str, Any]) -> Charge:
    return Charge(
        each["id"], each["payment_intent"], each["amount_captured"], each["currency"], _time(each["created"])
    )


def _refund(each: dict[str, Any]) -> StripeRefund:
    return StripeRefund(
        each["id"],
        each["payment_intent"],
        each["amount"],
        each["currency"],
        each["status"],
        _time(each["created"]),
        (each["metadata"] or {}).get("orderId"),
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
