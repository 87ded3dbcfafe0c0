"""The four services, two processes each, the Stripe emulator, and what has to be done before they start."""

import http.client
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from libs.probe import worker_trouble

from embedded import kafka, postgres, redis
from embedded.problems import Problem
from embedded.programs import Program, get
from embedded.settings import ROOT, SERVICES, Settings
from embedded.supervision import MARKER, inherited

ADMIN_EMAIL = "admin@example.com"
ADMIN_PASSWORD = "secret123"  # noqa: S105 - known to all, for the embedded stack alone
SHARED_ADDRESS_LIMIT = "100000"
"""Everybody comes from one address here, so the limits by address must not bite."""

DEFAULTS = {
    "ENVIRONMENT": "embedded",
    "RATE_LIMIT_MAX": SHARED_ADDRESS_LIMIT,
    "AUTH_RATE_LIMIT_MAX": SHARED_ADDRESS_LIMIT,
    # The gateway's, which speaks from this one; clients may come from others of 127.0.0.0/8.
    "TRUSTED_PROXIES": "127.0.0.1",
}


def app(settings: Settings, service: str) -> Program:
    port = settings.port(service)
    return Program(
        name=service,
        command=(sys.executable, "-m", "libs.web.serving", f"{service}.app:create_app", str(port)),
        environment=_environment(settings, service, "app"),
        port=port,
        trouble=lambda: _app_trouble(port, f"/{service}/ready"),
    )


def worker(settings: Settings, service: str) -> Program:
    return Program(
        name=f"{service}-worker",
        command=(sys.executable, "-m", f"{service}.worker"),
        environment=_environment(settings, service, "worker"),
        trouble=lambda: worker_trouble(_health_file(settings, service)),
        prepare=lambda: _health_file(settings, service).unlink(missing_ok=True),
    )


def stripe(settings: Settings) -> Program:
    port = settings.port("stripe")
    keys = _emulator_keys(settings) if _is_real_stripe(settings) else stripe_environment(settings)
    return Program(
        name="stripe",
        command=(sys.executable, "-m", "stripe_emulator", "--port", str(port)),
        environment={
            "STRIPE_SECRET_KEY": keys["STRIPE_SECRET_KEY"],
            "STRIPE_WEBHOOK_SECRET": keys["STRIPE_WEBHOOK_SECRET"],
            "STRIPE_WEBHOOK_URL": f"{settings.url('gateway')}/orders/webhook",
            "STRIPE_STATE_FILE": str(settings.state / "stripe" / "state.db"),
        },
        prepare=lambda: (settings.state / "stripe").mkdir(exist_ok=True),
        port=port,
        trouble=lambda: _app_trouble(port, "/health"),
    )


def stripe_environment(settings: Settings) -> dict[str, str]:
    """How payments speaks to Stripe: the real one for who brings a key and no other address, else ours."""
    given = {name: value for name, value in settings.passed_on.items() if name.startswith("STRIPE_")}
    ours = _emulator_keys(settings)
    if not _is_real_stripe(settings):
        ours["STRIPE_API_BASE"] = settings.url("stripe")
    return ours | given


def _is_real_stripe(settings: Settings) -> bool:
    return "STRIPE_SECRET_KEY" in settings.passed_on and "STRIPE_API_BASE" not in settings.passed_on


def _emulator_keys(settings: Settings) -> dict[str, str]:
    return {
        "STRIPE_SECRET_KEY": settings.secret("stripe_key"),
        "STRIPE_WEBHOOK_SECRET": settings.secret("stripe_webhook"),
    }


def database_urls(settings: Settings, service: str) -> dict[str, str]:
    return dict(database_url(settings, service, process) for process in ("app", "worker"))


def database_url(settings: Settings, service: str, process: str) -> tuple[str, str]:
    """The variable of a process and its value."""
    name = f"{service}_DATABASE_URL" if process == "app" else f"{service}_WORKER_DATABASE_URL"
    return name.upper(), postgres.service_url(settings, service, process)


def migrate(settings: Settings) -> None:
    """Roles, schemas and tables of all services; brings an older database up to date."""
    environment = {"ADMIN_DATABASE_URL": postgres.admin_url(settings)}
    for service in SERVICES:
        environment |= database_urls(settings, service)
    folders = [f"services/{service}/migrations" for service in SERVICES]
    _run_once(settings, "migrations", ("libs.migrations", *folders), environment)


def create_topics(settings: Settings) -> None:
    _run_once(settings, "topics", ("libs.messaging.topics",), {"KAFKA_BROKERS": kafka.brokers(settings)})


def create_admin(settings: Settings) -> None:
    environment = _environment(settings, "auth", "app") | {"ADMIN_PASSWORD": ADMIN_PASSWORD}
    _run_once(settings, "admin", ("auth.admin", "create", ADMIN_EMAIL), environment)


def _environment(settings: Settings, service: str, process: str) -> dict[str, str]:
    own = {
        name: value
        for name, value in settings.passed_on.items()
        if not name.startswith("STRIPE_") or service == "payments"
    }
    if service == "payments":
        own |= stripe_environment(settings)
    if process == "worker":
        own["WORKER_HEALTH_FILE"] = str(_health_file(settings, service))
    return {
        "KAFKA_BROKERS": kafka.brokers(settings),
        "REDIS_URL": redis.url(settings),
        "JWKS_URL": f"{settings.url('auth')}/.well-known/jwks.json",
        # Its own role's alone: a process has no password that is not its.
        **dict([database_url(settings, service, process)]),
        **DEFAULTS,
        **own,
    }


def _health_file(settings: Settings, service: str) -> Path:
    return settings.run / f"{service}-worker.json"


def _run_once(settings: Settings, name: str, module: Sequence[str], environment: Mapping[str, str]) -> None:
    log = settings.logs / f"{name}.log"
    with log.open("w") as output:
        done = subprocess.run(
            (sys.executable, "-m", *module),
            cwd=ROOT,
            env={**inherited(), MARKER: str(settings.state), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = log.read_text().strip().splitlines() or ["no word of why"]
        raise Problem(f"{name} failed: {lines[-1]} (all of it: make logs S={name})")


def _app_trouble(port: int, path: str) -> str | None:
    try:
        status, body = get(port, path)
    except OSError as error:
        return f"does not answer on port {port}: {error.strerror or error}"
    except http.client.HTTPException as error:
        return f"answers no HTTP on port {port}: {error!r}"
    return None if status == 200 else f"GET {path} answers {status}: {body[:120].decode(errors='replace')}"
