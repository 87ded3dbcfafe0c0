"""How many requests one caller may send: `RateLimit` headers (draft-ietf-httpapi-ratelimit-headers), 429.

Every request counts for its user, or else for the address that it comes from. A route may name one more limit
in its `opt` (`{"limit": "holds"}`), or be `UNLIMITED`. Without Redis nobody is refused: what must not be open
then (passwords) asks for itself.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_network
from typing import Any

from litestar import Request
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from libs.settings import ServiceSettings
from libs.web.access import find_caller
from libs.web.addresses import Address, Network, client_address, network_of
from libs.web.buckets import Bucket, Buckets, RateLimit, Verdict
from libs.web.problems import Problem

UNLIMITED = {"limit": None}

_EVERYTHING = "requests"
# What one household has in IPv6; its devices change their addresses all the time.
_IPV6_ADDRESS_BITS = 64


class RateLimited(Problem):
    """Too many requests: ask again after `Retry-After` seconds."""

    code = "rate_limited"
    status = 429
    cure = "Wait as `Retry-After` says; `RateLimit` tells with each answer what is left."

    def __init__(self, *, wait_seconds: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            f"Too many requests. Try again in {wait_seconds} s.",
            headers={"Retry-After": str(wait_seconds), **(headers or {})},
        )


class RequestLimits:
    """The limits of a service, as they are set."""

    def __init__(self, settings: ServiceSettings, named: Sequence[RateLimit]) -> None:
        self.trusted_proxies = settings.proxy_networks
        self._everything = RateLimit(
            _EVERYTHING, settings.rate_limit_max, settings.rate_limit_window_ms / 1000
        )
        self._named = {limit.name: limit for limit in named}

    def has(self, name: str) -> bool:
        return name in self._named

    def buckets(self, name: str | None, *, user_id: object | None, address: Address) -> Sequence[Bucket]:
        owner = user_id or _owner(address)
        everything = self._everything.bucket(owner)
        if name is None:
            return (everything,)
        limit = self._named[name]
        return (everything, limit.bucket(network_of(address) if limit.by_network else owner))


def client_network(request: Request[Any, Any, Any]) -> Network:
    """The network that the request comes from."""
    limits: RequestLimits = request.app.state.request_limits
    return network_of(client_address(_http(request.scope), trusted_proxies=limits.trusted_proxies))


def limits_middleware(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        name = scope["route_handler"].opt.get("limit", _EVERYTHING)
        if name is None:
            await app(scope, receive, send)
            return
        request = Request[Any, Any, Any](scope)
        limits: RequestLimits = request.app.state.request_limits
        caller = await find_caller(request)
        buckets = limits.buckets(
            None if name == _EVERYTHING else name,
            user_id=caller.user_id if caller else None,
            address=client_address(scope, trusted_proxies=limits.trusted_proxies),
        )
        tokens: Buckets = request.app.state.buckets
        verdict = await tokens.take(*buckets)
        if verdict is None:
            await app(scope, receive, send)
            return
        headers = rate_limit_headers(buckets, verdict)
        if not verdict.is_given:
            raise RateLimited(wait_seconds=verdict.wait_seconds, headers=headers)
        encoded = [(key.lower().encode(), value.encode()) for key, value in headers.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *encoded]
            await send(message)

        await app(scope, receive, send_with_headers)

    return middleware


def rate_limit_headers(buckets: Sequence[Bucket], verdict: Verdict) -> dict[str, str]:
    limits = [bucket.limit for bucket in buckets]
    return {
        "RateLimit-Policy": ", ".join(
            f'"{limit.name}";q={limit.quota};w={limit.window_seconds:.0f}' for limit in limits
        ),
        "RateLimit": ", ".join(
            f'"{limit.name}";r={left};t={seconds}'
            for limit, (left, seconds) in zip(limits, verdict.left, strict=True)
        ),
    }


def _owner(address: Address) -> object:
    if isinstance(address, IPv6Address):
        return ip_network((address, _IPV6_ADDRESS_BITS), strict=False)
    return address


def _http(scope: Any) -> HTTPScope:
    return scope
