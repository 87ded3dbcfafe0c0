"""Catalog's settings; the environment variables have the same names in upper case."""

from typing import Literal

from libs.settings import ServiceSettings, read_settings


class Settings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    # How long an answer may lie in Redis; 0 turns the cache off.
    events_cache_ttl_seconds: int = 60


def settings_of(process: Literal["app", "worker"]) -> Settings:
    return read_settings(Settings, service="catalog", process=process)
