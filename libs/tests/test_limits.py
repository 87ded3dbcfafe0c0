"""Limits: exact for all replicas together, by user or by the address that our proxies tell."""

from ipaddress import ip_address, ip_network
from typing import Any

import httpx
import pytest
from libs.ids import new_id
from libs.settings import ServiceSettings
from libs.testing import Serve, Tokens
from libs.web.access import anyone, authenticated
from libs.web.addresses import client_address, network_of
from libs.web.application import create_service_app
from libs.web.buckets import RateLimit
from libs.web.limits import UNLIMITED
from litestar import Litestar, get

PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        # A stranger's word counts for nothing.
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        (PROXY, ["192.0.2.7"], "192.0.2.7"),
        (PROXY, [], PROXY),
        # What a client sends itself stands before what the proxy appends.
        (PROXY, ["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        (PROXY, ["198.51.100.1", "192.0.2.7"], "192.0.2.7"),
        (PROXY, [f"198.51.100.1, 192.0.2.7, 10.0.0.2,{PROXY}"], "192.0.2.7"),
        (PROXY, ["10.0.0.2"], "10.0.0.2"),
        (PROXY, ["nonsense"], PROXY),
        (PROXY, ["192.0.2.7, nonsense"], PROXY),
        (PROXY, ["\xff"], PROXY),
        (f"::ffff:{PROXY}", ["2001:db8::1"], "2001:db8::1"),
        (f"::ffff:{PROXY}", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("unix:", [], "0.0.0.0"),  # noqa: S104
    ],
)
def test_client_is_the_last_address_that_is_no_proxy_of_ours(
    peer: str, forwarded: list[str], expected: str
) -> None:
    scope: Any = {
        "client": (peer, 4711),
        "headers": [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded],
    }
    trusted = [ip_network("10.0.0.0/30"), ip_network("2001:db8:1::/48")]
    assert client_address(scope, trusted_proxies=trusted) == ip_address(expected)


def test_network_is_what_one_customer_has() -> None:
    assert str(network_of(ip_address("127.1.0.1"))) == "127.1.0.0/24"
    assert str(network_of(ip_address("2001:db8:1:2ff:3::4"))) == "2001:db8:1:200::/56"


def test_proxies_that_are_no_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="TRUSTED_PROXIES"):
        ServiceSettings(database_url="postgresql://x", trusted_proxies="10.0.0.1, gateway")


@get("/open", guards=[anyone])
async def open_to_all() -> str:
    return "ok"


@get("/mine", guards=[authenticated], opt={"limit": "small"})
async def mine() -> str:
    return "ok"


@get("/by-network", guards=[anyone], opt={"limit": "networks"})
async def by_network() -> str:
    return "ok"


@get("/always", guards=[anyone], opt=UNLIMITED)
async def always() -> str:
    return "ok"


def make_app(environment: dict[str, str], *, quota: int = 5, seconds: int = 900, redis: str = "") -> Litestar:
    settings = ServiceSettings(
        database_url=environment["INVENTORY_DATABASE_URL"],
        jwks_url="http://127.0.0.1:1/none",
        redis_url=redis or environment["REDIS_URL"],
        trusted_proxies=PROXY,
        rate_limit_max=quota,
        rate_limit_window_ms=seconds * 1000,
    )
    return create_service_app(
        settings,
        service="inventory",
        title="Test",
        routes=[open_to_all, mine, by_network, always],
        limits=[
            RateLimit("small", 2, 60),
            RateLimit("networks", 2, 60, by_network=True),
        ],
    )


def through(app: Litestar, peer: str) -> httpx.AsyncClient:
    """A client whose requests come from `peer`."""
    transport: Any = httpx.ASGITransport(app=app, client=(peer, 4711))  # pyright: ignore[reportArgumentType]
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


_last_address = int(new_id()) & 0xFFFF << 8


def new_address() -> str:
    """One of its own in the shared Redis, in a network of its own."""
    global _last_address  # noqa: PLW0603
    _last_address += 256
    return str(ip_address(0xCB000000 + _last_address % 0x1000000))


async def statuses(client: httpx.AsyncClient, path: str, times: int, **headers: str) -> list[int]:
    return [(await client.get(path, headers=headers)).status_code for _ in range(times)]


