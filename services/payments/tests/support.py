"""What payments' tests are told with: buyers, holds, Stripe's far side, and a look behind the service."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import httpx
import msgspec
from contracts.messages import (
    MESSAGE_TYPES,
    HeldSeat,
    HoldConfirmed,
    HoldExpired,
    HoldExtended,
    HoldLost,
    HoldPlaced,
    HoldReleased,
    IssuedTicket,
    Message,
    SaleRejected,
    TicketsIssued,
    TicketsVoided,
    VoidRefused,
)
from libs.ids import new_id
from libs.postgres import Conn, Pool, transaction
from libs.testing import Tokens
from payments.consumers import HANDLERS
from payments.jobs import StripeJobs
from payments.orders import expire_unpaid_orders
from payments.stripe_client import StripeGateway
from stripe_emulator.testing import SECRET_KEY, Emulator, Receiver

PRICE = 4500


class Postbox(Receiver):
    """Takes the emulator's webhooks as they come: the test hands them on, when and as often as it likes."""

    def __init__(self) -> None:
        self.letters: list[tuple[bytes, str]] = []
        super().__init__()

    def take(self, body: bytes, signature: str) -> int:
        self.letters.append((body, signature))
        return 200


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 10.0) -> Any:
    """Waits until the condition is true and returns what it said; fails the test when it never is."""
    give_up_at = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < give_up_at, "the condition did not come true"
        await asyncio.sleep(0.02)
    return found


