"""The text in a ticket's QR code: `TKT1.<key id>.<ticket and event>.<signature>`.

The third part is the ticket's and the event's id (16 bytes each), the last an Ed25519 signature (RFC 8032)
over everything before it; both base64url without padding. The key signs nothing else, and the text is no
access token in form, key or audience.
"""

import base64
import binascii
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "TKT1"
MAX_LENGTH = 300


class InvalidTicketCode(Exception):
    """Not one of our codes, or its signature is not ours."""


class TicketCodes:
    """Signs with the newest key and verifies with all. `keys`: (key id, 32-byte seed), newest first."""

    def __init__(self, keys: list[tuple[str, bytes]]) -> None:
        self._keys = {key_id: Ed25519PrivateKey.from_private_bytes(seed) for key_id, seed in keys}
        self._signing_key_id = keys[0][0]

    def sign(self, ticket_id: UUID, *, event_id: UUID) -> str:
        text = f"{PREFIX}.{self._signing_key_id}.{_encode(ticket_id.bytes + event_id.bytes)}"
        return f"{text}.{_encode(self._keys[self._signing_key_id].sign(text.encode()))}"

    def verify(self, code: str) -> tuple[UUID, UUID]:
        """(ticket id, event id). Raises `InvalidTicketCode`."""
        text, _, signature = code.rpartition(".")
        prefix, _, rest = text.partition(".")
        key_id, _, ids = rest.partition(".")
        key = self._keys.get(key_id)
        if prefix != PREFIX or key is None or not code.isascii():
            raise InvalidTicketCode
        try:
            key.public_key().verify(_decode(signature), text.encode())
            raw = _decode(ids)
        except (InvalidSignature, binascii.Error, ValueError):
            raise InvalidTicketCode from None
        if len(raw) != 32:
            raise InvalidTicketCode
        return UUID(bytes=raw[:16]), UUID(bytes=raw[16:])


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
