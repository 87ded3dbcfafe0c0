"""make certs: a certificate that clients verify, secrets that nobody has, and nothing overwritten."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
import trustme
from libs.settings import refuse_weak_secret

from infra.containers.certs import FILES, Trouble, fill_env, make_certificate, variables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout") / "certs"
    make_certificate(folder)
    return folder


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_client_that_has_the_authority_verifies_the_certificate(folder: Path, name: str) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / "server.crt", folder / "server.key")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server_side.wrap_socket(theirs, server_side=True) as connection:
            connection.sendall(b"hello")

    serving = Thread(target=serve)
    serving.start()
    trusting = ssl.create_default_context(cafile=folder / "ca.crt")
    with trusting.wrap_socket(ours, server_hostname=name) as connection:
        assert connection.recv(5) == b"hello"
    serving.join()


def test_key_is_its_owners_alone_and_the_authoritys_is_nowhere(folder: Path) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == FILES
    assert FILES["server.key"] == 0o600
    assert b"PRIVATE" not in (folder / "ca.crt").read_bytes() + (folder / "server.crt").read_bytes()


def test_second_run_changes_nothing(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "there already" in make_certificate(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    env = tmp_path / ".env"
    fill_env(env)
    secrets = env.read_text()
    assert "everything" in fill_env(env)
    assert env.read_text() == secrets


def test_half_a_certificate_is_told_and_left(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "server.crt").write_text("mine")
    with pytest.raises(Trouble, match=r"has server\.crt but not ca\.crt, server\.key: delete certs/"):
        make_certificate(folder)
    assert (folder / "server.crt").read_text() == "mine"


def test_certificate_that_is_over_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    old = trustme.CA().issue_cert("localhost", not_after=datetime.now(UTC) - timedelta(days=1))
    (folder / "server.crt").write_bytes(old.cert_chain_pems[0].bytes())
    for name in ("ca.crt", "server.key"):
        (folder / name).touch()
    with pytest.raises(Trouble, match=r"was good until .*: delete certs/"):
        make_certificate(folder)


def test_env_gets_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    mine = "# mine\nexport REDIS_PASSWORD=chosen\nCOMPOSE_PROFILES=\nHTTPS_PORT=8443"
    env.write_text(mine)
    env.chmod(0o644)
    told = fill_env(env)
    text = env.read_text()
    assert text.startswith(f"{mine}\n")
    added = dict(line.split("=", 1) for line in text.removeprefix(f"{mine}\n").splitlines())
    assert set(added) == set(variables()) - {"REDIS_PASSWORD", "COMPOSE_PROFILES"}
    assert env.stat().st_mode & 0o777 == 0o600
    assert not [value for value in added.values() if value in told]


def test_every_secret_is_another_and_strong_enough_for_the_services() -> None:
    made = [variables(), variables()]
    values = [value for each in made for name, value in each.items() if name != "COMPOSE_PROFILES"]
    assert len(set(values)) == len(values)
    for value in values:
        refuse_weak_secret("it", value)
