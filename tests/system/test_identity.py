"""Who is who: revoked tokens are refused everywhere, and keys change without a refused request."""

import subprocess
import sys
import threading
from collections import Counter
from itertools import pairwise

import httpx
import redis
from jwt import get_unverified_header

from tests.system.shop import Client, Shop, eventually

# One call of each service that needs a token.
OWN = ("/auth/me", "/reservations", "/orders")


def statuses(client: Client, *paths: str) -> set[int]:
    return {client.request("GET", path).status_code for path in paths}


def empty_redis(shop: Shop) -> None:
    with redis.Redis.from_url(shop.environment["REDIS_URL"]) as client:
        client.flushall()


def admin_calls(client: Client) -> set[int]:
    """Of all services; 401 comes before 400."""
    return {
        client.request("POST", "/venues", {}).status_code,
        client.request("POST", "/tickets/check-in", {}).status_code,
        client.request("POST", "/orders/018f6d2e-7a10-7c3b-9a51-1d6f0a2b3c01/refund").status_code,
    }


def test_disabled_user_is_refused_everywhere_also_by_an_emptied_redis(shop: Shop) -> None:
    user = shop.buyer()
    assert statuses(user, *OWN) == {200}
    shop.admin.call("PATCH", f"/auth/users/{user.id}", {"disabled": True})
    eventually(lambda: statuses(user, *OWN), until=lambda seen: seen == {401}, seconds=60)
    empty_redis(shop)
    assert statuses(user, *OWN) == {401}


def test_admin_who_is_one_no_more_is_refused_everywhere(shop: Shop) -> None:
    user = shop.buyer()
    shop.admin.call("PATCH", f"/auth/users/{user.id}", {"role": "admin"})
    eventually(lambda: statuses(user, *OWN), until=lambda seen: seen == {401}, seconds=60)
    chief = shop.log_in(user)
    assert 401 not in admin_calls(chief)
    assert 403 not in admin_calls(chief)
    shop.admin.call("PATCH", f"/auth/users/{user.id}", {"role": "user"})
    eventually(lambda: admin_calls(chief), until=lambda seen: seen == {401}, seconds=60)
    assert admin_calls(shop.log_in(user)) == {403}


def test_changed_password_ends_the_tokens_everywhere(shop: Shop) -> None:
    user = shop.buyer()
    change = {"currentPassword": user.password, "newPassword": "battery staple"}
    user.call("POST", "/auth/password", change, expect=204)
    eventually(lambda: statuses(user, *OWN), until=lambda seen: seen == {401}, seconds=60)
    user.password = "battery staple"
    assert statuses(shop.log_in(user), *OWN) == {200}


def test_keys_rotate_under_load_without_a_refused_request(shop: Shop) -> None:
    user = shop.buyer()
    first = shop.log_in(user)
    stop = threading.Event()
    newest = [first]
    seen: Counter[int] = Counter()

    def call() -> None:
        with httpx.Client(base_url=shop.environment["GATEWAY_URL"], timeout=20, trust_env=False) as http:
            while not stop.is_set():
                for client in (first, newest[-1]):
                    for path in OWN:
                        answer = http.get(path, headers=client.headers)
                        if answer.status_code != 503:  # a busy machine
                            seen[answer.status_code] += 1

    old_kid = kid(first)
    caller = threading.Thread(target=call)
    caller.start()
    try:
        done = subprocess.run(
            (sys.executable, "-m", "auth.keys", "rotate", "--after", "10"),
            env={"AUTH_DATABASE_URL": shop.environment["AUTH_DATABASE_URL"]},
            capture_output=True,
            text=True,
            check=True,
        )
        new_kid = done.stdout.split()[0]

        def log_in_again() -> str:
            newest.append(shop.log_in(user))
            return kid(newest[-1])

        eventually(log_in_again, until=lambda signed_by: signed_by == new_kid, seconds=60)
        calls = sum(seen.values())
        eventually(lambda: sum(seen.values()), until=lambda now: now > calls + 60, seconds=60)
    finally:
        stop.set()
        caller.join()
    assert set(seen) == {200}
    kids = [kid(client) for client in newest]
    assert [old for old, new in pairwise(kids) if old != new] == [old_kid], "one change, and none back"


def kid(client: Client) -> str:
    return str(get_unverified_header(client.headers["Authorization"].split()[1])["kid"])
