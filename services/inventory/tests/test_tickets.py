"""Tickets: codes that nobody else can make, one admission each."""

import asyncio
import secrets

import httpx
import pytest
from inventory.ticket_codes import InvalidTicketCode, TicketCodes
from libs.ids import new_id
from libs.testing import Tokens

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


async def test_check_in_refuses_buyers_and_codes_that_are_not_ours(
    client: httpx.AsyncClient, tokens: Tokens, buyer: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    body = {"qrPayload": ticket["qrPayload"]}
    assert (await client.post("/tickets/check-in", json=body, headers=buyer.headers)).status_code == 403
    assert (await client.post("/tickets/check-in", json=body)).status_code == 401
    door = tokens.issue(role="admin")
    forged = TicketCodes([("forged", secrets.token_bytes(32))]).sign(new_id(), event_id=new_id())
    for code in (forged, ticket["qrPayload"][:-1], "x", "TKT1..", "é" * 20):
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


def test_code_of_any_key_that_is_kept_verifies_and_a_changed_one_does_not() -> None:
    old, new = ("old", secrets.token_bytes(32)), ("new", secrets.token_bytes(32))
    ticket_id, event_id = new_id(), new_id()
    code = TicketCodes([old]).sign(ticket_id, event_id=event_id)
    assert TicketCodes([new, old]).verify(code) == (ticket_id, event_id)
    for changed in (code.replace("old", "new"), code[:-4] + "AAAA", "TKT2" + code[4:]):
        with pytest.raises(InvalidTicketCode):
            TicketCodes([new, old]).verify(changed)
