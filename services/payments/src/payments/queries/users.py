"""Statements on what auth says of users."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Conn


async def save_revocation(conn: Conn, user_id: UUID, *, not_before: datetime) -> None:
    await conn.execute(
        """
        INSERT INTO token_revocations AS known (user_id, not_before)
        VALUES (%(user_id)s, %(not_before)s)
        ON CONFLICT (user_id) DO UPDATE
           SET not_before = GREATEST(known.not_before, EXCLUDED.not_before)
        """,
        {"user_id": user_id, "not_before": not_before},
    )
