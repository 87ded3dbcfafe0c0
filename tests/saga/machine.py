"""The machine: what may happen next, and what is looked at after each step."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from libs.ids import new_id

from tests.saga.audit import Books, check_always, check_at_rest, check_at_the_end, check_letters, read_books
from tests.saga.draws import (
    answers,
    begun,
    buyers,
    cards,
    counts,
    fates,
    faults,
    nth,
    parts,
    seats,
    topics,
    wrongs,
)
from tests.saga.flights import Fate
from tests.saga.organizer import PRICE
from tests.saga.world import CHANNELS, MAX_HELD_SEATS, Ordered, Placed, World


class Saga(RuleBasedStateMachine):
    world: World
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """One step: the work, then what flows by itself, then what must be true at every moment."""
        return self._finish(self._step(work))

    def _finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.get_loop().run_until_complete(work)

    async def _step(self, work: Coroutine[Any, Any, Any]) -> Any:
        answer = await work
        await self.world.flow()
        await self._look()
        return answer

    async def _look(self) -> None:
        before, self.books = self.books, await read_books(self.world)
        check_always(self.world, self.books, before)

    @initialize(
        sold=st.lists(
            st.tuples(buyers, parts, begun), min_size=1, max_size=3, unique_by=lambda each: each[1]
        ),
        held_back=st.sets(st.sampled_from(CHANNELS), max_size=4),
    )
    def begin(self, sold: list[tuple[int, tuple[int, ...], str]], held_back: set[str]) -> None:
        """Most that can happen happens to an order: there are some already."""
        self.buyers = [new_id(), new_id()]
        self._finish(self.world.begin())
        self.books = self._finish(read_books(self.world))
        for buyer, wanted, until in sold:
            holds, orders = len(self.world.holds), len(self.world.orders)
            self.place(buyer, wanted)
            if until != "held" and len(self.world.holds) > holds:
                self.check_out(-1, Fate.HOLD if until == "asked" else Fate.GO)
            if until == "paid" and len(self.world.orders) > orders and self.awaiting_payment():
                self.pay(-1, "pm_card_visa")
        self.world.held_back = held_back

    # Which orders something can happen to

    def order(self, number: int) -> Ordered:
        return self.world.orders[number % len(self.world.orders)]

    def awaiting_payment(self) -> list[Ordered]:
        return self.orders_with_intent("requires_payment_method")

    def orders_with_intent(self, status: str) -> list[Ordered]:
        """Orders whose buyer has a client secret of a PaymentIntent in this state."""
        found = {
            each["id"] for all_ in self.books.intents.values() for each in all_ if each["status"] == status
        }
        return [each for each in self.world.orders if each.intent_id in found]

    def pending(self) -> list[Ordered]:
        return [each for each in self.world.orders if self.books.orders[str(each.id)]["status"] == "pending"]

    def orders_with_tickets(self) -> list[Ordered]:
        return [each for each in self.world.orders if self.books.valid_tickets(str(each.id))]

    # Buyers

    @rule(buyer=buyers, seats=seats)
    def place(self, buyer: int, seats: tuple[int, ...]) -> None:
        self.run(self._place(self.buyers[buyer], [self.world.seat_ids[each] for each in seats]))

    async def _place(self, buyer: UUID, seat_ids: list[UUID]) -> None:
        expected = self._expected(await read_books(self.world), buyer, {str(each) for each in seat_ids})
        assert await self.world.place(buyer, seat_ids) == expected

    def _expected(self, books: Books, buyer: UUID, wanted: set[str]) -> str:
        alive = [each for each in books.holds.values() if each["status"] == "active" and each["is_ahead"]]
        held = sum(len(each["seat_ids"]) for each in alive if each["user_id"] == str(buyer))
        reserved = {seat_id for each in alive for seat_id in each["seat_ids"]}
        sold = {seat_id for seat_id, seat in books.seats.items() if seat["sold_order_id"]}
        if books.event == "cancelled":
            return "cancelled"
        if held + len(wanted) > MAX_HELD_SEATS:
            return "quota"
        return "taken" if wanted & (reserved | sold) else "placed"

    @rule(buyer=buyers, seats=seats, card=cards)
    def buy(self, buyer: int, seats: tuple[int, ...], card: str) -> None:
        """The whole way at once, as far as nothing is held back."""
        self.place(buyer, seats)
        if self.world.holds:
            self.check_out(-1, Fate.GO)
        if self.awaiting_payment():
            self.pay(-1, card)

    @precondition(lambda self: self.world.holds)
    @rule(number=nth, seconds=st.sampled_from([0, 601, 1000]))
    def rival(self, number: int, seconds: int) -> None:
        """Somebody wants the seats of another's hold, maybe when its time is up, or its order's too."""
        hold = self.world.holds[number % len(self.world.holds)]
        [buyer] = [each for each in self.buyers if each != hold.buyer]
        if seconds:
            self.pass_time(seconds)
        self.run(self._place(buyer, hold.seat_ids))

    @precondition(lambda self: self.world.holds)
    @rule(number=nth)
    def release(self, number: int) -> None:
        self.run(self._release(self.world.holds[number % len(self.world.holds)]))

    async def _release(self, hold: Placed) -> None:
        known = (await read_books(self.world)).holds[str(hold.id)]
        is_alive = known["status"] == "active" and known["is_ahead"]
        is_ordered = known["order_id"] is not None and (is_alive or known["status"] == "confirmed")
        assert await self.world.release(hold) is not is_ordered, "a hold that has an order was let go"

    @precondition(lambda self: self.world.holds)
    @rule(number=nth, fate=fates)
    def check_out(self, number: int, fate: Fate) -> None:
        self.run(self.world.check_out(self.world.holds[number % len(self.world.holds)], fate))

    @precondition(lambda self: self.unordered())
    @rule(number=nth, seconds=st.sampled_from([0, 601]))
    def check_out_late(self, number: int, seconds: int) -> None:
        """Inventory hears of the order when the hold's time may be up and a rival has come."""
        holds = self.unordered()
        number = self.world.holds.index(holds[number % len(holds)])
        self.world.held_back.add("payments.orders")
        self.check_out(number, Fate.GO)
        self.rival(number, seconds)

    def unordered(self) -> list[Placed]:
        return [each for each in self.world.holds if self.books.holds[str(each.id)]["order_id"] is None]

    @precondition(lambda self: self.awaiting_payment())
    @rule(number=nth, card=cards)
    def pay(self, number: int, card: str) -> None:
        orders = self.awaiting_payment()
        self.run(self.world.stripe.confirm(orders[number % len(orders)].intent_id, card))

    @precondition(lambda self: self.orders_with_intent("processing"))
    @rule(number=nth, is_paid=st.booleans())
    def settle_payment(self, number: int, is_paid: bool) -> None:
        orders = self.orders_with_intent("processing")
        self.run(self.world.stripe.settle(orders[number % len(orders)].intent_id, is_paid=is_paid))

    @precondition(lambda self: self.world.orders)
    @rule(number=nth, fate=fates)
    def cancel(self, number: int, fate: Fate) -> None:
        orders = self.pending() or self.world.orders
        self.run(self.world.cancel(orders[number % len(orders)], fate))

    @precondition(lambda self: self.pending())
    @rule(number=nth, then=st.sampled_from(["pay", "cancel", "jobs", "time"]), fate=answers)
    def cancel_in_a_race(self, number: int, then: str, fate: Fate) -> None:
        """Something else happens to the order before Stripe has said that its payment is cancelled."""
        orders = self.pending()
        order = orders[number % len(orders)]
        self.run(self.world.cancel(order, Fate.HOLD))
        match then:
            case "pay" if order in self.awaiting_payment():
                self.run(self.world.stripe.confirm(order.intent_id, "pm_card_visa"))
            case "cancel":
                self.run(self.world.cancel(order, Fate.GO))
            case "jobs":
                self.run(self.world.run_jobs(Fate.GO))
            case _:
                self.pass_time(1000)
        if self.world.flights.waiting:
            self.answer(-1, fate)

    @precondition(lambda self: self.awaiting_payment())
    @rule(number=nth, change=wrongs, card=st.none() | cards)
    def tamper(self, number: int, change: dict[str, Any], card: str | None) -> None:
        """The PaymentIntent is no longer what the order says: whoever pays it pays wrongly; maybe at once."""
        orders = self.awaiting_payment()
        intent_id = orders[number % len(orders)].intent_id
        self.run(self.world.stripe.tamper(intent_id, change))
        if card is not None:
            self.run(self.world.stripe.confirm(intent_id, card))

    @precondition(lambda self: self.world.orders)
    @rule(number=nth, amount_minor=st.sampled_from([PRICE, 1]))
    def pay_astray(self, number: int, amount_minor: int) -> None:
        self.run(self.world.stripe.pay_astray(self.order(number).id, amount_minor))

    @precondition(lambda self: self.world.orders and not self.world.strays)
    @rule()
    def pay_for_nobody(self) -> None:
        self.run(self.world.pay_for_nobody())

    # The organizer, and the person at the door

    @precondition(lambda self: self.world.orders)
    @rule(number=nth)
    def refund(self, number: int) -> None:
        self.run(self.world.refund(self.order(number)))

    @precondition(lambda self: self.orders_with_intent("succeeded"))
    @rule(number=nth, amount_minor=st.sampled_from([None, 1]))
    def give_back_in_dashboard(self, number: int, amount_minor: int | None) -> None:
        orders = self.orders_with_intent("succeeded")
        self.run(self.world.stripe.give_back(orders[number % len(orders)].intent_id, amount_minor))

    @precondition(lambda self: self.orders_with_tickets())
    @rule(number=nth, then=st.sampled_from(["nothing", "refund", "refund", "give back"]))
    def check_in(self, number: int, then: str) -> None:
        """Somebody uses a ticket, and maybe wants the money back all the same."""
        orders = self.orders_with_tickets()
        order = orders[number % len(orders)]
        self.run(self.world.check_in(order))
        if then == "refund":
            self.run(self.world.refund(order))
        elif then == "give back" and order.intent_id is not None:
            self.run(self.world.stripe.give_back(order.intent_id, None))

    @precondition(lambda self: not (self.world.organizer.has_raised or self.world.organizer.has_cancelled))
    @rule()
    def raise_price(self) -> None:
        self.run(self.world.organizer.raise_price())

    @precondition(lambda self: self.world.orders and not self.world.organizer.has_cancelled)
    @rule()
    def cancel_event(self) -> None:
        self.run(self.world.organizer.cancel_event())

    # Kafka

    @precondition(lambda self: self.world.bus.pending())
    @rule(number=nth, count=counts, is_crash=st.booleans())
    def deliver(self, number: int, count: int, is_crash: bool) -> None:
        pending = self.world.bus.pending()
        queue = pending[number % len(pending)]
        self.run(self.world.bus.deliver([queue], count, now=self.world.passed, crash=is_crash))

    @precondition(lambda self: len(self.world.bus.pending()) > 1)
    @rule(number=nth, count=counts, is_crash=st.booleans())
    def deliver_together(self, number: int, count: int, is_crash: bool) -> None:
        """All that waits for one service, in one batch and transaction."""
        pending = self.world.bus.pending()
        subscriber = pending[number % len(pending)].subscriber
        queues = [queue for queue in pending if queue.subscriber == subscriber]
        self.run(self.world.bus.deliver(queues, count, now=self.world.passed, crash=is_crash))

    @precondition(lambda self: self.world.orders)
    @rule(topic=topics, number=nth, count=counts, is_forgotten=st.booleans())
    def deliver_again(self, topic: str, number: int, count: int, is_forgotten: bool) -> None:
        """From an earlier offset on; also when the inbox has forgotten, as it does after 30 days."""
        if self.world.bus.heard(topic):
            self.run(self.world.deliver_again(topic, number, count, is_forgotten=is_forgotten))

    # Stripe

    @precondition(lambda self: self.world.stripe.unsent_webhooks())
    @rule(number=nth)
    def post_webhook(self, number: int) -> None:
        """One of those that wait, in any order; it stays among them and will come again."""
        bodies = self.world.stripe.unsent_webhooks()
        self.run(self.world.post_webhook(bodies[number % len(bodies)]))

    @precondition(lambda self: self.world.stripe.sent_webhooks())
    @rule(number=st.integers(0, 30))
    def post_webhook_again(self, number: int) -> None:
        bodies = self.world.stripe.sent_webhooks()
        self.run(self.world.post_webhook(bodies[number % len(bodies)]))

    @precondition(lambda self: self.untold_captures())
    @rule(number=nth)
    def give_up_webhook(self, number: int) -> None:
        """The word of a payment never comes: only who asks Stripe hears of it."""
        bodies = self.untold_captures()
        self.world.stripe.give_up(bodies[number % len(bodies)])

    def untold_captures(self) -> list[bytes]:
        own = {order["payment_intent_id"] for order in self.books.orders.values()}
        return self.world.stripe.unsent_captures(own)

    @precondition(lambda self: self.world.flights.waiting)
    @rule(number=nth, fate=answers)
    def answer(self, number: int, fate: Fate) -> None:
        waiting = self.world.flights.waiting
        self.run(self.world.flights.decide(waiting[number % len(waiting)], fate))

    @precondition(lambda self: self.world.orders)
    @rule(fate=faults)
    def disturb(self, fate: Fate) -> None:
        """What becomes of the next call of a job that runs by itself."""
        self.world.next_fate = fate

    @precondition(lambda self: self.world.stripe.has_unsettled_refunds())
    @rule()
    def settle_refunds(self) -> None:
        self.world.stripe.settle_refunds()
        self.run(asyncio.sleep(0))

    # The workers and the clock

    @precondition(lambda self: self.world.orders)
    @rule(fate=fates)
    def run_jobs(self, fate: Fate) -> None:
        self.run(self.world.run_jobs(fate))

    @precondition(lambda self: "sweeps" in self.world.held_back)
    @rule(number=st.integers(0, 3))
    def sweep(self, number: int) -> None:
        self.run(self.world.sweep(number))

    # A postponed job is due; a hold is over; an order is over; its hold is over too.
    @precondition(lambda self: self.world.holds)
    @rule(seconds=st.sampled_from([120, 601, 901, 1000]))
    def pass_time(self, seconds: int) -> None:
        self.run(self.world.pass_time(seconds))

    @rule(channel=st.sampled_from(CHANNELS))
    def hold_back_or_let_flow(self, channel: str) -> None:
        self.world.held_back ^= {channel}
        self.run(asyncio.sleep(0))

    @precondition(lambda self: self.world.orders)
    @rule(is_paid=st.booleans())
    def rest(self, is_paid: bool) -> None:
        self._finish(self._rest(is_paid=is_paid))

    async def _rest(self, *, is_paid: bool) -> None:
        """All arrives and is worked on; then all time is up as well."""
        for order in self.orders_with_intent("processing"):
            await self.world.stripe.settle(order.intent_id, is_paid=is_paid)
        for seconds in (0, 3600):
            await self.world.pass_time(seconds)
            await self.world.come_to_rest()
            await self._look()
            check_at_rest(self.world, self.books)
            check_letters(self.world)
        check_at_the_end(self.books)

    def teardown(self) -> None:
        self._finish(self._end())

    async def _end(self) -> None:
        await self._rest(is_paid=True)
        # What the banks have sent back goes through once somebody asks for it again.
        for order in self.world.orders:
            if self.books.orders[str(order.id)]["status"] == "refunding":
                await self.world.refund(order)
        await self.world.come_to_rest(is_mended=True)
        await self._look()
        check_at_rest(self.world, self.books)
        assert not [each for each in self.books.orders.values() if each["status"] == "refunding"]
