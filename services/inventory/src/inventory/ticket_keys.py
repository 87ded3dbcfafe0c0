"""The keys that sign ticket codes: made, published, rotated, withdrawn.

python -m inventory.ticket_keys list
python -m inventory.ticket_keys rotate [--after SECONDS]
python -m inventory.ticket_keys withdraw KEY

A new key is published at once and signs a day later, when every door has fetched it. The keys before it go on
verifying what they signed, until they are withdrawn. Reads `INVENTORY_DATABASE_URL`.
"""

import argparse
import asyncio
import base64
import logging
import secrets
import sys
from uuid import UUID

import msgspec
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libs.postgres import Conn, Pool, transaction
from libs.web.etags import etag_of
from libs.web.problems import TemporarilyUnavailable

from inventory.queries import ticket_keys as queries
from inventory.settings import settings_of
from inventory.ticket_codes import TicketCode, read_code, sign_code

log = logging.getLogger(__name__)

RELOAD_SECONDS = 30.0
PUBLISH_AHEAD_SECONDS = 86_400


class TicketKeys:
    """The keys in the memory of this process; `keep_fresh()` runs for its whole life."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._keys: dict[str, Ed25519PrivateKey] = {}
        self._signing_key_id: str | None = None
        self.jwks = b'{"keys":[]}'
        self.jwks_etag = etag_of(self.jwks)

    def sign(self, ticket_id: UUID, *, event_id: UUID) -> str:
        """Raises `TemporarilyUnavailable` until the keys have been read."""
        key_id = self._signing_key_id
        if key_id is None:
            raise TemporarilyUnavailable("The service is starting. Try again.")
        return sign_code(ticket_id, event_id=event_id, key_id=key_id, key=self._keys[key_id])

    def read(self, code: str) -> TicketCode:
        """Raises `InvalidTicketCode`, or `TemporarilyUnavailable` until the keys have been read."""
        if not self._keys:
            raise TemporarilyUnavailable("The service is starting. Try again.")
        return read_code(code, {key_id: key.public_key() for key_id, key in self._keys.items()})

    async def load(self) -> None:
        """Reads the keys; makes the first one when there is none."""
        async with self._pool.connection() as conn:
            rows = await queries.list_ticket_keys(conn)
        if not rows:
            async with transaction(self._pool) as conn:
                await queries.lock_ticket_keys(conn)
                rows = await queries.list_ticket_keys(conn)
                if not rows:
                    await add_ticket_key(conn, active_after_seconds=0)
                    rows = await queries.list_ticket_keys(conn)
        self._keys = {row.key_id: Ed25519PrivateKey.from_private_bytes(row.seed) for row in rows}
        self._signing_key_id = signing_key_id(rows)
        self.jwks = msgspec.json.encode({"keys": [_jwk(*each) for each in self._keys.items()]})
        self.jwks_etag = etag_of(self.jwks)

    async def keep_fresh(self) -> None:
        """Reads the keys again and again, for ever; the last ones are kept while the database is away."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS if self._keys else 0.5)
            await self.try_load()

    async def try_load(self) -> None:
        try:
            await self.load()
        except Exception as error:
            log.warning("the ticket keys were not read: %r", error)


def signing_key_id(rows: list[queries.TicketKey]) -> str | None:
    return next((row.key_id for row in rows if row.is_active), None)


async def add_ticket_key(conn: Conn, *, active_after_seconds: int) -> str:
    """Returns the new key's id."""
    key_id = secrets.token_hex(4)
    seed = secrets.token_bytes(32)
    await queries.insert_ticket_key(conn, key_id, seed=seed, active_after_seconds=active_after_seconds)
    return key_id


def _jwk(key_id: str, key: Ed25519PrivateKey) -> dict[str, str]:
    """The public half (RFC 8037)."""
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key_id, "x": x}


async def _list(conn: Conn) -> None:
    rows = await queries.list_ticket_keys(conn)
    signing = signing_key_id(rows)
    for row in rows:
        state = "signs" if row.key_id == signing else "verifies" if row.is_active else "waits"
        print(f"{row.key_id}  {state}, active from {row.active_from:%Y-%m-%d %H:%M:%S}")


async def _rotate(conn: Conn, *, after_seconds: int) -> None:
    key_id = await add_ticket_key(conn, active_after_seconds=after_seconds)
    print(f"{key_id} is published and signs in {after_seconds} s")


async def _withdraw(conn: Conn, key_id: str) -> None:
    rows = await queries.list_ticket_keys(conn)
    if key_id == signing_key_id(rows):
        sys.exit(f"ticket keys: {key_id} signs: rotate first, and wait until the new key does")
    if not await queries.withdraw_ticket_key(conn, key_id):
        sys.exit(f"ticket keys: there is no key {key_id}")
    print(f"{key_id} is withdrawn: codes that it signed are refused from {RELOAD_SECONDS:.0f} s on")


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m inventory.ticket_keys", description="Keys that sign ticket codes."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the keys that verify, newest first")
    rotate = commands.add_parser("rotate", help="publish a new key, which takes over after a while")
    rotate.add_argument("--after", type=int, default=PUBLISH_AHEAD_SECONDS, metavar="SECONDS")
    withdraw = commands.add_parser("withdraw", help="refuse what a key signed: it is known to somebody")
    withdraw.add_argument("key", metavar="KEY")
    arguments = parser.parse_args()
    try:
        asyncio.run(_run(arguments))
    except psycopg.OperationalError as error:
        sys.exit(f"ticket keys: the database does not answer: {error}")


async def _run(arguments: argparse.Namespace) -> None:
    async with await psycopg.AsyncConnection.connect(settings_of("app").database_url) as conn:
        await queries.lock_ticket_keys(conn)
        match arguments.command:
            case "list":
                await _list(conn)
            case "rotate":
                await _rotate(conn, after_seconds=max(arguments.after, 0))
            case _:
                await _withdraw(conn, arguments.key)


if __name__ == "__main__":
    _main()
