"""Revoked access tokens, as auth tells of them."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Conn


async def revoke_tokens(conn: Conn, user_id: UUID, *, not_before: datetime) -> None:
    # Messages may come twice or late: the latest moment wins.
    await conn.execute(
        """
        INSERT INTO token_revocations (user_id, not_before)
        VALUES (%(user_id)s, %(not_before)s)
        ON CONFLICT (user_id) DO UPDATE
           SET not_before = GREATEST(token_revocations.not_before, EXCLUDED.not_before)
        """,
        {"user_id": user_id, "not_before": not_before},
    )


async def delete_old_revocations(conn: Conn) -> None:
    # Whatever they revoked has expired long since.
    await conn.execute("DELETE FROM token_revocations WHERE not_before < now() - interval '1 day'")
