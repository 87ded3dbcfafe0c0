"""What auth says of users."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Conn

from payments.queries import users


async def revoke_tokens(conn: Conn, user_id: UUID, *, not_before: datetime) -> None:
    await users.save_revocation(conn, user_id, not_before=not_before)
