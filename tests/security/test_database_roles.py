"""What each role of each service may do in PostgreSQL, tried. That it suffices is for the other tests."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from litestar import Litestar
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege

SERVICES = ("auth", "catalog", "inventory", "payments")
ROLES = [(service, process) for service in SERVICES for process in ("app", "worker")]

Connection = psycopg.Connection[tuple[Any, ...]]

# S: select, I: insert, U: update, D: delete; with columns where only those are granted.
SHARED = {
    "app": {
        "outbox": "I",
        "token_revocations": "S",
        "idempotency_keys": "S I U D",
    },
    "worker": {
        "outbox": "S I D",
        "inbox": "S I D",
        "token_revocations": "S I U D",
        "idempotency_keys": "S D",
    },
}
OWN: dict[tuple[str, str], dict[str, str]] = {
    ("auth", "app"): {
        "users": "S I U(disabled_at,password_phc,role,updated_at)",
        "refresh_tokens": "S I U(revoked_at,rotated_at)",
        "signing_keys": "S I U(retire_at)",
        "known_networks": "S I U(seen_at)",
        "token_revocations": "S I U",
    },
    ("auth", "worker"): {
        "refresh_tokens": "S(expires_at) D",
        "known_networks": "S(seen_at) D",
    },
    ("catalog", "app"): {
        "organizers": "S I",
        "venues": "S I U(seats_version,updated_at)",
        "venue_seats": "S I",
        "venue_seat_calls": "S I",
        "events": "S I U",
        "price_tiers": "S I D",
        "tier_sections": "S I",
    },
    ("catalog", "worker"): {},
    ("inventory", "app"): {
        "events": "S",
        "section_prices": "S",
        "event_seats": "S U(hold_id)",
        "holds": "S I U",
        "tickets": "S U(check_in_id,checked_in_at,status)",
        "ticket_keys": "S I U(withdrawn_at)",
    },
    ("inventory", "worker"): {
        "events": "S I U D",
        "holds": "S I U",
        "tickets": "S I U",
        "sales": "S I U",
        "section_prices": "S I U D",
        "seat_map_parts": "S I U D",
        "event_seats": "S I U D",
    },
    ("payments", "app"): {
        "holds": "S U(order_id)",
        "orders": "S I U",
        "payments": "S",
        "refunds": "S",
        "stripe_events": "I",
        "stripe_jobs": "S I U D",
    },
    ("payments", "worker"): {
        "holds": "S I U D",
        "orders": "S U",
        "payments": "S I U",
        "refunds": "S I U",
        "stripe_jobs": "S I U D",
    },
}
FUNCTIONS = {
    "app": set[str](),
    "worker": {"wait_for_outbox"},
    "inventory_app": {"claim_seats", "place_hold"},
    "inventory_worker": {"claim_seats"},
}

# Whatever the service: changing the schema, other people's rights, and the machine below.
FORBIDDEN = {
    "a table of its own": "CREATE TABLE mine (id int)",
    "a table in public": "CREATE TABLE public.mine (id int)",
    "a schema": "CREATE SCHEMA mine",
    "a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a view": "CREATE VIEW mine AS SELECT 1",
    "a type": "CREATE TYPE mine AS ENUM ('a')",
    "an index": "CREATE INDEX ON outbox (type)",
    "a trigger": "CREATE TRIGGER mine BEFORE INSERT ON outbox"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "another column": "ALTER TABLE outbox ADD COLUMN mine int",
    "no table": "DROP TABLE outbox",
    "an empty table": "TRUNCATE outbox",
    "no schema": "DROP SCHEMA {schema} CASCADE",
    "another owner": "ALTER TABLE outbox OWNER TO CURRENT_USER",
    "the owner's rights": "SET ROLE {owner}",
    "the administrator's rights": "SET ROLE postgres",
    "a role": "CREATE ROLE mine",
    "a superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "a database": "CREATE DATABASE mine",
    "no extension": "DROP EXTENSION plpgsql",
    "a changed server": "ALTER SYSTEM SET log_statement = 'all'",
    "a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "a file": "SELECT pg_read_file('/etc/passwd')",
    "no triggers": "SET session_replication_role = 'replica'",
    "the migrations' record": "SELECT FROM schema_migrations",
    "the passwords": "SELECT FROM pg_authid",
}


@contextmanager
def logged_in(environment: Mapping[str, str], service: str, process: str) -> Generator[Connection]:
    name = f"{service.upper()}_{'WORKER_' if process == 'worker' else ''}DATABASE_URL"
    with psycopg.connect(environment[name], autocommit=True) as conn:
        yield conn


@contextmanager
def as_admin(environment: Mapping[str, str]) -> Generator[Connection]:
    with psycopg.connect(environment["ADMIN_DATABASE_URL"], autocommit=True) as conn:
        yield conn


def columns_of(environment: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """The columns of every table of every schema, by schema and table."""
    found: dict[str, dict[str, list[str]]] = {}
    with as_admin(environment) as conn:
        rows = conn.execute(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = ANY (%s) ORDER BY 1, 2, 3",
            [list(SERVICES)],
        )
        for schema, table, column in rows:
            found.setdefault(schema, {}).setdefault(table, []).append(column)
    return found


def is_allowed(conn: Connection, statement: sql.Composed) -> bool:
    """Rights are looked at before values: any other error means that it was allowed to try."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(statement)
    except InsufficientPrivilege:
        return False
    except psycopg.errors.IntegrityError:
        pass
    return True


