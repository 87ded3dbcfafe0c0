"""Use cases on holds: place, release, extend, expire.

Ending a hold is one guarded statement on its row; its seats are free from that moment, because a seat is
reserved only through an active hold.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from contracts.messages import HoldExpired, HoldExtended, HoldLost, HoldReleased, OrderPlaced
from libs.messaging.outbox import publish
from libs.postgres import Conn, Pool, transaction
from libs.tracing import current_traceparent
from libs.web.freshness import FreshnessGate
from libs.web.idempotency import Attempt
from libs.web.problems import NotFound
from psycopg.errors import DeadlockDetected

from inventory.errors import EventCancelled, HoldQuotaExceeded, OrderPending, SeatsUnavailable
from inventory.models import EventStatus, HeldSeat, Hold, HoldStatus, LossReason, ReleaseReason
from inventory.queries import events as event_queries
from inventory.queries import holds as queries

# How long a hold outlives its order's payment deadline, for a payments service that is down.
GRACE_SECONDS = 60
SWEEP_SIZE = 200


async def place_hold(
    pool: Pool,
    *,
    user_id: UUID,
    event_id: UUID,
    seat_ids: Sequence[UUID],
    hold_seconds: int,
    max_held_seats: int,
    gate: FreshnessGate,
    attempt: Attempt,
) -> Hold:
    """Holds all seats or none. The hold has the id of the attempt; placed by it before, it is answered again.

    Raises `SeatsUnavailable`, `EventCancelled`, `HoldQuotaExceeded`, `NotFound`, or `TemporarilyUnavailable`
    for an event so new that it has not arrived yet.
    """
    hold_id = attempt.id
    if attempt.is_repeat:
        async with pool.connection() as conn:
            if (placed := await queries.find_hold_of_user(conn, hold_id, user_id=user_id)) is not None:
                return placed
    wanted = sorted(seat_ids)

    async def try_once() -> queries.Placing:
        async with pool.connection() as conn:
            return await queries.place_hold(
                conn,
                hold_id,
                event_id=event_id,
                user_id=user_id,
                seat_ids=wanted,
                hold_seconds=hold_seconds,
                max_held_seats=max_held_seats,
                traceparent=current_traceparent(),
            )

    async def place_once_known(unknown: tuple[str, ...]) -> queries.Placing | None:
        try:
            placing = await try_once()
        except DeadlockDetected:  # rolled back whole; the other one has gone through
            placing = await try_once()
        return None if placing.outcome in unknown else placing

    placing = await gate.find_fresh(event_id, lambda: place_once_known(("unknown_event",)))
    if placing is not None and placing.outcome == EventStatus.DRAFT:  # maybe published a moment ago
        placing = await gate.wait_for(lambda: place_once_known(("unknown_event", EventStatus.DRAFT)))
    if placing is None:
        raise NotFound("There is no such event.")
    match placing.outcome:
        case "cancelled":
            raise EventCancelled("The event was cancelled.")
        case "quota":
            raise HoldQuotaExceeded(f"One person may hold at most {max_held_seats} seats of an event.")
        case "taken":
            raise SeatsUnavailable("Some of the seats are taken.", seatIds=placing.taken)
        case _:
            return _placed(placing, hold_id=hold_id, event_id=event_id, user_id=user_id, seat_ids=wanted)


def _placed(
    placing: queries.Placing, *, hold_id: UUID, event_id: UUID, user_id: UUID, seat_ids: list[UUID]
) -> Hold:
    return msgspec.convert(
        {
            "event_id": event_id,
            "hold_id": hold_id,
            "user_id": user_id,
            "status": HoldStatus.ACTIVE,
            "seat_ids": seat_ids,
            "seats": msgspec.convert(placing.seats, list[HeldSeat]),
            "amount_minor": placing.amount_minor,
            "currency": placing.currency,
            "placed_at": placing.placed_at,
            "expires_at": placing.expires_at,
            "order_id": None,
        },
        Hold,
    )


async def release_hold(pool: Pool, hold_id: UUID, *, user_id: UUID) -> None:
    """The buyer lets go. Ended before: nothing happens.

    Raises `NotFound`, or `OrderPending` when an order was placed for the hold.
    """
    async with transaction(pool) as conn:
        released = await queries.release_hold_of_user(conn, hold_id, user_id=user_id)
        if released is not None:
            await _publish_released(conn, [released], reason="buyer")
            return
        hold = await queries.find_hold_of_user(conn, hold_id, user_id=user_id)
        if hold is None:
            raise NotFound("There is no such reservation.")
        if hold.status in (HoldStatus.ACTIVE, HoldStatus.CONFIRMED):
            raise OrderPending("The reservation belongs to an order: cancel the order instead.")


async def extend_hold(conn: Conn, order: OrderPlaced) -> None:
    """Gives the hold to its order until the payment deadline and the grace; or says that it is lost.

    An expired hold whose seats are all free is taken again.
    """
    deadline = order.expires_at + timedelta(seconds=GRACE_SECONDS)
    hold = await queries.find_hold(conn, order.hold_id, event_id=order.event_id, user_id=order.user_id)
    if hold is None or hold.order_id not in (None, order.order_id):
        await _publish_lost(conn, order, reason="unknown_hold")
    elif hold.order_id == order.order_id:
        return  # a replay: it was decided before
    elif await event_queries.find_event_status(conn, order.event_id) == EventStatus.CANCELLED:
        await queries.lose_hold(conn, hold.hold_id, event_id=hold.event_id, order_id=order.order_id)
        await _publish_lost(conn, order, reason="event_cancelled")
    elif await queries.extend_hold(
        conn, hold.hold_id, event_id=hold.event_id, order_id=order.order_id, expires_at=deadline
    ) or await _revive(conn, hold, order_id=order.order_id, deadline=deadline):
        await publish(
            conn,
            HoldExtended(
                hold_id=hold.hold_id,
                event_id=hold.event_id,
                user_id=hold.user_id,
                order_id=order.order_id,
                expires_at=deadline,
            ),
        )
    else:
        await queries.lose_hold(conn, hold.hold_id, event_id=hold.event_id, order_id=order.order_id)
        released = hold.status == HoldStatus.RELEASED
        await _publish_lost(conn, order, reason="released" if released else "expired")


async def _revive(conn: Conn, hold: Hold, *, order_id: UUID, deadline: datetime) -> bool:
    if hold.status == HoldStatus.RELEASED:
        return False
    taken = await queries.claim_seats(
        conn,
        hold.hold_id,
        event_id=hold.event_id,
        seat_ids=hold.seat_ids,
        traceparent=current_traceparent(),
    )
    return not taken and await queries.revive_hold(
        conn, hold.hold_id, event_id=hold.event_id, order_id=order_id, expires_at=deadline
    )


async def release_hold_of_order(
    conn: Conn, hold_id: UUID, *, event_id: UUID, order_id: UUID, reason: ReleaseReason
) -> None:
    """The order ended unpaid. A hold that ended by itself, or was sold, stays as it is."""
    released = await queries.release_hold_of_order(conn, hold_id, event_id=event_id, order_id=order_id)
    if released is not None:
        await _publish_released(conn, [released], reason=reason)


async def expire_holds(pool: Pool) -> None:
    """Ends holds past their deadline that nobody took over; their seats were free already."""
    await _sweep(pool, lambda conn: queries.expire_holds(conn, limit=SWEEP_SIZE), _publish_expired)


async def release_holds_of_cancelled_events(pool: Pool) -> None:
    await _sweep(
        pool,
        lambda conn: queries.release_holds_of_cancelled_events(conn, limit=SWEEP_SIZE),
        lambda conn, holds: _publish_released(conn, holds, reason="event_cancelled"),
    )


async def _sweep(
    pool: Pool,
    end: Callable[[Conn], Awaitable[list[queries.EndedHold]]],
    say: Callable[[Conn, list[queries.EndedHold]], Awaitable[None]],
) -> None:
    while True:
        async with transaction(pool) as conn:
            ended = await end(conn)
            await say(conn, ended)
        if len(ended) < SWEEP_SIZE:
            return


async def _publish_expired(conn: Conn, holds: list[queries.EndedHold]) -> None:
    now = datetime.now(UTC)
    await publish(
        conn,
        *(
            HoldExpired(hold_id=each.hold_id, event_id=each.event_id, user_id=each.user_id, expired_at=now)
            for each in holds
        ),
    )


async def _publish_released(conn: Conn, holds: list[queries.EndedHold], *, reason: ReleaseReason) -> None:
    await publish(
        conn,
        *(
            HoldReleased(hold_id=each.hold_id, event_id=each.event_id, user_id=each.user_id, reason=reason)
            for each in holds
        ),
    )


async def _publish_lost(conn: Conn, order: OrderPlaced, *, reason: LossReason) -> None:
    await publish(
        conn,
        HoldLost(
            hold_id=order.hold_id,
            event_id=order.event_id,
            user_id=order.user_id,
            order_id=order.order_id,
            reason=reason,
        ),
    )
