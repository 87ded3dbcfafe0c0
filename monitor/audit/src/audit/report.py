"""What was found, for people."""

from audit import books, messages, money, orders, seats
from audit.findings import Check
from audit.looks import Verdict

RUNBOOK = "docs/runbooks/audit.md"
NAMED = 10
"""So many findings of a check are shown, unless all are asked for."""

CHECKS: tuple[Check, ...] = (
    *seats.CHECKS,
    *orders.CHECKS,
    *money.CHECKS,
    books.OUTBOX,
    *messages.CHECKS,
)


def report(verdict: Verdict, *, everything: bool = False) -> str:
    look = verdict.look
    lines = [", ".join(f"{count:,} {name}" for name, count in look.counts.items()), ""]
    width = max(len(check.title) for check in CHECKS)
    lines.append(f"{'check':<{width}}  in flight  result")
    for check in CHECKS:
        young = sum(each.check is check for each in verdict.in_flight)
        certain = [each for each in verdict.certain if each.check is check]
        result = f"{len(certain)} FOUND ({check.name})" if certain else "ok"
        if not certain and _is_unseen(check, look.unseen):
            result = "not looked at"
        lines.append(f"{check.title:<{width}}  {young or '':>9}  {result}")
    lines += ["", *_sums(verdict)]
    for check in CHECKS:
        found = [each for each in verdict.certain if each.check is check]
        if not found:
            continue
        lines += ["", f"{check.name}: {check.means}. What to do: {RUNBOOK}#{check.name}"]
        shown = found if everything else found[:NAMED]
        lines += [f"  {each.id}  {each.text}" for each in shown]
        if len(shown) < len(found):
            lines.append(f"  ... and {len(found) - len(shown)} more: ALL=1 names them")
    lines += ["", *(f"COULD NOT LOOK at {each}" for each in look.unseen)]
    lines.append(
        f"{len(verdict.certain)} inconsistencies."
        if verdict.certain
        else "Nothing found, but not everything was looked at."
        if look.unseen
        else "Money, seats and messages agree."
    )
    return "\n".join(lines)


def _is_unseen(check: Check, unseen: list[str]) -> bool:
    if any(each.startswith("the database") for each in unseen):
        return True
    part = "Kafka" if check in messages.CHECKS else "Stripe" if check in money.CHECKS else "nothing"
    return any(each.startswith(part) for each in unseen)


def _sums(verdict: Verdict) -> list[str]:
    names = ("captured", "refunded", "valid tickets", "partly refunded", "in flight", "unexplained")
    if not verdict.look.sums:
        return []
    rows = [
        ("", *names),
        *((each.currency, *(f"{part:,}" for part in each[1:])) for each in verdict.look.sums),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ] + ["(minor units)"]
