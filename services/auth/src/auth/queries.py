"""Every SQL statement of the service."""

from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from uuid import UUID

from libs.postgres import Conn
from psycopg.rows import class_row, scalar_row

from auth.models import Role, SigningKeyRow, User


async def insert_user(
    conn: Conn, *, user_id: UUID, email: str, email_key: str, name: str, role: Role, password_phc: str
) -> datetime | None:
    """When it was made; None when the e-mail address is taken."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO users (id, email, email_key, name, role, password_phc)
            VALUES (%(user_id)s, %(email)s, %(email_key)s, %(name)s, %(role)s, %(password_phc)s)
            ON CONFLICT (email_key) DO NOTHING
            RETURNING created_at
            """,
            {
                "user_id": user_id,
                "email": email,
                "email_key": email_key,
                "name": name,
                "role": role,
                "password_phc": password_phc,
            },
        )
        return await cursor.fetchone()


async def find_user_by_email(conn: Conn, email_key: str) -> User | None:
    async with conn.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(
            """
            SELECT id, email, name, role, password_phc, disabled_at
              FROM users
             WHERE email_key = %(email_key)s
            """,
            {"email_key": email_key},
        )
        return await cursor.fetchone()


async def is_known_network(conn: Conn, email_key: str, network: IPv4Network | IPv6Network) -> bool:
    """Whether the account's owner has logged in from there; false without such an account."""
    cursor = await conn.execute(
        """
        SELECT
          FROM known_networks known
          JOIN users ON users.id = known.user_id
         WHERE users.email_key = %(email_key)s
           AND known.network = %(network)s
        """,
        {"email_key": email_key, "network": network},
    )
    return cursor.rowcount == 1


async def remember_network(conn: Conn, user_id: UUID, network: IPv4Network | IPv6Network) -> None:
    await conn.execute(
        """
        INSERT INTO known_networks AS known (user_id, network)
        VALUES (%(user_id)s, %(network)s)
        ON CONFLICT (user_id, network) DO UPDATE
           SET seen_at = now()
         WHERE known.seen_at < now() - interval '1 day'
        """,
        {"user_id": user_id, "network": network},
    )


async def forget_old_networks(conn: Conn) -> None:
    await conn.execute("DELETE FROM known_networks WHERE seen_at < now() - interval '180 days'")


async def find_user_by_token(conn: Conn, user_id: UUID, *, issued_at: float) -> User | None:
    """The owner of an access token of that time; None when it was revoked or the user is disabled."""
    async with conn.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(
            """
            SELECT id, email, name, role, password_phc, disabled_at
              FROM users
             WHERE id = %(user_id)s
               AND disabled_at IS NULL
               AND NOT EXISTS (
                       SELECT FROM token_revocations
                        WHERE user_id = %(user_id)s
                          AND not_before > to_timestamp(%(issued_at)s)
                   )
            """,
            {"user_id": user_id, "issued_at": issued_at},
        )
        return await cursor.fetchone()


async def lock_user(conn: Conn, user_id: UUID) -> User | None:
    # One lock for all that concerns a user's tokens: whoever issues one while another revokes them all
    # would otherwise leave one alive.
    async with conn.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(
            """
            SELECT id, email, name, role, password_phc, disabled_at
              FROM users
             WHERE id = %(user_id)s
               FOR NO KEY UPDATE
            """,
            {"user_id": user_id},
        )
        return await cursor.fetchone()


async def update_password(conn: Conn, user_id: UUID, *, old_phc: str, new_phc: str) -> bool:
    """False when the user is disabled or somebody else has changed the password since it was verified."""
    cursor = await conn.execute(
        """
        UPDATE users
           SET password_phc = %(new_phc)s, updated_at = now()
         WHERE id = %(user_id)s
           AND password_phc = %(old_phc)s
           AND disabled_at IS NULL
        """,
        {"user_id": user_id, "old_phc": old_phc, "new_phc": new_phc},
    )
    return cursor.rowcount == 1


async def update_role_and_state(conn: Conn, user_id: UUID, *, role: Role, disabled: bool) -> datetime | None:
    """Since when the user is disabled: from now on, unless it was before."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            UPDATE users
               SET role = %(role)s,
                   disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, clock_timestamp()) END,
                   updated_at = now()
             WHERE id = %(user_id)s
            RETURNING disabled_at
            """,
            {"user_id": user_id, "role": role, "disabled": disabled},
        )
        return await cursor.fetchone()


