"""What must be true of money and seats: at every moment, when all has arrived, and when all time is up.

The statements and the arithmetic are this file's own; of the services it knows the tables only.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, LiteralString, NamedTuple

from tests.saga.world import World

Json = dict[str, Any]

# The states as docs/saga.md draws them.
WAYS: Mapping[str, Mapping[str, set[str]]] = {
    "hold": {
        "active": {"confirmed", "released", "expired", "lost"},
        "expired": {"active", "confirmed", "lost"},
        "released": {"confirmed"},
        "lost": {"confirmed"},
    },
    "sale": {"placed": {"issued", "rejected", "voided"}, "issued": {"voided"}},
    "ticket": {"issued": {"checked_in", "void"}, "checked_in": {"void"}},
    "order": {
        "pending": {"paid", "cancelled", "expired", "refunding"},
        "cancelled": {"paid", "refunding"},
        "expired": {"paid", "refunding"},
        "paid": {"fulfilled", "refunding"},
        "fulfilled": {"refunding"},
        "refunding": {"refunded", "fulfilled"},
        "refunded": {"refunding"},
    },
}
# What happens to an order or a hold at most once.
TOLD_ONCE = {
    "hold.placed",
    "hold.released",
    "hold.confirmed",
    "order.placed",
    "order.paid",
    "order.cancelled",
    "order.expired",
    "tickets.issued",
    "sale.rejected",
}
GRACE_SECONDS = 60

_SNAPSHOT: LiteralString = """
    SELECT json_build_object(
        'holds', (SELECT coalesce(json_agg(each), '[]') FROM (
            SELECT *, expires_at > now() AS is_ahead, extract(epoch FROM expires_at) AS deadline
              FROM inventory.holds) each),
        'seats', (SELECT coalesce(json_agg(each), '[]') FROM inventory.event_seats each),
        'tickets', (SELECT coalesce(json_agg(each), '[]') FROM inventory.tickets each),
        'sales', (SELECT coalesce(json_agg(each), '[]') FROM inventory.sales each),
        'event', (SELECT status FROM inventory.events),
        'orders', (SELECT coalesce(json_agg(each), '[]') FROM (
            SELECT *, extract(epoch FROM expires_at) AS deadline FROM payments.orders) each),
        'known_holds', (SELECT coalesce(json_agg(each), '[]') FROM payments.holds each),
        'captures', (SELECT coalesce(json_agg(each), '[]') FROM payments.payments each),
        'refunds', (SELECT coalesce(json_agg(each), '[]') FROM payments.refunds each))
"""


class Books(NamedTuple):
    """Everything there is at one moment, by id; Stripe's PaymentIntents by the order that they name."""

    holds: dict[str, Json]
    seats: dict[str, Json]
    tickets: list[Json]
    sales: dict[str, Json]
    event: str | None
    orders: dict[str, Json]
    known_holds: dict[str, Json]
    captures: list[Json]
    refunds: list[Json]
    intents: dict[str, list[Json]]
    stripe_refunds: list[Json]

    def valid_tickets(self, order_id: str) -> list[Json]:
        return [each for each in self.tickets if each["order_id"] == order_id and each["status"] != "void"]

    def paid(self, order_id: str) -> int:
        return sum(intent["amount_received"] for intent in self.intents[order_id])

    def kept(self, order_id: str) -> int:
        """What was paid at Stripe and not given back, in minor units."""
        return self.paid(order_id) - sum(intent["back"] for intent in self.intents[order_id])

    def statuses(self) -> dict[tuple[str, str], str]:
        found = {("hold", key): row["status"] for key, row in self.holds.items()}
        found |= {("sale", key): row["status"] for key, row in self.sales.items()}
        found |= {("ticket", row["ticket_id"]): row["status"] for row in self.tickets}
        return found | {("order", key): row["status"] for key, row in self.orders.items()}


async def read_books(world: World) -> Books:
    [(found,)] = await world.rows(_SNAPSHOT)
    intents: dict[str, list[Json]] = defaultdict(list)
    for intent in world.stripe.intents():
        intents[intent["metadata"]["orderId"]].append(intent)
    return Books(
        holds={row["hold_id"]: row for row in found["holds"]},
        seats={row["seat_id"]: row for row in found["seats"]},
        tickets=found["tickets"],
        sales={row["order_id"]: row for row in found["sales"]},
        event=found["event"],
        orders={row["id"]: row for row in found["orders"]},
        known_holds={row["id"]: row for row in found["known_holds"]},
        captures=found["captures"],
        refunds=found["refunds"],
        intents=intents,
        stripe_refunds=world.stripe.objects("Refund"),
    )


