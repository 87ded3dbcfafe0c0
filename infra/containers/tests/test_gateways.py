"""The gateway of the containers and that of the embedded stack send the same paths the same way."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedded.gateway import OPTIONS
from embedded.settings import SERVICES

ROOT = Path(__file__).parents[3]
LABEL = re.compile(r"traefik\.http\.(routers|services)\.([\w-]+)\.(.+)")
ENTRY_POINTS = ("http", "https", "tools")
# What an entry point of the containers has beside the limits: where it listens, and what TLS needs.
OWN = (
    "address",
    "asdefault",
    "http.tls",
    "http.redirections.entrypoint.to",
    "http.redirections.entrypoint.scheme",
)
HEALTH_CHECK = {"path": "/accepting", "hostname": "localhost", "interval": "1s", "timeout": "10s"}

Routers = dict[str, dict[str, Any]]


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def file_routers(path: str) -> Routers:
    """Of a file with templates among its services, which are left out."""
    text = (ROOT / path).read_text()
    blocks = re.split(r"^  (?=\w+:$)", text, flags=re.MULTILINE)
    [routers] = [block for block in blocks if block.startswith("routers:")]
    return normalised(yaml.safe_load(routers)["routers"])


def label_routers(compose: dict[str, Any]) -> Routers:
    routers: Routers = {}
    for service in compose["services"].values():
        own: Routers = {}
        for label, value in service.get("labels", {}).items():
            match = LABEL.fullmatch(label)
            if match and match[1] == "routers":
                own.setdefault(match[2], {})[match[3]] = value
        for name, router in own.items():
            assert routers.setdefault(name, router) == router, f"{name} is told twice, and differently"
    return normalised(routers)


def normalised(routers: Routers) -> Routers:
    def names(value: Any) -> list[str]:
        return [each.partition("@")[0] for each in (value.split(",") if isinstance(value, str) else value)]

    return {
        name: router
        | {
            "rule": " ".join(router["rule"].split()),
            "priority": int(router["priority"]),
            "middlewares": names(router["middlewares"]),
            "service": router["service"].partition("@")[0],
        }
        for name, router in routers.items()
    }


def options(compose: dict[str, Any]) -> dict[str, str]:
    command: list[str] = compose["services"]["traefik"]["command"]
    return dict(option.removeprefix("--").split("=", 1) for option in command)


def limits_of(compose: dict[str, Any], entry_point: str) -> dict[str, str]:
    prefix = f"entrypoints.{entry_point}."
    own = {
        name.removeprefix(prefix): value
        for name, value in options(compose).items()
        if name.startswith(prefix)
    }
    return {name: value for name, value in own.items() if name not in OWN}


EMBEDDED_LIMITS = {
    name.removeprefix("entrypoints.web."): value
    for name, value in OPTIONS.items()
    if name.startswith("entrypoints.web.")
}


def test_routers_are_the_same(compose: dict[str, Any]) -> None:
    embedded = file_routers("traefik/dynamic/routes.yml")
    assert set(embedded) == {*SERVICES, "other", "unavailable"}
    assert label_routers(compose) == embedded


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_limits_of_every_entry_point_are_the_same(compose: dict[str, Any], entry_point: str) -> None:
    assert "transport.respondingtimeouts.readtimeout" in EMBEDDED_LIMITS
    assert limits_of(compose, entry_point) == EMBEDDED_LIMITS


def test_other_options_are_the_same(compose: dict[str, Any]) -> None:
    ours = options(compose)
    embedded = {name: value for name, value in OPTIONS.items() if not name.startswith("entrypoints.web.")}
    del embedded["providers.file.directory"]
    assert {name: ours.get(name) for name in embedded} == embedded
    beside = {name for name in ours if not name.startswith(("entrypoints.", "providers.", "ping."))}
    assert beside == set(embedded)


def test_middlewares_are_the_same_file(compose: dict[str, Any]) -> None:
    mounted = [volume for volume in compose["services"]["traefik"]["volumes"] if isinstance(volume, str)]
    assert "./traefik/dynamic/middlewares.yml:/etc/traefik/dynamic/middlewares.yml:ro" in mounted
    text = (
        (ROOT / "traefik/dynamic/middlewares.yml").read_text().replace('{{ env "GATEWAY_URL" }}', "gateway")
    )
    known: dict[str, Any] = yaml.safe_load(text)["http"]["middlewares"]
    used = {name for router in label_routers(compose).values() for name in router["middlewares"]}
    assert used == set(known)
    for service in compose["services"].values():
        for label, value in service.get("labels", {}).items():
            assert not label.startswith("traefik.http.middlewares"), (
                "they are in the file that both stacks read"
            )
            if label.endswith(".middlewares"):
                assert all(each.endswith("@file") for each in value.split(","))
    # The page of `problems` is asked for at the gateway's plain entry point, from within.
    port = options(compose)["entrypoints.tools.address"]
    assert compose["services"]["traefik"]["environment"]["GATEWAY_URL"] == f"http://127.0.0.1{port}"


@pytest.mark.parametrize("service", SERVICES)
def test_balancer_asks_the_processes_of_a_service_whether_they_accept(
    compose: dict[str, Any], service: str
) -> None:
    labels = compose["services"][f"{service}-app"]["labels"]
    prefix = f"traefik.http.services.{service}.loadbalancer."
    assert {
        label.removeprefix(prefix): value for label, value in labels.items() if label.startswith(prefix)
    } == {
        "server.port": "8000",
        **{f"healthcheck.{name}": value for name, value in HEALTH_CHECK.items()},
    }
    # A process that stops answers for longer than the balancer needs to notice.
    drain = compose["services"][f"{service}-app"]["environment"]["DRAIN_SECONDS"]
    assert drain == "${DRAIN_SECONDS:-3}"
    assert HEALTH_CHECK["interval"] == "1s"


def test_service_without_a_process_is_answered_for() -> None:
    """Below the router of the service, above all that would take its paths for its own."""
    routers = file_routers("traefik/dynamic/routes.yml")
    del routers["unavailable"]
    away = file_routers("traefik/containers/away.yml")
    assert away == {
        f"{name}-away": router
        | {"priority": router["priority"] - 5, "middlewares": ["problems"], "service": "nobody"}
        for name, router in routers.items()
    }
    priorities = [router["priority"] for router in (*routers.values(), *away.values())]
    assert max(priorities) < file_routers("traefik/dynamic/routes.yml")["unavailable"]["priority"]
    text = (ROOT / "traefik/containers/away.yml").read_text()
    quoted = " ".join(f'"{service}"' for service in SERVICES)
    assert f"range list {quoted} " in text


def test_tls_is_modern_alone(compose: dict[str, Any]) -> None:
    tls = yaml.safe_load((ROOT / "traefik/containers/tls.yml").read_text())["tls"]
    assert tls["options"] == {"default": {"minVersion": "VersionTLS13"}}
    assert options(compose)["entrypoints.https.http.tls"] == "true"
    assert options(compose)["entrypoints.http.http.redirections.entrypoint.scheme"] == "https"
    assert "entrypoints.http.asdefault" not in options(compose)
