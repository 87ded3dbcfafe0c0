"""Ports, secrets, and values on their way through a shell."""

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from embedded import services
from embedded.problems import Problem
from embedded.programs import Program
from embedded.settings import (
    OFFSETS,
    PORTS_PER_STACK,
    SECRETS,
    SERVICES,
    Settings,
    parse_port_base,
    passed_on,
    saved_settings,
)

ODD = 'it\'s "odd" $HOME `id` %(here)s ; # and\na new line \\ é'


def test_the_defaults_are_the_documented_ports(tmp_path: Path) -> None:
    settings = Settings(tmp_path, 3000)
    assert {name: settings.port(name) for name in OFFSETS} == {
        "gateway": 3001,
        "auth": 3011,
        "catalog": 3012,
        "inventory": 3013,
        "payments": 3014,
        "stripe": 3020,
        "postgres": 3032,
        "redis": 3079,
        "kafka": 3092,
        "kafka-controller": 3093,
    }
    assert max(OFFSETS.values()) < PORTS_PER_STACK


@pytest.mark.parametrize("text", ["", "abc", "3000.5", "80", "-1", "65500", "1e4"])
def test_a_port_base_that_does_not_do_is_refused_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="PORT_BASE"):
        Settings(tmp_path, parse_port_base(text))


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    first, again = Settings(tmp_path, 3000), Settings(tmp_path, 4000)
    assert first.secret("postgres") == again.secret("postgres")
    assert first.secret("postgres") != Settings(tmp_path / "other", 3000).secret("postgres")
    assert first.secret("stripe_key").startswith("sk_test_")
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_secret_that_a_new_version_needs_is_added(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"postgres": "kept"}')
    settings = Settings(tmp_path, 3000)
    assert settings.secret("postgres") == "kept"
    assert settings.secret("auth_app")


def test_saved_settings_are_those_of_the_last_start(tmp_path: Path) -> None:
    assert saved_settings(tmp_path) is None
    settings = Settings(tmp_path, 4000, passed_on={"HOLD_SECONDS": "5"})
    settings.save()
    assert saved_settings(tmp_path) == settings


def test_only_what_the_services_know_is_passed_on() -> None:
    environ = {"HOLD_SECONDS": "5", "OTEL_SERVICE_NAME": "x", "PGHOST": "elsewhere", "FRONTEND_URL": ""}
    assert passed_on(environ) == {"HOLD_SECONDS": "5", "OTEL_SERVICE_NAME": "x"}


def test_any_value_reaches_a_program_as_it_is(tmp_path: Path) -> None:
    program = Program(
        name="odd",
        command=("sh", "-c", 'printf "%s|%s" "$FRONTEND_URL" "$0"', ODD),
        environment={"FRONTEND_URL": ODD},
        trouble=lambda: None,
    )
    script = tmp_path / "odd.sh"
    script.write_text(program.script(tmp_path))
    ran = subprocess.run(
        ("/bin/sh", script), capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert ran.stdout == f"{ODD}|{ODD}"


def test_a_shell_reads_back_what_env_prints() -> None:
    line = f"VALUE={shlex.quote(ODD)}"
    ran = subprocess.run(
        ("sh", "-c", 'eval "$0"; printf "%s" "$VALUE"', line), capture_output=True, text=True, check=True
    )
    assert ran.stdout == ODD


@pytest.mark.parametrize("service", SERVICES)
def test_process_gets_the_password_of_its_own_role_alone(tmp_path: Path, service: str) -> None:
    settings = Settings(tmp_path, 3000)
    passwords = {
        name: settings.secret(name)
        for name in SECRETS
        if name == "postgres" or "_app" in name or "_worker" in name
    }
    for process, program in (("app", services.app), ("worker", services.worker)):
        given = " ".join(program(settings, service).environment.values())
        assert [name for name, password in passwords.items() if password in given] == [f"{service}_{process}"]