def check_always(world: World, books: Books, before: Books) -> None:
    """At every moment, whatever is on its way."""
    _check_ways(before.statuses(), books.statuses())
    void = {each["ticket_id"] for each in books.tickets if each["status"] == "void"}
    used = {each["ticket_id"] for each in before.tickets if each["status"] == "checked_in"}
    assert books.event == "cancelled" or void.isdisjoint(used), "a ticket was voided that somebody has used"
    owners: dict[str, str] = {}
    for ticket in books.tickets:
        if ticket["status"] != "void":
            assert ticket["seat_id"] not in owners, "a seat has two owners"
            owners[ticket["seat_id"]] = ticket["order_id"]
    for seat_id, seat in books.seats.items():
        assert seat["sold_order_id"] == owners.get(seat_id), "sold, and no ticket, or the other way round"
    reserved: set[str] = set()
    for hold in books.holds.values():
        if hold["status"] == "active" and hold["is_ahead"]:
            assert reserved.isdisjoint(hold["seat_ids"]), "a seat is held twice"
            assert owners.keys().isdisjoint(hold["seat_ids"]), "a seat was sold that another holds"
            reserved.update(hold["seat_ids"])
    for sale in books.sales.values():
        tickets = books.valid_tickets(sale["order_id"])
        seats = books.holds[sale["hold_id"]]["seat_ids"]
        assert sorted(each["seat_id"] for each in tickets) == (
            sorted(seats) if sale["status"] == "issued" else []
        ), "a sale without all of its tickets, or tickets without a sale"
    for order_id, order in books.orders.items():
        if books.valid_tickets(order_id):
            assert books.paid(order_id) >= order["amount_minor"], "tickets without a payment"
            is_excused = _is_used_and_given_back(world, books, order_id)
            assert is_excused or not _given(books, order, is_ours=True), "money went back for a valid ticket"
    for hold in books.holds.values():
        if hold["status"] == "active" and hold["order_id"] is not None:
            deadline = books.orders[hold["order_id"]]["deadline"] + GRACE_SECONDS
            assert abs(hold["deadline"] - deadline) < 0.001, (
                "a hold lives longer than its order and the grace"
            )
    assert not world.errors.bugs, world.errors.bugs


