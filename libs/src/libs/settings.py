"""Settings come from environment variables, read once per process into one frozen struct."""

import os
import sys
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T", bound="ServiceSettings")


class ServiceSettings(Struct, frozen=True, kw_only=True, rename="upper"):
    """What every service needs; the field `redis_url` is read from `REDIS_URL`, and so on."""

    database_url: str
    redis_url: str = "redis://127.0.0.1:6379/0"
    kafka_brokers: str = "127.0.0.1:9092"
    jwks_url: str = "http://127.0.0.1:3011/.well-known/jwks.json"
    frontend_url: str = ""
    body_limit: int = 1_048_576
    trusted_proxies: str = ""
    rate_limit_max: Annotated[int, Meta(ge=1)] = 200
    rate_limit_window_ms: Annotated[int, Meta(ge=1)] = 900_000
    log_level: str = "info"
    outbox_shards: Annotated[int, Meta(ge=1, le=64)] = 1
    kafka_payment_consumer_max_retries: int = 3
    kafka_payment_consumer_retry_backoff_ms: int = 100
    worker_health_file: str | None = None

    def __post_init__(self) -> None:
        try:
            _ = self.proxy_networks
        except ValueError as error:
            raise ValueError(f"TRUSTED_PROXIES: {error}") from None

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `TRUSTED_PROXIES`, a comma-separated list: their `X-Forwarded-For` is believed."""
        return tuple(ip_network(part.strip()) for part in self.trusted_proxies.split(",") if part.strip())

    @property
    def allowed_origins(self) -> list[str]:
        """The origins of `FRONTEND_URL`, a comma-separated list."""
        return [origin.strip() for origin in self.frontend_url.split(",") if origin.strip()]


def read_settings(settings: type[T], *, service: str, process: Literal["app", "worker"]) -> T:
    """The settings of one process of a service, from the environment.

    `DATABASE_URL` is the fallback of `<SERVICE>_DATABASE_URL`, which is that of the
    worker's `<SERVICE>_WORKER_DATABASE_URL`. Exits with one line that names a variable that is
    missing or malformed.
    """
    # An empty value counts as not set: `HOLD_SECONDS= make up` is no number.
    values = {name: value for name, value in os.environ.items() if value}
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
