"""Made-up requests after the OpenAPI documents, at least CASES (20000) of them, at a stack of their own.

SHORT=1 is a taste of everything in place of that, for `make test`.

Each service's document is tried without a token, as a buyer and as an admin: its examples, every value at the
edge of what it allows and beyond, and at random; then walks along the links of the merged one. Exits 1 when
an answer is not what the documents say.
"""

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator

from embedded.settings import SERVICES
from embedded.stack import PARTS
from embedded.terminal import table
from embedded.testing import running_stack

from tests.arguments import asked_number
from tests.fuzz.campaign import CALLERS, EACH_ALONE, ENVIRONMENT, WHOLE, Campaign, Part, Tally
from tests.system.shop import open_shop


def main() -> int:
    cases = int(asked_number("CASES", 20_000))
    seed = int(asked_number("SEED", secrets.randbelow(10_000), least=0))
    is_short = bool(os.environ.get("SHORT"))
    say(f"SEED={seed}, {'a few' if is_short else f'at least {cases}'} cases. The stack comes up.")
    started = time.monotonic()
    tally, told = Tally(), 0
    with running_stack(PARTS, environ=ENVIRONMENT) as stack, open_shop(stack.environment()) as shop:
        for number, parts in enumerate([taste()] if is_short else rounds()):
            campaign = Campaign(shop, seed=seed + number)
            campaign.tally = tally
            for part in campaign.run(parts):
                say(f"{tally.cases.total():7} cases, {len(tally.failures)} failures: {part}")
                told = tell_failures(tally, told)
            if tally.cases.total() >= cases:
                break
    say("")
    say(results(tally))
    for error in tally.errors:
        say(f"\n{error}")
    seconds = time.monotonic() - started
    say(f"\n{tally.cases.total()} cases in {seconds:.0f} s, {len(tally.failures)} failures.")
    return 0 if tally.is_clean else 1


def tell_failures(tally: Tally, told: int) -> int:
    """Those after the first `told`; how many that makes."""
    for failure in list(tally.failures.values())[told:]:
        say(f"\n{failure.check}: {failure.operation} as {failure.caller}\n{failure.text}\n")
    return len(tally.failures)


def rounds() -> Iterator[list[Part]]:
    """The edges of what is allowed are always the same: once is enough."""
    phases = EACH_ALONE
    while True:
        alone = [Part(service, caller, phases, 100) for service in SERVICES for caller in CALLERS]
        yield [*alone, *(Part(WHOLE, caller, ("stateful",), 100) for caller in CALLERS)]
        phases = ("fuzzing",)


def taste() -> list[Part]:
    alone = [Part(service, caller, ("examples", "fuzzing"), 2) for service in SERVICES for caller in CALLERS]
    return [*alone, *(Part(WHOLE, caller, ("stateful",), 3) for caller in CALLERS)]


def results(tally: Tally) -> str:
    heading: tuple[str, ...] = (
        "service",
        *(f"as {caller}" for caller in CALLERS),
        "done",
        "refused",
        "503",
        "failures",
    )
    rows: list[tuple[str, ...]] = [heading]
    for service in SERVICES:
        seen: Counter[int] = Counter()
        for (of, _, status), times in tally.answers.items():
            if of == service:
                seen[status] += times
        done = sum(times for status, times in seen.items() if status < 400)
        refused = sum(times for status, times in seen.items() if 400 <= status < 500)
        failed = sum(failure.service == service for failure in tally.failures.values())
        by_caller = [tally.cases[service, caller] for caller in CALLERS]
        rows.append((service, *map(str, (*by_caller, done, refused, seen[503], failed))))
    return table(rows, right=frozenset(range(1, len(heading))))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
