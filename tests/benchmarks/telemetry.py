"""What telemetry costs a service, beside one that sends nothing and beside the stock middleware.

    python -m tests.benchmarks.telemetry [ROUNDS]

Each variant is a process of its own on one stack. They are asked in turn, round after round, so that whatever
else the machine does falls on all of them alike. The process has one core for itself where there are two.

requests/s     what eight clients got out of it
per CPU s      requests for a second of the process's own processor time: less noisy, and what a core can do
"""

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import httpx
from embedded import services
from embedded.ports import free_port_base
from embedded.programs import Program
from embedded.stack import PARTS, Stack
from embedded.supervision import inherited
from embedded.terminal import table
from embedded.testing import running_stack

from tests.benchmarks.stock import ENDPOINT
from tests.system.shop import Client, Shop, eventually, open_shop

ROUNDS = 8
SECONDS = 1.5
"""Of each variant in each round."""
CLIENTS = 8
SEATS = 20_000
TICKS = os.sysconf("SC_CLK_TCK")

# By settings, so that what is measured is a request and not a limit.
ENVIRONMENT = {
    "ACCESS_TOKEN_SECONDS": "3000",
    "HOLD_RATE_LIMIT_MAX": "1000000",
    "RATE_LIMIT_MAX": "1000000",
    "MAX_HELD_SEATS": "100000",
    "HOLD_SECONDS": "3000",
}


@dataclass
class Variant:
    name: str
    port: int
    pid: int
    requests: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def per_processor_second(self) -> float:
        return self.requests / self.processor_seconds


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with (
        running_stack(PARTS, environ=ENVIRONMENT) as stack,
        open_shop(stack.environment()) as shop,
        ExitStack() as running,
    ):
        first_port = free_port_base()
        endpoint = running.enter_context(sink(first_port))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1]})
        for title, service, asking in (
            ("GET /events/{id}", "catalog", reads(shop)),
            ("POST /reservations", "inventory", holds(shop)),
        ):
            with variants(stack, service, endpoint, first_port + 1, core=cores[0]) as found:
                measure(found, asking, rounds)
            print(f"\n{title}\n{report(found)}", flush=True)
    return 0


@contextmanager
def sink(port: int) -> Generator[str]:
    """Takes OTLP and throws it away, in a process of its own."""
    process = get_context("spawn").Process(target=throw_away, args=(port,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def throw_away(port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


@contextmanager
def variants(
    stack: Stack, service: str, endpoint: str, first_port: int, *, core: int
) -> Generator[list[Variant]]:
    """Processes of a service that differ in their telemetry alone. The first sends none."""
    program = services.app(stack.settings, service)
    ours, stock = f"{service}.app:create_app", f"tests.benchmarks.stock:{service}_app"
    some = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    wanted = (
        ("none", ours, {}),
        ("1 %", ours, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **some}),
        ("100 %", ours, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}),
        ("stock, 1 %", stock, {ENDPOINT: endpoint, **some}),
        ("stock, 100 %", stock, {ENDPOINT: endpoint}),
    )
    with ExitStack() as running:
        found: list[Variant] = []
        for port, (name, factory, environment) in enumerate(wanted, start=first_port):
            process = running.enter_context(serving(program, factory, port, environment))
            found.append(Variant(name, port, process.pid))
        for variant in found:
            eventually(lambda port=variant.port: is_ready(port, service), until=bool)
            os.sched_setaffinity(variant.pid, {core})
            for thread in Path(f"/proc/{variant.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        yield found


def is_ready(port: int, service: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/{service}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def serving(
    program: Program, factory: str, port: int, environment: dict[str, str]
) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        (sys.executable, "-m", "libs.web.serving", factory, str(port)),
        env={**inherited(), **program.environment, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def reads(shop: Shop) -> Callable[[], Iterator[bytes]]:
    event = shop.event()
    request = f"GET /events/{event['id']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    return lambda: itertools.repeat(request)


def holds(shop: Shop) -> Callable[[], Iterator[bytes]]:
    """Each one of another seat; a new event comes, between two measurements, when few are left."""
    buyers = itertools.cycle([shop.buyer() for _ in range(CLIENTS * 4)])
    requests: deque[bytes] = deque()

    def all_seats() -> Iterator[bytes]:
        if len(requests) < SEATS / 2:
            event = shop.event(seats=SEATS)
            requests.extend(hold(next(buyers), event["id"], seat) for seat in shop.seats(event))
        return iter(requests.popleft, None)

    return all_seats


def hold(buyer: Client, event_id: str, seat_id: str) -> bytes:
    body = f'{{"eventId": "{event_id}", "seatIds": ["{seat_id}"]}}'
    return (
        "POST /reservations HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: {buyer.headers['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def measure(found: Sequence[Variant], asking: Callable[[], Iterator[bytes]], rounds: int) -> None:
    for number in range(-1, rounds):
        # There and back, so that none is always the one after another.
        for variant in found if number % 2 else reversed(found):
            requests = asking()
            before = processor_seconds(variant.pid)
            started = time.perf_counter()
            answered = asyncio.run(ask(variant.port, requests, until=started + SECONDS))
            seconds = time.perf_counter() - started
            if number < 0:  # warm now
                continue
            variant.requests += answered
            variant.seconds += seconds
            variant.processor_seconds += processor_seconds(variant.pid) - before


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def ask(port: int, requests: Iterator[bytes], *, until: float) -> int:
    """How many were answered 200, over `CLIENTS` connections. Any other answer raises."""

    async def client() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = 0
        while time.perf_counter() < until:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError((head + body).decode())
            answered += 1
        writer.close()
        return answered

    return sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))


def report(found: Sequence[Variant]) -> str:
    rows = [("telemetry", "requests/s", "of none", "per CPU s", "of none")]
    for each in found:
        rows.append(
            (
                each.name,
                f"{each.rate:.0f}",
                f"{each.rate / found[0].rate:.2f}",
                f"{each.per_processor_second:.0f}",
                f"{each.per_processor_second / found[0].per_processor_second:.2f}",
            )
        )
    return table(rows, right=frozenset(range(1, 5)))


if __name__ == "__main__":
    sys.exit(main())
