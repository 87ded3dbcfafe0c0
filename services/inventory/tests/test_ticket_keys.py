"""The keys of ticket codes: published, rotated, withdrawn."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
from inventory.ticket_codes import read_code
from inventory.ticket_keys import TicketKeys
from inventory.verify_ticket import read_keys
from libs.postgres import create_pool
from libs.testing import Tokens
from litestar import Litestar

from services.inventory.tests.support import Buyer, Deliver, OnSale, paid
from services.inventory.tests.test_tickets import one_ticket


async def run(*arguments: str, environment: dict[str, str]) -> tuple[int, str]:
    done = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-m", "inventory.ticket_keys", *arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def rotate(environment: dict[str, str], after: int) -> str:
    """The new key's id."""
    status, output = await run("rotate", "--after", str(after), environment=environment)
    assert status == 0, output
    return output.split()[0]


def key_of(ticket: dict[str, str]) -> str:
    return ticket["qrPayload"].split(".")[1]


async def test_codes_verify_with_the_published_keys_alone(
    client: httpx.AsyncClient, buyer: Buyer, deliver: Deliver, on_sale: OnSale, tmp_path: Path
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    answer = await client.get("/.well-known/ticket-keys.json")
    assert answer.status_code == 200
    keys = answer.json()["keys"]
    assert all(set(key) == {"kty", "crv", "alg", "use", "kid", "x"} for key in keys)
    again = {"If-None-Match": answer.headers["ETag"]}
    assert (await client.get("/.well-known/ticket-keys.json", headers=again)).status_code == 304
    path = tmp_path / "keys.json"
    path.write_bytes(answer.content)
    read = read_code(ticket["qrPayload"], read_keys(str(path)))
    assert (str(read.ticket_id), str(read.event_id)) == (ticket["id"], ticket["eventId"])


async def test_old_codes_stay_good_after_a_rotation(
    app: Litestar,
    client: httpx.AsyncClient,
    tokens: Tokens,
    environment: dict[str, str],
    buyer: Buyer,
    deliver: Deliver,
    on_sale: OnSale,
) -> None:
    before = await one_ticket(buyer, deliver, on_sale)
    later = await rotate(environment, 3600)
    await app.state.ticket_keys.load()
    published = (await client.get("/.well-known/ticket-keys.json")).json()["keys"]
    assert {key_of(before), later} <= {key["kid"] for key in published}
    assert key_of(await buyer.get(f"/tickets/{before['id']}")) == key_of(before), "published, not yet signing"

    now = await rotate(environment, 0)
    await app.state.ticket_keys.load()
    assert key_of(await buyer.get(f"/tickets/{before['id']}")) == now
    body = {"qrPayload": before["qrPayload"]}
    answer = await client.post("/tickets/check-in", json=body, headers=tokens.issue(role="scanner"))
    assert answer.status_code == 200, answer.text


async def test_withdrawn_key_verifies_nothing_and_its_tickets_get_other_codes(
    app: Litestar,
    client: httpx.AsyncClient,
    tokens: Tokens,
    environment: dict[str, str],
    buyer: Buyer,
    deliver: Deliver,
    on_sale: OnSale,
) -> None:
    ticket = await one_ticket(buyer, deliver, on_sale)
    leaked = key_of(ticket)
    status, output = await run("withdraw", leaked, environment=environment)
    assert status == 1, "without a key nothing could be signed"
    assert "rotate first" in output
    await rotate(environment, 0)
    status, output = await run("withdraw", leaked, environment=environment)
    assert status == 0, output
    assert (await run("withdraw", leaked, environment=environment))[0] == 1
    assert leaked not in (await run("list", environment=environment))[1]

    await app.state.ticket_keys.load()
    door = tokens.issue(role="scanner")
    old = {"qrPayload": ticket["qrPayload"]}
    assert (await client.post("/tickets/check-in", json=old, headers=door)).status_code == 400
    new = {"qrPayload": (await buyer.get(f"/tickets/{ticket['id']}"))["qrPayload"]}
    assert (await client.post("/tickets/check-in", json=new, headers=door)).status_code == 200


async def test_processes_that_start_together_make_one_key(environment: dict[str, str]) -> None:
    pools = [create_pool(environment["INVENTORY_DATABASE_URL"]) for _ in range(4)]
    try:
        for pool in pools:
            await pool.open()
        async with pools[0].connection() as conn:
            await conn.execute("UPDATE ticket_keys SET withdrawn_at = now() WHERE withdrawn_at IS NULL")
        rings = [TicketKeys(pool) for pool in pools]
        await asyncio.gather(*(ring.load() for ring in rings))
        assert len({ring.jwks for ring in rings}) == 1
        assert rings[0].jwks.count(b'"kid"') == 1
    finally:
        for pool in pools:
            await pool.close()


async def test_ticket_cannot_be_read_before_the_keys_are(
    app: Litestar, client: httpx.AsyncClient, tokens: Tokens, buyer: Buyer, deliver: Deliver, on_sale: OnSale
) -> None:
    order = buyer.order_placed(await buyer.hold(on_sale.event_id, on_sale.seat_ids[:1]))
    await deliver(order, paid(order))
    app.state.ticket_keys = TicketKeys(app.state.pool)
    answer = await client.get("/tickets", headers=buyer.headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    door = tokens.issue(role="scanner")
    answer = await client.post("/tickets/check-in", json={"qrPayload": "TKT1.a.b.c"}, headers=door)
    assert answer.status_code == 503
