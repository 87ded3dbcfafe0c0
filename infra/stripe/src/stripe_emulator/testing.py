"""The emulator as a real process, and a webhook receiver; needs the development dependencies."""

# ruff: noqa: S101, S105

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import stripe

SECRET_KEY = "sk_test_local"
WEBHOOK_SECRET = "whsec_local"
Json = dict[str, Any]
# Given to httpx, spares it to load all root certificates for each client: 60 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def until(condition: Callable[[], bool], *, seconds: float = 8.0) -> None:
    """Waits for a condition; fails the test when it does not come true."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "the condition did not come true"
        await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Receiver:
    """Verifies each webhook with the SDK and keeps it. `statuses` are answered first, one each; then 200."""

    def __init__(self, port: int = 0) -> None:
        self.events: list[Json] = []
        self.timestamps: list[int] = []
        self.refused = 0
        self.statuses: list[int] = []
        self.slow_types: set[str] = set()
        self.go_on = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status = receiver.take(
                    self.rfile.read(int(self.headers["Content-Length"])), self.headers["Stripe-Signature"]
                )
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256  # the default of 5 makes bursts wait for a second

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/orders/webhook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def take(self, body: bytes, signature: str) -> int:
        stripe.Webhook.construct_event(body, signature, WEBHOOK_SECRET)
        event: Json = json.loads(body)
        if event["type"] in self.slow_types:
            self.go_on.wait(10)
        if self.statuses:
            self.refused += 1
            return self.statuses.pop(0)
        self.timestamps.append(int(signature.partition(",")[0].removeprefix("t=")))
        self.events.append(event)
        return 200

    def types(self, object_id: str) -> list[str]:
        """Of the events that concern a PaymentIntent, in the order of their coming."""
        return [event["type"] for event in self.events if object_id in intent_of(event)]

    def clear(self) -> None:
        self.go_on.set()
        self.go_on = threading.Event()
        self.events.clear()
        self.timestamps.clear()
        self.statuses.clear()
        self.slow_types.clear()
        self.refused = 0

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def intent_of(event: Json) -> tuple[str, str]:
    subject = event["data"]["object"]
    return subject["id"], subject.get("payment_intent", "")


class Emulator:
    def __init__(self, folder: Path, webhook_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state_file = folder / "state.db"
        self._log = folder / "emulator.log"
        self._environment = {
            **os.environ,
            "STRIPE_SECRET_KEY": SECRET_KEY,
            "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "STRIPE_WEBHOOK_URL": webhook_url,
            "STRIPE_STATE_FILE": str(self.state_file),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "stripe_emulator", "--port", str(self.port)],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        give_up_at = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < give_up_at, self._log.read_text()
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self, signum: signal.Signals) -> int:
        """Returns the exit status; does nothing to one that has ended."""
        assert self._process is not None
        self._process.send_signal(signum)
        return self._process.wait(10)

    def resident_mb(self) -> float:
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def control(self, method: str, path: str, body: object = None) -> Any:
        """A call of the control surface that must succeed."""
        url = f"{self.url}/_emulator/{path}"
        answer = httpx.request(method, url, json={} if body is None else body, verify=NO_TLS)
        assert answer.status_code == 200, answer.text
        return answer.json()


def client_of(emulator: Emulator, sdk: stripe.HTTPXClient) -> stripe.StripeClient:
    """Without retries of its own."""
    return stripe.StripeClient(
        SECRET_KEY, base_addresses={"api": emulator.url}, http_client=sdk, max_network_retries=0
    )
