"""What a caller may send, from where and how often, through the gateway."""

import itertools
import secrets
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.system.shop import Client, Shop

# Tests that run at the same time guess from networks of their own.
_networks = itertools.count(secrets.randbelow(200) + 2)


def new_network() -> str:
    """Of 127.0.0.0/8, all of which is this machine."""
    return f"127.{next(_networks)}.{secrets.randbelow(250)}"


def coming_from(shop: Shop, address: str) -> httpx.Client:
    return httpx.Client(
        base_url=shop.environment["GATEWAY_URL"].replace("localhost", "127.0.0.1"),
        transport=httpx.HTTPTransport(local_address=address),
        timeout=20,
        trust_env=False,
    )


def try_log_in(http: httpx.Client, email: str, password: str) -> int:
    answer = http.post("/auth/login", json={"email": email, "password": password})
    while answer.status_code == 503:  # a busy machine: all hashers are taken
        answer = http.post("/auth/login", json={"email": email, "password": password})
    return answer.status_code


def test_guesses_from_one_network_lock_nobody_out(shop: Shop) -> None:
    email, password = f"owner.{secrets.token_hex(6)}@example.com", secrets.token_urlsafe(9)
    body = {"email": email, "password": password, "name": "O"}
    Client(shop.gateway).call("POST", "/auth/register", body, expect=201)
    attackers, home = new_network(), new_network()
    with (
        coming_from(shop, f"{attackers}.1") as attacker,
        coming_from(shop, f"{home}.1") as owner,
        ThreadPoolExecutor(8) as threads,
    ):
        guessing = [threads.submit(try_log_in, attacker, email, f"wrong {n}") for n in range(1000)]
        # In the thick of it.
        while not all(each.done() for each in guessing):
            assert try_log_in(owner, email, password) == 200
        seen = Counter(each.result() for each in guessing)
    # A guess comes back each 90 s: one may have while this ran.
    assert seen[401] in (10, 11)
    assert seen[401] + seen[429] == 1000
    with coming_from(shop, f"{attackers}.2") as neighbour:
        assert try_log_in(neighbour, email, password) == 429
        other = f"other.{secrets.token_hex(6)}@example.com"
        assert try_log_in(neighbour, other, password) == 401, "the account is closed to it, not the shop"


def test_every_answer_tells_the_limit_and_a_pretended_address_changes_nothing(shop: Shop) -> None:
    with coming_from(shop, f"{new_network()}.1") as http:
        answers = [http.get("/events?limit=1", headers={"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(3)]
    assert {each.headers["ratelimit-policy"] for each in answers} == {'"requests";q=100000;w=900'}
    left = [int(each.headers["ratelimit"].split(";")[1].removeprefix("r=")) for each in answers]
    # A token comes back within 9 ms.
    assert left[0] == 99_999
    assert all(99_990 < each <= 99_999 for each in left)


def test_user_is_held_to_the_quota_in_parallel_requests(shop: Shop) -> None:
    event = shop.event(seats=100)
    buyer = shop.buyer()
    bodies = [{"eventId": event["id"], "seatIds": [seat]} for seat in shop.seats(event)]
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(partial(buyer.request, "POST", "/reservations"), bodies))
    assert Counter(each.status_code for each in answers) == {200: 10, 409: 90}
    assert len(shop.seats(event, "reserved")) == 10


def send_raw(shop: Shop, request: bytes) -> bytes:
    """All of the answer to these bytes."""
    address = urlsplit(shop.environment["GATEWAY_URL"])
    with socket.create_connection(("127.0.0.1", address.port or 80), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("/auth/login", {"content": b"x" * 1_100_000}, 413, "request_entity_too_large"),
        ("/auth/login", {"content": iter([b"x" * 100_000] * 11)}, 413, "request_entity_too_large"),
        ("/auth/login", {"content": b"x" * 20_000_000}, 413, "request_entity_too_large"),
        ("/auth/login", {"content": b"{"}, 400, "invalid_request"),
        ("/auth/login", {"json": {"email": "x" * 300, "password": "x"}}, 400, "invalid_request"),
        ("/auth/login", {"content": b"{}", "headers": {"X-Large": "x" * 20_000}}, 431, "headers_too_large"),
        (f"/auth/login?{'x' * 9_000}", {"content": b"{}"}, 414, "uri_too_long"),
        ("/not-there", {"content": b"{}", "headers": {"X-Large": "x" * 20_000}}, 431, "headers_too_large"),
        (f"/{'x' * 9_000}", {"content": b"{}"}, 414, "uri_too_long"),
    ],
)
def test_what_is_too_large_is_refused_with_a_problem_document(
    shop: Shop, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer = shop.gateway.post(path, **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_reservation_of_too_many_seats_is_refused(shop: Shop) -> None:
    body = {"eventId": shop.event()["id"], "seatIds": [secrets.token_hex(16) for _ in range(1000)]}
    assert shop.buyer().call("POST", "/reservations", body, expect=400)["errors"][0]["pointer"] == "/seatIds"


def test_body_that_does_not_come_is_408(shop: Shop) -> None:
    head = b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = send_raw(shop, head + b'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"email"')
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b'"code":"request_timeout"' in answer


def test_headers_that_do_not_come_are_not_waited_for(shop: Shop) -> None:
    assert not send_raw(shop, b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").startswith(
        b"HTTP/1.1 2"
    )
