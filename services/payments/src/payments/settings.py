"""Settings of the payments service, from the environment."""

from typing import Annotated, Literal

from libs.settings import ServiceSettings, read_settings
from msgspec import Meta


class Settings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    """`stripe_webhook_secret` may name several, comma-separated, while they are being rotated.

    `stripe_api_base` is an address without `/v1`; without it, Stripe's own. `stripe_timeout_seconds`
    bounds one request. `payment_seconds` is the time to pay, from checkout.
    """

    stripe_secret_key: str
    stripe_webhook_secret: str
    stripe_api_base: str | None = None
    stripe_timeout_seconds: Annotated[float, Meta(gt=0)] = 5.0
    payment_seconds: Annotated[int, Meta(ge=1)] = 900

    def secrets(self) -> list[tuple[str, str]]:
        return [
            *super().secrets(),
            ("STRIPE_SECRET_KEY", self.stripe_secret_key),
            *(("STRIPE_WEBHOOK_SECRET", secret) for secret in self.webhook_secrets),
        ]

    @property
    def webhook_secrets(self) -> list[str]:
        return [secret.strip() for secret in self.stripe_webhook_secret.split(",") if secret.strip()]


def settings_of(process: Literal["app", "worker"]) -> Settings:
    return read_settings(Settings, service="payments", process=process)
