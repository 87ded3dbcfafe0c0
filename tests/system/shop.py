"""What a client of the gateway does, in the words of a shop. It knows HTTP and nothing of the services."""

import secrets
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import httpx

ADMIN = {"email": "admin@example.com", "password": "secret123"}
WAIT_SECONDS = 30.0

T = TypeVar("T")


def eventually(look: Callable[[], T], *, until: Callable[[T], bool], seconds: float = WAIT_SECONDS) -> T:
    """What `look` sees once `until` likes it; fails with the last sight."""
    deadline = time.monotonic() + seconds
    while not until(seen := look()):
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still: {seen}"
        time.sleep(0.05)
    return seen


class Worker(Protocol):
    """A process of ours. One that is paused is away at once, and longer than its Kafka session lasts."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Client:
    """A person at the gateway; `call` checks the status and answers the JSON.

    A 503 says when to ask again, and is asked again: a machine that runs many tests may be slow.
    """

    def __init__(self, http: httpx.Client, account: dict[str, Any] | None = None) -> None:
        self._http = http
        self.id = account["user"]["id"] if account else ""
        self.email = account["user"]["email"] if account else ""
        self.password = ""
        self.token: str = account["token"] if account else ""
        self.headers = {"Authorization": f"Bearer {self.token}"} if account else {}

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self._http.request(method, path, json=body, headers=self.headers)

    def call(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        answer = self.request(method, path, body)
        deadline = time.monotonic() + WAIT_SECONDS
        while answer.status_code == 503 != expect and time.monotonic() < deadline:
            time.sleep(float(answer.headers["retry-after"]))
            answer = self.request(method, path, body)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def hold(self, event: dict[str, Any], seat_ids: list[str]) -> dict[str, Any]:
        return self.call("POST", "/reservations", {"eventId": event["id"], "seatIds": seat_ids})

    def check_out(self, hold: dict[str, Any]) -> dict[str, Any]:
        return self.call("POST", "/orders/checkout", {"reservationId": hold["id"]})

    def order_becomes(self, order: dict[str, Any], *statuses: str) -> dict[str, Any]:
        return eventually(
            lambda: self.get(f"/orders/{order['orderId']}"), until=lambda seen: seen["status"] in statuses
        )

    def tickets(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        return [each for each in self.get("/tickets") if each["orderId"] == order["orderId"]]


class Stripe:
    """Stripe's own API as a browser and a dashboard use it, and the emulator's controls."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def confirm(self, order: dict[str, Any], card: str = "pm_card_visa") -> httpx.Response:
        intent_id = order["clientSecret"].split("_secret_")[0]
        return self.http.post(f"/v1/payment_intents/{intent_id}/confirm", data={"payment_method": card})

    def pay(self, order: dict[str, Any]) -> None:
        answer = self.confirm(order)
        assert answer.json()["status"] == "succeeded", answer.text

    def intent(self, order: dict[str, Any]) -> dict[str, Any]:
        intent_id = order["clientSecret"].split("_secret_")[0]
        return self.http.get(f"/v1/payment_intents/{intent_id}").json()

    def refunded(self, order: dict[str, Any]) -> int:
        """Minor units that went back."""
        refunds = self.http.get("/v1/refunds", params={"payment_intent": self.intent(order)["id"]}).json()
        return sum(each["amount"] for each in refunds["data"] if each["status"] == "succeeded")

    def control(self, path: str, body: Any = None) -> None:
        method = "POST" if path.endswith("release") else "PUT"
        answer = self.http.request(method, f"/_emulator/{path}", json=body)
        assert answer.status_code == 200, answer.text


class Shop:
    """A running stack with its admin logged in."""

    def __init__(self, environment: dict[str, str], gateway: httpx.Client, stripe: httpx.Client) -> None:
        self.environment = environment
        self.gateway = gateway
        self.stripe = Stripe(stripe)
        self.admin = Client(gateway, Client(gateway).call("POST", "/auth/login", ADMIN))

    def buyer(self) -> Client:
        password = secrets.token_urlsafe(9)
        body = {
            "email": f"buyer.{secrets.token_hex(6)}@example.com",
            "password": password,
            "name": "B",
        }
        account = Client(self.gateway).call("POST", "/auth/register", body, expect=201)
        buyer = Client(self.gateway, account)
        buyer.password = password
        return buyer

    def log_in(self, person: Client) -> Client:
        """The same person with another token."""
        credentials = {"email": person.email, "password": person.password}
        again = Client(self.gateway, Client(self.gateway).call("POST", "/auth/login", credentials))
        again.password = person.password
        return again

    def venue(self, *, seats: int = 10) -> dict[str, Any]:
        venue = self.admin.call(
            "POST",
            "/venues",
            {
                "name": f"Hall {secrets.token_hex(3)}",
                "address": "1 Street",
                "city": "Town",
                "state": "ST",
                "zip": "12345",
                "country": "DE",
            },
            expect=201,
        )
        rows = [{"section": "A", "row": "1", "seatNumber": number} for number in range(1, seats + 1)]
        self.admin.call("POST", f"/venues/{venue['id']}/seats", {"seats": rows}, expect=201)
        return venue

    def event(self, *, amount_minor: int = 4500, seats: int = 10) -> dict[str, Any]:
        """A published event; with `amount_minor` 0 it has no tiers: it is free."""
        starts_at = datetime.now(UTC) + timedelta(days=30)
        tiers = [{"name": "Hall", "amountMinor": amount_minor, "currency": "EUR", "sections": ["A"]}]
        return self.admin.call(
            "POST",
            "/events",
            {
                "name": f"Show {secrets.token_hex(3)}",
                "venueId": self.venue(seats=seats)["id"],
                "organizerId": None,
                "description": "d",
                "imageUrl": None,
                "startDate": starts_at.isoformat(),
                "endDate": (starts_at + timedelta(hours=2)).isoformat(),
                "isPublished": True,
                "tiers": tiers if amount_minor else [],
            },
            expect=201,
        )

    def seats(self, event: dict[str, Any], status: str = "available") -> list[str]:
        found = self.admin.get(f"/events/{event['id']}/seats")
        return [seat["id"] for seat in found if seat["status"] == status]


@contextmanager
def open_shop(environment: dict[str, str], *, verify: ssl.SSLContext | bool = True) -> Generator[Shop]:
    """`verify`: whom the gateway's certificate must be from, where it speaks TLS."""
    with (
        httpx.Client(
            base_url=environment["GATEWAY_URL"], timeout=20, trust_env=False, verify=verify
        ) as gateway,
        httpx.Client(
            base_url=environment["STRIPE_API_BASE"],
            headers={"Authorization": f"Bearer {environment['STRIPE_SECRET_KEY']}"},
            timeout=20,
            trust_env=False,
        ) as stripe,
    ):
        yield Shop(environment, gateway, stripe)
