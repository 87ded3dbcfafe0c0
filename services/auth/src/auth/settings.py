"""Auth's settings; the environment variables have the same names in upper case."""

from typing import Annotated, Literal

from libs.settings import Quota, ServiceSettings, WindowMs, read_settings
from msgspec import Meta


class Settings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    """Durations are seconds."""

    # No longer than revocations are remembered (libs.web.tokens).
    access_token_seconds: Annotated[int, Meta(ge=1, le=3000)] = 600
    refresh_token_seconds: Annotated[int, Meta(ge=1)] = 30 * 24 * 3600
    # Each hash takes 19 MiB and 40 ms of a core.
    password_threads: Annotated[int, Meta(ge=1)] = 2
    # Log-ins, and registrations, from one network in a window.
    auth_rate_limit_max: Quota = 10
    auth_rate_limit_window_ms: WindowMs = 900_000
    # Wrong passwords for one account from one network in such a window.
    login_failures_max: Quota = 10
    # Read by `python -m auth.admin create` alone; it has no default on purpose.
    admin_password: str = ""

    def secrets(self) -> list[tuple[str, str]]:
        given = [("ADMIN_PASSWORD", self.admin_password)] if self.admin_password else []
        return [*super().secrets(), *given]


def settings_of(process: Literal["app", "worker"]) -> Settings:
    return read_settings(Settings, service="auth", process=process)
