"""Holds: all or none, one owner, an exact deadline, an exact quota."""

import asyncio
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import psycopg
import pytest
from contracts.messages import HoldExpired, HoldExtended, HoldLost, HoldPlaced, HoldReleased, OrderCancelled
from inventory.app import create_app
from inventory.holds import expire_holds
from inventory.queries import holds as queries
from libs.ids import new_id
from libs.postgres import Pool, transaction
from libs.testing import Serve, Tokens, cut_off
from psycopg import sql

from services.inventory.tests.support import Buyer, Database, Deliver, OnSale, make_event


async def test_hold_names_seats_price_and_deadline(buyer: Buyer, on_sale: OnSale, database: Database) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2])
    assert (hold["amountMinor"], hold["currency"], hold["status"]) == (9000, "eur", "active")
    assert {seat["status"] for seat in hold["seats"]} == {"reserved"}
    assert await buyer.get(f"/reservations/{hold['id']}") == hold
    assert await buyer.get("/reservations") == [hold]
    [placed] = await database.said(hold["id"])
    assert isinstance(placed, HoldPlaced)
    assert (placed.user_id, placed.amount_minor, len(placed.seats)) == (buyer.id, 9000, 2)


async def test_second_buyer_is_refused_when_one_of_the_seats_is_held(
    buyer: Buyer, rival: Buyer, on_sale: OnSale, database: Database
) -> None:
    await buyer.hold(on_sale.event_id, on_sale.seat_ids[1:2])
    answer = await rival.try_hold(on_sale.event_id, on_sale.seat_ids[:3])
    assert answer.status_code == 409
    assert answer.json()["seatIds"] == [str(on_sale.seat_ids[1])]
    assert await database.seat_statuses(on_sale.event_id) == {"active": 1, "free": 9}


async def test_user_who_places_holds_too_often_is_429_and_others_are_not(
    environment: dict[str, str],
    serve: Serve,
    tokens: Tokens,
    on_sale: OnSale,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOLD_RATE_LIMIT_MAX", "3")
    async with serve(create_app()) as client:
        bot, other = Buyer(client, tokens), Buyer(client, tokens)
        answers = [await bot.try_hold(on_sale.event_id, on_sale.seat_ids[:1]) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 409, 409, 429]
        assert (answers[3].json()["code"], int(answers[3].headers["retry-after"])) == ("rate_limited", 20)
        assert '"holds";q=3;w=60' in answers[0].headers["ratelimit-policy"]
        assert (await other.try_hold(on_sale.event_id, on_sale.seat_ids[1:2])).status_code == 200
        assert len(await bot.get("/reservations")) == 1, "reading is not limited with it"


async def test_scanner_holds_nothing(client: httpx.AsyncClient, tokens: Tokens, on_sale: OnSale) -> None:
    scanner = Buyer(client, tokens, role="scanner")
    assert (await scanner.try_hold(on_sale.event_id, on_sale.seat_ids[:1])).status_code == 403
    for path in ("/reservations", "/tickets"):
        assert (await client.get(path, headers=scanner.headers)).status_code == 403


async def test_overdue_hold_is_taken_over_and_its_other_seats_are_free(
    buyer: Buyer, rival: Buyer, on_sale: OnSale, database: Database
) -> None:
    first = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:3])
    await database.pass_deadline(first["id"])
    await rival.hold(on_sale.event_id, on_sale.seat_ids[:1])
    assert (await buyer.get(f"/reservations/{first['id']}"))["status"] == "expired"
    assert [type(each) for each in await database.said(first["id"])] == [HoldPlaced, HoldExpired]
    await rival.hold(on_sale.event_id, on_sale.seat_ids[1:3])


async def test_sweeper_expires_what_nobody_took_over(
    buyer: Buyer, on_sale: OnSale, database: Database, worker_pool: Pool
) -> None:
    overdue = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    running = await buyer.hold(on_sale.event_id, on_sale.seat_ids[1:2])
    await database.pass_deadline(overdue["id"])
    await asyncio.gather(expire_holds(worker_pool), expire_holds(worker_pool))
    assert [type(each) for each in await database.said(overdue["id"])] == [HoldPlaced, HoldExpired]
    assert [type(each) for each in await database.said(running["id"])] == [HoldPlaced]


