"""The story of one sale, told step by step against the running stack, through its gateway alone.

Every run makes a venue, an event and buyers of its own, so that it can be told again and again.
"""

import asyncio
import secrets
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import segno
from aiokafka import TopicPartition

from embedded.inspection import end_offsets, messages_since
from embedded.problems import Problem
from embedded.settings import saved_settings, state_dir
from embedded.stack import Stack

ADMIN = {"email": "admin@example.com", "password": "secret123"}
WAIT_SECONDS = 20.0


class Refused(Exception):
    """An answer that the story did not expect."""


class Person:
    """Someone at the gateway with a token."""

    def __init__(self, http: httpx.Client, *, token: str = "") -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        answer = self._http.request(method, path, json=body, headers=self._headers)
        deadline = time.monotonic() + WAIT_SECONDS
        # "Not yet" says when to ask again: on a slow machine what was just made is still on its way.
        while answer.status_code == 503 and time.monotonic() < deadline:
            time.sleep(float(answer.headers.get("Retry-After", "1")))
            answer = self._http.request(method, path, json=body, headers=self._headers)
        if answer.status_code != expect:
            raise Refused(f"{method} {path} answered {answer.status_code}, not {expect}: {answer.text}")
        return answer.json() if answer.content else None


class Story:
    """Numbers its steps and keeps the time."""

    def __init__(self) -> None:
        self._number = 0
        self.started_at = time.monotonic()

    def step(self, text: str) -> None:
        self._number += 1
        print(f"\n{self._number:2}. {text}")

    def detail(self, text: str) -> None:
        print(f"    {text}")


def tell(environment: dict[str, str]) -> None:
    """Raises `Refused` or `httpx.HTTPError` when the stack does not play its part."""
    story = Story()
    offsets = asyncio.run(end_offsets(environment["KAFKA_BROKERS"]))
    with httpx.Client(base_url=environment["GATEWAY_URL"], timeout=15, trust_env=False) as http:
        event = put_on_sale(story, http)
        buyer, hold = choose_seats(story, http, event)
        order = pay(story, buyer, hold, environment)
        tickets = receive_tickets(story, buyer, order)
        go_in(story, http, tickets[0])
    sold_after = time.monotonic() - story.started_at
    show_messages(story, environment["KAFKA_BROKERS"], offsets)
    farewell(environment, sold_after)


def put_on_sale(story: Story, http: httpx.Client) -> dict[str, Any]:
    story.step("The admin makes a venue with 40 seats, and an event with two price tiers on sale.")
    admin = Person(http, token=Person(http).call("POST", "/auth/login", ADMIN)["token"])
    venue = admin.call(
        "POST",
        "/venues",
        {
            "name": f"Old Theatre {secrets.token_hex(2)}",
            "address": "1 Stage Street",
            "city": "Hamburg",
            "state": "HH",
            "zip": "20095",
            "country": "DE",
        },
        expect=201,
    )
    seats = [
        {"section": section, "row": row, "seatNumber": number}
        for section, rows in (("Stalls", "AB"), ("Balcony", "CD"))
        for row in rows
        for number in range(1, 11)
    ]
    count = admin.call("POST", f"/venues/{venue['id']}/seats", {"seats": seats}, expect=201)["count"]
    starts_at = datetime.now(UTC) + timedelta(days=30)
    event = admin.call(
        "POST",
        "/events",
        {
            "name": f"Opening night {secrets.token_hex(2)}",
            "venueId": venue["id"],
            "organizerId": None,
            "description": "The first night of the season",
            "imageUrl": None,
            "startDate": starts_at.isoformat(),
            "endDate": (starts_at + timedelta(hours=3)).isoformat(),
            "tiers": [
                {
                    "name": "Stalls",
                    "tier": "premium",
                    "amountMinor": 6500,
                    "currency": "eur",
                    "sections": ["Stalls"],
                },
                {"name": "Balcony", "amountMinor": 2800, "currency": "eur", "sections": ["Balcony"]},
            ],
        },
        expect=201,
    )
    admin.call("POST", f"/events/{event['id']}/publish")
    story.detail(f"{venue['name']}: {count} seats.  {event['name']}: published.")
    return event


def register(http: httpx.Client, name: str) -> Person:
    account = Person(http).call(
        "POST",
        "/auth/register",
        {
            "email": f"{name.lower()}.{secrets.token_hex(4)}@example.com",
            "password": secrets.token_urlsafe(12),
            "name": name,
        },
        expect=201,
    )
    return Person(http, token=account["token"])


