"""Buyers at the gateway, who never give up, and who keep their own record of what they were told.

A client knows HTTP: it asks again when it gets no answer or one that says "later", for as long as it takes.
"""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.system.shop import ADMIN

PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 5.0
ENDED = ("fulfilled", "refunded", "cancelled", "expired")
PRICE_MINOR = 4500
HOT_SEATS = 24
"""Buyers choose among so many seats, so that some of them want the same."""
EVENT_SEATS = 400


class GaveUp(Exception):
    """The time that a client was given is over, and no definite answer came."""


@dataclass
class Purchase:
    """What one buyer wanted and what they were told, in the order of their being told."""

    buyer: "Buyer"
    seat_ids: list[str]
    hold_id: str | None = None
    order_id: str | None = None
    intent_id: str | None = None
    client_secret: str | None = None
    was_told_paid: bool = False
    was_told_tickets: bool = False
    wants_refund: bool = False
    told: str | None = None
    """The order's status, as last heard."""
    started_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None


class Market:
    """The stack as its clients see it; counts all that they ask."""

    def __init__(self, gateway: httpx.AsyncClient, stripe: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.stripe = stripe
        self.answers: dict[str, Counter[str]] = {"gateway": Counter(), "Stripe": Counter()}
        self.purchases: list[Purchase] = []
        self.admin = Buyer(self, {"token": "", "user": {"id": ""}})
        self.seats: list[str] = []
        self.event_id = ""
        self._opening = asyncio.Lock()

    async def ask(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        *,
        deadline: float | None = None,
        **options: Any,
    ) -> httpx.Response:
        """The first definite answer. Raises `GaveUp` at the deadline, in seconds of the monotonic clock."""
        asked = "gateway" if client is self.gateway else "Stripe"
        while True:
            try:
                answer = await client.request(method, path, **options)
            except httpx.TransportError:
                self.answers[asked]["none"] += 1
            else:
                self.answers[asked][str(answer.status_code)] += 1
                is_running = answer.status_code == 409 and b"request_in_progress" in answer.content
                if answer.status_code < 500 and answer.status_code != 429 and not is_running:
                    return answer
            if deadline is not None and time.monotonic() > deadline:
                raise GaveUp(f"{method} {path}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def open_event(self) -> None:
        """A new event, whose seats are sold from now on; and a new log-in of the admin, since tokens end."""
        answer = await self.ask(self.gateway, "POST", "/auth/login", json=ADMIN)
        self.admin = Buyer(self, answer.json())
        venue = await self.admin.must(
            "POST",
            "/venues",
            {"name": "Hall", "address": "1", "city": "T", "state": "S", "zip": "1", "country": "DE"},
        )
        rows = [{"section": "A", "row": "1", "seatNumber": number} for number in range(EVENT_SEATS)]
        await self.admin.must("POST", f"/venues/{venue['id']}/seats", {"seats": rows})
        event = await self.admin.must(
            "POST",
            "/events",
            {
                "name": f"Show {secrets.token_hex(3)}",
                "venueId": venue["id"],
                "startDate": "2035-05-01T19:00:00Z",
                "endDate": "2035-05-01T22:00:00Z",
                "isPublished": True,
                "tiers": [{"name": "Hall", "amountMinor": PRICE_MINOR, "currency": "EUR", "sections": ["A"]}],
            },
        )
        found = await self.admin.must("GET", f"/events/{event['id']}/seats")
        self.event_id, self.seats = event["id"], [seat["id"] for seat in found]

    async def choose(self, count: int, *, draw: random.Random) -> tuple[str, list[str]]:
        """An event, and seats that nobody was told are gone."""
        async with self._opening:
            if len(self.seats) < HOT_SEATS * 2:
                await self.open_event()
        return self.event_id, draw.sample(self.seats[:HOT_SEATS], count)

    def strike_out(self, seat_ids: list[str]) -> None:
        """These are somebody's."""
        self.seats = [seat for seat in self.seats if seat not in seat_ids]

    async def buyer(self) -> "Buyer":
        """A new account."""
        password = secrets.token_urlsafe(12)
        body = {"email": f"b.{secrets.token_hex(8)}@example.com", "password": password, "name": "B"}
        answer = await self.ask(self.gateway, "POST", "/auth/register", json=body)
        if answer.status_code == 409:  # made by a request whose answer was lost
            answer = await self.ask(self.gateway, "POST", "/auth/login", json=body)
        return Buyer(self, answer.json())


class Buyer:
    def __init__(self, market: Market, account: dict[str, Any]) -> None:
        self.market = market
        self.id: str = account["user"]["id"]
        self._headers = {"Authorization": f"Bearer {account['token']}"}

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        deadline: float | None = None,
    ) -> httpx.Response:
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        return await self.market.ask(
            self.market.gateway, method, path, json=body, headers=headers, deadline=deadline
        )

    async def must(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.call(method, path, body, key=secrets.token_hex(12) if body else None)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def hold(
        self, *, draw: random.Random, seats: int, deadline: float | None = None
    ) -> Purchase | None:
        """None when somebody else was faster."""
        event_id, seat_ids = await self.market.choose(seats, draw=draw)
        body = {"eventId": event_id, "seatIds": seat_ids}
        answer = await self.call(
            "POST", "/reservations", body, key=f"{draw.getrandbits(128):x}", deadline=deadline
        )
        if answer.status_code == 409:
            self.market.strike_out(answer.json().get("seatIds", []))
            return None
        assert answer.status_code == 200, answer.text
        purchase = Purchase(self, seat_ids, hold_id=answer.json()["id"])
        self.market.purchases.append(purchase)
        self.market.strike_out(seat_ids)
        return purchase

    async def check_out(self, purchase: Purchase, *, deadline: float | None = None) -> bool:
        """Whether there is an order to be paid now; else the hold ran out before."""
        body = {"reservationId": purchase.hold_id}
        answer = await self.call("POST", "/orders/checkout", body, deadline=deadline)
        if answer.status_code != 200:
            assert answer.status_code in (404, 410), f"checkout: {answer.status_code} {answer.text}"
            purchase.order_id = answer.json().get("orderId")
            return False
        order = answer.json()
        purchase.order_id, purchase.told = order["orderId"], order["status"]
        purchase.client_secret = order["clientSecret"]
        purchase.intent_id = order["clientSecret"].split("_secret_")[0]
        return True

    async def pay(
        self, purchase: Purchase, *, card: str = "pm_card_visa", deadline: float | None = None
    ) -> bool:
        """Whether Stripe says that it is paid. A browser does this, with the client secret."""
        path = f"/v1/payment_intents/{purchase.intent_id}"
        secret = {"client_secret": purchase.client_secret or ""}
        stripe, ask = self.market.stripe, self.market.ask
        data = secret | {"payment_method": card}
        answer = await ask(stripe, "POST", f"{path}/confirm", data=data, deadline=deadline)
        if answer.status_code == 400:  # paid by a request whose answer was lost; or cancelled
            answer = await ask(stripe, "GET", path, params=secret, deadline=deadline)
        purchase.was_told_paid |= answer.json().get("status") == "succeeded"
        return purchase.was_told_paid

    async def look(self, purchase: Purchase, *, deadline: float | None = None) -> str:
        answer = await self.call("GET", f"/orders/{purchase.order_id}", deadline=deadline)
        status: str = answer.json()["status"] if answer.status_code == 200 else "unknown"
        purchase.told = status
        return status

    async def tickets(self, purchase: Purchase, *, deadline: float | None = None) -> list[dict[str, Any]]:
        """The valid ones."""
        answer = await self.call("GET", "/tickets", deadline=deadline)
        assert answer.status_code == 200, answer.text
        mine = [each for each in answer.json() if each["orderId"] == purchase.order_id]
        valid = [each for each in mine if each["status"] != "void"]
        purchase.was_told_tickets |= len(valid) == len(purchase.seat_ids)
        return valid

    async def wait_for_end(self, purchase: Purchase, *, deadline: float | None = None) -> str:
        """The order's last status. Raises `GaveUp`."""
        status = await self.look(purchase, deadline=deadline)
        while status not in ENDED:
            if deadline is not None and time.monotonic() > deadline:
                raise GaveUp(f"order {purchase.order_id} is still {status}")
            await asyncio.sleep(PAUSE_SECONDS)
            status = await self.look(purchase, deadline=deadline)
        if status == "fulfilled":
            await self.tickets(purchase, deadline=deadline)
        purchase.ended_at = time.monotonic()
        return status

    async def buy(
        self, *, draw: random.Random, seats: int = 1, deadline: float | None = None
    ) -> Purchase | None:
        """A whole purchase without detours; None when there was a rival, or the hold ran out."""
        purchase = await self.hold(draw=draw, seats=seats, deadline=deadline)
        if purchase is None or not await self.check_out(purchase, deadline=deadline):
            return None
        await self.pay(purchase, deadline=deadline)
        await self.wait_for_end(purchase, deadline=deadline)
        return purchase

    async def shop_around(self, draw: random.Random) -> None:
        """One purchase as people make them: some change their minds, some cards are declined."""
        purchase = await self.hold(draw=draw, seats=draw.randint(1, 3))
        whim = draw.random()
        if purchase is None or whim < 0.05:  # walks away: the hold runs out
            return
        if whim < 0.1:
            await self.call("DELETE", f"/reservations/{purchase.hold_id}")
            return
        if not await self.check_out(purchase):
            return
        if whim < 0.15:
            await self.call("POST", f"/orders/{purchase.order_id}/cancel")
        elif whim > 0.95:
            await self.pay(purchase, card="pm_card_visa_chargeDeclined")
        if whim >= 0.15:
            await self.pay(purchase)
        end = await self.wait_for_end(purchase)
        if end == "fulfilled" and 0.2 < whim < 0.27:
            purchase.wants_refund = True
            await self.market.admin.call("POST", f"/orders/{purchase.order_id}/refund")
            await self.wait_for_end(purchase)


class Load:
    """Buyers who buy one thing after another, until they are told to stop."""

    def __init__(self, market: Market, *, buyers: int, seed: int, rest_seconds: float) -> None:
        self._market = market
        self._rest_seconds = rest_seconds
        self._is_over = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run(random.Random(f"{seed}/{n}"))) for n in range(buyers)]

    async def _run(self, draw: random.Random) -> None:
        while not self._is_over.is_set():
            buyer = await self._market.buyer()
            for _ in range(12):  # more would make long lists of tickets
                if self._is_over.is_set():
                    return
                await buyer.shop_around(draw)
                await asyncio.sleep(self._rest_seconds * draw.uniform(0.5, 1.5))

    async def stop(self, *, seconds: float) -> None:
        """Lets every purchase come to its end; those that have none by then are given up."""
        self._is_over.set()
        _, unfinished = await asyncio.wait(self._tasks, timeout=seconds)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def raise_errors(self) -> None:
        """An answer that no client expects ends the run."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error


@asynccontextmanager
async def open_market(environment: dict[str, str]) -> AsyncGenerator[Market]:
    limits = httpx.Limits(max_connections=40, max_keepalive_connections=20)
    options: dict[str, Any] = {"timeout": ANSWER_SECONDS, "trust_env": False, "limits": limits}
    async with (
        httpx.AsyncClient(base_url=environment["GATEWAY_URL"], **options) as gateway,
        httpx.AsyncClient(base_url=environment["STRIPE_API_BASE"], **options) as stripe,
    ):
        market = Market(gateway, stripe)
        await market.open_event()
        yield market