class Buyer:
    def __init__(self, client: httpx.AsyncClient, tokens: Tokens, *, role: str = "user") -> None:
        self.id = new_id()
        self.headers = tokens.issue(self.id, role=role)
        self._client = client

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self._client.get(path, headers=self.headers, params=parameters)

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        return await self._client.post(path, headers={**self.headers, **headers}, content=content)

    async def try_checkout(self, hold: HoldPlaced, **more: object) -> httpx.Response:
        return await self.post("/orders/checkout", {"reservationId": hold.hold_id, **more})

    async def check_out(self, hold: HoldPlaced) -> dict[str, Any]:
        answer = await self.try_checkout(hold)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def order(self, order: dict[str, Any]) -> dict[str, Any]:
        answer = await self.get(f"/orders/{order['id']}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def status(self, order: dict[str, Any]) -> str:
        return (await self.order(order))["status"]

    async def cancel(self, order: dict[str, Any]) -> httpx.Response:
        return await self.post(f"/orders/{order['id']}/cancel")


def make_hold(
    user_id: UUID, *, seats: int = 2, price: int = PRICE, currency: str = "eur", seconds: float = 600
) -> HoldPlaced:
    now = datetime.now(UTC)
    held = [
        HeldSeat(
            seat_id=new_id(), section="A", row="1", seat_number=number, tier_id=new_id(), amount_minor=price
        )
        for number in range(1, seats + 1)
    ]
    return HoldPlaced(
        hold_id=new_id(),
        event_id=new_id(),
        user_id=user_id,
        seats=held,
        amount_minor=seats * price,
        currency=currency,
        placed_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )


def lost(hold: HoldPlaced, order: dict[str, Any]) -> HoldLost:
    return HoldLost(
        hold_id=hold.hold_id,
        event_id=hold.event_id,
        user_id=hold.user_id,
        order_id=UUID(order["id"]),
        reason="expired",
    )


def extended(hold: HoldPlaced, order: dict[str, Any], *, seconds: float = 960) -> HoldExtended:
    return HoldExtended(
        hold_id=hold.hold_id,
        event_id=hold.event_id,
        user_id=hold.user_id,
        order_id=UUID(order["id"]),
        expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
    )


def released(hold: HoldPlaced) -> HoldReleased:
    return HoldReleased(
        hold_id=hold.hold_id, event_id=hold.event_id, user_id=hold.user_id, reason="event_cancelled"
    )


def expired(hold: HoldPlaced) -> HoldExpired:
    return HoldExpired(
        hold_id=hold.hold_id, event_id=hold.event_id, user_id=hold.user_id, expired_at=hold.expires_at
    )


def confirmed(hold: HoldPlaced, order: dict[str, Any]) -> HoldConfirmed:
    return HoldConfirmed(
        hold_id=hold.hold_id, event_id=hold.event_id, user_id=hold.user_id, order_id=UUID(order["id"])
    )


def issued(order: dict[str, Any]) -> TicketsIssued:
    return TicketsIssued(
        order_id=UUID(order["id"]),
        hold_id=UUID(order["reservationId"]),
        event_id=UUID(order["eventId"]),
        user_id=new_id(),
        tickets=[IssuedTicket(ticket_id=new_id(), seat_id=UUID(seat["id"])) for seat in order["seats"]],
        issued_at=datetime.now(UTC),
    )


def rejected(order: dict[str, Any]) -> SaleRejected:
    return SaleRejected(
        order_id=UUID(order["id"]),
        hold_id=UUID(order["reservationId"]),
        event_id=UUID(order["eventId"]),
        reason="seats_taken",
    )


def voided(order: dict[str, Any], *, event_cancelled: bool = False) -> TicketsVoided:
    return TicketsVoided(
        order_id=UUID(order["id"]),
        event_id=UUID(order["eventId"]),
        reason="event_cancelled" if event_cancelled else "refund_requested",
        ticket_ids=[],
    )


def void_refused(order: dict[str, Any]) -> VoidRefused:
    return VoidRefused(order_id=UUID(order["id"]), event_id=UUID(order["eventId"]), reason="checked_in")


class Shop:
    """Payments with its worker's parts in the test's hands: messages, webhooks, jobs and deadlines."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        tokens: Tokens,
        *,
        app_pool: Pool,
        pool: Pool,
        admin_conn: Conn,
        stripe: StripeGateway,
        emulator: Emulator,
        postbox: Postbox,
    ) -> None:
        self.client = client
        self.tokens = tokens
        self.app_pool = app_pool
        self.pool = pool
        self._admin_conn = admin_conn
        self.stripe = stripe
        self.emulator = emulator
        self.postbox = postbox
        self.jobs = StripeJobs(stripe)
        self.admin = Buyer(client, tokens, role="admin")

    def buyer(self) -> Buyer:
        return Buyer(self.client, self.tokens)

    async def deliver(self, *messages: Message) -> None:
        """Hands messages to their consumers, each in a transaction of its own, as a subscription does."""
        for message in messages:
            async with transaction(self.pool) as conn:
                await HANDLERS[type(message)](conn, message)

    async def hold(self, buyer: Buyer, **how: Any) -> HoldPlaced:
        hold = make_hold(buyer.id, **how)
        await self.deliver(hold)
        return hold

    async def ordered(self, buyer: Buyer, **how: Any) -> dict[str, Any]:
        return await buyer.check_out(await self.hold(buyer, **how))

    async def bought(self, buyer: Buyer, *, card: str = "pm_card_visa", **how: Any) -> dict[str, Any]:
        """An order that is paid."""
        order = await self.ordered(buyer, **how)
        await self.pay(order, card=card)
        await self.pass_on("payment_intent.succeeded", order)
        assert await buyer.status(order) == "paid"
        return order

    # Stripe's far side

    async def stripe_call(self, method: str, path: str, **form: Any) -> httpx.Response:
        """A call of Stripe's API by somebody else: the buyer's browser, or the dashboard."""
        async with httpx.AsyncClient(base_url=self.emulator.url, trust_env=False) as client:
            return await client.request(
                method,
                f"/v1/{path}",
                data=form if method == "POST" else None,
                params=form if method == "GET" else None,
                headers={"Authorization": f"Bearer {SECRET_KEY}"},
            )

    async def pay(self, order: dict[str, Any], *, card: str = "pm_card_visa") -> httpx.Response:
        return await self.stripe_call(
            "POST", f"payment_intents/{intent_id(order)}/confirm", payment_method=card
        )

    async def intent(self, order: dict[str, Any]) -> dict[str, Any]:
        return (await self.stripe_call("GET", f"payment_intents/{intent_id(order)}")).json()

    async def intents(self) -> list[dict[str, Any]]:
        return (await self.stripe_call("GET", "payment_intents", limit=100)).json()["data"]

    async def refunds(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.stripe_call("GET", "refunds", payment_intent=intent_id(order))
        return answer.json()["data"]

    def fault(self, **fault: Any) -> None:
        self.emulator.control("PUT", "faults", fault)

    async def letter(self, event_type: str, order: dict[str, Any]) -> tuple[bytes, str]:
        """The webhook of this type about the order's intent, once it has come."""

        async def find() -> tuple[bytes, str] | None:
            for body, signature in self.postbox.letters:
                event = msgspec.json.decode(body)
                subject = event["data"]["object"]
                if event["type"] == event_type and intent_id(order) in (
                    subject["id"],
                    subject.get("payment_intent"),
                ):
                    return body, signature
            return None

        return await until(find)

    async def post_webhook(self, letter: tuple[bytes, str]) -> httpx.Response:
        return await self.client.post(
            "/orders/webhook", content=letter[0], headers={"Stripe-Signature": letter[1]}
        )

    async def pass_on(self, event_type: str, order: dict[str, Any]) -> None:
        """Hands on a webhook, then what it made payments tell itself."""
        answer = await self.post_webhook(await self.letter(event_type, order))
        assert answer.status_code == 200, answer.text
        await self.consume_own()

    async def consume_own(self) -> None:
        """What payments publishes for itself reaches its consumer."""
        async with self.pool.connection() as conn:
            cursor = await conn.execute(
                "DELETE FROM outbox WHERE topic = 'payment.succeeded' RETURNING id, type, version, body"
            )
            rows = sorted(await cursor.fetchall())
        for _, name, version, body in rows:
            await self.deliver(msgspec.json.decode(body, type=MESSAGE_TYPES[name, version]))

    # The worker's sweeps

    async def run_jobs(self) -> None:
        """Runs all jobs there are, due or not, and what follows from them, once each."""
        await self.execute("UPDATE stripe_jobs SET run_at = now(), leased_until = NULL")
        await self.jobs.run_due_jobs(self.pool)
        await self.consume_own()

    async def pass_deadline(self, order: dict[str, Any]) -> None:
        await self.execute("UPDATE orders SET expires_at = now() WHERE id = %s", order["id"])
        await expire_unpaid_orders(self.pool)

    # A look behind the service

    async def execute(self, statement: LiteralString, *parameters: Any) -> None:
        await self._admin_conn.execute(statement, parameters)

    async def rows(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = await self._admin_conn.execute(statement, parameters)
        return await cursor.fetchall()

    async def said(self, order: dict[str, Any]) -> list[Message]:
        """Messages in the outbox under the order's key, decoded by their contracts, oldest first."""
        rows = await self.rows(
            "SELECT type, version, body FROM outbox WHERE key = %s ORDER BY id", order["id"]
        )
        return [msgspec.json.decode(body, type=MESSAGE_TYPES[name, version]) for name, version, body in rows]

    async def told(self, order: dict[str, Any]) -> Counter[str]:
        """How often each type of message was published about the order, `payment.succeeded` aside."""
        types = Counter(message.TYPE for message in await self.said(order))
        types.pop("payment.succeeded", None)
        return types

    async def job_kinds(self) -> list[str]:
        return [row[0] for row in await self.rows("SELECT kind FROM stripe_jobs ORDER BY id")]

    async def account(self, order: dict[str, Any]) -> tuple[int, int]:
        """What was captured for the order, and what of it went back; minor units."""
        [row] = await self.rows(
            """
            SELECT coalesce((SELECT sum(amount_minor) FROM payments WHERE order_id = %s), 0)::bigint,
                   coalesce((SELECT sum(refunds.amount_minor)
                               FROM refunds JOIN payments USING (payment_intent_id)
                              WHERE order_id = %s AND refunds.status = 'succeeded'), 0)::bigint
            """,
            order["id"],
            order["id"],
        )
        return row[0], row[1]


def intent_id(order: dict[str, Any]) -> str:
    return order["clientSecret"].partition("_secret_")[0]


BOUGHT = {"order.placed": 1, "order.paid": 1}
REFUNDED = Counter({**BOUGHT, "order.fulfilled": 1, "order.refund_requested": 1, "order.refunded": 1})


async def fulfilled(shop: Shop, buyer: Buyer, **how: str) -> dict[str, Any]:
    order = await shop.bought(buyer, **how)
    await shop.deliver(issued(order))
    return order


async def request_refund(shop: Shop, order: dict[str, Any]) -> str:
    answer = await shop.admin.post(f"/orders/{order['id']}/refund")
    assert answer.status_code == 200, answer.text
    return answer.json()["status"]
