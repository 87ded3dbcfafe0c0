"""An order on random ways, with an inventory that answers as the real one does: all of them end well."""

import os
import random
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from contracts.messages import (
    MESSAGE_TYPES,
    HoldPlaced,
    Message,
    OrderCancelled,
    OrderExpired,
    OrderPaid,
    OrderPlaced,
    OrderRefundRequested,
)
from payments.errors import MessageContradictsOrder

from services.payments.tests.support import (
    Buyer,
    Shop,
    confirmed,
    expired,
    extended,
    intent_id,
    issued,
    rejected,
    released,
    void_refused,
    voided,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of Stripe's SDK

SEEDS = int(os.environ.get("WAYS", "16"))
STEPS = 30
MAX_ROUNDS = 20


class Inventory:
    """Decides once about an order's sale, as the real one; its answers wait to be delivered."""

    def __init__(self, hold: HoldPlaced, chance: random.Random) -> None:
        self.hold = hold
        self.chance = chance
        self.sale = "none"
        self.is_used = False
        self.answers: list[Message] = []

    def hear(self, message: Message, order: dict[str, Any]) -> None:
        match message:
            case OrderPlaced():
                self.answers.append(extended(self.hold, order))
            case OrderPaid() if self.sale == "none" and self.chance.random() < 0.8:
                self.sale = "issued"
                self.is_used = self.chance.random() < 0.3
                self.answers += [issued(order), confirmed(self.hold, order)]
            case OrderPaid() if self.sale == "none":
                self.sale = "rejected"
                self.answers.append(rejected(order))
            case OrderRefundRequested() if self.sale == "issued" and self.is_used:
                self.answers.append(void_refused(order))
            case OrderRefundRequested():
                self.sale = "voided" if self.sale in ("none", "issued") else self.sale
                self.answers.append(voided(order))
            case OrderCancelled() | OrderExpired():
                self.answers.append(released(self.hold))
            case _:
                pass

    def cancel_event(self, order: dict[str, Any]) -> None:
        if self.sale == "issued":
            self.sale = "voided"
            self.answers.append(voided(order, event_cancelled=True))


class Way:
    """One order and everything that can happen to it; each method but `settle` is one step."""

    def __init__(self, shop: Shop, buyer: Buyer, hold: HoldPlaced, order: dict[str, Any], seed: int) -> None:
        self.shop = shop
        self.buyer = buyer
        self.order = order
        self.chance = random.Random(seed)
        self.inventory = Inventory(hold, self.chance)
        self.hold = hold

    async def pay(self) -> None:
        card = self.chance.choice(["pm_card_visa", "pm_card_visa", "pm_card_chargeDeclined"])
        with suppress(httpx.TransportError):  # a fault that was meant for payments
            await self.shop.pay(self.order, card=card)

    async def webhooks(self) -> None:
        letters = self.shop.postbox.letters
        for letter in self.chance.sample(letters, k=len(letters)):
            assert (await self.shop.post_webhook(letter)).status_code == 200

    async def captures(self) -> None:
        await self.shop.consume_own()

    async def jobs(self) -> None:
        await self.shop.run_jobs()

    async def cancel(self) -> None:
        assert (await self.buyer.cancel(self.order)).status_code in (200, 409, 503)

    async def check_out(self) -> None:
        assert (await self.buyer.try_checkout(self.hold)).status_code in (200, 410, 503)

    async def deadline(self) -> None:
        await self.shop.pass_deadline(self.order)

    async def hold_ends(self) -> None:
        if self.inventory.sale == "none":
            await self.shop.deliver(expired(self.hold))

    async def refund(self) -> None:
        answer = await self.shop.admin.post(f"/orders/{self.order['id']}/refund")
        assert answer.status_code in (200, 409)

    async def dashboard_refund(self) -> None:
        with suppress(httpx.TransportError):
            await self.shop.stripe_call("POST", "refunds", payment_intent=intent_id(self.order))

    async def cancel_event(self) -> None:
        self.inventory.cancel_event(self.order)

    async def fault(self) -> None:
        self.shop.fault(
            status=self.chance.choice([400, 500, 503, None]),
            after=self.chance.random() < 0.5,
            count=self.chance.choice([1, 3]),
        )

    async def inventory_hears(self) -> None:
        rows = await self.shop.rows(
            "DELETE FROM outbox WHERE topic = 'payments.orders' RETURNING id, type, version, body"
        )
        for _, name, version, body in sorted(rows):
            message = msgspec.json.decode(body, type=MESSAGE_TYPES[name, version])
            for _ in range(self.chance.choice([1, 1, 2])):
                self.inventory.hear(message, self.order)

    async def inventory_answers(self) -> None:
        answers, self.inventory.answers = self.inventory.answers, []
        for answer in answers:
            for _ in range(self.chance.choice([1, 1, 2])):
                await self.shop.deliver(answer)

    async def step(self) -> None:
        steps = {
            self.pay: 3,
            self.webhooks: 3,
            self.captures: 3,
            self.jobs: 3,
            self.inventory_hears: 3,
            self.inventory_answers: 3,
            self.check_out: 1,
            self.fault: 1,
            self.refund: 0.7,
            self.cancel: 0.4,
            self.deadline: 0.4,
            self.hold_ends: 0.3,
            self.dashboard_refund: 0.3,
            self.cancel_event: 0.3,
        }
        [step] = self.chance.choices(list(steps), weights=list(steps.values()))
        await step()

    async def settle(self) -> None:
        """Everything works again, and everything on its way arrives."""
        self.shop.fault()
        await self.deadline()
        for _ in range(MAX_ROUNDS):
            await self.await_webhooks()
            for step in (
                self.webhooks,
                self.captures,
                self.jobs,
                self.inventory_hears,
                self.inventory_answers,
            ):
                await step()
            left = await self.shop.rows("SELECT (SELECT count(*) FROM stripe_jobs), count(*) FROM outbox")
            if left == [(0, 0)] and not self.inventory.answers:
                return
        pytest.fail(f"never at rest: {await self.shop.rows('SELECT * FROM stripe_jobs')}")

    async def await_webhooks(self) -> None:
        for event in self.shop.emulator.control("GET", "events"):
            await self.shop.letter(event["type"], self.order)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_any_way_ends_with_tickets_and_money_or_with_neither(
    shop: Shop, buyer: Buyer, seed: int
) -> None:
    hold = await shop.hold(buyer)
    order = await buyer.check_out(hold)
    way = Way(shop, buyer, hold, order, seed)
    for _ in range(STEPS):
        try:
            await way.step()
        except MessageContradictsOrder:
            pytest.fail("an answer of inventory's was refused")
    await way.settle()

    status = await buyer.status(order)
    captured, back = await shop.account(order)
    intent = await shop.intent(order)
    at_stripe = sum(each["amount"] for each in await shop.refunds(order) if each["status"] == "succeeded")
    assert (captured, back) == (intent["amount_received"], at_stripe)
    assert len(await shop.refunds(order)) <= 1
    told = await shop.rows("SELECT status FROM orders WHERE id = %s", UUID(order["id"]))
    assert told == [(status,)]
    match status:
        case "fulfilled":
            assert (captured, back) == (order["amountMinor"], 0)
            assert way.inventory.sale == "issued"
        case "refunded":
            assert captured == back == order["amountMinor"]
            # Only the dashboard gives money back for a ticket that was used.
            assert way.inventory.sale != "issued" or way.inventory.is_used
        case "cancelled" | "expired":
            assert captured == 0
            assert intent["status"] == "canceled"
        case _:
            pytest.fail(f"the order is {status} for ever")
