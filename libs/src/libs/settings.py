"""Settings come from environment variables, read once per process into one frozen struct."""

import os
import sys
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T", bound="ServiceSettings")

# Of a limit: no quota is nobody let in, and a token that is back within a microsecond is nobody kept out.
Quota = Annotated[int, Meta(ge=1, le=1_000_000)]
WindowMs = Annotated[int, Meta(ge=1000)]

MIN_SECRET_LENGTH = 12
MIN_DIFFERENT = 6
_SECRET_FILES = ("DATABASE_URL_FILE", "REDIS_URL_FILE", "_KEY_FILE", "_SECRET_FILE", "_PASSWORD_FILE")
_KNOWN_TO_ALL = (
    "password",
    "passwort",
    "secret",
    "changeme",
    "change_me",
    "example",
    "postgres",
    "12345678",
    "...",
)


class ServiceSettings(Struct, frozen=True, kw_only=True, rename="upper"):
    """What every service needs; the field `redis_url` is read from `REDIS_URL`, and so on."""

    database_url: str
    redis_url: str = "redis://127.0.0.1:6379/0"
    kafka_brokers: str = "127.0.0.1:9092"
    jwks_url: str = "http://127.0.0.1:3011/.well-known/jwks.json"
    frontend_url: str = ""
    allowed_hosts: str = "localhost,127.0.0.1"
    body_limit: Annotated[int, Meta(ge=1)] = 1_048_576
    trusted_proxies: str = ""
    rate_limit_max: Quota = 200
    rate_limit_window_ms: WindowMs = 900_000
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"
    # How long a process that stops still answers before it does not listen any more.
    drain_seconds: Annotated[float, Meta(ge=0)] = 0.5
    # The embedded stack alone takes secrets that are weak or known to all.
    environment: Literal["embedded", "production"] = "production"
    outbox_shards: Annotated[int, Meta(ge=1, le=64)] = 1
    kafka_payment_consumer_max_retries: Annotated[int, Meta(ge=0)] = 3
    kafka_payment_consumer_retry_backoff_ms: Annotated[int, Meta(ge=0)] = 100
    worker_health_file: str | None = None

    def __post_init__(self) -> None:
        try:
            _ = self.proxy_networks
        except ValueError as error:
            raise ValueError(f"TRUSTED_PROXIES: {error}") from None
        if self.environment == "production":
            for name, secret in self.secrets():
                refuse_weak_secret(name, secret)

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `TRUSTED_PROXIES`, a comma-separated list: their `X-Forwarded-For` is believed."""
        return tuple(ip_network(part.strip()) for part in self.trusted_proxies.split(",") if part.strip())

    def secrets(self) -> list[tuple[str, str]]:
        """What must not be guessed, with the name of its variable. An address without a password has none."""
        return [
            (name, password)
            for name, url in (("DATABASE_URL", self.database_url), ("REDIS_URL", self.redis_url))
            if (password := urlsplit(url).password)
        ]

    @property
    def allowed_origins(self) -> list[str]:
        """The origins of `FRONTEND_URL`, a comma-separated list."""
        return _items(self.frontend_url)

    @property
    def host_names(self) -> list[str]:
        """The names of `ALLOWED_HOSTS`, a comma-separated list; `*` is any."""
        return _items(self.allowed_hosts)


def refuse_weak_secret(name: str, secret: str) -> None:
    """Raises `ValueError`, which does not tell the secret."""
    if len(secret) < MIN_SECRET_LENGTH:
        raise ValueError(f"the secret in {name} is shorter than {MIN_SECRET_LENGTH} characters")
    if len(set(secret)) < MIN_DIFFERENT or any(word in secret.lower() for word in _KNOWN_TO_ALL):
        raise ValueError(f"the secret in {name} is a default or easy to guess")


def _items(listed: str) -> list[str]:
    return [item.strip() for item in listed.split(",") if item.strip()]


def read_files(values: dict[str, str]) -> None:
    """Secrets may lie in files: `STRIPE_SECRET_KEY_FILE=/run/secrets/stripe` for `STRIPE_SECRET_KEY=sk_...`.

    Exits with one line when such a file cannot be read.
    """
    for name in [name for name in values if name.endswith(_SECRET_FILES)]:
        try:
            values[name.removesuffix("_FILE")] = Path(values[name]).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"settings in the environment: {name}={values[name]} cannot be read: {error}")


def read_settings(settings: type[T], *, service: str, process: Literal["app", "worker"]) -> T:
    """The settings of one process of a service, from the environment.

    `DATABASE_URL` is the fallback of `<SERVICE>_DATABASE_URL`, which is that of the
    worker's `<SERVICE>_WORKER_DATABASE_URL`. Exits with one line that names a variable that is
    missing or malformed.
    """
    # An empty value counts as not set: `HOLD_SECONDS= make up` is no number.
    values = {name: value for name, value in os.environ.items() if value}
    read_files(values)
    names = [f"{service.upper()}_DATABASE_URL"]
    if process == "worker":
        names.insert(0, f"{service.upper()}_WORKER_DATABASE_URL")
    for name in names:
        if name in values:
            values["DATABASE_URL"] = values[name]
            break
    try:
        return msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        sys.exit(f"{service} {process}: settings in the environment: {error}. .env.example lists them all.")