def _check_ways(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> None:
    for (kind, id_), status in before.items():
        now = after.get((kind, id_))
        assert now is not None, f"{kind} {id_} is gone"
        assert now == status or now in _reachable(kind, status), f"{kind}: {status} became {now}"


def _reachable(kind: str, status: str) -> set[str]:
    """Over several transitions: a step of the machine may make more than one."""
    found: set[str] = set()
    ahead = {status}
    while ahead:
        ahead = {then for each in ahead for then in WAYS[kind].get(each, set())} - found
        found |= ahead
    return found


def _given(books: Books, order: Json, *, is_ours: bool) -> int:
    """What went back of the order's own payment by us, whose refunds name the order, or in the dashboard."""
    return sum(
        each["amount"]
        for each in books.stripe_refunds
        if each["payment_intent"] == order["payment_intent_id"]
        and each["status"] != "failed"
        and bool(each["metadata"].get("orderId")) == is_ours
    )


def check_at_rest(world: World, books: Books) -> None:
    """All messages, webhooks and answers have arrived; all jobs and sweeps are done."""
    assert books.orders.keys() == {str(ordered.id) for ordered in world.orders}, "an order nobody heard of"
    for order_id in books.orders:
        _check_money(world, books, order_id)
    _check_keys(world, books)
    strays = {each["id"] for key, all_ in books.intents.items() if key not in books.orders for each in all_}
    assert strays == set(world.strays), "a payment for an order that is not there"
    for order_id, order in books.orders.items():
        hold = books.holds[order["hold_id"]]
        sale = books.sales.get(order_id, {"status": "none"})["status"]
        match order["status"]:
            case "pending":
                assert hold["status"] == "active", "an order waits though its hold has ended"
                assert sale == "none"
            case "fulfilled":
                assert sale == "issued"
                assert (hold["status"], hold["order_id"]) == ("confirmed", order_id)
            case "cancelled" | "expired":
                assert sale == "none"
                assert hold["status"] not in ("active", "confirmed"), "an ended order keeps its seats"
            case "refunded" | "refunding":
                assert sale in ("rejected", "voided") or _is_used_and_given_back(world, books, order_id)
                assert hold["status"] != "active", "a refunded order keeps its seats"
            case status:
                raise AssertionError(f"an order is {status} for ever")
    for (what, key), count in world.bus.told().items():
        assert count == 1 or what not in TOLD_ONCE, f"{count} times {what} of {key}"
    for hold_id, hold in books.holds.items():
        known = books.known_holds[hold_id]
        assert _life(known["status"]) == _life(hold["status"]), "payments knows the hold otherwise"
        assert hold["status"] != "confirmed" or hold["order_id"] in books.orders
    if books.event == "cancelled":
        assert not [each for each in books.tickets if each["status"] != "void"], "a ticket for nothing"
        assert not [each for each in books.holds.values() if each["status"] == "active"]
        assert not [each for each in books.orders.values() if each["status"] in ("pending", "fulfilled")]


def _check_money(world: World, books: Books, order_id: str) -> None:
    """Stripe's record, ours, and what the order says of itself agree to the cent."""
    order = books.orders[order_id]
    if order["status"] == "pending" and order["payment_intent_id"] in world.stripe.untold_captures():
        return  # paid, and nobody knows before Stripe is asked at the deadline
    kept = books.kept(order_id)
    own = [each for each in books.intents[order_id] if each["id"] == order["payment_intent_id"]]
    match order["status"]:
        case "fulfilled":
            given = _given(books, order, is_ours=False)
            assert kept == order["amount_minor"] - given, "a fulfilled order without its money"
            assert kept or not order["amount_minor"], "tickets, and all of the money back"
        case "refunding":
            assert _failed_refund(books, order), "a refund that never ends"
            assert kept == sum(each["amount_received"] - each["back"] for each in own), "kept of another"
        case "cancelled" | "expired":
            assert kept == 0, "kept for an order that was never paid"
            assert all(each["status"] == "canceled" for each in own), "an ended order can still be paid"
            # Nor can an intent whose id never came, unless Stripe made it and called that an error.
            over = [each for each in books.intents[order_id] if each["status"] in ("canceled", "succeeded")]
            left = len(books.intents[order_id]) - len(over)
            assert left < order["intent_attempt"], "an intent of an ended order was forgotten"
        case status:
            assert kept == 0, f"kept for an order that is {status}"
    captured = {
        (each["id"], each["amount_received"], each["currency"])
        for each in books.intents[order_id]
        if each["status"] == "succeeded"
    }
    booked = {
        (each["payment_intent_id"], each["amount_minor"], each["currency"])
        for each in books.captures
        if each["order_id"] == order_id
    }
    assert booked == captured, "payments' book and Stripe's differ"
    intent_ids = {each["id"] for each in books.intents[order_id]}
    given = {
        (each["id"], each["amount"], each["status"])
        for each in books.stripe_refunds
        if each["payment_intent"] in intent_ids
    }
    noted = {
        (each["refund_id"], each["amount_minor"], each["status"])
        for each in books.refunds
        if each["payment_intent_id"] in intent_ids
    }
    assert noted == given, "payments' book of refunds and Stripe's differ"
    _check_alarms(world, books, order)


def _check_keys(world: World, books: Books) -> None:
    """A wish has one key however often it is sent, and another only once Stripe has refused it for good."""
    for order_id, order in books.orders.items():
        attempts = {f"order:{order_id}:{each + 1}" for each in range(order["intent_attempt"])}
        assert {key for key in world.stripe.keys("payment_intents") if order_id in key} <= attempts
    wishes: set[str] = set()
    for each in books.captures:
        order = books.orders[each["order_id"]]
        is_own = each["payment_intent_id"] == order["payment_intent_id"]
        whose = order["id"] if is_own else f"{order['id']}:{each['payment_intent_id']}"
        wishes |= {f"refund:{whose}:{attempt + 1}" for attempt in range(each["refund_attempt"])}
    assert set(world.stripe.keys("refunds")) <= wishes, "a refund under a key of its own"


def _check_alarms(world: World, books: Books, order: Json) -> None:
    wrong = [order["id"]] if order["refund_reason"] == "wrong_amount" else []
    second = [
        each["id"]
        for each in books.intents[order["id"]]
        if each["status"] == "succeeded" and each["id"] != order["payment_intent_id"]
    ]
    failed = [order["payment_intent_id"]] if _failed_refund(books, order) else []
    for id_ in wrong + second + failed:
        assert any(id_ in alarm for alarm in world.errors.alarms), "nobody was told"


def _failed_refund(books: Books, order: Json) -> bool:
    return any(
        each["payment_intent"] == order["payment_intent_id"] and each["status"] == "failed"
        for each in books.stripe_refunds
    )


def _is_used_and_given_back(world: World, books: Books, order_id: str) -> bool:
    """The one way to have both: a refund in the dashboard though a ticket was used. A person is told.

    It may fail at the bank, and we give the money back when that person asks for it.
    """
    return (
        any(each["status"] == "checked_in" for each in books.valid_tickets(order_id))
        and any(order_id in alarm and "dashboard" in alarm for alarm in world.errors.alarms)
        and any(
            each["payment_intent"] == books.orders[order_id]["payment_intent_id"]
            and not each["metadata"].get("orderId")
            for each in books.stripe_refunds
        )
    )


def check_letters(world: World) -> None:
    """Dead is what pays for nobody, and nothing else."""
    dead = {letter.message_id: letter for letter in world.bus.letters}
    assert {type(letter.error).__name__ for letter in dead.values()} <= {"UnknownOrder"}, dead
    assert len(dead) == len(world.strays), dead


def check_at_the_end(books: Books) -> None:
    """Every deadline has passed as well."""
    assert not [each for each in books.orders.values() if each["status"] == "pending"], "waits for ever"
    assert not [each for each in books.holds.values() if each["status"] == "active"], "held for ever"


def _life(status: str) -> str:
    # Inventory calls a hold lost where payments had heard of its expiry before, and the other way round.
    return "ended" if status in ("released", "expired", "lost") else status
