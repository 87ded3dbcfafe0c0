"""Catalog's settings; the environment variables have the same names in upper case."""

from typing import Annotated, Literal

from libs.settings import ServiceSettings, read_settings
from msgspec import Meta


class Settings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    # How long an answer may lie in Redis; 0 turns the cache off.
    events_cache_ttl_seconds: Annotated[int, Meta(ge=0)] = 60


def settings_of(process: Literal["app", "worker"]) -> Settings:
    return read_settings(Settings, service="catalog", process=process)
