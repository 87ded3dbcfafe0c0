"""What `make setup` says and does when something is in its way."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from embedded import jars
from embedded.problems import Problem
from embedded.settings import ROOT

SCRIPT = Path("infra/local/setup.sh")
UV = """\
#!/bin/sh
[ "$1" != --version ] || { echo "uv $(sed -n 's/^UV_VERSION=//p' infra/local/setup.sh)"; exit; }
"""


def set_up(checkout: Path, *, uv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`setup.sh stack` in a checkout where the commands of `uv` are what uv does."""
    for path in (SCRIPT, Path("infra/local/kafka.lock"), Path("pyproject.toml"), Path("uv.lock")):
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, checkout / path)
    for folder in ("libs", "services/auth"):
        (checkout / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / folder / "pyproject.toml", checkout / folder)
    program = checkout / ".local/uv/bin/uv"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(UV + uv)
    program.chmod(0o700)
    return subprocess.run(
        (checkout / SCRIPT, "stack"),
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("client error (Connect): Connection refused (os error 111)", "no network (Connection refused)"),
        ("client error (Connect)\ninvalid peer certificate: UnknownIssuer", "set SSL_CERT_FILE"),
        ("write: No space left on device", "the disk is full: free some space"),
        ("error: something else", "failed: error: something else"),
    ],
)
def test_what_keeps_packages_from_coming_is_one_line(tmp_path: Path, said: str, told: str) -> None:
    done = set_up(tmp_path, uv=f"echo '{said}' >&2; exit 1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert told in done.stderr


def test_environment_that_was_cut_off_half_way_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".venv/lib").mkdir(parents=True)
    uv = '[ ! -e .venv/lib ] || exit 1; mkdir -p .venv/bin; ln -sf "$(command -v true)" .venv/bin/python'
    done = set_up(tmp_path, uv=uv)
    assert (done.returncode, done.stderr) == (0, "")


def test_authority_that_the_system_trusts_is_trusted_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    uv = 'echo "fatal: $UV_SYSTEM_CERTS" >&2; exit 1'
    # Python takes the system's list, if there is one, from this variable too.
    assert "fatal: true" in set_up(tmp_path, uv=uv, SSL_CERT_FILE=str(bundle)).stderr
    asked = set_up(tmp_path, uv=uv, SSL_CERT_FILE=str(bundle), UV_SYSTEM_CERTS="false")
    assert "fatal: false" in asked.stderr


def test_jar_that_cannot_be_fetched_is_a_problem_that_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "FOLDER", tmp_path / "jars")
    monkeypatch.setattr(jars, "locked", lambda: [jars.Jar("no.such.group", "thing", "1", "0" * 64)])
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE", ""))
    with pytest.raises(Problem, match=r"no network: thing-1\.jar .*Connection refused.*connect"):
        jars.fetch()
