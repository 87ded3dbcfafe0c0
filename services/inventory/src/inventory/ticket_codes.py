"""The text in a ticket's QR code: `TKT1.<key id>.<ticket and event>.<signature>` (docs/tickets.md).

The third part is the ticket's and the event's id (16 bytes each), the last an Ed25519 signature (RFC 8032)
over everything before it; both base64url without padding. The key signs nothing else, and the text is no
access token in form, key or audience.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PREFIX = "TKT1"
MAX_LENGTH = 300


class TicketCode(NamedTuple):
    """What a code says. Whether the ticket was used or refunded since is for the check-in to tell."""

    ticket_id: UUID
    event_id: UUID
    key_id: str


class InvalidTicketCode(Exception):
    """Not a code of ours; the message says why."""


def sign_code(ticket_id: UUID, *, event_id: UUID, key_id: str, key: Ed25519PrivateKey) -> str:
    text = f"{PREFIX}.{key_id}.{_encode(ticket_id.bytes + event_id.bytes)}"
    return f"{text}.{_encode(key.sign(text.encode()))}"


def read_code(code: str, keys: Mapping[str, Ed25519PublicKey]) -> TicketCode:
    """Raises `InvalidTicketCode`."""
    parts = code.split(".")
    if len(parts) != 4 or parts[0] != PREFIX or not code.isascii():
        raise InvalidTicketCode("this is no ticket code")
    _, key_id, ids, signature = parts
    if key_id not in keys:
        raise InvalidTicketCode("signed with a key that is unknown or was withdrawn")
    try:
        keys[key_id].verify(_decode(signature), code.rpartition(".")[0].encode())
        raw = _decode(ids)
    except (InvalidSignature, binascii.Error, ValueError):
        raise InvalidTicketCode("the signature does not fit") from None
    if len(raw) != 32:
        raise InvalidTicketCode("this is no ticket code")
    return TicketCode(UUID(bytes=raw[:16]), UUID(bytes=raw[16:]), key_id)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    # The last character has bits to spare: only one spelling of each code is good.
    if _encode(data) != text:
        raise ValueError(text)
    return data
