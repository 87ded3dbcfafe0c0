"""What every client was told, against how it ended for them: nothing lost, nothing doubled."""

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import httpx

from tests.faults.clients import ENDED, Buyer, Market, Purchase


class Ending(NamedTuple):
    """How a purchase stands when all is at rest."""

    status: str
    """Of the order; "none" without one."""
    seat_ids: tuple[str, ...]
    """Of its valid tickets, as its buyer sees them."""
    paid_minor: tuple[int, ...]
    """What Stripe captured, one number for each payment."""
    returned_minor: int


class Settlement(NamedTuple):
    sold: int
    refunded: int
    unpaid: int
    """Holds that ran out, orders that were cancelled or expired."""
    tickets: int
    """Valid ones, in the hands of buyers."""
    faults: list[str]
    """Lost, doubled, tickets without payment, payments without either: a line for each, by its first word."""

    def count(self, what: str) -> int:
        return sum(line.startswith(what) for line in self.faults)


def settle(endings: list[tuple[Purchase, Ending]]) -> Settlement:
    counts: Counter[str] = Counter()
    faults: list[str] = []
    owners: dict[str, list[str]] = defaultdict(list)
    for purchase, end in endings:
        faults += _faults_of(purchase, end)
        paid = "refunded" if end.status == "refunded" else "sold"
        counts[paid if end.paid_minor else "unpaid"] += 1
        for seat_id in end.seat_ids:
            owners[seat_id].append(purchase.order_id or "?")
    faults += [
        f"doubled: seat {seat_id} is of orders {' and '.join(orders)}"
        for seat_id, orders in owners.items()
        if len(orders) > 1
    ]
    tickets = sum(len(end.seat_ids) for _, end in endings)
    return Settlement(counts["sold"], counts["refunded"], counts["unpaid"], tickets, faults)


def _faults_of(purchase: Purchase, end: Ending) -> list[str]:
    name = f"order {purchase.order_id} ({end.status})"
    kept = sum(end.paid_minor) - end.returned_minor
    has_all = sorted(end.seat_ids) == sorted(purchase.seat_ids)
    faults: list[str] = []
    if end.seat_ids and not kept:
        faults.append(f"unpaid: {name} has {len(end.seat_ids)} tickets and no payment")
    if kept and not (has_all and end.status == "fulfilled"):
        faults.append(f"unanswered: {name} is paid, and has neither all tickets nor its money")
    if kept and len(end.paid_minor) > 1 and kept > max(end.paid_minor):
        faults.append(f"doubled: {name} was paid {len(end.paid_minor)} times")
    if len(end.seat_ids) > len(purchase.seat_ids):
        faults.append(f"doubled: {name} has {len(end.seat_ids)} tickets for {len(purchase.seat_ids)} seats")
    if not end.paid_minor and purchase.was_told_paid:
        faults.append(f"lost: {name} was paid, said Stripe")
    if end.status == "fulfilled" and purchase.wants_refund:
        faults.append(f"lost: {name} was to be refunded")
    if end.status == "refunded" and purchase.was_told_tickets and not purchase.wants_refund:
        faults.append(f"lost: {name} had tickets, and nobody asked for a refund")
    if end.status not in (*ENDED, "none") and not faults:
        faults.append(f"lost: {name} came to no end")
    return faults


async def look_at_all(market: Market, *, stripe_key: str) -> list[tuple[Purchase, Ending]]:
    """Each buyer looks at their tickets and orders; the merchant's dashboard lists payments and refunds."""
    headers = {"Authorization": f"Bearer {stripe_key}"}
    paid: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for intent in await _list(market.stripe, "/v1/payment_intents", headers):
        if intent["status"] == "succeeded":
            paid[intent["metadata"]["orderId"]].append((intent["id"], intent["amount_received"]))
    returned: Counter[str] = Counter()
    for refund in await _list(market.stripe, "/v1/refunds", headers):
        if refund["status"] == "succeeded":
            returned[refund["payment_intent"]] += refund["amount"]
    seats: dict[str, list[str]] = defaultdict(list)
    statuses: dict[str, str] = {}
    buyers = {purchase.buyer.id: purchase.buyer for purchase in market.purchases}
    for buyer in buyers.values():
        for ticket in await _own(buyer, "/tickets"):
            if ticket["status"] != "void":
                seats[ticket["orderId"]].append(ticket["seat"]["id"])
        statuses |= {order["id"]: order["status"] for order in await _own(buyer, "/orders")}
    endings: list[tuple[Purchase, Ending]] = []
    for purchase in market.purchases:
        order_id = purchase.order_id or ""
        payments = paid[order_id]
        end = Ending(
            statuses.get(order_id, "vanished") if order_id else "none",
            tuple(seats[order_id]),
            tuple(amount for _, amount in payments),
            sum(returned[intent_id] for intent_id, _ in payments),
        )
        endings.append((purchase, end))
    return endings


async def _own(buyer: Buyer, path: str) -> list[dict[str, Any]]:
    answer = await buyer.call("GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _list(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    parameters: dict[str, str | int] = {"limit": 100}
    while True:
        page = (await client.get(path, params=parameters, headers=headers)).raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found
        parameters["starting_after"] = found[-1]["id"]
