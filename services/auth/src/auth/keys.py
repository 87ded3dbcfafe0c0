"""The keys that sign access tokens: made, published, rotated.

python -m auth.keys list
python -m auth.keys rotate [--after SECONDS]

A new key is published at once and signs after the verifiers' caches have it; its predecessor stays published
until the last token that it signed has expired. Reads `AUTH_DATABASE_URL`.
"""

import argparse
import asyncio
import logging
import secrets
import sys
from datetime import datetime
from typing import Any

import jwt
import msgspec
import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from libs.ids import new_id
from libs.postgres import Conn, Pool, transaction
from libs.web.etags import etag_of
from libs.web.problems import TemporarilyUnavailable
from libs.web.tokens import ALGORITHM, AUDIENCE, ISSUER, TYPE, TokenVerifier

from auth import queries
from auth.models import Role, SigningKeyRow, User
from auth.settings import Settings, settings_of

log = logging.getLogger(__name__)

RELOAD_SECONDS = 5.0
# All replicas have published a new key by then, and none has signed with it.
LEAST_AHEAD_SECONDS = 10
# Verifiers read the key set anew every 300 s, and a cache before it may be as old again.
PUBLISH_AHEAD_SECONDS = 600


class SigningKey:
    """A key pair, ready for use."""

    def __init__(self, row: SigningKeyRow) -> None:
        private = serialization.load_pem_private_key(row.private_pem.encode(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise TypeError(f"signing key {row.kid} is not Ed25519")
        self.kid = row.kid
        self.is_active = row.is_active
        self.private = private

    def public_jwk(self) -> dict[str, Any]:
        """RFC 8037."""
        key: dict[str, Any] = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**key, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}


class KeyRing:
    """The keys in the memory of this process, newest first; `keep_fresh()` runs for its whole life."""

    def __init__(self, *, pool: Pool, verifier: TokenVerifier, settings: Settings) -> None:
        self._pool = pool
        self._verifier = verifier
        self._settings = settings
        self._keys: list[SigningKey] = []
        self.jwks = b'{"keys":[]}'
        self.jwks_etag = etag_of(self.jwks)

    async def load(self) -> None:
        """Reads the keys; makes the first one when there is none."""
        async with self._pool.connection() as conn:
            rows = await queries.list_signing_keys(conn)
        if not rows:
            async with transaction(self._pool) as conn:
                rows = await ensure_signing_key(conn, keep_seconds=keep_seconds(self._settings))
        self._keys = [SigningKey(row) for row in rows]
        public = [key.public_jwk() for key in self._keys]
        self.jwks = msgspec.json.encode({"keys": public})
        self.jwks_etag = etag_of(self.jwks)
        self._verifier.trust([jwt.PyJWK(key) for key in public])

    async def keep_fresh(self) -> None:
        """Reads the keys again and again, for ever; the last ones are kept while the database is away."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS if self._keys else 0.5)
            await self.try_load()

    async def try_load(self) -> None:
        try:
            await self.load()
        except Exception as error:
            log.warning("the signing keys were not read: %r", error)

    def sign_access_token(self, user: User, *, issued_at: datetime) -> str:
        """Raises `TemporarilyUnavailable` until the keys have been read."""
        key = next((key for key in self._keys if key.is_active), None)
        if key is None:
            raise TemporarilyUnavailable("The service is starting. Try again.")
        # Fractions of a second (RFC 7519, section 2): a token issued right after a revocation must be good.
        iat = issued_at.timestamp()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user.id),
            "role": Role(user.role).value,
            "iat": iat,
            "exp": int(iat) + self._settings.access_token_seconds,
            "jti": str(new_id()),
        }
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid, "typ": TYPE})


def keep_seconds(settings: Settings) -> int:
    """How long a key stays published after its successor has become active."""
    # Its last token may be signed a moment later, by a process that has not read the keys anew.
    return settings.access_token_seconds + 60


async def ensure_signing_key(conn: Conn, *, keep_seconds: int) -> list[SigningKeyRow]:
    """The published keys, one of them made here when there was none. Replicas wait for each other."""
    await queries.lock_signing_keys(conn)
    rows = await queries.list_signing_keys(conn)
    if not rows:
        await add_signing_key(conn, active_after_seconds=0, keep_seconds=keep_seconds)
        rows = await queries.list_signing_keys(conn)
    return rows


async def add_signing_key(conn: Conn, *, active_after_seconds: int, keep_seconds: int) -> str:
    """Returns the new key's `kid`."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    kid = secrets.token_urlsafe(12)
    await queries.insert_signing_key(
        conn,
        kid=kid,
        private_pem=pem.decode(),
        active_after_seconds=active_after_seconds,
        keep_seconds=keep_seconds,
    )
    return kid


async def _rotate(settings: Settings, *, after_seconds: int) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url) as conn:
        await queries.lock_signing_keys(conn)
        kid = await add_signing_key(
            conn, active_after_seconds=after_seconds, keep_seconds=keep_seconds(settings)
        )
    print(f"{kid} is published and signs in {after_seconds} s")


async def _list(settings: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url) as conn:
        rows = await queries.list_signing_keys(conn)
    signing = next((row.kid for row in rows if row.is_active), None)
    for row in rows:
        state = "signs" if row.kid == signing else "published" if row.is_active else "waits"
        until = f", until {row.retire_at:%Y-%m-%d %H:%M:%S}" if row.retire_at else ""
        print(f"{row.kid}  {state}, active from {row.active_from:%Y-%m-%d %H:%M:%S}{until}")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m auth.keys", description="Keys that sign access tokens.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the published keys, newest first")
    rotate = commands.add_parser("rotate", help="publish a new key, which takes over after a while")
    rotate.add_argument("--after", type=int, default=PUBLISH_AHEAD_SECONDS, metavar="SECONDS")
    arguments = parser.parse_args()
    if arguments.command == "rotate" and arguments.after < LEAST_AHEAD_SECONDS:
        parser.error(
            f"--after {arguments.after}: services would meet tokens of a key that they cannot know yet"
            f" (at least {LEAST_AHEAD_SECONDS})"
        )
    settings = settings_of("app")
    try:
        if arguments.command == "list":
            asyncio.run(_list(settings))
        else:
            asyncio.run(_rotate(settings, after_seconds=arguments.after))
    except psycopg.OperationalError as error:
        sys.exit(f"keys: the database does not answer: {error}")


if __name__ == "__main__":
    _main()
