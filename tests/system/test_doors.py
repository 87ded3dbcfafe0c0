"""At the door: many scanners, one admission; and doors without a network."""

import json
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.system.shop import Client, Shop, eventually

SCANNERS = 50


@pytest.fixture(scope="module")
def scanner(shop: Shop) -> dict[str, Any]:
    """A session of someone who may check tickets in."""
    credentials = {"email": f"door.{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(9)}
    anyone = Client(shop.gateway)
    account = anyone.call("POST", "/auth/register", {**credentials, "name": "Door"}, expect=201)
    shop.admin.call("PATCH", f"/auth/users/{account['user']['id']}", {"role": "scanner"})
    return anyone.call("POST", "/auth/login", credentials)


@pytest.fixture
def ticket(shop: Shop) -> dict[str, Any]:
    buyer, event = shop.buyer(), shop.event(amount_minor=0)
    order = buyer.check_out(buyer.hold(event, shop.seats(event)[:1]))
    return eventually(lambda: buyer.tickets(order), until=lambda seen: len(seen) == 1)[0]


def test_fifty_scanners_at_the_gateway_admit_a_ticket_once(
    shop: Shop, scanner: dict[str, Any], ticket: dict[str, Any]
) -> None:
    ready = Barrier(SCANNERS)

    def scan(_: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {scanner['token']}"}
        with httpx.Client(base_url=shop.gateway.base_url, headers=headers, timeout=30) as http:
            http.get("/health")  # the connection is open before the race
            ready.wait(timeout=30)
            return http.post("/tickets/check-in", json={"qrPayload": ticket["qrPayload"]})

    with ThreadPoolExecutor(SCANNERS) as pool:
        answers = list(pool.map(scan, range(SCANNERS)))
    admitted = [each.json() for each in answers if each.status_code == 200]
    refused = [each.json() for each in answers if each.status_code == 409]
    assert (len(admitted), len(refused)) == (1, SCANNERS - 1), {each.status_code for each in answers}
    assert {each["code"] for each in refused} == {"already_checked_in"}
    assert {each["checkedInAt"] for each in refused} == {admitted[0]["checkedInAt"]}


def test_scanner_may_check_in_and_nothing_else(shop: Shop, scanner: dict[str, Any]) -> None:
    door = Client(shop.gateway, scanner)
    event = shop.event()
    for method, path, body in (
        ("POST", "/reservations", {"eventId": event["id"], "seatIds": shop.seats(event)[:1]}),
        ("GET", "/reservations", None),
        ("GET", "/orders", None),
        ("GET", "/tickets", None),
        ("POST", "/venues", {}),
        ("POST", f"/events/{event['id']}/cancel", None),
        ("PATCH", f"/auth/users/{door.id}", {"role": "admin"}),
    ):
        door.call(method, path, body, expect=403)
    assert door.get("/auth/me")["role"] == "scanner"


def test_door_without_a_network_verifies_with_the_keys_that_it_fetched(
    shop: Shop, ticket: dict[str, Any], tmp_path: Any
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(shop.gateway.get("/.well-known/ticket-keys.json").content)
    forged = (
        ticket["qrPayload"][:20] + ("A" if ticket["qrPayload"][20] != "A" else "B") + ticket["qrPayload"][21:]
    )
    done = subprocess.run(
        (sys.executable, "-m", "inventory.verify_ticket", "--keys", str(keys), ticket["qrPayload"], forged),
        capture_output=True,
        text=True,
        check=False,
    )
    good, bad = map(json.loads, done.stdout.splitlines())
    assert (good["valid"], good["ticketId"], good["eventId"]) == (True, ticket["id"], ticket["eventId"])
    assert (bad["valid"], done.returncode) == (False, 1)


def test_keys_of_tickets_are_not_those_of_logins(shop: Shop) -> None:
    tickets = shop.gateway.get("/.well-known/ticket-keys.json").json()["keys"]
    logins = shop.gateway.get("/.well-known/jwks.json").json()["keys"]
    assert tickets
    assert logins
    assert not {key["x"] for key in tickets} & {key["x"] for key in logins}