def rights_to(conn: Connection, table: sql.Identifier, columns: list[str]) -> str:
    """What of select, insert, update and delete is not refused, in the notation above."""
    rights: list[str] = []
    per_column = {
        "S": sql.SQL("SELECT {column} FROM {table} LIMIT 0"),
        "I": None,
        "U": sql.SQL("UPDATE {table} SET {column} = DEFAULT WHERE false"),
    }
    for letter, statement in per_column.items():
        if statement is None:
            if is_allowed(conn, sql.SQL("INSERT INTO {} DEFAULT VALUES").format(table)):
                rights.append(letter)
            continue
        allowed = [
            column
            for column in columns
            if is_allowed(conn, statement.format(table=table, column=sql.Identifier(column)))
        ]
        if allowed:
            rights.append(letter if allowed == columns else f"{letter}({','.join(allowed)})")
    if is_allowed(conn, sql.SQL("DELETE FROM {} WHERE false").format(table)):
        rights.append("D")
    return " ".join(rights)


@pytest.mark.parametrize(("service", "process"), ROLES)
def test_role_has_exactly_the_rights_that_it_needs(
    environment: dict[str, str], service: str, process: str
) -> None:
    expected = {**SHARED[process], **OWN[service, process]}
    with logged_in(environment, service, process) as conn:
        rights = {
            table: rights_to(conn, sql.Identifier(service, table), columns)
            for table, columns in columns_of(environment)[service].items()
        }
    assert {table: found for table, found in rights.items() if found} == expected


@pytest.mark.parametrize(("service", "process"), ROLES)
def test_role_reaches_nothing_of_another_service(
    environment: dict[str, str], service: str, process: str
) -> None:
    with logged_in(environment, service, process) as conn:
        for schema, tables in columns_of(environment).items():
            if schema == service:
                continue
            for table, columns in tables.items():
                assert rights_to(conn, sql.Identifier(schema, table), columns[:1]) == "", f"{schema}.{table}"


@pytest.mark.parametrize("what", FORBIDDEN)
@pytest.mark.parametrize(("service", "process"), ROLES)
def test_role_may_not_have(environment: dict[str, str], service: str, process: str, what: str) -> None:
    statement = FORBIDDEN[what].format(schema=service, owner=f"{service}_owner")
    with logged_in(environment, service, process) as conn, pytest.raises(InsufficientPrivilege):
        conn.execute(statement.encode())


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_worker_may_have_temporary_tables_in_which_it_rebuilds(
    environment: dict[str, str], service: str
) -> None:
    statement = "CREATE TEMPORARY TABLE mine (id int)"
    with logged_in(environment, service, "app") as conn, pytest.raises(InsufficientPrivilege):
        conn.execute(statement)
    with logged_in(environment, service, "worker") as conn:
        conn.execute(statement)


@pytest.mark.parametrize(("service", "process"), ROLES)
def test_role_calls_only_the_functions_that_it_needs(
    environment: dict[str, str], service: str, process: str
) -> None:
    with logged_in(environment, service, process) as conn:
        rows = conn.execute(
            "SELECT pronamespace::regnamespace::text || '.' || proname FROM pg_proc"
            " WHERE pronamespace::regnamespace::text = ANY (%s) AND has_function_privilege(oid, 'EXECUTE')",
            [list(SERVICES)],
        )
        needed = FUNCTIONS[process] | FUNCTIONS.get(f"{service}_{process}", set())
        assert {row[0] for row in rows} == {f"{service}.{name}" for name in needed}


