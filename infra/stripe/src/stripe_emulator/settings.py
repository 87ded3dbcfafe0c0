"""What the environment says; the only reader of it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec


class SettingMissing(Exception):
    """An environment variable is absent or unusable; the text names it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`webhook_url` is where events are delivered; `state_file` an SQLite file, made when absent.

    `webhook_secret` signs: the first of several, which receivers take "new,old" while a secret is changed.
    """

    secret_key: str
    webhook_secret: str
    webhook_url: str
    state_file: Path


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises SettingMissing: none of these has a default, for two of them are secrets."""

    def need(name: str, what: str) -> str:
        value = environment.get(name, "").strip()
        if not value:
            raise SettingMissing(f"{name} is not set: {what}")
        return value

    settings = Settings(
        secret_key=need("STRIPE_SECRET_KEY", "the key that API calls must carry, for instance sk_test_local"),
        webhook_secret=need(
            "STRIPE_WEBHOOK_SECRET", "the secret that signs webhooks, for instance whsec_local"
        ).partition(",")[0],
        webhook_url=need("STRIPE_WEBHOOK_URL", "where events are delivered"),
        state_file=Path(need("STRIPE_STATE_FILE", "an SQLite file that keeps the state")),
    )
    if not settings.webhook_url.startswith(("http://", "https://")):
        raise SettingMissing("STRIPE_WEBHOOK_URL must start with http:// or https://")
    return settings
