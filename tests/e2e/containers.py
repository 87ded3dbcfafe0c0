"""compose.yaml as a project of its own: other ports, other volumes, gone at the end."""

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).parents[2]
PORTS = (
    "HTTPS_PORT",
    "HTTP_PORT",
    "GATEWAY_PORT",
    "STRIPE_PORT",
    "POSTGRES_PORT",
    "REDIS_PORT",
    "KAFKA_PORT",
    "JAEGER_PORT",
    "PROMETHEUS_PORT",
)
APPS = ("auth-app", "catalog-app", "inventory-app", "payments-app")
WORKERS = ("auth-worker", "catalog-worker", "inventory-worker", "payments-worker")


class Containers:
    """The running project; `environment` is what a client of it, or an operator's command, needs."""

    def __init__(self, compose: DockerCompose, settings: dict[str, str]) -> None:
        self._compose = compose
        self.ports = {name: int(settings[name]) for name in PORTS}
        at = "127.0.0.1"
        self.environment = {
            "GATEWAY_URL": f"https://localhost:{settings['HTTPS_PORT']}",
            "STRIPE_API_BASE": f"http://{at}:{settings['STRIPE_PORT']}",
            "STRIPE_SECRET_KEY": settings["STRIPE_EMULATOR_KEY"],
            "STRIPE_WEBHOOK_SECRET": settings["STRIPE_EMULATOR_WEBHOOK_SECRET"],
            "ADMIN_DATABASE_URL": f"postgresql://postgres:{settings['POSTGRES_PASSWORD']}@{at}:"
            f"{settings['POSTGRES_PORT']}/ticketing",
            "KAFKA_BROKERS": f"{at}:{settings['KAFKA_PORT']}",
        }
        self.jaeger_url = f"http://{at}:{settings['JAEGER_PORT']}"
        self.prometheus_url = f"http://{at}:{settings['PROMETHEUS_PORT']}"

    def run(self, *arguments: str) -> str:
        """`docker compose ARGUMENTS`; what it printed. Fails with what it said."""
        command = [*self._compose.docker_compose_command(), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def host(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command of an operator's, on this machine, with the addresses of this project."""
        environ = os.environ | self.environment
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

    def of(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return self.run("ps", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        done = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]


def trust() -> ssl.SSLContext:
    """Trusts the project's own authority, and nobody else."""
    return ssl.create_default_context(cafile=str(ROOT / "certs" / "ca.crt"))


def missing() -> str | None:
    """What keeps the containers from running here, and what to do about it."""
    if not shutil.which("docker") or _docker("info").returncode:
        return "no Docker engine answers: `make engine` gives a Debian machine one, then `make e2e`"
    if _compose("version").returncode:
        return "there is no docker compose: `make engine` adds it on Debian, then `make e2e`"
    if not (ROOT / "certs" / "server.key").exists() or not (ROOT / ".env").exists():
        return "there is no certificate, or no .env: `make certs`, then `make e2e`"
    for image in sorted(set(_compose("config", "--images").stdout.split())):
        if not image.startswith("ticketing:") and _docker("image", "inspect", image).returncode:
            cure = "`docker compose pull --ignore-buildable`, or without a registry `make images-offline`"
            return f"there is no image {image} here: {cure}; then `make e2e`"
    return None


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def _compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _docker("compose", "--profile", "dev", *arguments)


@contextmanager
def running_containers() -> Generator[Containers]:
    project = f"ticketing-e2e-{secrets.token_hex(3)}"
    settings = {**_dotenv(), **_free_ports(), "COMPOSE_PROJECT_NAME": project, "COMPOSE_PROFILES": "dev"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        compose = DockerCompose(ROOT, build=True)
        try:
            compose.start()
            yield Containers(compose, settings)
        finally:
            try:
                _keep_logs(compose)
            finally:
                compose.stop()


def _dotenv() -> dict[str, str]:
    lines = (ROOT / ".env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _free_ports() -> dict[str, str]:
    """All held until all are known, so that they differ."""
    found: dict[str, str] = {}
    with ExitStack() as held:
        for name in PORTS:
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found[name] = str(one.getsockname()[1])
    return found


def _keep_logs(compose: DockerCompose) -> None:
    """In .local/e2e.log, for whoever asks why."""
    folder = ROOT / ".local"
    folder.mkdir(exist_ok=True)
    out, _ = compose.get_logs()
    (folder / "e2e.log").write_text(out)
