"""What inventory's tests are told with: an event on sale, buyers, a look behind the service."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
from contracts.messages import (
    MESSAGE_TYPES,
    EventPublished,
    MapSeat,
    Message,
    OrderPaid,
    OrderPlaced,
    SeatMapPart,
    Tier,
)
from libs.ids import new_id
from libs.postgres import Pool
from libs.testing import Tokens
from msgspec import Struct

Deliver = Callable[..., Awaitable[None]]


class OnSale(Struct):
    """A published event of ten seats in section A at 45.00 EUR each."""

    event_id: UUID
    seat_ids: list[UUID]
    published: EventPublished
    seat_map: SeatMapPart


def make_event(seats: int = 10) -> OnSale:
    event_id = new_id()
    seat_ids = sorted(new_id() for _ in range(seats))
    now = datetime.now(UTC)
    published = EventPublished(
        event_id=event_id,
        version=2,
        organizer_id=None,
        venue_id=new_id(),
        name="Opening night",
        starts_at=now + timedelta(days=30),
        ends_at=now + timedelta(days=30, hours=3),
        status="published",
        currency="eur",
        tiers=[Tier(tier_id=new_id(), name="Stalls", tier="standard", amount_minor=4500, sections=["A"])],
        seat_map_version=1,
        seat_count=seats,
    )
    map_seats = [
        MapSeat(seat_id=seat_id, section="A", row="1", seat_number=number)
        for number, seat_id in enumerate(seat_ids, start=1)
    ]
    seat_map = SeatMapPart(event_id=event_id, version=1, part=1, parts=1, seats=map_seats)
    return OnSale(event_id, seat_ids, published, seat_map)


class Buyer:
    """Someone with a token who talks to inventory over HTTP, and to payments through us."""

    def __init__(self, client: httpx.AsyncClient, tokens: Tokens, *, role: str = "user") -> None:
        self.id = new_id()
        self.headers = tokens.issue(self.id, role=role)
        self.client = client

    async def try_hold(self, event_id: UUID, seat_ids: list[UUID], **headers: str) -> httpx.Response:
        body = {"eventId": str(event_id), "seatIds": [str(each) for each in seat_ids]}
        return await self.client.post("/reservations", json=body, headers={**self.headers, **headers})

    async def hold(self, event_id: UUID, seat_ids: list[UUID]) -> dict[str, Any]:
        answer = await self.try_hold(event_id, seat_ids)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def tickets(self, order_id: UUID) -> list[dict[str, Any]]:
        return [each for each in await self.get("/tickets") if each["orderId"] == str(order_id)]

    def order_placed(self, hold: dict[str, Any], *, seconds: float = 900) -> OrderPlaced:
        now = datetime.now(UTC)
        return OrderPlaced(
            order_id=new_id(),
            hold_id=UUID(hold["id"]),
            event_id=UUID(hold["eventId"]),
            user_id=self.id,
            amount_minor=hold["amountMinor"],
            currency=hold["currency"],
            placed_at=now,
            expires_at=now + timedelta(seconds=seconds),
        )


def paid(order: OrderPlaced) -> OrderPaid:
    return OrderPaid(
        order_id=order.order_id,
        hold_id=order.hold_id,
        event_id=order.event_id,
        user_id=order.user_id,
        amount_minor=order.amount_minor,
        currency=order.currency,
        paid_at=datetime.now(UTC),
    )


class Database:
    """Looks behind the service, and moves its clock."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def said(self, key: UUID | str) -> list[Message]:
        """Messages in the outbox under a key, decoded by their contracts, oldest first."""
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT type, version, body FROM outbox WHERE key = %s ORDER BY id", [str(key)]
            )
            rows = await cursor.fetchall()
        return [msgspec.json.decode(body, type=MESSAGE_TYPES[name, version]) for name, version, body in rows]

    async def pass_deadline(self, hold_id: str) -> None:
        async with self._pool.connection() as conn:
            await conn.execute(
                "UPDATE holds SET expires_at = now() - interval '1 ms' WHERE hold_id = %s", [hold_id]
            )

    async def waiting(self) -> int:
        """How many sessions wait for a lock in this database."""
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT count(DISTINCT pid) FROM pg_locks LEFT JOIN pg_database ON pg_database.oid = database"
                " WHERE NOT granted AND coalesce(datname = current_database(), true)"
            )
            row = await cursor.fetchone()
        return row[0] if row else 0

    async def seat_statuses(self, event_id: UUID) -> dict[str, int]:
        """How many seats are sold, and how many have which hold status."""
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                """
                SELECT CASE WHEN sold_order_id IS NOT NULL THEN 'sold' ELSE coalesce(hold.status, 'free') END,
                       count(*)
                  FROM event_seats seat
                  LEFT JOIN holds hold USING (event_id, hold_id)
                 WHERE seat.event_id = %s
                 GROUP BY 1
                """,
                [event_id],
            )
            return {row[0]: row[1] for row in await cursor.fetchall()}
