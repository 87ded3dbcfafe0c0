"""Plain-SQL migrations, forward only, one schema and three roles for each service.

    python -m libs.migrations services/auth/migrations services/catalog/migrations

reads `ADMIN_DATABASE_URL` and, of each service named by the folder above `migrations`,
`<SERVICE>_DATABASE_URL` and `<SERVICE>_WORKER_DATABASE_URL`, whose users get the passwords given there.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

SHARED = Path(__file__).parent

# A statement that hangs must not hold locks or the cleaning of dead rows for long.
_ROLE_SETTINGS = {
    "app": {"statement_timeout": "10s", "lock_timeout": "3s"},
    "worker": {"statement_timeout": "60s", "lock_timeout": "5s"},
}
_SETTINGS = {
    "idle_in_transaction_session_timeout": "15s",
    "transaction_timeout": "90s",
    "timezone": "UTC",
}


class Service(NamedTuple):
    name: str
    migrations: Path
    app_url: str
    worker_url: str


class MigrationChanged(Exception):
    """An applied migration file is not what it was: write a new file instead of changing an old one."""


def migrate(admin_url: str, services: list[Service]) -> list[str]:
    """Applies what is missing, each file in its own transaction, and returns the names applied.

    Safe to run at the same time from several places: they wait for each other.
    """
    applied: list[str] = []
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(hashtext('migrations'))")
        for service in services:
            with conn.transaction():
                _ensure_roles(conn, service)
            for name, text in _migration_files(service):
                with conn.transaction():
                    if _apply(conn, service.name, name, text):
                        applied.append(f"{service.name}/{name}")
    return applied


def services_from_environment(folders: list[Path]) -> list[Service]:
    return [
        Service(
            name=(name := folder.resolve().parent.name),
            migrations=folder,
            app_url=os.environ[f"{name.upper()}_DATABASE_URL"],
            worker_url=os.environ[f"{name.upper()}_WORKER_DATABASE_URL"],
        )
        for folder in folders
    ]


def _migration_files(service: Service) -> Iterator[tuple[str, str]]:
    for prefix, folder in (("libs/", SHARED), ("", service.migrations)):
        for path in sorted(folder.glob("*.sql")):
            yield prefix + path.name, path.read_text()


def _ensure_roles(conn: psycopg.Connection[Any], service: Service) -> None:
    owner = sql.Identifier(f"{service.name}_owner")
    schema = sql.Identifier(service.name)
    database = sql.Identifier(conn.info.dbname)
    # Roles belong to the whole server, which several databases may share at this moment.
    conn.execute("SELECT pg_advisory_xact_lock(hashtext('roles'))")
    _create_role(conn, f"{service.name}_owner")
    for kind, url in (("app", service.app_url), ("worker", service.worker_url)):
        login = sql.Identifier(f"{service.name}_{kind}")
        parameters = conninfo_to_dict(url)
        if parameters.get("user") != f"{service.name}_{kind}":
            raise ValueError(f"the {kind} URL of {service.name} must name the user {service.name}_{kind}")
        _create_role(conn, f"{service.name}_{kind}")
        conn.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(login, sql.Literal(parameters.get("password")))
        )
        conn.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, login))
        for name, value in {
            **_ROLE_SETTINGS[kind],
            **_SETTINGS,
            "search_path": service.name,
        }.items():
            conn.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                    login, database, sql.Identifier(name), sql.Literal(value)
                )
            )
    conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(schema, owner))
    for kind in ("app", "worker"):
        login = sql.Identifier(f"{service.name}_{kind}")
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, login))
    # What PostgreSQL gives to everybody: to connect, temporary tables, calling each other's functions.
    conn.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    # A rebuild makes the copy of a projection in them.
    worker = sql.Identifier(f"{service.name}_worker")
    conn.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(database, worker))
    conn.execute(sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
    conn.execute(
        sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC").format(owner)
    )
    conn.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.schema_migrations ("
            "name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(schema)
    )


def _create_role(conn: psycopg.Connection[Any], name: str) -> None:
    if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone():
        return
    try:
        with conn.transaction():
            conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(name)))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        pass  # another database of the same server was quicker


def _apply(conn: psycopg.Connection[Any], service: str, name: str, text: str) -> bool:
    checksum = hashlib.sha256(text.encode()).hexdigest()
    table = sql.Identifier(service, "schema_migrations")
    found = conn.execute(sql.SQL("SELECT checksum FROM {} WHERE name = %s").format(table), [name]).fetchone()
    if found:
        if found[0] != checksum:
            raise MigrationChanged(f"{service}/{name} was applied in another version")
        return False
    conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(f"{service}_owner")))
    conn.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(service)))
    conn.execute(sql.SQL(text))  # pyright: ignore[reportArgumentType]  # a file of ours, not input
    conn.execute("RESET ROLE")
    conn.execute(sql.SQL("INSERT INTO {} (name, checksum) VALUES (%s, %s)").format(table), [name, checksum])
    return True
