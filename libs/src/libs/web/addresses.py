"""Where a request comes from. What it says of that itself counts only if a proxy of ours says so."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from litestar.types import HTTPScope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOWHERE = IPv4Address("0.0.0.0")  # noqa: S104 - not a socket's
# One customer of a provider may move freely within these.
_NETWORK_BITS = {4: 24, 6: 56}


def client_address(scope: HTTPScope, *, trusted_proxies: Sequence[Network]) -> Address:
    """The last address on the way here that is none of our proxies.

    Each proxy appends to `X-Forwarded-For` whom it heard from, so the list is read from its end, and what
    stands before the first stranger is that stranger's invention.
    """
    peer = scope["client"]
    address = _parsed(peer[0]) if peer else None
    if address is None or not _is_in(address, trusted_proxies):
        return address or _NOWHERE
    hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    for hop in reversed(hops.decode("latin-1").split(",")):
        earlier = _parsed(hop.strip())
        if earlier is None:
            break
        address = earlier
        if not _is_in(address, trusted_proxies):
            break
    return address


def network_of(address: Address) -> Network:
    """Its /24, or its /56 in IPv6: about what one customer of a provider has."""
    return ip_network((address, _NETWORK_BITS[address.version]), strict=False)


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket that takes both kinds shows IPv4 as ::ffff:10.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
