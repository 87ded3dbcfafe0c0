"""Strikes one fault after another while the load goes on, and judges when all is at rest."""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field

from audit.findings import Finding
from audit.looks import Sources, Verdict, audit, look_once
from embedded.stack import PARTS, Stack
from embedded.testing import running_stack

from tests.faults.clients import GaveUp, Load, Market, Purchase, open_market
from tests.faults.matrix import Fault, go_on, lead_to
from tests.faults.settlement import Settlement, look_at_all, settle
from tests.faults.stage import Stage

HOLD_SECONDS = 30
PAYMENT_SECONDS = 45
GIVE_UP_SECONDS = 90.0
"""A system that has not sold again by then is broken."""
REST_SECONDS = 180.0


@dataclass
class Result:
    fault: str
    kind: str
    recovery_seconds: float
    """From the fault's end until a new buyer has a ticket; infinite when that never came."""
    marked: str = ""
    """How the purchase ended that was struck, and after how many seconds."""
    faults: list[str] = field(default_factory=list[str])


@dataclass
class Outcome:
    settlement: Settlement
    verdict: Verdict
    faults: list[str]
    """All that should not be, in words."""


class Suite:
    def __init__(
        self, stage: Stage, market: Market, load: Load, *, seed: int, say: Callable[[str], None]
    ) -> None:
        self.stage = stage
        self.market = market
        self.load = load
        self.results: list[Result] = []
        self._draw = random.Random(seed)
        self._say = say
        environment = stage.environment
        self.sources = Sources(
            environment["ADMIN_DATABASE_URL"],
            environment["KAFKA_BROKERS"],
            environment["STRIPE_API_BASE"],
            environment["STRIPE_SECRET_KEY"],
        )

    async def strike(self, fault: Fault) -> Result:
        buyer = await self.market.buyer()
        marked = None
        if fault.step:
            marked = await lead_to(fault.step, self.stage, buyer, self._draw)
        struck_at = time.monotonic()
        ended_at = await fault.strike(self.stage)
        if fault.step:
            await go_on(self.stage)
        result = Result(fault.name, fault.kind, await self.seconds_to_sell(ended_at))
        if marked:
            end = await self.end_of(marked)
            result.marked = f"{end} after {time.monotonic() - struck_at:.1f} s"
            if marked.ended_at is None:
                result.faults.append(f"{fault.name}: order {marked.order_id} is {end}")
        return await self.finish(result)

    async def finish(self, result: Result) -> Result:
        await self.stage.heal()
        found = await self._what_may_never_be()
        result.faults += [f"{each.check.name}: {each.id} {each.text}" for each in found]
        self.results.append(result)
        seconds = result.recovery_seconds
        sells = f"sells again after {seconds:4.1f} s" if math.isfinite(seconds) else "DOES NOT SELL AGAIN"
        self._say(f"{len(self.results):3}  {result.fault:<48} {sells}   {result.marked}")
        for line in result.faults:
            self._say(f"     FAULT {line}")
        self.load.raise_errors()
        return result

    async def seconds_to_sell(self, ended_at: float) -> float:
        """Until somebody new, from registration to ticket, has bought; from that moment on."""
        deadline = ended_at + GIVE_UP_SECONDS
        try:
            while True:
                newcomer = await self.market.buyer()
                purchase = await newcomer.buy(draw=self._draw, deadline=deadline)
                if purchase and purchase.told == "fulfilled":
                    return time.monotonic() - ended_at
                if time.monotonic() > deadline:
                    return math.inf
        except GaveUp:
            return math.inf

    async def end_of(self, marked: Purchase) -> str:
        """Its buyer goes on from where it was struck."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        buyer = marked.buyer
        try:
            if marked.order_id is None and not await buyer.check_out(marked, deadline=deadline):
                marked.ended_at = time.monotonic()
                return "hold ran out"
            if not marked.was_told_paid:
                await buyer.pay(marked, deadline=deadline)
            return await buyer.wait_for_end(marked, deadline=deadline)
        except GaveUp:
            return f"{marked.told}, without an end"

    async def _what_may_never_be(self) -> list[Finding]:
        """Of the oracle's checks those that hold at any moment. Looked at twice: it sees not all at once."""
        found = await self._strict_findings()
        if found:
            again = {each.key for each in await self._strict_findings()}
            found = [each for each in found if each.key in again]
        return found

    async def _strict_findings(self) -> list[Finding]:
        look = await look_once(self.sources, days=0)
        return [each for each in look.findings if not each.check.settles]

    async def _verdict_at_rest(self) -> Verdict:
        """Without a grace, once no order is under way; what is still wrong in the end is wrong."""
        deadline = time.monotonic() + REST_SECONDS
        statement = (
            "SELECT count(*) = 0 FROM payments.orders WHERE status IN ('pending', 'paid', 'refunding')"
        )
        while True:
            is_at_rest = await self.stage.sees(statement)
            verdict = await audit(self.sources, grace_seconds=0)
            if (is_at_rest and verdict.exit_code == 0) or time.monotonic() > deadline:
                return verdict
            await asyncio.sleep(1)

    async def conclude(self) -> Outcome:
        """The load stops, everything comes to its end, and it is counted."""
        await self.load.stop(seconds=GIVE_UP_SECONDS)
        faults = [line for result in self.results for line in result.faults]
        faults += [
            f"recovery: {result.fault} took {result.recovery_seconds:.1f} s"
            for result in self.results
            if math.isinf(result.recovery_seconds)
        ]
        verdict = await self._verdict_at_rest()
        settlement = settle(
            await look_at_all(self.market, stripe_key=self.stage.environment["STRIPE_SECRET_KEY"])
        )
        faults += settlement.faults
        faults += [f"{each.check.name}: {each.id} {each.text}" for each in verdict.certain]
        faults += [f"not looked at: {each}" for each in verdict.look.unseen]
        if settlement.tickets != (there := verdict.look.counts.get("valid tickets", 0)):
            faults.append(f"the buyers have {settlement.tickets} valid tickets, the oracle sees {there}")
        return Outcome(settlement, verdict, faults)


@asynccontextmanager
async def open_suite(
    stack: Stack, *, seed: int, buyers: int, rest_seconds: float, say: Callable[[str], None]
) -> AsyncGenerator[Suite]:
    """With its load running."""
    async with open_market(stack.environment()) as market:
        load = Load(market, buyers=buyers, seed=seed, rest_seconds=rest_seconds)
        suite = Suite(Stage(stack), market, load, seed=seed, say=say)
        try:
            yield suite
        finally:
            suite.stage.thaw()
            await load.stop(seconds=0)


def hasty_environment(*, payment_seconds: int = PAYMENT_SECONDS) -> dict[str, str]:
    """Deadlines that a run outlives, and no limit that a few buyers would meet."""
    return {
        "ACCESS_TOKEN_SECONDS": "3000",
        "HOLD_RATE_LIMIT_MAX": "1000000",
        "HOLD_SECONDS": str(HOLD_SECONDS),
        "PAYMENT_SECONDS": str(payment_seconds),
        "STRIPE_TIMEOUT_SECONDS": "2",
    }


def struck_stack(*, payment_seconds: int = PAYMENT_SECONDS) -> AbstractContextManager[Stack]:
    """Durable: PostgreSQL that is killed must not forget what it has committed."""
    return running_stack(PARTS, environ=hasty_environment(payment_seconds=payment_seconds), durable=True)
