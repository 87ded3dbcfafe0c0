"""The fault suite: everything that can die does, under load, and nothing is lost or sold twice.

Draws from the matrix of faults for SECONDS (300); ALL=1 strikes all of it. SEED= repeats a draw, BUYERS= (4)
makes the load, KAFKA_AWAY_SECONDS= (20) is how long Kafka is away. Exits 1 when anything is lost, doubled,
unpaid or unanswered, or when the system takes longer than 15 s to sell again.
"""

import asyncio
import math
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from embedded.settings import TOOLS
from embedded.stack import Stack
from embedded.terminal import table

from tests.arguments import asked_number
from tests.faults.kafka_away import take_kafka_away
from tests.faults.matrix import drawn, matrix
from tests.faults.suite import PAYMENT_SECONDS, Outcome, Suite, open_suite, struck_stack

RECOVERY_SECONDS = 15.0
REST_SECONDS = 0.5
KEPT_LOGS = TOOLS / "faults"


def main() -> int:
    seconds = asked_number("SECONDS", 300)
    seed = int(asked_number("SEED", secrets.randbelow(10_000), least=0))
    is_all = os.environ.get("ALL") not in (None, "", "0")
    buyers = int(asked_number("BUYERS", 4))
    asked_away = os.environ.get("KAFKA_AWAY_SECONDS")
    away_seconds = asked_number("KAFKA_AWAY_SECONDS", 20)
    whole = "the whole matrix" if is_all else f"{seconds:.0f} s"
    say(f"SEED={seed}, {buyers} buyers, {whole}. The stack comes up.")
    with struck_stack(payment_seconds=max(PAYMENT_SECONDS, int(away_seconds) + 60)) as stack:
        until = math.inf if is_all else time.monotonic() + seconds
        away_at = 0 if asked_away else 8  # early, so that a short draw has it too
        is_well = asyncio.run(
            run(stack, seed=seed, buyers=buyers, away_seconds=away_seconds, away_at=away_at, until=until)
        )
        if not is_well:
            shutil.rmtree(KEPT_LOGS, ignore_errors=True)
            shutil.copytree(stack.settings.logs, KEPT_LOGS)
            say(f"The logs are in {KEPT_LOGS.relative_to(Path.cwd())}.")
    return 0 if is_well else 1


async def run(
    stack: Stack, *, seed: int, buyers: int, away_seconds: float, away_at: int, until: float
) -> bool:
    faults = drawn(matrix(), seed=seed)
    async with open_suite(stack, seed=seed, buyers=buyers, rest_seconds=REST_SECONDS, say=say) as suite:
        await suite.seconds_to_sell(time.monotonic())  # warm
        for number, fault in enumerate(faults):
            if time.monotonic() > until and suite.results:
                break
            if number == away_at:
                await take_kafka_away(suite, seconds=away_seconds, seed=seed)
            await suite.strike(fault)
        say("The load stops, everything comes to its end.")
        outcome = await suite.conclude()
    say(report(suite, outcome, of=len(faults) + 1))
    return not outcome.faults and worst(suite) <= RECOVERY_SECONDS


def worst(suite: Suite) -> float:
    return max((result.recovery_seconds for result in suite.results), default=math.inf)


def report(suite: Suite, outcome: Outcome, *, of: int) -> str:
    kinds: dict[str, list[float]] = {}
    for result in suite.results:
        kinds.setdefault(result.kind, []).append(result.recovery_seconds)
    rows: list[tuple[str, ...]] = [("fault", "injected", "median s", "slowest s")]
    for kind, times in sorted(kinds.items()):
        rows.append((kind, str(len(times)), f"{sorted(times)[len(times) // 2]:.1f}", f"{max(times):.1f}"))
    settlement = outcome.settlement
    done = len({result.fault for result in suite.results})
    figures: list[tuple[str, ...]] = [
        ("faults injected", f"{len(suite.results)}, {done} of {of} in the matrix ({done / of:.0%})"),
        ("requests", of_all(suite.market.answers["gateway"])),
        ("calls of Stripe", of_all(suite.market.answers["Stripe"])),
        ("holds", f"{len(suite.market.purchases):,}"),
        ("sold", f"{settlement.sold:,} orders, {settlement.tickets:,} valid tickets"),
        ("refunded", f"{settlement.refunded:,}"),
        ("not paid for", f"{settlement.unpaid:,}"),
        ("lost", str(settlement.count("lost"))),
        ("doubled", str(settlement.count("doubled"))),
        ("tickets without payment", str(settlement.count("unpaid"))),
        ("payments without tickets or refund", str(settlement.count("unanswered"))),
        ("the oracle's findings", str(len(outcome.verdict.certain))),
        ("seconds to sell again, slowest", f"{worst(suite):.1f} (at most {RECOVERY_SECONDS:.0f})"),
    ]
    parts = [
        "",
        "Seconds from a fault's end until a new buyer has a ticket:",
        table(rows, right=frozenset({1, 2, 3})),
    ]
    parts += ["", table(figures), *(f"FAULT {line}" for line in outcome.faults)]
    slow = [result for result in suite.results if result.recovery_seconds > RECOVERY_SECONDS]
    parts += [f"SLOW {result.fault}: {result.recovery_seconds:.1f} s" for result in slow]
    parts.append("" if outcome.faults or slow else "\nNothing was lost, nothing was sold twice.")
    return "\n".join(parts)


def of_all(answers: Counter[str]) -> str:
    """By status; "none": no answer."""
    return f"{answers.total():,} ({', '.join(f'{status}: {n:,}' for status, n in answers.most_common())})"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