async def revoke_access_tokens(conn: Conn, user_id: UUID) -> datetime:
    """The moment before which the user's access tokens were issued that are refused from now on."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO token_revocations (user_id, not_before)
            VALUES (%(user_id)s, clock_timestamp())
            ON CONFLICT (user_id) DO UPDATE
               SET not_before = GREATEST(token_revocations.not_before, EXCLUDED.not_before)
            RETURNING not_before
            """,
            {"user_id": user_id},
        )
        not_before: datetime | None = await cursor.fetchone()
    assert not_before is not None  # noqa: S101 - an upsert always returns its row
    return not_before


async def revoke_refresh_tokens(conn: Conn, user_id: UUID) -> None:
    await conn.execute(
        """
        UPDATE refresh_tokens
           SET revoked_at = now()
         WHERE user_id = %(user_id)s
           AND revoked_at IS NULL
        """,
        {"user_id": user_id},
    )


async def insert_refresh_token(
    conn: Conn, *, digest: bytes, family_id: UUID, user_id: UUID, valid_seconds: int
) -> datetime:
    """When it was issued, by the clock that revocations go by."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO refresh_tokens (digest, family_id, user_id, expires_at)
            VALUES (%(digest)s, %(family_id)s, %(user_id)s,
                    clock_timestamp() + make_interval(secs => %(valid_seconds)s))
            RETURNING issued_at
            """,
            {"digest": digest, "family_id": family_id, "user_id": user_id, "valid_seconds": valid_seconds},
        )
        issued_at: datetime | None = await cursor.fetchone()
    assert issued_at is not None  # noqa: S101 - an insert always returns its row
    return issued_at


async def find_refresh_token_owner(conn: Conn, digest: bytes) -> UUID | None:
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT user_id FROM refresh_tokens WHERE digest = %(digest)s", {"digest": digest}
        )
        return await cursor.fetchone()


async def use_refresh_token(conn: Conn, digest: bytes) -> UUID | None:
    """Its family; None when it cannot be used (any more)."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            UPDATE refresh_tokens
               SET rotated_at = now()
             WHERE digest = %(digest)s
               AND rotated_at IS NULL
               AND revoked_at IS NULL
               AND expires_at > now()
            RETURNING family_id
            """,
            {"digest": digest},
        )
        return await cursor.fetchone()


async def revoke_family(conn: Conn, digest: bytes, *, only_if_rotated: bool) -> int:
    """Revokes all tokens of a token's family; returns how many were not revoked before."""
    cursor = await conn.execute(
        """
        UPDATE refresh_tokens
           SET revoked_at = now()
         WHERE revoked_at IS NULL
           AND family_id = (
                   SELECT family_id
                     FROM refresh_tokens
                    WHERE digest = %(digest)s
                      AND (rotated_at IS NOT NULL OR NOT %(only_if_rotated)s)
               )
        """,
        {"digest": digest, "only_if_rotated": only_if_rotated},
    )
    return cursor.rowcount


async def delete_expired_refresh_tokens(conn: Conn) -> None:
    await conn.execute("DELETE FROM refresh_tokens WHERE expires_at < now() - interval '1 day'")


async def lock_signing_keys(conn: Conn) -> None:
    """Until the end of the transaction; a table that is empty has no row to lock."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('auth.signing_keys'))")


async def list_signing_keys(conn: Conn) -> list[SigningKeyRow]:
    """Those that are published, newest first."""
    async with conn.cursor(row_factory=class_row(SigningKeyRow)) as cursor:
        await cursor.execute(
            """
            SELECT kid, private_pem, created_at, active_from, retire_at, active_from <= now() AS is_active
              FROM signing_keys
             WHERE retire_at IS NULL
                OR retire_at > now()
             ORDER BY created_at DESC, kid
            """
        )
        return await cursor.fetchall()


async def insert_signing_key(
    conn: Conn, *, kid: str, private_pem: str, active_after_seconds: int, keep_seconds: int
) -> None:
    """Keys before it stay published until `keep_seconds` after this one has become active."""
    parameters = {
        "kid": kid,
        "private_pem": private_pem,
        "active_after_seconds": active_after_seconds,
        "keep_seconds": active_after_seconds + keep_seconds,
    }
    await conn.execute(
        """
        UPDATE signing_keys
           SET retire_at = GREATEST(now(), active_from) + make_interval(secs => %(keep_seconds)s)
         WHERE retire_at IS NULL
        """,
        parameters,
    )
    await conn.execute(
        """
        INSERT INTO signing_keys (kid, private_pem, active_from)
        VALUES (%(kid)s, %(private_pem)s, now() + make_interval(secs => %(active_after_seconds)s))
        """,
        parameters,
    )
