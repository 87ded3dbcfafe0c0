"""Each code of docs/errors.md as a client of the gateway gets it, with its status."""

import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
from embedded.stack import Stack
from libs.ids import new_id

from tests.system.shop import Client, Shop, eventually

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
LISTED = {
    code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE.read_text(), re.M)
}
# A bug of ours has to be made; a body that is late takes 8 s (test_limits.py).
NOT_HERE = {"internal_error", "request_timeout"}


def with_key(shop: Shop, person: Client, path: str, body: Any, key: str) -> httpx.Response:
    return shop.gateway.post(path, json=body, headers={**person.headers, "Idempotency-Key": key})


def accounts(shop: Shop) -> Iterator[httpx.Response]:
    buyer, http = shop.buyer(), shop.gateway
    yield http.post("/auth/login", content=b"{")
    yield http.get("/events", headers={"Host": "elsewhere.example"})
    yield http.get("/auth/me")
    yield http.put("/events")
    yield http.get("/nothing-here")
    yield buyer.request("POST", "/venues", {})
    yield http.post("/auth/refresh", json={"refreshToken": "unknown"})
    yield http.post(
        "/auth/register", json={"email": buyer.email.upper(), "password": "12345678", "name": "N"}
    )
    change = {"currentPassword": "not this one", "newPassword": "another password"}
    yield buyer.request("POST", "/auth/password", change)
    yield http.post("/orders/webhook", content=b"{}", headers={"Stripe-Signature": "t=1,v1=0"})
    yield http.post("/auth/login", content=b"x" * 1_100_000)
    yield http.get(f"/events?{'x' * 9_000}")
    yield http.get("/events", headers={"X-Large": "x" * 20_000})
    yield shop.admin.request("GET", f"/events/{new_id()}/seats")  # just made, for all that inventory knows
    guess = {"email": f"{secrets.token_hex(6)}@example.com", "password": "guess"}
    guesses = [http.post("/auth/login", json=guess) for _ in range(11)]
    yield guesses[0]
    yield guesses[-1]


def programme(shop: Shop) -> Iterator[httpx.Response]:
    admin, event = shop.admin, shop.event()
    organizer = {"name": "N", "email": "o@example.com", "slug": secrets.token_hex(6)}
    with_key(shop, admin, "/organizers", organizer, organizer["slug"])
    yield admin.request("POST", "/organizers", organizer)
    yield with_key(shop, admin, "/organizers", {**organizer, "name": "Other"}, organizer["slug"])
    seats = f"/venues/{event['venueId']}/seats"
    yield admin.request("POST", seats, {"seats": [{"section": "A", "row": "1", "seatNumber": 1}]})
    path = f"/events/{event['id']}"
    yield admin.request("PATCH", path, {"venueId": shop.venue()["id"]})
    tiers = [{"name": "T", "amountMinor": 1000, "currency": "eur", "sections": ["nowhere"]}]
    yield admin.request("PATCH", path, {"tiers": tiers})
    yield shop.gateway.patch(path, json={"name": "New"}, headers={**admin.headers, "If-Match": '"old"'})
    admin.call("POST", f"{path}/cancel")
    yield admin.request("PATCH", path, {"name": "New"})
    many = {"seats": [{"section": "B", "row": f"{n}", "seatNumber": 1} for n in range(20_000)]}
    with ThreadPoolExecutor(2) as threads:
        racing = [threads.submit(with_key, shop, admin, seats, many, "many") for _ in range(2)]
    yield from (each.result() for each in racing)


def await_end_at_payments(stack: Stack, hold: dict[str, Any]) -> None:
    """A checkout before that makes an order, which is cancelled then."""
    with psycopg.connect(stack.environment()["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        look = "SELECT status FROM payments.holds WHERE id = %s"
        eventually(
            lambda: conn.execute(look, [hold["id"]]).fetchall(), until=lambda rows: rows == [("released",)]
        )


def sale(shop: Shop, stack: Stack) -> Iterator[httpx.Response]:
    ada, bob, event = shop.buyer(), shop.buyer(), shop.event(seats=20)
    seats = shop.seats(event)
    hold = ada.hold(event, seats[:1])
    yield bob.request("POST", "/reservations", {"eventId": event["id"], "seatIds": seats[:1]})
    yield bob.request("POST", "/reservations", {"eventId": event["id"], "seatIds": seats[1:12]})
    order = ada.check_out(hold)
    yield shop.admin.request("POST", f"/orders/{order['orderId']}/refund")
    shop.stripe.pay(order)
    ada.order_becomes(order, "fulfilled")
    yield ada.request("POST", f"/orders/{order['orderId']}/cancel")
    yield ada.request("DELETE", f"/reservations/{hold['id']}")
    [ticket] = eventually(lambda: ada.tickets(order), until=lambda seen: len(seen) == 1)
    code = {"qrPayload": ticket["qrPayload"]}
    shop.admin.call("POST", "/tickets/check-in", code)
    yield shop.admin.request("POST", "/tickets/check-in", code)
    hold = ada.hold(event, shop.seats(event)[:1])
    order = ada.check_out(hold)
    shop.stripe.pay(order)
    [ticket] = eventually(lambda: ada.tickets(order), until=lambda seen: len(seen) == 1)
    shop.admin.call("POST", f"/orders/{order['orderId']}/refund")
    ada.order_becomes(order, "refunded")
    yield shop.admin.request("POST", "/tickets/check-in", {"qrPayload": ticket["qrPayload"]})
    yield ada.request("POST", "/orders/checkout", {"reservationId": hold["id"]})
    gone = bob.hold(event, seats[5:6])
    bob.call("DELETE", f"/reservations/{gone['id']}", expect=204)
    await_end_at_payments(stack, gone)
    yield bob.request("POST", "/orders/checkout", {"reservationId": gone["id"]})
    dear = shop.event(amount_minor=99_999_999)  # Stripe takes no more than eight digits
    too_much = bob.hold(dear, shop.seats(dear)[:2])
    yield bob.request("POST", "/orders/checkout", {"reservationId": too_much["id"]})


def test_every_code_of_the_page_is_answered_by_the_gateway(shop: Shop, stack: Stack) -> None:
    seen: dict[str, int] = {}
    for answers in (accounts(shop), programme(shop), sale(shop, stack)):
        for answer in answers:
            if answer.status_code < 400:
                continue
            assert answer.headers["content-type"] == "application/problem+json", answer.request.url
            problem = answer.json()
            seen[problem["code"]] = answer.status_code
            assert (problem["status"], problem["message"]) == (answer.status_code, problem["detail"])
            assert re.fullmatch(r"[0-9a-f]{32}", problem["traceId"])
            assert answer.headers["x-request-id"]
            assert answer.headers["cache-control"] == "private, no-store"
            if problem["code"] in ("rate_limited", "request_in_progress", "temporarily_unavailable"):
                assert int(answer.headers["retry-after"]) > 0
    assert seen == {code: status for code, status in LISTED.items() if code not in NOT_HERE}
