"""The projection of inventory's holds, and what the end of a hold means for its order."""

from datetime import datetime
from uuid import UUID

import msgspec
from contracts.messages import HeldSeat
from libs.postgres import Conn, Pool

from payments.models import HoldStatus
from payments.queries import holds as queries
from payments.queries import jobs

_LIVING = (HoldStatus.ACTIVE,)
_NOT_CONFIRMED = (HoldStatus.ACTIVE, HoldStatus.EXPIRED)


async def project_hold(
    conn: Conn,
    hold_id: UUID,
    *,
    event_id: UUID,
    user_id: UUID,
    seats: list[HeldSeat],
    amount_minor: int,
    currency: str,
    expires_at: datetime,
) -> None:
    await queries.save_placed_hold(
        conn,
        hold_id,
        event_id=event_id,
        user_id=user_id,
        seat_ids=sorted(seat.seat_id for seat in seats),
        seats=msgspec.json.encode(seats),
        amount_minor=amount_minor,
        currency=currency,
        expires_at=expires_at,
    )


async def extend_hold(
    conn: Conn, hold_id: UUID, *, event_id: UUID, user_id: UUID, expires_at: datetime
) -> None:
    await queries.extend_hold(conn, hold_id, event_id=event_id, user_id=user_id, expires_at=expires_at)


async def end_hold(
    conn: Conn,
    hold_id: UUID,
    *,
    event_id: UUID,
    user_id: UUID,
    status: HoldStatus,
    expired_at: datetime | None = None,
) -> None:
    """`status` is released, expired or lost; an order that waits for its payment cannot be had any more."""
    order_id = await queries.end_hold(
        conn,
        hold_id,
        event_id=event_id,
        user_id=user_id,
        status=status,
        replaces=_LIVING if status == HoldStatus.EXPIRED else _NOT_CONFIRMED,
        expired_at=expired_at,
    )
    if order_id is not None:
        await jobs.enqueue_cancellation(conn, order_id, reason="hold_ended")


async def confirm_hold(conn: Conn, hold_id: UUID, *, event_id: UUID, user_id: UUID) -> None:
    await queries.end_hold(
        conn,
        hold_id,
        event_id=event_id,
        user_id=user_id,
        status=HoldStatus.CONFIRMED,
        replaces=(HoldStatus.ACTIVE, HoldStatus.RELEASED, HoldStatus.EXPIRED, HoldStatus.LOST),
    )


async def forget_old_holds(pool: Pool) -> None:
    async with pool.connection() as conn:
        await queries.delete_old_holds(conn)
