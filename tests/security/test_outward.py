"""Whom the services call. No address comes from a request, so nobody can make them call somebody."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Libraries that open connections to an address that they are given.
OUTWARD = {"httpx", "requests", "urllib.request", "http.client", "socket", "aiohttp", "websockets", "smtplib"}
OPENERS = {"open_connection", "create_connection", "urlopen"}

# Which modules may, and to whom: addresses from settings or from the command line.
ALLOWED = {
    "libs/src/libs/web/tokens.py": "auth's key set",
    "libs/src/libs/web/health.py": "Kafka's port, for readiness",
    "services/inventory/src/inventory/verify_ticket.py": "the command's --keys; no part of the service",
}


def modules_that_call_out() -> Iterator[str]:
    for folder in (ROOT / "libs" / "src", *(ROOT / "services").glob("*/src")):
        for path in folder.rglob("*.py"):
            if path.name == "testing.py":
                continue
            tree = ast.parse(path.read_text())
            if any(names_of(node) for node in ast.walk(tree)):
                yield str(path.relative_to(ROOT))


def names_of(node: ast.AST) -> set[str]:
    match node:
        case ast.Import(names=names):
            return {each.name for each in names} & OUTWARD
        case ast.ImportFrom(module=str(module)):
            return {module} & OUTWARD
        case ast.Attribute(attr=name):
            return {name} & OPENERS
        case _:
            return set()


def test_only_these_modules_open_connections_of_their_own() -> None:
    """PostgreSQL, Kafka, Redis and Stripe are reached through their clients, at addresses from settings."""
    assert set(modules_that_call_out()) == set(ALLOWED)
