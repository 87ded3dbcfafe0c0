"""Auth's settings; the environment variables have the same names in upper case."""

from typing import Literal

from libs.settings import ServiceSettings, read_settings


class Settings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    """Durations are seconds."""

    access_token_seconds: int = 600
    refresh_token_seconds: int = 30 * 24 * 3600
    # Each hash takes 19 MiB and 40 ms of a core.
    password_threads: int = 2
    # Read by `python -m auth.admin create` alone; it has no default on purpose.
    admin_password: str = ""


def settings_of(process: Literal["app", "worker"]) -> Settings:
    return read_settings(Settings, service="auth", process=process)