async def test_buyer_lets_go_and_again_nothing_happens(
    buyer: Buyer, rival: Buyer, client: httpx.AsyncClient, on_sale: OnSale, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    path = f"/reservations/{hold['id']}"
    assert (await client.delete(path, headers=rival.headers)).status_code == 404
    assert (await client.get(path, headers=rival.headers)).status_code == 404
    for _ in range(2):
        assert (await client.delete(path, headers=buyer.headers)).status_code == 204
    assert [type(each) for each in await database.said(hold["id"])] == [HoldPlaced, HoldReleased]
    await rival.hold(on_sale.event_id, on_sale.seat_ids[:1])


async def test_order_extends_the_hold_once_and_then_only_the_order_ends_it(
    buyer: Buyer, client: httpx.AsyncClient, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    order = buyer.order_placed(hold, seconds=900)
    await deliver(order, order)
    extended = [each for each in await database.said(hold["id"]) if isinstance(each, HoldExtended)]
    assert [(each.expires_at - order.expires_at).total_seconds() for each in extended] == [60]
    shown = (await buyer.get(f"/reservations/{hold['id']}"))["expiresAt"]
    assert datetime.fromisoformat(shown) == extended[0].expires_at
    answer = await client.delete(f"/reservations/{hold['id']}", headers=buyer.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_pending")
    cancelled = OrderCancelled(
        order_id=order.order_id,
        hold_id=order.hold_id,
        event_id=order.event_id,
        user_id=order.user_id,
        reason="buyer",
    )
    await deliver(cancelled, cancelled)
    said = await database.said(hold["id"])
    assert [each.reason for each in said if isinstance(each, HoldReleased)] == ["order_cancelled"]
    assert await database.seat_statuses(on_sale.event_id) == {"free": 9, "released": 1}


async def test_no_statement_gives_a_hold_another_order_or_a_second_deadline(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, worker_pool: Pool
) -> None:
    order = buyer.order_placed(await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1]))
    await deliver(order)
    [before] = await buyer.get("/reservations")
    for extend in (queries.extend_hold, queries.revive_hold):
        for order_id in (order.order_id, new_id()):
            async with transaction(worker_pool) as conn:  # by a way in that forgets to ask
                assert not await extend(
                    conn,
                    order.hold_id,
                    event_id=order.event_id,
                    order_id=order_id,
                    expires_at=order.expires_at + timedelta(days=1),
                )
    assert await buyer.get("/reservations") == [before]


async def test_order_revives_an_expired_hold_whose_seats_are_free(
    buyer: Buyer, deliver: Deliver, on_sale: OnSale, database: Database, worker_pool: Pool
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2])
    await database.pass_deadline(hold["id"])
    await expire_holds(worker_pool)
    await deliver(buyer.order_placed(hold))
    assert (await buyer.get(f"/reservations/{hold['id']}"))["status"] == "active"
    assert isinstance((await database.said(hold["id"]))[-1], HoldExtended)


async def test_order_of_a_hold_whose_seats_are_gone_is_told_so(
    buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale, database: Database
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:2])
    await database.pass_deadline(hold["id"])
    await rival.hold(on_sale.event_id, on_sale.seat_ids[1:2])
    await deliver(buyer.order_placed(hold))
    last = (await database.said(hold["id"]))[-1]
    assert isinstance(last, HoldLost)
    assert last.reason == "expired"


