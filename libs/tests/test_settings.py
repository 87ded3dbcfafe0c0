"""Settings: from the environment or from files, refused by name when they cannot be meant."""

from pathlib import Path
from typing import Annotated

import pytest
from libs.settings import ServiceSettings, read_settings
from msgspec import Meta

GOOD = "kV3-tq9Zw_b7Lx2R"


class ShopSettings(ServiceSettings, frozen=True, kw_only=True, rename="upper"):
    door_key: str = ""
    width: Annotated[int, Meta(ge=1)] = 1

    def secrets(self) -> list[tuple[str, str]]:
        return [*super().secrets(), *([("DOOR_KEY", self.door_key)] if self.door_key else [])]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set but an address without a password."""
    for name in ShopSettings.__struct_encode_fields__:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://shop@db/ticketing")


def settings() -> ShopSettings:
    return read_settings(ShopSettings, service="shop", process="app")


def test_each_process_has_its_own_address_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DATABASE_URL", "postgresql://app@db/ticketing")
    monkeypatch.setenv("SHOP_WORKER_DATABASE_URL", "postgresql://worker@db/ticketing")
    assert settings().database_url == "postgresql://app@db/ticketing"
    worker = read_settings(ShopSettings, service="shop", process="worker")
    assert worker.database_url == "postgresql://worker@db/ticketing"
    monkeypatch.setenv("SHOP_DATABASE_URL", "")
    assert settings().database_url == "postgresql://shop@db/ticketing", "empty is not set"


def test_secret_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{GOOD}\n")
    monkeypatch.setenv("DOOR_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "url").write_text(f"postgresql://app:{GOOD}@db/ticketing\n")
    monkeypatch.setenv("SHOP_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert settings().door_key == GOOD
    assert settings().database_url == f"postgresql://app:{GOOD}@db/ticketing"


def test_file_of_a_secret_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOOR_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match=r"DOOR_KEY_FILE=.*none cannot be read"):
        settings()


WEAK = [
    "short-Key1",
    "aaaaaaaaaaaaaaaa",
    "my-password-1234",
    "CHANGEME-please-9",
    "postgres-xkcd-77",
    "sk_test_....",
]


@pytest.mark.parametrize("weak", WEAK)
def test_weak_and_default_secrets_are_refused_and_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weak: str
) -> None:
    (tmp_path / "key").write_text(weak)
    for name, value in (
        ("DOOR_KEY", weak),
        ("DOOR_KEY_FILE", str(tmp_path / "key")),
        ("DATABASE_URL", f"postgresql://app:{weak}@db/ticketing"),
        ("REDIS_URL", f"redis://:{weak}@redis/0"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(SystemExit) as refusal:
                settings()
            told = str(refusal.value)
            assert f"the secret in {name.removesuffix('_FILE')} is" in told
            assert weak not in told
            patch.setenv("ENVIRONMENT", "embedded")
            settings()


def test_production_is_the_default_and_takes_good_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR_KEY", GOOD)
    monkeypatch.setenv("REDIS_URL", f"redis://:{GOOD}@redis/0")
    assert (settings().environment, settings().door_key) == ("production", GOOD)
    monkeypatch.setenv("ENVIRONMENT", "staging")
    with pytest.raises(SystemExit, match="ENVIRONMENT"):
        settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT_MAX", "0"),
        ("RATE_LIMIT_MAX", "-1"),
        ("RATE_LIMIT_MAX", "1000001"),
        ("RATE_LIMIT_MAX", "many"),
        ("RATE_LIMIT_WINDOW_MS", "0"),
        ("RATE_LIMIT_WINDOW_MS", "-900000"),
        ("BODY_LIMIT", "0"),
        ("DRAIN_SECONDS", "-1"),
        ("OUTBOX_SHARDS", "0"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("KAFKA_PAYMENT_CONSUMER_MAX_RETRIES", "-1"),
        ("WIDTH", "0"),
    ],
)
def test_value_that_cannot_be_meant_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"shop app: settings in the environment: .*{name}"):
        settings()


def test_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(SystemExit, match="DATABASE_URL"):
        settings()


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", "a.example, b.example,")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    assert settings().host_names == ["a.example", "b.example"]
    assert [str(each) for each in settings().proxy_networks] == ["10.0.0.0/8", "::1/128"]
