"""The commands as `make` calls them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from embedded.settings import ROOT, Settings
from embedded.stack import Stack
from embedded.status import report
from embedded.testing import running_stack


def embedded(state: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "embedded", *arguments),
        env={**os.environ, "STATE_DIR": str(state), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["status", "env", "topics", "stop"])
def test_before_the_first_start_the_way_to_it_is_told(command: str, tmp_path: Path) -> None:
    done = embedded(tmp_path, command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the stack was never started here: make up\n"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_damaged_description_of_a_stack_is_as_good_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(text)
    assert embedded(tmp_path, "status").stderr == "the stack was never started here: make up\n"
    assert embedded(tmp_path, "down").returncode == 0
    assert embedded(tmp_path, "reset").returncode == 0
    assert not tmp_path.exists()


def test_damaged_secrets_are_one_line_that_names_the_way_out(tmp_path: Path) -> None:
    Settings(tmp_path, 4000).save()
    (tmp_path / "secrets.json").write_text('{"postgres": ')
    done = embedded(tmp_path, "env")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "make reset" in done.stderr
    assert embedded(tmp_path, "reset").returncode == 0


@pytest.mark.parametrize("port_base", ["many", "80"])
def test_a_wrong_port_base_is_one_line(port_base: str, tmp_path: Path) -> None:
    done = embedded(tmp_path / "stack", "up", PORT_BASE=port_base)
    assert done.returncode == 1
    assert done.stderr.startswith(f"PORT_BASE={port_base}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("tests.faults", "SECONDS", "soon"),
        ("tests.faults", "BUYERS", "0"),
        ("tests.fuzz", "CASES", "-1"),
        ("tests.fuzz", "SEED", "nan"),
    ],
)
def test_a_wrong_number_for_the_long_suites_is_one_line(module: str, name: str, value: str) -> None:
    done = subprocess.run(
        (sys.executable, "-m", module),
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"{name}={value} does not do: say a number from ")


def test_an_unknown_service_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    done = embedded(tmp_path, "run", "--service", "payment")
    assert done.returncode == 1
    assert "auth, catalog, inventory, payments" in done.stderr


@pytest.mark.parametrize("projection", ["", "inventory.tickets", "inventory", "nobody.catalog"])
def test_what_is_no_projection_is_answered_with_those_there_are(projection: str, tmp_path: Path) -> None:
    done = embedded(tmp_path, "rebuild", "--projection", projection)
    assert (done.returncode, done.stdout) == (1, "")
    assert {"inventory.catalog,", "payments.holds,", "catalog.revocations,"} <= set(done.stderr.split())


def test_a_module_gets_the_addresses_of_the_stack_but_for_those_that_are_set(tmp_path: Path) -> None:
    done = embedded(tmp_path, "module", "libs.messaging.dlq", KAFKA_BROKERS="")
    assert done.stderr == "the stack was never started here: make up\n"
    done = embedded(tmp_path, "module", "libs.messaging.dlq", KAFKA_BROKERS="127.0.0.1:1")
    assert done.stderr.startswith("dlq: Kafka at 127.0.0.1:1 does not answer: ")


def test_down_and_reset_of_nothing_say_so(tmp_path: Path) -> None:
    assert embedded(tmp_path / "stack", "down").stdout == "Nothing was running.\n"
    done = embedded(tmp_path / "stack", "reset")
    assert done.returncode == 0
    assert "was not there" in done.stdout


def test_env_prints_only_assignments_and_another_port_base_is_refused_while_it_runs() -> None:
    with running_stack(("redis",)) as stack:
        state = stack.settings.state
        env = embedded(state, "env")
        names = [line.partition("=")[0] for line in env.stdout.splitlines()]
        assert names == list(stack.environment())
        moved = embedded(state, "up", PORT_BASE="5000")
        assert moved.returncode == 1
        assert f"this stack runs on PORT_BASE={stack.settings.port_base}" in moved.stderr
        unknown = embedded(state, "stop", "--processes", "nope")
        assert "there is no process nope" in unknown.stderr


def test_status_shows_each_process_and_why_one_is_not_ready() -> None:
    with running_stack(("redis",)) as stack:
        text, is_ready = report(stack)
        assert is_ready
        assert ["redis", str(stack.settings.port("redis")), "ready"] == cells(text, "redis")
        stack.stop(["redis"])
        text, is_ready = report(stack)
        assert not is_ready
        assert "stopped" in text
        down(stack)
        assert "is not running" in report(stack)[0]


def cells(text: str, process: str) -> list[str]:
    """Name, port and state of one line of the table; pid and memory are whatever they are."""
    line = next(line for line in text.splitlines() if line.startswith(process))
    name, _, port, _, state = line.split(maxsplit=4)
    return [name, port, state]


def down(stack: Stack) -> None:
    stack.down()