def choose_seats(story: Story, http: httpx.Client, event: dict[str, Any]) -> tuple[Person, dict[str, Any]]:
    story.step("Ada registers, looks at the seats and holds two.")
    ada = register(http, "Ada")
    free = [
        seat
        for seat in ada.call("GET", f"/events/{event['id']}/seats")
        if seat["status"] == "available" and seat["section"] == "Stalls"
    ]
    wish = {"eventId": event["id"], "seatIds": [seat["id"] for seat in free[:2]]}
    hold = ada.call("POST", "/reservations", wish)
    names = ", ".join(f"{seat['section']} {seat['row']}{seat['seatNumber']}" for seat in hold["seats"])
    story.detail(f"{names}: {money(hold)}, hers until {hold['expiresAt']}.")

    story.step("Ben wants the same seats.")
    refusal = register(http, "Ben").call("POST", "/reservations", wish, expect=409)
    story.detail(f"409 {refusal['code']}: {refusal['message']}")
    return ada, hold


def pay(story: Story, ada: Person, hold: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    story.step("Ada checks out and pays; her first card is declined.")
    order = ada.call("POST", "/orders/checkout", {"reservationId": hold["id"]})
    intent_id = order["clientSecret"].split("_secret_")[0]
    stripe = environment.get("STRIPE_API_BASE", "https://api.stripe.com")
    confirm = f"{stripe}/v1/payment_intents/{intent_id}/confirm"
    for card in ("pm_card_visa_chargeDeclined", "pm_card_visa"):
        answer = httpx.post(
            confirm,
            data={"payment_method": card},
            headers={"Authorization": f"Bearer {environment['STRIPE_SECRET_KEY']}"},
            timeout=15,
            trust_env=False,
        ).json()
        outcome = answer["error"]["message"] if "error" in answer else answer["status"]
        story.detail(f"{card}: {outcome}")
    return order


def receive_tickets(story: Story, ada: Person, order: dict[str, Any]) -> list[dict[str, Any]]:
    story.step("Stripe's webhook arrives; payments and inventory agree; the tickets are there.")
    deadline = time.monotonic() + WAIT_SECONDS
    status = ""
    tickets: list[dict[str, Any]] = []
    while time.monotonic() < deadline and (status != "fulfilled" or not tickets):
        time.sleep(0.02)
        tickets = [each for each in ada.call("GET", "/tickets") if each["orderId"] == order["orderId"]]
        status = ada.call("GET", f"/orders/{order['orderId']}")["status"]
    if status != "fulfilled" or not tickets:
        raise Refused(f"the order is {status} and has {len(tickets)} tickets after {WAIT_SECONDS:.0f} s")
    story.detail(f"order {status}, {len(tickets)} tickets.  The first one's QR code:\n")
    segno.make_qr(tickets[0]["qrPayload"]).terminal(out=sys.stdout, border=2, compact=True)
    return tickets


def go_in(story: Story, http: httpx.Client, ticket: dict[str, Any]) -> None:
    story.step("At the door the ticket is scanned twice.")
    door = Person(http, token=Person(http).call("POST", "/auth/login", ADMIN)["token"])
    scan = {"qrPayload": ticket["qrPayload"]}
    admitted = door.call("POST", "/tickets/check-in", scan)
    story.detail(f"200: come in ({admitted['checkedInAt']})")
    refusal = door.call("POST", "/tickets/check-in", scan, expect=409)
    story.detail(f"409 {refusal['code']}: first seen {refusal['checkedInAt']}")


def show_messages(story: Story, kafka_brokers: str, offsets: dict[TopicPartition, int]) -> None:
    story.step("What all this left on the Kafka topics:")
    for record in asyncio.run(messages_since(kafka_brokers, offsets)):
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        key = (record.key or b"").decode(errors="replace")
        story.detail(f"{record.topic:<18} {headers.get('ce_type', '?'):<18} {key}")


def farewell(environment: dict[str, str], seconds: float) -> None:
    gateway = environment["GATEWAY_URL"]
    print(f"""
A ticket was sold {seconds:.1f} s after the story began. The stack stays up at {gateway}

  look further   {gateway}/inventory/docs   (also /auth/docs, /catalog/docs, /payments/docs)
                 make status   make topics   make tail T=payments.orders FROM=start   make logs S=payments
  again          make demo
  stop           make down
""")


def money(hold: dict[str, Any]) -> str:
    return f"{hold['amountMinor'] / 100:.2f} {hold['currency'].upper()}"


def main() -> int:
    settings = saved_settings(state_dir())
    if settings is None:
        print("demo: the stack is not up: make up", file=sys.stderr)
        return 1
    try:
        tell(Stack(settings).environment())
    except (Refused, Problem, httpx.HTTPError) as error:
        print(f"demo: {error}\n      make status and make logs S=... tell more", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
