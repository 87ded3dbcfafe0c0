"""Revoked access tokens: what auth says on `auth.users`, kept where every request can look at it."""

from datetime import datetime
from uuid import UUID

from contracts.messages import UserDisabled, UserTokensRevoked

from libs.postgres import Conn


async def revoke_tokens(conn: Conn, user_id: UUID, *, not_before: datetime) -> None:
    """Refuses the user's tokens issued before a moment; an earlier moment changes nothing."""
    await conn.execute(
        """
        INSERT INTO token_revocations AS known (user_id, not_before)
        VALUES (%(user_id)s, %(not_before)s)
        ON CONFLICT (user_id) DO UPDATE SET not_before = greatest(known.not_before, EXCLUDED.not_before)
        """,
        {"user_id": user_id, "not_before": not_before},
    )


async def on_user_disabled(conn: Conn, user: UserDisabled) -> None:
    await revoke_tokens(conn, user.user_id, not_before=user.disabled_at)


async def on_user_tokens_revoked(conn: Conn, user: UserTokensRevoked) -> None:
    await revoke_tokens(conn, user.user_id, not_before=user.not_before)
