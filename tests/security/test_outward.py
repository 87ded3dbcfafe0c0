"""Whom the services call. No address comes from a request, so nobody can make them call somebody."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What opens a connection to an address that it is given.
OUTWARD = re.compile(
    r"^ *(?:import|from) (?:httpx|requests|urllib\.request|http\.client|socket|aiohttp|websockets|smtplib)\b"
    r"|\b(?:open_connection|create_connection|urlopen)\(",
    re.MULTILINE,
)

# Which modules may, and to whom: addresses from settings or from the command line.
ALLOWED = {
    "libs/src/libs/probe.py": "the process whose health is asked, at an address of the command line",
    "libs/src/libs/web/serving.py": "nobody: it listens",
    "libs/src/libs/web/tokens.py": "auth's key set",
    "libs/src/libs/web/health.py": "Kafka's port, for readiness",
    "services/inventory/src/inventory/verify_ticket.py": "the command's --keys; no part of the service",
}


def modules_that_call_out() -> Iterator[str]:
    for folder in (ROOT / "libs" / "src", *(ROOT / "services").glob("*/src")):
        for path in folder.rglob("*.py"):
            if path.name != "testing.py" and OUTWARD.search(path.read_text()):
                yield str(path.relative_to(ROOT))


def test_only_these_modules_open_connections_of_their_own() -> None:
    """PostgreSQL, Kafka, Redis and Stripe are reached through their clients, at addresses from settings."""
    assert set(modules_that_call_out()) == set(ALLOWED)
