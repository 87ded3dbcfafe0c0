"""Statements on the keys of ticket codes."""

from datetime import datetime

from libs.postgres import Conn
from msgspec import Struct
from psycopg.rows import class_row


class TicketKey(Struct, frozen=True):
    """`seed` is the private half: 32 bytes (RFC 8032)."""

    key_id: str
    seed: bytes
    active_from: datetime
    is_active: bool


async def lock_ticket_keys(conn: Conn) -> None:
    """Until the end of the transaction; a table that is empty has no row to lock."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('inventory.ticket_keys'))")


async def list_ticket_keys(conn: Conn) -> list[TicketKey]:
    """Those that verify, in the order in which they took over signing, the last first."""
    async with conn.cursor(row_factory=class_row(TicketKey)) as cursor:
        await cursor.execute(
            """
            SELECT key_id, seed, active_from, active_from <= now() AS is_active
              FROM ticket_keys
             WHERE withdrawn_at IS NULL
             ORDER BY active_from DESC, key_id
            """
        )
        return await cursor.fetchall()


async def insert_ticket_key(conn: Conn, key_id: str, *, seed: bytes, active_after_seconds: int) -> None:
    await conn.execute(
        """
        INSERT INTO ticket_keys (key_id, seed, active_from)
        VALUES (%s, %s, now() + make_interval(secs => %s))
        """,
        [key_id, seed, active_after_seconds],
    )


async def withdraw_ticket_key(conn: Conn, key_id: str) -> bool:
    cursor = await conn.execute(
        "UPDATE ticket_keys SET withdrawn_at = now() WHERE key_id = %s AND withdrawn_at IS NULL", [key_id]
    )
    return cursor.rowcount == 1
