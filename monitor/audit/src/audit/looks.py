"""Looks again and again until what is found is either certain or gone.

A system that sells is never at rest. What may look wrong for a moment counts only when it has been so for
longer than the grace, by its own time stamps or because it was seen for so long; younger than that it is in
flight. What may never look wrong is looked at a second time, since the database, Stripe and Kafka are not
read at the same moment.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import httpx
import psycopg
from aiokafka.errors import KafkaError

from audit.books import read_books
from audit.findings import Finding
from audit.messages import read_messages
from audit.money import Money, Sum, compare_money
from audit.stripe_record import read_stripe

PAUSE_SECONDS = 1.0


class Sources(NamedTuple):
    database_url: str
    kafka_brokers: str
    stripe_api_base: str
    stripe_secret_key: str


@dataclass
class Look:
    """What one look saw. `ages`: seconds since when each finding has been so, by its own time stamps."""

    findings: list[Finding] = field(default_factory=list[Finding])
    ages: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    sums: list[Sum] = field(default_factory=list[Sum])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    unseen: list[str] = field(default_factory=list[str])
    """What could not be looked at, and why."""


@dataclass
class Verdict:
    look: Look
    certain: list[Finding]
    in_flight: list[Finding]

    @property
    def exit_code(self) -> int:
        """1: something is wrong; 2: nothing was found, but not all could be looked at; 0: all is well."""
        if self.certain:
            return 1
        return 2 if self.look.unseen else 0


async def audit(sources: Sources, *, grace_seconds: float, days: float = 0) -> Verdict:
    """`days`: how old the payments and messages may be that are compared; 0: all of them."""
    patience_ends = time.monotonic() + grace_seconds + 2 * PAUSE_SECONDS
    first_seen: dict[tuple[str, str], float] = {}
    looks: dict[tuple[str, str], int] = {}
    while True:
        look = await look_once(sources, days=days)
        now = time.monotonic()
        first_seen = {each.key: first_seen.get(each.key, now) for each in look.findings}
        looks = {key: looks.get(key, 0) + 1 for key in first_seen}
        certain: list[Finding] = []
        in_flight: list[Finding] = []
        undecided: list[Finding] = []
        for each in look.findings:
            is_old = (
                not each.check.settles
                or max(now - first_seen[each.key], look.ages.get(each.key, 0.0)) >= grace_seconds
            )
            if is_old:
                (certain if looks[each.key] > 1 else undecided).append(each)
            else:
                # With a time stamp it is young. Without one, only waiting tells.
                (in_flight if each.key in look.ages else undecided).append(each)
        if not undecided:
            return Verdict(look, certain, in_flight)
        if now > patience_ends and max(looks.values()) > 1:
            return Verdict(look, certain, in_flight + undecided)  # they came while it looked
        await asyncio.sleep(min(PAUSE_SECONDS, max(grace_seconds, 0.2)))


async def look_once(sources: Sources, *, days: float) -> Look:
    """What does not answer is named, and the rest looked at."""
    look = Look()
    try:
        with psycopg.connect(sources.database_url, connect_timeout=5) as conn:
            row = conn.execute("SELECT now()").fetchone()
            assert row  # noqa: S101
            after = row[0] - timedelta(days=days) if days else None
        day = timedelta(days=1)
        messages = None
        try:
            messages = await read_messages(sources.kafka_brokers, sources.database_url, after=after)
        except (KafkaError, OSError, TimeoutError) as error:
            look.unseen.append(f"Kafka at {sources.kafka_brokers}: {_said(error)}")
        # The database before Stripe: what it says of Stripe is then known there. Orders of one day more, and
        # Stripe's record of two: an order is older than its payment.
        books = await asyncio.to_thread(read_books, sources.database_url, after=after and after - day)
        look.findings += books.findings
        look.counts |= books.counts
        if messages:
            look.findings += messages.findings
            look.counts["messages"] = messages.compared
        try:
            stripe = await asyncio.to_thread(
                read_stripe,
                sources.stripe_api_base,
                sources.stripe_secret_key,
                after=after and after - 2 * day,
            )
        except httpx.HTTPError as error:
            look.unseen.append(f"Stripe at {sources.stripe_api_base}: {_said(error)}")
        else:
            money: Money = compare_money(books, stripe)
            look.findings += money.findings
            look.sums = money.sums
            look.counts["payments at Stripe"] = len(stripe.charges)
            look.counts["payments of others"] = money.not_ours
        look.ages = {
            each.key: (books.at - each.since).total_seconds()
            for each in look.findings
            if each.since is not None
        }
    except psycopg.Error as error:
        look.unseen.append(f"the database: {_said(error)}")
    return look


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
