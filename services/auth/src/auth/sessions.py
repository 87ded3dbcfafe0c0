"""Sessions: an access token of some minutes and a refresh token, which is used once and begets the next."""

import hashlib
import logging
import secrets
from typing import Annotated
from uuid import UUID

from libs.ids import new_id
from libs.postgres import Conn, Pool, transaction
from libs.web.fields import EmailAddress
from msgspec import Meta, Struct

from auth import queries
from auth.errors import InvalidRefreshToken
from auth.keys import KeyRing
from auth.models import Role, User
from auth.settings import Settings

log = logging.getLogger(__name__)


class Account(Struct, frozen=True):
    """What of a user may leave the service."""

    id: UUID
    email: EmailAddress
    name: Annotated[str, Meta(examples=["Ada Lovelace"])]
    role: Role


class Session(Struct, frozen=True, rename="camel"):
    """`expiresIn` is the access token's life in seconds."""

    token: Annotated[str, Meta(description="The access token", examples=["eyJhbGciOiJFZERTQSJ9.e30.c2ln"])]
    refresh_token: Annotated[str, Meta(examples=["x4m1c0Jv4y0nF6bVdQdmDqQ3X9yqTg7F"])]
    expires_in: Annotated[int, Meta(examples=[600])]
    user: Account


class Sessions:
    """Opens, renews and ends sessions."""

    def __init__(self, *, keys: KeyRing, settings: Settings) -> None:
        self._keys = keys
        self._settings = settings

    async def open(self, conn: Conn, user: User, *, family_id: UUID | None = None) -> Session:
        """`conn` holds the lock of the user's row, so that a revocation comes before or after."""
        refresh_token = secrets.token_urlsafe(32)
        issued_at = await queries.insert_refresh_token(
            conn,
            digest=_digest(refresh_token),
            family_id=family_id or new_id(),
            user_id=user.id,
            valid_seconds=self._settings.refresh_token_seconds,
        )
        return Session(
            token=self._keys.sign_access_token(user, issued_at=issued_at),
            refresh_token=refresh_token,
            expires_in=self._settings.access_token_seconds,
            user=account_of(user),
        )

    async def renew(self, pool: Pool, refresh_token: str) -> Session:
        """A new pair for a refresh token, which is used up: used again, it revokes its whole family.

        Raises `InvalidRefreshToken`.
        """
        digest = _digest(refresh_token)
        async with transaction(pool) as conn:
            user_id = await queries.find_refresh_token_owner(conn, digest)
            user = await queries.lock_user(conn, user_id) if user_id else None
            family_id = await queries.use_refresh_token(conn, digest) if user else None
            if user and family_id and user.disabled_at is None:
                return await self.open(conn, user, family_id=family_id)
            # One of the two that have it is a thief (RFC 9700, section 4.14.2).
            revoked = await queries.revoke_family(conn, digest, only_if_rotated=True) if user else 0
        if revoked:
            log.warning("a used refresh token of user %s came again: its family is revoked", user_id)
        raise InvalidRefreshToken

    async def end(self, pool: Pool, refresh_token: str) -> None:
        """Revokes the token's family; does nothing when there is none."""
        digest = _digest(refresh_token)
        async with transaction(pool) as conn:
            user_id = await queries.find_refresh_token_owner(conn, digest)
            if user_id and await queries.lock_user(conn, user_id):
                await queries.revoke_family(conn, digest, only_if_rotated=False)


def account_of(user: User) -> Account:
    return Account(id=user.id, email=user.email, name=user.name, role=Role(user.role))


def _digest(refresh_token: str) -> bytes:
    # The token is random enough for a plain hash.
    return hashlib.sha256(refresh_token.encode()).digest()