async def test_clients_behind_one_proxy_are_limited_apart(environment: dict[str, str], serve: Serve) -> None:
    app = make_app(environment)
    async with serve(app), through(app, PROXY) as proxy:
        one, other = new_address(), new_address()
        assert await statuses(proxy, "/open", 6, **{"X-Forwarded-For": one}) == [200] * 5 + [429]
        assert await statuses(proxy, "/open", 5, **{"X-Forwarded-For": other}) == [200] * 5
        pretended = {"X-Forwarded-For": f"{new_address()}, {one}"}
        assert await statuses(proxy, "/open", 1, **pretended) == [429]


async def test_stranger_cannot_pass_for_another_address(environment: dict[str, str], serve: Serve) -> None:
    app = make_app(environment)
    async with serve(app), through(app, new_address()) as stranger:
        answers = [
            await statuses(stranger, "/open", 1, **{"X-Forwarded-For": new_address()}) for _ in range(6)
        ]
    assert answers == [[200]] * 5 + [[429]]


async def test_refusal_says_when_to_come_back_and_every_answer_what_is_left(
    environment: dict[str, str], serve: Serve
) -> None:
    app = make_app(environment, quota=2, seconds=60)
    async with serve(app), through(app, new_address()) as client:
        first = await client.get("/open")
        assert first.headers["ratelimit-policy"] == '"requests";q=2;w=60'
        assert first.headers["ratelimit"] == '"requests";r=1;t=30'
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/mine")).headers["ratelimit"].startswith('"requests";r=0;t=')
        refused = await client.get("/open")
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"
    assert 28 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')


async def test_user_is_limited_wherever_from_and_the_address_of_a_user_is_not(
    environment: dict[str, str], serve: Serve, tokens: Tokens
) -> None:
    app = make_app(environment)
    async with serve(app), through(app, PROXY) as proxy:
        user = tokens.issue()
        address = new_address()
        answers = [
            await statuses(proxy, "/open", 1, **user, **{"X-Forwarded-For": new_address()}) for _ in range(6)
        ]
        assert answers == [[200]] * 5 + [[429]]
        for _ in range(3):
            assert (
                await statuses(proxy, "/open", 5, **tokens.issue(), **{"X-Forwarded-For": address})
                == [200] * 5
            )
        assert await statuses(proxy, "/open", 1, **{"X-Forwarded-For": address}) == [200]
        bad = {"Authorization": "Bearer x.y.z", "X-Forwarded-For": address}
        assert await statuses(proxy, "/mine", 5, **bad) == [401] * 2 + [429] * 3, "counted for the address"


async def test_limit_of_a_route_comes_on_top_and_may_go_by_network(
    environment: dict[str, str], serve: Serve, tokens: Tokens
) -> None:
    app = make_app(environment, quota=50)
    async with serve(app), through(app, PROXY) as proxy:
        user = tokens.issue()
        answer = await proxy.get("/mine", headers=user)
        assert answer.headers["ratelimit-policy"] == '"requests";q=50;w=900, "small";q=2;w=60'
        assert await statuses(proxy, "/mine", 2, **user) == [200, 429]
        assert await statuses(proxy, "/open", 1, **user) == [200]
        network = new_address().rsplit(".", 1)[0]
        answers = [
            await statuses(proxy, "/by-network", 1, **{"X-Forwarded-For": f"{network}.{number}"})
            for number in (1, 2, 3)
        ]
        assert answers == [[200], [200], [429]]


async def test_services_share_the_limit(environment: dict[str, str], serve: Serve) -> None:
    one, other = make_app(environment), make_app(environment)
    address = new_address()
    async with serve(one), serve(other), through(one, address) as here, through(other, address) as there:
        assert await statuses(here, "/open", 3) == [200] * 3
        assert await statuses(there, "/open", 3) == [200, 200, 429]
        assert await statuses(there, "/always", 9) == [200] * 9
        for path in ("/health", "/inventory/health", "/inventory/ready"):
            answer = await there.get(path)
            assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)


async def test_without_redis_nobody_is_refused_and_readiness_tells(
    environment: dict[str, str], serve: Serve
) -> None:
    app = make_app(environment, quota=1, redis="redis://127.0.0.1:1/0")
    async with serve(app), through(app, new_address()) as client:
        assert await statuses(client, "/open", 5) == [200] * 5
        ready = (await client.get("/inventory/ready")).json()
    assert (ready["status"], "redis" in ready["degraded"]) == ("ok", True)


def test_route_with_an_unknown_limit_does_not_start() -> None:
    with pytest.raises(ValueError, match="unknown limit: small"):
        create_service_app(
            ServiceSettings(database_url="postgresql://x"), service="inventory", title="T", routes=[mine]
        )
