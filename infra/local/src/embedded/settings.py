"""Where a stack keeps its state, which ports it takes and which secrets it uses."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from embedded.problems import Problem

ROOT = Path(__file__).resolve().parents[4]
TOOLS = ROOT / ".local"
"""What `make setup` made; survives `make reset`."""

SERVICES = ("auth", "catalog", "inventory", "payments")
DEFAULT_PORT_BASE = 3000
PORTS_PER_STACK = 100
OFFSETS = {
    "gateway": 1,
    "auth": 11,
    "catalog": 12,
    "inventory": 13,
    "payments": 14,
    "stripe": 20,
    "postgres": 32,
    "redis": 79,
    "kafka": 92,
    "kafka-controller": 93,
}

PASSED_ON = frozenset(
    {
        "ACCESS_TOKEN_SECONDS",
        "ALLOWED_HOSTS",
        "AUTH_RATE_LIMIT_MAX",
        "AUTH_RATE_LIMIT_WINDOW_MS",
        "BODY_LIMIT",
        "DRAIN_SECONDS",
        "EVENTS_CACHE_TTL_SECONDS",
        "FRONTEND_URL",
        "HOLD_RATE_LIMIT_MAX",
        "HOLD_SECONDS",
        "KAFKA_PAYMENT_CONSUMER_MAX_RETRIES",
        "KAFKA_PAYMENT_CONSUMER_RETRY_BACKOFF_MS",
        "LOGIN_FAILURES_MAX",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "MAX_HELD_SEATS",
        "OUTBOX_SHARDS",
        "PASSWORD_THREADS",
        "PAYMENT_SECONDS",
        "RATE_LIMIT_MAX",
        "RATE_LIMIT_WINDOW_MS",
        "REFRESH_TOKEN_SECONDS",
        "STRIPE_API_BASE",
        "STRIPE_SECRET_KEY",
        "STRIPE_TIMEOUT_SECONDS",
        "STRIPE_WEBHOOK_SECRET",
        "TRUSTED_PROXIES",
    }
)
"""Variables that reach the services from the environment of `make up`, beside every `OTEL_*`."""

SECRETS: dict[str, Callable[[], str]] = {
    "postgres": secrets.token_urlsafe,
    **{f"{service}_app": secrets.token_urlsafe for service in SERVICES},
    **{f"{service}_worker": secrets.token_urlsafe for service in SERVICES},
    "stripe_key": lambda: f"sk_test_{secrets.token_hex(24)}",
    "stripe_webhook": lambda: f"whsec_{secrets.token_hex(24)}",
}


@dataclass(frozen=True)
class Settings:
    """One stack: two with other `state` and `port_base` run side by side."""

    state: Path
    port_base: int
    passed_on: Mapping[str, str] = field(default_factory=dict[str, str])
    durable: bool = True
    """False leaves out every wait for the disk: for tests, whose data need not survive a power cut."""

    def __post_init__(self) -> None:
        if not 1024 <= self.port_base <= 65535 - PORTS_PER_STACK:
            raise Problem(f"PORT_BASE={self.port_base} does not do: take a number from 1024 to 65435")

    def save(self) -> None:
        """For the commands that come later and speak of the stack as it runs."""
        described = {"portBase": self.port_base, "passedOn": dict(self.passed_on), "durable": self.durable}
        write_private(self.state / "stack.json", json.dumps(described, indent=2))

    def port(self, name: str) -> int:
        return self.port_base + OFFSETS[name]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port(name)}"

    @property
    def run(self) -> Path:
        """Sockets, process ids, generated configuration: nothing in it outlives the stack."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def secret(self, name: str) -> str:
        return self._secrets[name]

    @cached_property
    def _secrets(self) -> dict[str, str]:
        """Made once for each state folder and then kept: the databases know them."""
        path = self.state / "secrets.json"
        try:
            known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        except ValueError:
            raise Problem(
                f"{path} is damaged, and the databases know what was in it: bring it back, or make reset,"
                " which deletes what is stored"
            ) from None
        missing = {name: make() for name, make in SECRETS.items() if name not in known}
        if missing:
            known |= missing
            write_private(path, json.dumps(known, indent=2))
        return known


def state_dir() -> Path:
    """Where the stack of this checkout keeps its state; `STATE_DIR` moves it."""
    return Path(os.environ.get("STATE_DIR") or TOOLS / "stack").resolve()


def saved_settings(state: Path) -> Settings | None:
    """Those of the last start in this state folder. Damaged ones are none: the next start writes them."""
    try:
        saved = json.loads((state / "stack.json").read_text())
        return Settings(
            state=state, port_base=saved["portBase"], passed_on=saved["passedOn"], durable=saved["durable"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_private(path: Path, text: str) -> None:
    """Write a whole file that only its owner can read; a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(environ.items())
        if value and (name in PASSED_ON or name.startswith("OTEL_"))
    }


def parse_port_base(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Problem(f"PORT_BASE={text} is not a number: take one from 1024 to 65435") from None
