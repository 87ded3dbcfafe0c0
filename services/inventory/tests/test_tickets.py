"""Tickets: codes that nobody else can make, one admission each."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from inventory.queries import tickets as queries
from inventory.ticket_codes import sign_code
from libs.ids import new_id
from libs.testing import Tokens
from libs.web import idempotency

from services.inventory.tests.support import Buyer, Deliver, OnSale, paid


async def one_ticket(buyer: Buyer, deliver: Deliver, on_sale: OnSale) -> dict[str, str]:
    order = buyer.order_placed(await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1]))
    await deliver(order, paid(order))
    return (await buyer.tickets(order.order_id))[0]


async def test_fifty_scanners_admit_a_ticket_once(
    client: httpx.AsyncClient, tokens: Tokens, buyer: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    door = tokens.issue(role="scanner")
    body = {"qrPayload": ticket["qrPayload"]}
    answers = await asyncio.gather(
        *(client.post("/tickets/check-in", json=body, headers=door) for _ in range(50))
    )
    admitted = [each.json() for each in answers if each.status_code == 200]
    refused = [each.json() for each in answers if each.status_code == 409]
    assert (len(admitted), len(refused)) == (1, 49)
    assert admitted[0]["ticket"]["status"] == "checked_in"
    assert {each["checkedInAt"] for each in refused} == {admitted[0]["checkedInAt"]}


async def test_check_in_that_was_cut_off_is_told_again_to_its_scanner_alone(
    client: httpx.AsyncClient,
    tokens: Tokens,
    buyer: Buyer,
    deliver: Deliver,
    on_sale: OnSale,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run admits and dies before its answer is stored."""
    ticket = await one_ticket(buyer, deliver, on_sale)
    body = {"qrPayload": ticket["qrPayload"]}
    door = {**tokens.issue(role="scanner"), "Idempotency-Key": "first"}

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(idempotency._Answers, "keep", die)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(asyncio.CancelledError):
            await client.post("/tickets/check-in", json=body, headers=door)
    with psycopg.connect(environment["ADMIN_DATABASE_URL"]) as conn:
        conn.execute("UPDATE inventory.idempotency_keys SET locked_until = '-infinity'")
    other = await client.post("/tickets/check-in", json=body, headers={**door, "Idempotency-Key": "second"})
    again = await client.post("/tickets/check-in", json=body, headers=door)
    assert (other.status_code, again.status_code) == (409, 200)
    assert again.json()["checkedInAt"] == other.json()["checkedInAt"]
    assert again.json()["ticket"]["status"] == "checked_in"


async def test_check_in_that_did_nothing_before_it_was_cut_off_tells_of_the_one_that_admitted(
    client: httpx.AsyncClient,
    tokens: Tokens,
    buyer: Buyer,
    deliver: Deliver,
    on_sale: OnSale,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run ends before its statement; another scanner admits; the first one is sent again."""
    ticket = await one_ticket(buyer, deliver, on_sale)
    body = {"qrPayload": ticket["qrPayload"]}
    door = {**tokens.issue(role="scanner"), "Idempotency-Key": "first"}

    async def fail(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("the connection is lost")

    with monkeypatch.context() as patch:
        patch.setattr(queries, "check_in_ticket", fail)
        assert (await client.post("/tickets/check-in", json=body, headers=door)).status_code == 503
    other = await client.post("/tickets/check-in", json=body, headers=tokens.issue(role="scanner"))
    again = await client.post("/tickets/check-in", json=body, headers=door)
    assert (other.status_code, again.status_code) == (200, 409)
    assert again.json()["code"] == "already_checked_in"
    assert again.json()["checkedInAt"] == other.json()["checkedInAt"]


async def test_check_in_refuses_buyers_and_codes_that_are_not_ours(
    client: httpx.AsyncClient, tokens: Tokens, buyer: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    body = {"qrPayload": ticket["qrPayload"]}
    assert (await client.post("/tickets/check-in", json=body, headers=buyer.headers)).status_code == 403
    assert (await client.post("/tickets/check-in", json=body)).status_code == 401
    door = tokens.issue(role="admin")
    key_id = ticket["qrPayload"].split(".")[1]
    forged = [
        sign_code(new_id(), event_id=new_id(), key_id=each, key=Ed25519PrivateKey.generate())
        for each in ("forged", key_id)
    ]
    for code in (*forged, ticket["qrPayload"][:-1], "x", "TKT1..", "é" * 20):
        answer = await client.post("/tickets/check-in", json={"qrPayload": code}, headers=door)
        assert answer.status_code == 400, code


async def test_ticket_code_is_no_login_and_a_login_is_no_ticket_code(
    client: httpx.AsyncClient, tokens: Tokens, buyer: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    login = {"Authorization": f"Bearer {ticket['qrPayload']}"}
    assert (await client.get("/tickets", headers=login)).status_code == 401
    token = buyer.headers["Authorization"].removeprefix("Bearer ")
    answer = await client.post(
        "/tickets/check-in", json={"qrPayload": token[:300]}, headers=tokens.issue(role="admin")
    )
    assert answer.status_code == 400


async def test_key_of_tickets_signs_no_login(
    client: httpx.AsyncClient, buyer: Buyer, deliver: Deliver, on_sale: OnSale, environment: dict[str, str]
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    key_id = ticket["qrPayload"].split(".")[1]
    with psycopg.connect(environment["ADMIN_DATABASE_URL"]) as conn:
        row = conn.execute("SELECT seed FROM inventory.ticket_keys WHERE key_id = %s", [key_id]).fetchone()
    assert row
    key = Ed25519PrivateKey.from_private_bytes(row[0])
    # All that a login needs but the key. Of an unknown one auth may be asked, which is away: no verdict, 503.
    for name, refusals in (("test", {401}), (key_id, {401, 503})):
        for role in ("user", "admin"):
            forged = Tokens(key=key, key_id=name).issue(buyer.id, role=role)
            assert (await client.get("/tickets", headers=forged)).status_code in refusals
    assert (await client.get("/tickets", headers=buyer.headers)).status_code == 200


async def test_ticket_and_its_picture_are_its_owners_alone(
    client: httpx.AsyncClient, buyer: Buyer, rival: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    path = f"/tickets/{ticket['id']}"
    assert await buyer.get(path) == ticket
    picture = await client.get(f"{path}/qr.svg", headers=buyer.headers)
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "<svg" in picture.text
    for each in (path, f"{path}/qr.svg"):
        assert (await client.get(each, headers=rival.headers)).status_code == 404
