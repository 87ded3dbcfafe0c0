"""Somebody guesses at an account from one network: does its owner get in from another, and do others wait?

    python -m tests.benchmarks.guesses [SECONDS]

On the running stack, 1,000 wrong passwords a minute from 127.1.0.1, all for one account. Meanwhile, once a
second:

owner   logs in to it from 127.2.0.1
buyer   logs in to an own account from 127.3.0.1
reader  reads the events from 127.4.0.1
"""

import secrets
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from embedded.settings import saved_settings, state_dir
from embedded.stack import Stack

GUESSES_A_MINUTE = 1000
GUESSERS = 4

Answers = list[tuple[int, float]]


def coming_from(address: str, url: str) -> httpx.Client:
    """All of 127.0.0.0/8 is this machine."""
    return httpx.Client(
        base_url=url.replace("localhost", "127.0.0.1"),
        transport=httpx.HTTPTransport(local_address=address),
        timeout=30,
        trust_env=False,
    )


def ask_evenly(ask: Callable[[], httpx.Response], *, each_seconds: float, until: float) -> Answers:
    """(status, seconds) of each answer. Who is late asks at once."""
    answers: Answers = []
    next_at = time.monotonic()
    while next_at < until:
        time.sleep(max(0.0, next_at - time.monotonic()))
        started = time.monotonic()
        answers.append((ask().status_code, time.monotonic() - started))
        next_at += each_seconds
    return answers


def log_in(http: httpx.Client, email: str, password: str) -> Callable[[], httpx.Response]:
    return lambda: http.post("/auth/login", json={"email": email, "password": password})


def register(http: httpx.Client) -> tuple[str, str]:
    """E-mail address and password."""
    account = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(9)}
    http.post("/auth/register", json=account | {"name": "B"}).raise_for_status()
    return account["email"], account["password"]


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    settings = saved_settings(state_dir())
    if settings is None:
        print("benchmark: the stack is not up: make up", file=sys.stderr)
        return 1
    url = Stack(settings).environment()["GATEWAY_URL"]
    addresses = ("127.1.0.1", "127.2.0.1", "127.3.0.1", "127.4.0.1", "127.5.0.1")
    attacker, owner, buyer, reader, elsewhere = (coming_from(each, url) for each in addresses)
    # From a network that is neither's: the owner's is not known to the account.
    email, password = register(elsewhere)
    callers = {"owner": log_in(owner, email, password), "buyer": log_in(buyer, *register(elsewhere))}
    callers["reader"] = lambda: reader.get("/events?limit=10")
    guess = log_in(attacker, email, "not the password")
    with ThreadPoolExecutor(GUESSERS + len(callers)) as threads:
        until = time.monotonic() + seconds
        guessing = [
            threads.submit(ask_evenly, guess, each_seconds=60 * GUESSERS / GUESSES_A_MINUTE, until=until)
            for _ in range(GUESSERS)
        ]
        asking = {
            name: threads.submit(ask_evenly, ask, each_seconds=1, until=until)
            for name, ask in callers.items()
        }
        answers = {"guesses": [each for part in guessing for each in part.result()]}
        answers |= {name: each.result() for name, each in asking.items()}
    print(f"{'':10}{'answers':>10}{'median':>10}{'max':>10}   ms, in {seconds:.0f} s; by status")
    for name, seen in answers.items():
        times = [each for _, each in seen]
        statuses = ", ".join(f"{status}: {count}" for status, count in Counter(s for s, _ in seen).items())
        figures = f"{statistics.median(times) * 1000:10.1f}{max(times) * 1000:10.1f}"
        print(f"{name:10}{len(seen):10}{figures}   {statuses}")
    return 0 if {status for name in callers for status, _ in answers[name]} == {200} else 1


if __name__ == "__main__":
    sys.exit(main())
