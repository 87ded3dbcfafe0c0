"""Access tokens are verified locally, with the public keys of auth's JWKS.

The last good key set is kept while auth is away; a `kid` that is not in it is looked up again at most once
in a few seconds, and without any key set, at a start beside auth, a few times a second. Verified tokens are
remembered for a short while, since a signature check costs 0.15 ms.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import jwt
from jwt.types import Options
from msgspec import Struct

from libs.postgres import Pool
from libs.web.problems import TemporarilyUnavailable, Unauthenticated

log = logging.getLogger(__name__)

ISSUER = "ticketing-auth"
AUDIENCE = "ticketing"
TYPE = "at+jwt"
ALGORITHM = "EdDSA"
LEEWAY_SECONDS = 5
REMEMBER_SECONDS = 30.0
REMEMBER_TOKENS = 20_000
REFRESH_KEYS_SECONDS = 300.0
LOOK_AGAIN_SECONDS = 2.0
FIRST_LOOK_AGAIN_SECONDS = 0.2
REVOCATIONS_SECONDS = 1.0

_OPTIONS: Options = {"require": ["exp", "iat", "sub", "iss", "aud", "role"]}


class Caller(Struct, frozen=True):
    """Who sent the request: the token's subject, role (`user`, `admin`, `scanner`) and time of issue."""

    user_id: UUID
    role: str
    issued_at: float

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


class TokenVerifier:
    """Verifies access tokens; `refresh()` runs for the life of the process."""

    def __init__(self, *, jwks_url: str, pool: Pool) -> None:
        self._jwks_url = jwks_url
        self._pool = pool
        self._keys: dict[str, jwt.PyJWK] = {}
        self._looked_at = self._loaded_at = float("-inf")
        self._looking = asyncio.Lock()
        self._is_auth_away = False
        self._verified: dict[bytes, tuple[Caller, float]] = {}
        self._revoked: dict[UUID, float] | None = None

    def trust(self, keys: Iterable[jwt.PyJWK]) -> None:
        """Replaces the key set."""
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._loaded_at = max(self._looked_at, time.monotonic())
        self._is_auth_away = False

    async def verify(self, token: str) -> Caller:
        """Raises `Unauthenticated`, or `TemporarilyUnavailable` while it cannot be told."""
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._verified.get(digest)
        if remembered is not None and remembered[1] > time.time():
            caller = remembered[0]
        else:
            caller, expires_at = await self._decode(token)
            if len(self._verified) >= REMEMBER_TOKENS:
                self._verified.clear()
            self._verified[digest] = (caller, min(expires_at, time.time() + REMEMBER_SECONDS))
        if self._revoked is None:
            raise TemporarilyUnavailable("Access tokens cannot be checked yet. Try again.")
        if self._revoked.get(caller.user_id, 0.0) > caller.issued_at:
            raise Unauthenticated("This access token was revoked. Log in again.")
        return caller

    async def _decode(self, token: str) -> tuple[Caller, float]:
        try:
            header = jwt.get_unverified_header(token)
            if str(header.get("typ", "")).lower() != TYPE:
                raise Unauthenticated
            key = await self._key(str(header.get("kid", "")))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                # Neither the token nor the key set chooses it (RFC 8725, section 3.1).
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options=_OPTIONS,
            )
            caller = Caller(UUID(claims["sub"]), str(claims["role"]), float(claims["iat"]))
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The access token has expired. Refresh it or log in again.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Unauthenticated from None
        return caller, float(claims["exp"])

    async def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys:
            async with self._looking:
                if kid not in self._keys and self._may_look_again():
                    await self._load_keys()
        if kid in self._keys:
            return self._keys[kid]
        if not self._keys or self._loaded_at < self._looked_at:
            # Auth did not answer: the key may be a new one.
            raise TemporarilyUnavailable("Access tokens cannot be checked yet. Try again.")
        raise Unauthenticated

    def _may_look_again(self) -> bool:
        pause = LOOK_AGAIN_SECONDS if self._keys else FIRST_LOOK_AGAIN_SECONDS
        return time.monotonic() - self._looked_at > pause

    async def _load_keys(self) -> None:
        self._looked_at = time.monotonic()
        try:
            async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
                answer = await client.get(self._jwks_url)
                answer.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(answer.json()).keys
        except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
            # From its end on: who has waited for an answer that did not come does not begin another wait.
            self._looked_at = time.monotonic()
            if not self._is_auth_away:
                self._is_auth_away = True
                log.warning(
                    "the key set at %s is not to be had (%s): keeping the last one", self._jwks_url, error
                )
            return
        self.trust(keys)

    async def _load_revocations(self) -> None:
        # Older revocations concern tokens that have expired.
        async with self._pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT user_id, not_before FROM token_revocations"
                " WHERE not_before > now() - interval '1 hour'"
            )
            rows: list[tuple[UUID, datetime]] = await cursor.fetchall()  # pyright: ignore[reportAssignmentType]
        self._revoked = {user_id: not_before.timestamp() for user_id, not_before in rows}

    async def load_revocations(self) -> None:
        """Those of the last hour; the last known ones are kept while the database is away."""
        try:
            await self._load_revocations()
        except Exception as error:
            log.warning("revocations were not read: %s", error)

    async def refresh(self) -> None:
        """Keeps revocations and keys fresh, for ever."""
        while True:
            await self.load_revocations()
            is_stale = not self._keys or time.monotonic() - self._loaded_at > REFRESH_KEYS_SECONDS
            if is_stale and self._may_look_again():
                await self._load_keys()
            await asyncio.sleep(REVOCATIONS_SECONDS if self._keys else FIRST_LOOK_AGAIN_SECONDS)
