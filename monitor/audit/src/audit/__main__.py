"""Whether money, seats and messages agree, on a running system, read only.

Reads ADMIN_DATABASE_URL, KAFKA_BROKERS, STRIPE_API_BASE (absent: Stripe's own) and STRIPE_SECRET_KEY.
Exits 0 when all is well, 1 when something is not, 2 when it could not look.
"""

import argparse
import asyncio
import logging
import math
import os
import sys

from audit.looks import Sources, audit
from audit.report import report

COULD_NOT_LOOK = 2


def _from_zero_on(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


_from_zero_on.__name__ = "number from 0 on"  # as argparse calls it


def main() -> int:
    parser = argparse.ArgumentParser(prog="audit", description=__doc__)
    parser.add_argument(
        "--grace",
        type=_from_zero_on,
        default=30.0,
        metavar="SECONDS",
        help="what is younger is in flight (30)",
    )
    parser.add_argument(
        "--days",
        type=_from_zero_on,
        default=30.0,
        help="how far back payments and messages are compared; 0: all (30)",
    )
    parser.add_argument("--all", action="store_true", help="name every finding")
    arguments = parser.parse_args()
    missing = [
        name
        for name in ("ADMIN_DATABASE_URL", "KAFKA_BROKERS", "STRIPE_SECRET_KEY")
        if not os.environ.get(name)
    ]
    if missing:
        print(f"audit: {', '.join(missing)} not set: is the stack up?", file=sys.stderr)
        return COULD_NOT_LOOK
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what fails is told in one line, once
    sources = Sources(
        os.environ["ADMIN_DATABASE_URL"],
        os.environ["KAFKA_BROKERS"],
        os.environ.get("STRIPE_API_BASE") or "https://api.stripe.com",
        os.environ["STRIPE_SECRET_KEY"],
    )
    verdict = asyncio.run(audit(sources, grace_seconds=arguments.grace, days=arguments.days))
    print(report(verdict, everything=arguments.all))
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
