"""compose.yaml is sound in what matters; read as a file, without an engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedded.settings import PASSED_ON, SERVICES

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
PROCESSES = [f"{service}-{process}" for service in SERVICES for process in ("app", "worker")]
JOBS = ["migrations", "topics", "seed"]
OURS = [*PROCESSES, *JOBS, "stripe"]
REQUIRED = re.compile(r"\$\{(\w+):\?run make certs\}")
SECRET = re.compile(r"PASSWORD|SECRET|_KEY|DATABASE_URL|REDIS_URL|AUTH$")


def environment(name: str) -> dict[str, str | None]:
    return CONTAINERS[name].get("environment", {})


def required(name: str) -> set[str]:
    """The variables without which compose refuses to start this container."""
    return set(REQUIRED.findall(str(CONTAINERS[name])))


def test_all_containers_are_known_here() -> None:
    servers = {"traefik", "postgres", "redis", "kafka", "jaeger", "prometheus"}
    assert set(CONTAINERS) == servers | set(OURS)


@pytest.mark.parametrize("name", CONTAINERS)
def test_only_the_gateway_is_published_beyond_loopback(name: str) -> None:
    ports = CONTAINERS[name].get("ports", [])
    beyond = [port for port in ports if not port.startswith("127.0.0.1:")]
    assert beyond == (["${HTTPS_PORT:-443}:8443", "${HTTP_PORT:-80}:8080"] if name == "traefik" else [])
    assert all("${" in port for port in ports), "another checkout takes other ports"


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_has_no_more_rights_than_it_needs(name: str) -> None:
    container = CONTAINERS[name]
    assert container["cap_drop"] == ["ALL"]
    assert container.get("cap_add", []) == (["DAC_OVERRIDE"] if name == "traefik" else [])
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "env_file"} & set(container)
    assert container["mem_limit"]
    assert container["pids_limit"]
    assert container["logging"]["options"]["max-size"]
    assert "container_name" not in container, "a name can be had once, and --scale needs several"


@pytest.mark.parametrize("name", OURS)
def test_process_of_ours_is_not_root_and_writes_to_memory_alone(name: str) -> None:
    container = CONTAINERS[name]
    assert container["user"] == "10001:10001"
    assert container["read_only"] is True
    assert container["tmpfs"] == ["/tmp"]  # noqa: S108
    assert container.get("volumes", []) == (["stripe:/var/lib/stripe"] if name == "stripe" else [])
    assert container["image"] == "ticketing:${TAG:-local}"


@pytest.mark.parametrize("name", sorted(set(CONTAINERS) - set(JOBS)))
def test_container_that_stays_is_looked_at_and_started_again(name: str) -> None:
    container = CONTAINERS[name]
    assert container["healthcheck"]["test"]
    assert container["healthcheck"]["start_period"]
    assert container["restart"] == "unless-stopped"
    if name in PROCESSES:
        assert container["stop_grace_period"] == "30s"


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_waits_for_what_is_well_or_done(name: str) -> None:
    for other, how in CONTAINERS[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in JOBS else "service_healthy"
        if (name, other) == ("topics", "migrations"):
            expected = "service_started"
        assert how == {"condition": expected}, f"{name} for {other}"


def test_up_with_wait_waits_for_every_job() -> None:
    """It takes the end of a job for a failure unless another container waits for that end."""
    awaited = {
        other
        for container in CONTAINERS.values()
        for other, how in container.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert awaited == set(JOBS)


def test_only_what_is_known_to_all_is_in_the_file_and_only_for_a_machine_of_ones_own() -> None:
    dev = [name for name, container in CONTAINERS.items() if container.get("profiles") == ["dev"]]
    assert dev == ["seed", "stripe"]
    assert environment("seed")["ENVIRONMENT"] == "embedded"
    assert environment("seed")["ADMIN_PASSWORD"] == "secret123"
    for name in set(CONTAINERS) - {"seed"}:
        assert environment(name).get("ENVIRONMENT", "production") == "production"
        assert "secret123" not in str(CONTAINERS[name])


@pytest.mark.parametrize("name", sorted(set(CONTAINERS) - {"seed"}))
def test_no_secret_has_a_default(name: str) -> None:
    for variable, value in environment(name).items():
        if not SECRET.search(variable) or value is None:
            continue
        if variable.startswith("STRIPE_"):
            # Given, or that of the emulator in its profile, or nothing: payments does not start without.
            assert re.match(
                rf"\$\{{{variable}:-\$\{{(COMPOSE_PROFILES:\+\$\{{)?STRIPE_EMULATOR_\w+:[?-]", value
            )
        else:
            assert REQUIRED.search(value), f"{variable}={value}"


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("process", ["app", "worker"])
def test_process_has_its_own_secrets_alone(service: str, process: str) -> None:
    name = f"{service}-{process}"
    own = f"{service.upper()}_{process.upper()}_PASSWORD"
    assert required(name) == {own, "REDIS_PASSWORD"} | (
        {"STRIPE_EMULATOR_KEY", "STRIPE_EMULATOR_WEBHOOK_SECRET"} if service == "payments" else set()
    )
    variable = f"{service.upper()}_{'WORKER_' if process == 'worker' else ''}DATABASE_URL"
    urls = {key: value for key, value in environment(name).items() if key.endswith("DATABASE_URL")}
    assert urls == {
        variable: f"postgresql://{service}_{process}:${{{own}:?run make certs}}@postgres:5432/ticketing"
    }
    assert [key for key in environment(name) if key.startswith("STRIPE_")] == [] or service == "payments"


def test_password_of_the_database_itself_is_for_who_makes_the_others() -> None:
    assert {name for name in CONTAINERS if "POSTGRES_PASSWORD" in required(name)} == {
        "postgres",
        "migrations",
    }
    roles = {f"{service.upper()}_{kind}_PASSWORD" for service in SERVICES for kind in ("APP", "WORKER")}
    assert required("migrations") == {"POSTGRES_PASSWORD", *roles}


def test_networks_let_each_reach_what_it_needs() -> None:
    networks = COMPOSE["networks"]
    assert {name for name, options in networks.items() if not (options or {}).get("internal")} == {
        "edge",
        "local",
        "monitor",
        "stripe",
    }
    members = {
        network: {name for name, container in CONTAINERS.items() if network in container["networks"]}
        for network in networks
    }
    apps = {f"{service}-app" for service in SERVICES}
    assert members["edge"] == {"traefik"}
    assert members["front"] == {"traefik", "stripe", *apps}
    assert members["back"] == {"postgres", "redis", "kafka", *PROCESSES, *JOBS}
    assert members["telemetry"] == {"jaeger", "prometheus", *PROCESSES}
    assert members["stripe"] == {"payments-app", "payments-worker", "stripe"}
    assert members["local"] == {"postgres", "redis", "kafka"}
    assert members["monitor"] == {"jaeger", "prometheus"}
    assert networks["local"]["driver_opts"] == {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    }


def test_settings_of_the_embedded_stack_reach_the_containers_too() -> None:
    known = {variable for name in PROCESSES for variable in environment(name)}
    assert known >= PASSED_ON


def test_redis_is_a_cache() -> None:
    command = " ".join(CONTAINERS["redis"]["command"])
    assert "--maxmemory 128mb --maxmemory-policy allkeys-lru" in command
