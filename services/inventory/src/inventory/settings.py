"""Settings of the inventory service, from the environment."""

from typing import Annotated, Literal

from libs.settings import Quota, ServiceSettings, read_settings
from msgspec import Meta


class Settings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    hold_seconds: Annotated[int, Meta(ge=1)] = 600
    max_held_seats: Annotated[int, Meta(ge=1)] = 10
    # A minute and user.
    hold_rate_limit_max: Quota = 100


def settings_of(process: Literal["app", "worker"]) -> Settings:
    return read_settings(Settings, service="inventory", process=process)
