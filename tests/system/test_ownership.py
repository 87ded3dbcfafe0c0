"""Somebody else's things are not there: every path with an id, as the running services describe them."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.system.shop import Client, Shop, eventually

SERVICES = ("auth", "catalog", "inventory", "payments")
# As old as a UUIDv7 must be for nobody to wait for it.
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"

# What the id is of, and what its owner is answered.
OWNED = {
    "GET /reservations/{}": ("reservation", 200),
    "DELETE /reservations/{}": ("reservation", 409),  # it belongs to an order
    "GET /orders/{}": ("order", 200),
    "POST /orders/{}/cancel": ("order", 409),  # it is paid
    "GET /tickets/{}": ("ticket", 200),
    "GET /tickets/{}/qr.svg": ("ticket", 200),
}
OPEN_TO_ALL = {
    "GET /organizers/{}",
    "GET /venues/{}",
    "GET /venues/{}/seats",
    "GET /events/{}",
    "GET /events/{}/seats",
}
FOR_ADMINS = {
    "PATCH /auth/users/{}",
    "POST /venues/{}/seats",
    "PATCH /events/{}",
    "POST /events/{}/publish",
    "POST /events/{}/cancel",
    "POST /orders/{}/refund",
}
READ_BY_ADMINS = {"GET /orders/{}"}


def calls_with_an_id(shop: Shop) -> Iterator[str]:
    for service in SERVICES:
        described = shop.gateway.get(f"/{service}/openapi.json").json()
        for path, operations in described["paths"].items():
            if "{" in path:
                for method in operations:
                    yield f"{method.upper()} {re.sub(r'{[^}]+}', '{}', path)}"


def answer_to(client: Client, call: str, id_: str) -> httpx.Response:
    method, path = call.split()
    answer = client.request(method, path.replace("{}", id_))
    assert answer.status_code != 503, answer.text
    return answer


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    """Without the one member that differs from answer to answer."""
    return {name: value for name, value in answer.json().items() if name != "traceId"}


@pytest.fixture(scope="module")
def owner(shop: Shop) -> Client:
    return shop.buyer()


@pytest.fixture(scope="module")
def things(shop: Shop, owner: Client) -> dict[str, str]:
    """Ids of a reservation, its paid order and its ticket."""
    event = shop.event()
    hold = owner.hold(event, shop.seats(event)[:1])
    order = owner.check_out(hold)
    shop.stripe.pay(order)
    owner.order_becomes(order, "fulfilled")
    [ticket] = eventually(lambda: owner.tickets(order), until=lambda seen: len(seen) == 1)
    return {"reservation": hold["id"], "order": order["orderId"], "ticket": ticket["id"]}


def test_every_path_with_an_id_has_its_rule_here(shop: Shop) -> None:
    assert set(calls_with_an_id(shop)) == {*OWNED, *OPEN_TO_ALL, *FOR_ADMINS}


@pytest.mark.parametrize("call", OWNED)
def test_somebody_elses_thing_is_404_like_one_that_never_was(
    shop: Shop, owner: Client, things: dict[str, str], call: str
) -> None:
    kind, status_for_owner = OWNED[call]
    rival = shop.buyer()
    strangers = [rival] if call in READ_BY_ADMINS else [rival, shop.admin]
    for stranger in strangers:
        foreign = answer_to(stranger, call, things[kind])
        unknown = answer_to(stranger, call, UNKNOWN)
        assert (foreign.status_code, foreign.json()["code"]) == (404, "not_found")
        assert problem_of(foreign) == problem_of(unknown), "the answer tells that the thing is there"
    assert answer_to(owner, call, things[kind]).status_code == status_for_owner


@pytest.mark.parametrize("call", sorted(FOR_ADMINS))
def test_what_admins_may_is_403_to_the_owner_too(owner: Client, things: dict[str, str], call: str) -> None:
    for id_ in (things["order"], owner.id, UNKNOWN):
        answer = answer_to(owner, call, id_)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_ids_in_a_body_are_no_way_around(shop: Shop) -> None:
    event = shop.event()
    owner, rival = shop.buyer(), shop.buyer()
    hold = owner.hold(event, shop.seats(event)[:1])
    by_seats = {"eventId": event["id"], "seatIds": [seat["id"] for seat in hold["seats"]]}
    for body in ({"reservationId": hold["id"]}, by_seats):
        rival.call("POST", "/orders/checkout", body, expect=404)
    rival.call("POST", "/orders/checkout", {**by_seats, "userId": owner.id}, expect=403)
    for path in ("/reservations", "/orders", "/tickets"):
        assert rival.get(path) == []
        assert rival.get(f"{path}?userId={owner.id}&user_id={owner.id}") == []
    owner.check_out(hold)
