"""Verifies ticket codes without the services, as a door without a network does.

python -m inventory.verify_ticket --keys FILE_OR_URL [--event ID] [CODE ...]

Keys are the published set, `/.well-known/ticket-keys.json`. Without a code, codes are read from standard
input, one in each line. Each gets a line of JSON; the exit status is 0 when all are good, 1 when one is not,
and 2 when the keys cannot be read. A good code says that we issued it, not that it was not used:
docs/tickets.md.
"""

import argparse
import base64
import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inventory.ticket_codes import InvalidTicketCode, read_code


def read_keys(where: str) -> dict[str, Ed25519PublicKey]:
    """Raises `OSError`, or `ValueError` when it is no JSON Web Key Set of Ed25519 keys."""
    if where.startswith(("http://", "https://")):
        with urllib.request.urlopen(where, timeout=10) as answer:  # noqa: S310  # looked at above
            text = answer.read()
    else:
        text = Path(where).read_bytes()
    try:
        return {key["kid"]: _public_key(key) for key in json.loads(text)["keys"] if key["crv"] == "Ed25519"}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no key set: {error!r}") from None


def _public_key(jwk: Mapping[str, str]) -> Ed25519PublicKey:
    x = jwk["x"]
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))


def verify(code: str, keys: Mapping[str, Ed25519PublicKey], *, event_id: UUID | None) -> dict[str, Any]:
    try:
        read = read_code(code, keys)
    except InvalidTicketCode as error:
        return {"valid": False, "reason": str(error)}
    if event_id not in (None, read.event_id):
        return {"valid": False, "reason": f"for another event: {read.event_id}"}
    ids = {"ticketId": str(read.ticket_id), "eventId": str(read.event_id), "keyId": read.key_id}
    return {"valid": True, **ids}


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m inventory.verify_ticket", description="Verifies ticket codes."
    )
    parser.add_argument("--keys", required=True, metavar="FILE_OR_URL", help="the published key set")
    parser.add_argument("--event", type=UUID, metavar="ID", help="refuse codes of other events")
    parser.add_argument("code", nargs="*", metavar="CODE", help="from standard input when there is none")
    arguments = parser.parse_args()
    try:
        keys = read_keys(arguments.keys)
    except (OSError, ValueError) as error:
        print(f"verify_ticket: {arguments.keys}: {error}", file=sys.stderr)
        sys.exit(2)
    is_good = True
    for code in arguments.code or filter(None, map(str.strip, sys.stdin)):
        verdict = verify(code, keys, event_id=arguments.event)
        print(json.dumps(verdict), flush=True)
        is_good = is_good and verdict["valid"]
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    _main()
