"""Revoked access tokens: what auth says on `auth.users`, kept where every request can look at it."""

from datetime import datetime, timedelta
from uuid import UUID

from contracts.messages import UserDisabled, UserTokensRevoked
from psycopg import sql

from libs.messaging.rebuilds import Projection
from libs.postgres import Conn

# Every token issued before has expired by then.
KEPT = timedelta(days=1)


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


async def forget_old_revocations(conn: Conn) -> None:
    await conn.execute("DELETE FROM token_revocations WHERE not_before < now() - %(kept)s", {"kept": KEPT})


def revocations_projection(service: str) -> Projection:
    """How a service rebuilds its revocations; those that it would forget are left out."""
    live = sql.Identifier(service, "token_revocations")

    async def list_keys(conn: Conn, table: sql.Identifier) -> set[UUID]:
        query = sql.SQL("SELECT user_id FROM {} WHERE not_before >= now() - %(kept)s").format(table)
        return {row[0] for row in await (await conn.execute(query, {"kept": KEPT})).fetchall()}

    async def lock(conn: Conn, user_id: UUID) -> None:
        # A row that is not there yet is locked too: who inserts it meanwhile waits for this one.
        query = sql.SQL(
            """
            INSERT INTO {} AS live (user_id, not_before) VALUES (%(user_id)s, '-infinity')
            ON CONFLICT (user_id) DO UPDATE SET not_before = live.not_before
            """
        ).format(live)
        await conn.execute(query, {"user_id": user_id})

    async def replace(conn: Conn, user_id: UUID) -> bool:
        parameters = {"user_id": user_id}
        deleted = await conn.execute(
            sql.SQL(
                """
                DELETE FROM {} WHERE user_id = %(user_id)s
                   AND NOT EXISTS (SELECT FROM pg_temp.token_revocations WHERE user_id = %(user_id)s)
                """
            ).format(live),
            parameters,
        )
        saved = await conn.execute(
            sql.SQL(
                """
                INSERT INTO {} AS live (user_id, not_before)
                SELECT user_id, not_before FROM pg_temp.token_revocations WHERE user_id = %(user_id)s
                ON CONFLICT (user_id) DO UPDATE SET not_before = EXCLUDED.not_before
                 WHERE live.not_before <> EXCLUDED.not_before
                """
            ).format(live),
            parameters,
        )
        return deleted.rowcount + saved.rowcount > 0

    return Projection(
        service=service,
        name="revocations",
        topics=("auth.users",),
        tables=("token_revocations",),
        handlers={UserDisabled: on_user_disabled, UserTokensRevoked: on_user_tokens_revoked},
        copied_keys=lambda conn: list_keys(conn, sql.Identifier("pg_temp", "token_revocations")),
        live_keys=lambda conn: list_keys(conn, live),
        lock=lock,
        replace=replace,
    )
