"""A small world: two buyers, one event, three services, Kafka, Stripe, and a clock.

Deadlines are the database clock's. Time passes by moving all that is stored or on its way into the past.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

import msgspec
import psycopg
from inventory import holds as inventory_holds
from inventory.errors import (
    AlreadyCheckedIn,
    EventCancelled,
    HoldQuotaExceeded,
    OrderPending,
    SeatsUnavailable,
    TicketVoid,
)
from inventory.tickets import check_in
from libs.ids import new_id
from libs.web.freshness import FreshnessGate
from libs.web.idempotency import Attempt
from libs.web.problems import TemporarilyUnavailable
from payments import cancellations, checkouts
from payments import refunds as payments_refunds
from payments.errors import HoldOver, OrderNeverPaid, OrderNotCancellable, OrderOver, PaymentNotPossible
from payments.models import OrderStatus
from payments.webhooks import receive_event
from psycopg.rows import TupleRow
from stripe_emulator.testing import WEBHOOK_SECRET

from tests.saga.bus import Bus, Sent
from tests.saga.flights import Fate, Flights
from tests.saga.organizer import PRICE, Organizer
from tests.saga.services import Errors, Services
from tests.saga.stripe_side import StripeSide

HOLD_SECONDS = 600
PAYMENT_SECONDS = 900
MAX_HELD_SEATS = 3
TOPICS = ("catalog.events", "inventory.holds", "inventory.tickets", "payments.orders", "payment.succeeded")
CHANNELS = (*TOPICS, "webhooks", "jobs", "sweeps")
MAX_ROUNDS = 60
# An answer for a fresh id that is not here yet is 503 at once.
NO_WAITING = FreshnessGate(max_waiting=0)


@dataclass(eq=False)
class Placed:
    """A hold as its buyer was told of it."""

    id: UUID
    buyer: UUID
    seat_ids: list[UUID]
    amount_minor: int


@dataclass(eq=False)
class Ordered:
    """An order; the PaymentIntent only once its buyer was given the client secret."""

    id: UUID
    hold: Placed
    intent_id: str | None = None


class World:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.errors = Errors()
        self.passed = timedelta()
        self.holds: list[Placed] = []
        self.orders: list[Ordered] = []
        self.strays: list[str] = []
        self.held_back: set[str] = set()
        # Of the next call of Stripe by the jobs that run by themselves.
        self.next_fate = Fate.GO

    # Before and after

    async def open(self) -> None:
        url = self._environment["ADMIN_DATABASE_URL"]
        self._admin = await psycopg.AsyncConnection[TupleRow].connect(url, autocommit=True)
        self._services = Services(self._environment)
        self.stripe = StripeSide()
        self.flights = Flights(
            self.stripe.transport,
            put_fault=self.stripe.put_fault,
            is_resting=self._services.is_resting,
        )
        await self._services.open(self.flights)
        self.bus = Bus(self._services.subscribers)
        self.organizer = Organizer(self._services)
        await self.organizer.build_venue()
        logging.getLogger().addHandler(self.errors)

    async def close(self) -> None:
        logging.getLogger().removeHandler(self.errors)
        await self.flights.clear()
        await self._services.close()
        await self._admin.close()
        self.stripe.close()

    async def begin(self) -> None:
        """An empty world with one event on sale: seats A1, A2, A3 at 45.00 EUR and a free one."""
        await self.flights.clear()
        await self._admin.execute(
            """
            DELETE FROM catalog.price_tiers; DELETE FROM catalog.events; DELETE FROM catalog.outbox;
            DELETE FROM inventory.events; DELETE FROM inventory.section_prices;
            DELETE FROM inventory.seat_map_parts; DELETE FROM inventory.holds;
            DELETE FROM inventory.event_seats; DELETE FROM inventory.tickets; DELETE FROM inventory.sales;
            DELETE FROM inventory.inbox; DELETE FROM inventory.outbox;
            DELETE FROM payments.stripe_jobs; DELETE FROM payments.refunds; DELETE FROM payments.payments;
            DELETE FROM payments.orders; DELETE FROM payments.holds; DELETE FROM payments.stripe_events;
            DELETE FROM payments.inbox; DELETE FROM payments.outbox;
            """
        )
        self.stripe.clear()
        self.bus.clear()
        self.errors.alarms.clear()
        self.errors.bugs.clear()
        self.passed = timedelta()
        self.holds, self.orders, self.strays = [], [], []
        self.next_fate = Fate.GO
        self.held_back = set()
        self.event_id = await self.organizer.put_on_sale()
        await self.flow()
        rows = await self.rows(
            "SELECT seat_id FROM inventory.event_seats ORDER BY section, row_name, seat_number"
        )
        self.seat_ids: list[UUID] = [row[0] for row in rows]

    async def rows(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = await self._admin.execute(statement, parameters)
        return await cursor.fetchall()

    # What people do

    async def place(self, buyer: UUID, seat_ids: list[UUID]) -> str:
        """How it ended: placed, or why not."""
        try:
            hold = await inventory_holds.place_hold(
                self._services.inventory,
                user_id=buyer,
                event_id=self.event_id,
                seat_ids=seat_ids,
                hold_seconds=HOLD_SECONDS,
                max_held_seats=MAX_HELD_SEATS,
                gate=NO_WAITING,
                attempt=Attempt(new_id(), is_repeat=False),
            )
        except EventCancelled:
            return "cancelled"
        except HoldQuotaExceeded:
            return "quota"
        except SeatsUnavailable:
            return "taken"
        self.holds.append(Placed(hold.id, buyer, sorted(seat_ids), hold.amount_minor))
        return "placed"

    async def release(self, hold: Placed) -> bool:
        try:
            await inventory_holds.release_hold(self._services.inventory, hold.id, user_id=hold.buyer)
        except OrderPending:
            return False
        return True

    async def check_out(self, hold: Placed, fate: Fate) -> None:
        async def work() -> None:
            try:
                known = await checkouts.find_hold(
                    self._services.payments, NO_WAITING, hold_id=hold.id, user_id=hold.buyer
                )
                order = await checkouts.check_out(
                    self._services.payments,
                    self._services.gateway,
                    hold=known,
                    user_id=hold.buyer,
                    email=None,
                    payment_seconds=PAYMENT_SECONDS,
                )
            except (HoldOver, OrderOver, PaymentNotPossible, TemporarilyUnavailable):
                return
            await self.collect()
            [ordered] = [each for each in self.orders if each.id == order.id]
            assert ordered.intent_id in (None, order.payment_intent_id), "another client secret"
            ordered.intent_id = order.payment_intent_id

        await self.flights.start(work(), fate)

    async def cancel(self, order: Ordered, fate: Fate) -> None:
        async def work() -> None:
            with suppress(OrderNotCancellable, TemporarilyUnavailable):
                answer = await cancellations.cancel_order(
                    self._services.payments,
                    self._services.gateway,
                    order_id=order.id,
                    user_id=order.hold.buyer,
                )
                assert answer.status == OrderStatus.CANCELLED, (
                    f"an order that is {answer.status} was cancelled"
                )

        await self.flights.start(work(), fate)

    async def refund(self, order: Ordered) -> None:
        try:
            await payments_refunds.request_refund(self._services.payments, order_id=order.id)
        except OrderNeverPaid:
            [(paid_at,)] = await self.rows("SELECT paid_at FROM payments.orders WHERE id = %s", order.id)
            assert paid_at is None

    async def check_in(self, order: Ordered) -> None:
        rows = await self.rows(
            "SELECT ticket_id FROM inventory.tickets WHERE order_id = %s ORDER BY seat_id LIMIT 1", order.id
        )
        if not rows:
            return
        code = self._services.keys.sign(rows[0][0], event_id=self.event_id)
        with suppress(AlreadyCheckedIn, TicketVoid):
            attempt = Attempt(new_id(), is_repeat=False)
            await check_in(self._services.inventory, code, keys=self._services.keys, attempt=attempt)

    async def pay_for_nobody(self) -> None:
        """A payment whose order nobody knows."""
        self.strays.append(await self.stripe.pay_astray(new_id(), PRICE))

    # What the processes do

    async def collect(self) -> None:
        """What the relays send."""
        rows = await self.rows(
            """
            WITH catalog AS (DELETE FROM catalog.outbox RETURNING *),
                 inventory AS (DELETE FROM inventory.outbox RETURNING *),
                 payments AS (DELETE FROM payments.outbox RETURNING *)
            SELECT topic, key, message_id::text, type, version, body
              FROM (TABLE catalog UNION ALL TABLE inventory UNION ALL TABLE payments) AS sent
             ORDER BY split_part(topic, '.', 1), id
            """
        )
        sent = [Sent(*row, told_at=self.passed) for row in rows]
        self.bus.take(sent)
        for each in sent:
            if each.type == "order.placed":
                placed = msgspec.json.decode(each.body)
                hold = next(hold for hold in self.holds if str(hold.id) == placed["holdId"])
                assert placed["amountMinor"] == hold.amount_minor, "another price than at the placing"
                self.orders.append(Ordered(UUID(placed["orderId"]), hold))

    async def post_webhook(self, body: bytes) -> None:
        await receive_event(
            self._services.payments,
            body=body,
            signature=self.stripe.signature(body),
            secrets=[WEBHOOK_SECRET],
        )

    async def deliver_again(self, topic: str, number: int, count: int, *, is_forgotten: bool) -> None:
        heard = self.bus.heard(topic)
        queue, place = heard[number % len(heard)]
        if is_forgotten:
            message = self.bus.forget(queue, place)
            inbox: LiteralString = (
                "DELETE FROM inventory.inbox WHERE message_id = %s"
                if queue.subscriber == "inventory"
                else "DELETE FROM payments.inbox WHERE message_id = %s"
            )
            await self._admin.execute(inbox, [message.id])
        await self.bus.deliver_again(queue, place, count, now=self.passed)

    async def run_jobs(self, fate: Fate) -> None:
        async def work() -> None:
            await self._services.jobs.run_due_jobs(self._services.payments_worker)

        await self.flights.start(work(), fate)

    async def sweep(self, number: int | None = None) -> None:
        """One of the sweeps, or all."""
        sweeps = self._services.sweeps
        for sweep, pool in sweeps if number is None else [sweeps[number]]:
            await sweep(pool)

    async def pass_time(self, seconds: int) -> None:
        by = timedelta(seconds=seconds)
        self.passed += by
        await self._admin.execute(
            """
            WITH by AS (SELECT make_interval(secs => %s) AS span),
            inventory_holds AS (
                UPDATE inventory.holds
                   SET expires_at = expires_at - span, placed_at = placed_at - span
                  FROM by
            ), payments_holds AS (
                UPDATE payments.holds
                   SET expires_at = expires_at - span, expired_at = expired_at - span
                  FROM by
            ), orders AS (
                UPDATE payments.orders
                   SET expires_at = expires_at - span, created_at = created_at - span
                  FROM by
            )
            UPDATE payments.stripe_jobs
               SET run_at = run_at - span, leased_until = leased_until - span, created_at = created_at - span
              FROM by
            """,
            [seconds],
        )

    # How it flows

    async def flow(self) -> bool:
        """All that is not held back arrives and is worked on, until nothing moves. Whether anything did."""
        for number in range(MAX_ROUNDS):
            if not await self._flow_once():
                return number > 0
        raise AssertionError("the world does not come to rest")

    async def _flow_once(self) -> bool:
        [(is_told, is_overdue, is_due)] = await self.rows(_TO_DO)
        if is_told:
            await self.collect()
        queues = [queue for queue in self.bus.pending() if queue.topic not in self.held_back]
        for queue in queues:
            await self.bus.deliver([queue], len(queue.unread), now=self.passed)
        bodies = [] if "webhooks" in self.held_back else self.stripe.unsent_webhooks()
        for body in bodies:
            await self.post_webhook(body)
        self.stripe.mark_sent(bodies)
        is_overdue = is_overdue and "sweeps" not in self.held_back
        if is_overdue:
            await self.sweep()
        is_due = is_due and "jobs" not in self.held_back
        if is_due:
            fate, self.next_fate = self.next_fate, Fate.GO
            await self.run_jobs(fate)
        return bool(is_told or queues or bodies or is_overdue or is_due)

    async def come_to_rest(self, *, is_mended: bool = False) -> None:
        """Messages, webhooks and answers arrive, jobs and sweeps run, until none is left.

        What waits for Stripe is answered when all else is done: by then it is out of date.
        """
        held_back, self.held_back = self.held_back, set()
        self.next_fate = Fate.GO
        for _ in range(MAX_ROUNDS):
            self.stripe.settle_refunds(is_mended=is_mended)
            await self._admin.execute("UPDATE payments.stripe_jobs SET run_at = now(), leased_until = NULL")
            has_moved = await self.flow()
            if self.flights.waiting:
                await self.flights.decide(self.flights.waiting[0], Fate.GO)
            elif not has_moved:
                break
        # What went back of a payment that nobody knows of waits until Stripe is asked for it.
        left = await self.rows(
            """
            SELECT kind, order_id, last_error
              FROM payments.stripe_jobs job
             WHERE NOT (kind = 'reconcile' AND payment_intent_id = ANY (%s)
                        AND EXISTS (SELECT FROM payments.orders WHERE id = order_id AND status = 'pending'))
            """,
            list(self.stripe.untold_captures()),
        )
        assert not left, f"jobs that never end: {left}"
        self.held_back = held_back


# Whether there is a message to send, something for a sweep, a job to run.
_TO_DO: LiteralString = """
    SELECT EXISTS (SELECT FROM catalog.outbox) OR EXISTS (SELECT FROM inventory.outbox)
           OR EXISTS (SELECT FROM payments.outbox),
           EXISTS (SELECT FROM inventory.holds hold JOIN inventory.events event USING (event_id)
                    WHERE hold.status = 'active' AND (hold.expires_at <= now() OR event.status = 'cancelled'))
           OR EXISTS (SELECT FROM inventory.sales sale JOIN inventory.events event USING (event_id)
                       WHERE sale.status = 'issued' AND event.status = 'cancelled')
           OR EXISTS (SELECT FROM payments.orders WHERE status = 'pending' AND expires_at <= now()
                         AND NOT EXISTS (SELECT FROM payments.stripe_jobs
                                          WHERE kind = 'cancel_intent' AND order_id = orders.id)),
           EXISTS (SELECT FROM payments.stripe_jobs
                    WHERE run_at <= now() AND (leased_until IS NULL OR leased_until <= now()))
"""