def test_owners_and_admins_of_the_schemas_cannot_be_logged_in_as(environment: dict[str, str]) -> None:
    url = environment["AUTH_DATABASE_URL"]
    for service in SERVICES:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(make_conninfo(url, user=f"{service}_owner"))
        for process in ("app", "worker"):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(make_conninfo(url, user=f"{service}_{process}", password="guessed"))
    with as_admin(environment) as conn:
        rows = conn.execute(
            "SELECT rolname, rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication"
            " OR rolbypassrls, (SELECT count(*) FROM pg_auth_members WHERE member = pg_roles.oid)"
            " FROM pg_roles WHERE rolname ~ '^(auth|catalog|inventory|payments)_'"
        ).fetchall()
    assert {row[0]: row[1:] for row in rows} == {
        f"{service}_{kind}": (kind != "owner", False, 0)
        for service in SERVICES
        for kind in ("owner", "app", "worker")
    }


def test_schemas_belong_to_their_owner_and_nothing_is_open_to_all(environment: dict[str, str]) -> None:
    with as_admin(environment) as conn:
        owners = conn.execute(
            "SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = ANY (%s)",
            [list(SERVICES)],
        ).fetchall()
        assert dict(owners) == {service: f"{service}_owner" for service in SERVICES}
        strangers = conn.execute(
            "SELECT relname, pg_get_userbyid(relowner) FROM pg_class"
            " WHERE relnamespace::regnamespace::text = ANY (%s) AND relname !~ '^schema_migrations'"
            " AND pg_get_userbyid(relowner) <> relnamespace::regnamespace::text || '_owner'",
            [list(SERVICES)],
        ).fetchall()
        assert strangers == []
        conn.execute("CREATE ROLE passer_by")
        try:
            open_to_all = conn.execute(
                "SELECT has_database_privilege('passer_by', current_database(), 'CONNECT, TEMP, CREATE'),"
                " has_schema_privilege('passer_by', 'public', 'USAGE, CREATE'),"
                " (SELECT count(*) FROM unnest(%s::text[]) AS s"
                "   WHERE has_schema_privilege('passer_by', s, 'USAGE, CREATE'))",
                [list(SERVICES)],
            ).fetchone()
        finally:
            conn.execute("DROP ROLE passer_by")
        assert open_to_all == (False, False, 0)


@pytest.mark.parametrize(("service", "process"), ROLES)
def test_role_cannot_hold_locks_or_connections_for_long(
    environment: dict[str, str], service: str, process: str
) -> None:
    expected = {
        "statement_timeout": "10s" if process == "app" else "1min",
        "lock_timeout": "3s" if process == "app" else "5s",
        "idle_in_transaction_session_timeout": "15s",
        "transaction_timeout": "90s",
        "TimeZone": "UTC",
        "search_path": service,
    }
    with logged_in(environment, service, process) as conn:
        found = {name: conn.execute("SELECT current_setting(%s)", [name]).fetchone() for name in expected}
    assert found == {name: (value,) for name, value in expected.items()}


def test_lock_that_another_holds_is_waited_for_only_so_long(environment: dict[str, str]) -> None:
    with (
        as_admin(environment) as admin,
        logged_in(environment, "catalog", "app") as app,
        admin.transaction(),
    ):
        admin.execute("LOCK TABLE catalog.events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            app.execute("SELECT FROM events")


async def test_applications_under_test_have_their_own_roles(
    apps: Mapping[str, Litestar], clients: Mapping[str, object], environment: dict[str, str]
) -> None:
    for service, app in apps.items():
        async with app.state.pool.connection() as conn:
            cursor = await conn.execute("SELECT session_user, current_user")
            assert await cursor.fetchone() == (f"{service}_app", f"{service}_app")
        worker = conninfo_to_dict(environment[f"{service.upper()}_WORKER_DATABASE_URL"])
        assert worker["user"] == f"{service}_worker"


def test_no_column_holds_a_time_without_its_zone(environment: dict[str, str]) -> None:
    with as_admin(environment) as conn:
        local = conn.execute(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = ANY (%s) AND data_type IN ('timestamp without time zone', 'time', 'date')",
            [list(SERVICES)],
        ).fetchall()
    assert local == []
