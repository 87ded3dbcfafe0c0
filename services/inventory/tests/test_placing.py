"""Many buyers at once: one owner of each seat, an exact quota, and nobody waits for who wants other seats."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from contracts.messages import HoldExpired, HoldExtended, HoldLost, OrderCancelled
from inventory.queries import holds as queries
from libs.ids import new_id
from libs.postgres import Conn, Pool, transaction
from libs.testing import Tokens
from litestar import Litestar
from psycopg.errors import DeadlockDetected

from services.inventory.tests.support import Buyer, Database, Deliver, OnSale, make_event


async def test_fifty_buyers_of_one_seat_make_one_owner(
    client: httpx.AsyncClient, tokens: Tokens, on_sale: OnSale
) -> None:
    buyers = [Buyer(client, tokens) for _ in range(50)]
    answers = await asyncio.gather(
        *(each.try_hold(on_sale.event_id, on_sale.seat_ids[:1]) for each in buyers)
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 49


async def test_many_buyers_take_over_one_overdue_hold_once(
    client: httpx.AsyncClient, buyer: Buyer, tokens: Tokens, on_sale: OnSale, database: Database
) -> None:
    first = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:5])
    await database.pass_deadline(first["id"])
    wishes = [on_sale.seat_ids[index : index + 2] for index in (0, 3, 1, 2, 0, 3)]
    answers = await asyncio.gather(
        *(Buyer(client, tokens).try_hold(on_sale.event_id, wish) for wish in wishes)
    )
    held = [seat["id"] for answer in answers if answer.status_code == 200 for seat in answer.json()["seats"]]
    assert len(held) == len(set(held)) >= 4
    assert {answer.status_code for answer in answers} <= {200, 409}
    expired = [each for each in await database.said(first["id"]) if isinstance(each, HoldExpired)]
    assert len(expired) == 1


async def test_overlapping_holds_in_opposite_order_never_deadlock_or_share_a_seat(
    client: httpx.AsyncClient,
    tokens: Tokens,
    on_sale: OnSale,
    database: Database,
    worker_pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the second try, which would hide one.
    monkeypatch.setattr("inventory.holds.DeadlockDetected", ZeroDivisionError)
    seats = on_sale.seat_ids
    wishes = [seats[start:][:: 1 if start % 2 else -1] for start in range(4)] * 4
    async with transaction(worker_pool) as conn:
        # Each has locked what comes before this seat when it waits: in one order, nobody waits in a ring.
        await conn.execute("SELECT FROM event_seats WHERE seat_id = %s FOR UPDATE", [seats[5]])
        requests = [
            asyncio.create_task(Buyer(client, tokens).try_hold(on_sale.event_id, wish)) for wish in wishes
        ]
        await all_wait(database, 10)  # as many as the pool has connections
    answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {200, 409}
    held = [seat["id"] for answer in answers if answer.status_code == 200 for seat in answer.json()["seats"]]
    assert len(held) == len(set(held))
    assert (await database.seat_statuses(on_sale.event_id))["active"] == len(held)


async def test_placing_that_loses_a_deadlock_is_tried_again(
    buyer: Buyer, on_sale: OnSale, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_hold = queries.place_hold
    losses = [DeadlockDetected()]

    async def lose_once(conn: Conn, hold_id: UUID, **wish: Any) -> queries.Placing:
        if losses:
            raise losses.pop()
        return await place_hold(conn, hold_id, **wish)

    monkeypatch.setattr(queries, "place_hold", lose_once)
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2])
    assert await buyer.get("/reservations") == [hold]
    assert not losses


async def test_hundred_parallel_requests_of_one_buyer_get_ten_seats(buyer: Buyer, deliver: Deliver) -> None:
    event = make_event(100)
    await deliver(event.published, event.seat_map)
    answers = await asyncio.gather(*(buyer.try_hold(event.event_id, [seat_id]) for seat_id in event.seat_ids))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [409] * 90
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"hold_quota"}


async def test_quota_is_exact_under_parallel_requests_of_one_buyer(
    buyer: Buyer, deliver: Deliver, worker_pool: Pool, database: Database
) -> None:
    event = make_event(60)
    await deliver(event.published, event.seat_map)
    await buyer.hold(event.event_id, event.seat_ids[50:54])
    async with transaction(worker_pool) as conn:
        # Requests that count and then place meet in between: none gets its seat before all have counted.
        await conn.execute("SELECT FROM event_seats WHERE event_id = %s FOR UPDATE", [event.event_id])
        requests = [
            asyncio.create_task(buyer.try_hold(event.event_id, [seat_id])) for seat_id in event.seat_ids[:50]
        ]
        await all_wait(database, 10)  # as many as the pool has connections
    answers = await asyncio.gather(*requests)
    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [409] * 44
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"hold_quota"}


async def all_wait(database: Database, count: int) -> None:
    async with asyncio.timeout(2):
        while await database.waiting() < count:  # noqa: ASYNC110  # it is asked of a server
            await asyncio.sleep(0.01)


async def test_buyers_of_other_seats_do_not_wait_for_a_placing_that_is_not_committed(
    buyer: Buyer, rival: Buyer, on_sale: OnSale, app: Litestar
) -> None:
    async with transaction(app.state.pool) as conn:
        placing = await queries.place_hold(
            conn,
            new_id(),
            event_id=on_sale.event_id,
            user_id=buyer.id,
            seat_ids=on_sale.seat_ids[:1],
            hold_seconds=600,
            max_held_seats=10,
            traceparent="",
        )
        assert placing.outcome == "placed"
        # The role's lock_timeout would end a wait, with an error.
        await rival.hold(on_sale.event_id, on_sale.seat_ids[1:2])


async def test_buyers_do_not_wait_for_a_change_of_the_event(
    buyer: Buyer, on_sale: OnSale, worker_pool: Pool
) -> None:
    async with transaction(worker_pool) as conn:
        await conn.execute("UPDATE events SET version = version + 1 WHERE event_id = %s", [on_sale.event_id])
        await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])


async def test_placing_and_ordering_at_the_deadline_leave_one_owner(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    for seat_id in on_sale.seat_ids:
        hold = await buyer.hold(on_sale.event_id, [seat_id])
        await database.pass_deadline(hold["id"])
        order = buyer.order_placed(hold)
        answer, _ = await asyncio.gather(rival.try_hold(on_sale.event_id, [seat_id]), deliver(order))
        last = (await database.said(hold["id"]))[-1]
        assert (answer.status_code, type(last)) in ((200, HoldLost), (409, HoldExtended))
        cancelled = OrderCancelled(
            order_id=order.order_id,
            hold_id=order.hold_id,
            event_id=order.event_id,
            user_id=order.user_id,
            reason="buyer",
        )
        await deliver(cancelled)
