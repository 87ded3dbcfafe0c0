"""Seat maps of events, encoded once for all who ask at the same time."""

import asyncio
from uuid import UUID

from libs.postgres import Pool
from libs.web.etags import etag_of
from libs.web.freshness import FreshnessGate
from libs.web.problems import NotFound
from msgspec import Struct

from inventory.models import EventStatus
from inventory.queries import events as queries


class SeatMap(Struct, frozen=True):
    body: bytes
    etag: str


class SeatMaps:
    """Reads a map at most once at a time for each event.

    Whoever asks while a reading is under way waits for the next one, which starts after the question: a
    buyer always sees the effect of a hold that was answered before.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reading: dict[UUID, asyncio.Task[SeatMap]] = {}
        self._next: dict[UUID, asyncio.Task[SeatMap]] = {}

    async def read(self, event_id: UUID) -> SeatMap:
        waiting = self._next.get(event_id)
        if waiting is None:
            waiting = asyncio.create_task(self._read_after(self._reading.get(event_id), event_id))
            self._next[event_id] = waiting
        return await asyncio.shield(waiting)

    async def read_page(self, event_id: UUID, *, cursor: UUID | None, limit: int | None) -> bytes:
        """Of the map, as a JSON array: up to `limit` seats after the seat `cursor`."""
        async with self._pool.connection() as conn:
            seat_ids = await queries.list_seat_ids(conn, event_id, after=cursor, limit=limit)
            return await queries.seat_map(conn, event_id, seat_ids=seat_ids)

    async def _read_after(self, previous: asyncio.Task[SeatMap] | None, event_id: UUID) -> SeatMap:
        if previous is not None:
            await asyncio.wait([previous])
        self._reading[event_id] = self._next.pop(event_id)
        try:
            async with self._pool.connection() as conn:
                body = await queries.seat_map(conn, event_id)
            return SeatMap(body, await asyncio.to_thread(etag_of, body))
        finally:
            if self._reading[event_id] is asyncio.current_task():
                del self._reading[event_id]


async def require_visible_event(pool: Pool, event_id: UUID, *, is_admin: bool, gate: FreshnessGate) -> None:
    """Raises `NotFound` for an unknown event and, to the public, for a draft.

    An event that was made or published a moment ago is waited for.
    """

    async def find() -> EventStatus | None:
        async with pool.connection() as conn:
            return await queries.find_event_status(conn, event_id)

    async def find_public() -> EventStatus | None:
        status = await find()
        return None if status == EventStatus.DRAFT else status

    status = await gate.find_fresh(event_id, find)
    if status == EventStatus.DRAFT and not is_admin:
        status = await gate.wait_for(find_public)
    if status is None:
        raise NotFound("There is no such event.")