async def test_order_of_a_released_or_foreign_hold_is_lost(
    buyer: Buyer,
    rival: Buyer,
    client: httpx.AsyncClient,
    deliver: Deliver,
    on_sale: OnSale,
    database: Database,
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    await client.delete(f"/reservations/{hold['id']}", headers=buyer.headers)
    await deliver(buyer.order_placed(hold), rival.order_placed(hold))
    reasons = [each.reason for each in await database.said(hold["id"]) if isinstance(each, HoldLost)]
    assert reasons == ["released", "unknown_hold"]


async def test_unknown_and_repeated_seats_are_refused(buyer: Buyer, on_sale: OnSale) -> None:
    stranger = new_id()
    answer = await buyer.try_hold(on_sale.event_id, [on_sale.seat_ids[0], stranger])
    assert (answer.status_code, answer.json()["seatIds"]) == (409, [str(stranger)])
    answer = await buyer.try_hold(on_sale.event_id, on_sale.seat_ids[:1] * 2)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/seatIds")


async def test_old_unknown_event_is_404_at_once_and_a_fresh_one_is_waited_for(
    buyer: Buyer, deliver: Deliver
) -> None:
    event = make_event()
    fresh = asyncio.create_task(buyer.try_hold(event.event_id, event.seat_ids[:1]))
    await asyncio.sleep(0)
    await deliver(event.seat_map, event.published)
    assert (await fresh).status_code == 200
    old = msgspec.convert("018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01", type(event.event_id))
    assert (await buyer.try_hold(old, event.seat_ids[:1])).status_code == 404


async def test_draft_is_404_and_cancelled_event_409(buyer: Buyer, deliver: Deliver, on_sale: OnSale) -> None:
    draft = make_event()
    await deliver(msgspec.structs.replace(draft.published, status="draft"), draft.seat_map)
    assert (await buyer.try_hold(draft.event_id, draft.seat_ids[:1])).status_code == 404
    await deliver(msgspec.structs.replace(on_sale.published, status="cancelled", version=3))
    answer = await buyer.try_hold(on_sale.event_id, on_sale.seat_ids[:1])
    assert (answer.status_code, answer.json()["code"]) == (409, "event_cancelled")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"seatIds": ["018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01"]}, "/eventId"),
        ({"eventId": 7, "seatIds": []}, "/eventId"),
        ({"eventId": "018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01", "seatIds": []}, "/seatIds"),
        ({"eventId": "018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01", "seatIds": ["x"]}, "/seatIds/0"),
        ({"eventId": "018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01", "seatIds": "x"}, "/seatIds"),
        ([], "/"),
    ],
)
async def test_bad_body_is_400_and_names_the_field(
    client: httpx.AsyncClient, buyer: Buyer, body: object, pointer: str
) -> None:
    answer = await client.post("/reservations", json=body, headers=buyer.headers)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["message"] == problem["detail"]


async def test_repeated_request_with_an_idempotency_key_gets_the_same_answer(
    buyer: Buyer, on_sale: OnSale
) -> None:
    key = {"Idempotency-Key": str(new_id())}
    first = await buyer.try_hold(on_sale.event_id, on_sale.seat_ids[:1], **key)
    again = await buyer.try_hold(on_sale.event_id, on_sale.seat_ids[:1], **key)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    other = await buyer.try_hold(on_sale.event_id, on_sale.seat_ids[1:2], **key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.fixture
def far_away(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The machine of the service and the database live by a clock of their own, hours from UTC."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    with psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} SET timezone = 'Pacific/Kiritimati'").format(database))
        yield
        conn.execute(sql.SQL("ALTER DATABASE {} RESET timezone").format(database))
    monkeypatch.undo()
    time.tzset()


async def test_deadline_is_exact_and_in_utc_wherever_the_servers_are(
    far_away: None, buyer: Buyer, rival: Buyer, on_sale: OnSale, database: Database, worker_pool: Pool
) -> None:
    hold = await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1])
    assert hold["expiresAt"].endswith("Z")
    seconds = (datetime.fromisoformat(hold["expiresAt"]) - datetime.now(UTC)).total_seconds()
    assert 590 < seconds <= 601
    [placed] = await database.said(hold["id"])
    assert isinstance(placed, HoldPlaced)
    assert placed.expires_at == datetime.fromisoformat(hold["expiresAt"])
    await expire_holds(worker_pool)
    assert (await rival.try_hold(on_sale.event_id, on_sale.seat_ids[:1])).status_code == 409
    assert (await buyer.get(f"/reservations/{hold['id']}"))["status"] == "active"
    await database.pass_deadline(hold["id"])
    await rival.hold(on_sale.event_id, on_sale.seat_ids[:1])


async def test_hold_whose_process_died_before_it_was_answered_is_answered_again(
    buyer: Buyer, rival: Buyer, on_sale: OnSale, database: Database
) -> None:
    async def try_hold() -> httpx.Response:
        return await buyer.try_hold(on_sale.event_id, on_sale.seat_ids[:2], **{"Idempotency-Key": "k"})

    await cut_off(try_hold)
    answers = [await try_hold(), await try_hold()]
    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert [each["id"] for each in await buyer.get("/reservations")] == [answers[0].json()["id"]]
    assert len(await database.said(answers[0].json()["id"])) == 1
    assert (await rival.try_hold(on_sale.event_id, on_sale.seat_ids[:1])).status_code == 409
