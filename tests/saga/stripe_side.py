"""Stripe's far side: the emulator in this process, its own record of the money, and webhooks that wait."""

import asyncio
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
from stripe_emulator import refunds
from stripe_emulator.app import create_app
from stripe_emulator.faults import Fault
from stripe_emulator.sender import sign
from stripe_emulator.settings import Settings
from stripe_emulator.store import Store
from stripe_emulator.testing import SECRET_KEY, WEBHOOK_SECRET

Json = dict[str, Any]


class StripeSide:
    """Nothing runs in its background: no webhook goes out and no refund settles unless it is told to."""

    def __init__(self) -> None:
        settings = Settings(
            secret_key=SECRET_KEY,
            webhook_secret=WEBHOOK_SECRET,
            webhook_url="http://nowhere.invalid",
            state_file=Path(":memory:"),
        )
        self.store = Store(settings.state_file)
        app = create_app(settings, self.store, stopping=asyncio.Event())
        self.transport = httpx.ASGITransport(app=app)  # pyright: ignore[reportArgumentType]
        self._client = httpx.AsyncClient(
            transport=self.transport,
            base_url="http://stripe.invalid",
            headers={"Authorization": f"Bearer {SECRET_KEY}"},
        )
        self._sent: set[bytes] = set()
        self._given_up: set[bytes] = set()

    def clear(self) -> None:
        self.store.clear()
        self._sent.clear()
        self._given_up.clear()

    def close(self) -> None:
        self.store.close()

    async def call(self, path: str, **form: Any) -> httpx.Response:
        """A call of Stripe's API by somebody else: the buyer's browser, or the dashboard."""
        return await self._client.post(f"/v1/{path}", data=form)

    async def confirm(self, intent_id: str | None, card: str) -> None:
        await self.call(f"payment_intents/{intent_id}/confirm", payment_method=card)

    async def pay_astray(self, order_id: UUID, amount_minor: int) -> str:
        """A PaymentIntent that names the order, made by nobody of ours, and paid; its id."""
        answer = await self.call(
            "payment_intents",
            **{
                "amount": amount_minor,
                "currency": "eur",
                "confirm": "true",
                "payment_method": "pm_card_visa",
                "metadata[orderId]": str(order_id),
            },
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    async def give_back(self, intent_id: str | None, amount_minor: int | None) -> None:
        """A refund in the dashboard; None: of all that is left. Stripe may refuse it."""
        form = {} if amount_minor is None else {"amount": amount_minor}
        await self.call("refunds", payment_intent=intent_id, **form)

    async def tamper(self, intent_id: str | None, change: Json) -> None:
        """Whoever pays it now pays something else than the order says."""
        await self._control("PUT", f"payment_intents/{intent_id}", change)

    async def settle(self, intent_id: str | None, *, is_paid: bool) -> None:
        """The bank has made up its mind about a payment that was `processing`."""
        outcome = "succeed" if is_paid else "fail"
        await self._control("POST", f"payment_intents/{intent_id}/settle", {"outcome": outcome})

    async def _control(self, method: str, path: str, body: Json) -> None:
        answer = await self._client.request(method, f"/_emulator/{path}", json=body)
        assert answer.status_code == 200, answer.text

    def put_fault(self, fault: Fault) -> None:
        with self.store.transaction() as tx:
            tx.put_control("faults", fault)

    def webhooks(self) -> list[bytes]:
        """The bodies of all events there ever were, oldest first."""
        with self.store.transaction() as tx:
            return [body for (body,) in tx.db.execute("SELECT body FROM events ORDER BY seq")]

    def unsent_webhooks(self) -> list[bytes]:
        return [body for body in self.webhooks() if body not in self._sent | self._given_up]

    def sent_webhooks(self) -> list[bytes]:
        return [body for body in self.webhooks() if body in self._sent]

    def mark_sent(self, bodies: Iterable[bytes]) -> None:
        self._sent.update(bodies)

    def unsent_captures(self, intent_ids: Collection[str]) -> list[bytes]:
        """The webhooks still to come that tell of the success of one of these."""
        return [body for body in self.unsent_webhooks() if _captured(body) in intent_ids]

    def give_up(self, body: bytes) -> None:
        """Stripe has tried for three days: this webhook will not come."""
        self._given_up.add(body)

    def untold_captures(self) -> set[str]:
        return {intent_id for body in self._given_up if (intent_id := _captured(body)) is not None}

    def signature(self, body: bytes) -> str:
        return sign(body, WEBHOOK_SECRET, timestamp=int(time.time()))

    def settle_refunds(self, *, is_mended: bool = False) -> None:
        """What the banks had still to say of refunds; mended, also those who refused say yes."""
        with self.store.transaction() as tx:
            tx.db.execute("UPDATE settlements SET due_at = 0")
            if is_mended:
                tx.db.execute("UPDATE settlements SET outcome = 'succeed_later'")
        refunds.settle_due(self.store)

    def has_unsettled_refunds(self) -> bool:
        with self.store.transaction() as tx:
            return tx.db.execute("SELECT 1 FROM settlements").fetchone() is not None

    def keys(self, path: str) -> list[str]:
        """The idempotency keys under which something was asked for, except what was refused untouched."""
        with self.store.transaction() as tx:
            rows = tx.db.execute("SELECT key FROM idempotency_keys WHERE path = ?", [f"/v1/{path}"])
            return [key for (key,) in rows]

    def objects(self, kind: str) -> list[Json]:
        with self.store.transaction() as tx:
            rows = tx.db.execute("SELECT body FROM objects WHERE kind = ? ORDER BY seq", [kind])
            return [msgspec.json.decode(body) for (body,) in rows]

    def intents(self) -> list[Json]:
        """Each with what went `back` of it."""
        back: dict[str, int] = {}
        for refund in self.objects("Refund"):
            if refund["status"] != "failed":
                intent_id = refund["payment_intent"]
                back[intent_id] = back.get(intent_id, 0) + refund["amount"]
        return [intent | {"back": back.get(intent["id"], 0)} for intent in self.objects("PaymentIntent")]


def _captured(body: bytes) -> str | None:
    """The PaymentIntent whose success an event tells."""
    event: Json = msgspec.json.decode(body)
    return event["data"]["object"]["id"] if event["type"] == "payment_intent.succeeded" else None
