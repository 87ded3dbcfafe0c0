"""What the world sees of the containers: HTTPS with a certificate that verifies, and nothing but Traefik."""

import json
import socket
import ssl

import httpx
import pytest

from tests.e2e.containers import APPS, WORKERS, Containers, trust
from tests.system.shop import Client, Shop

LOOPBACK = "127.0.0.1"


def test_https_is_verified_with_the_projects_authority(containers: Containers) -> None:
    for name in ("localhost", LOOPBACK):
        url = f"https://{name}:{containers.ports['HTTPS_PORT']}/health"
        answer = httpx.get(url, verify=trust(), trust_env=False)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url, trust_env=False)


def test_http_redirects_to_https(containers: Containers) -> None:
    url = f"http://localhost:{containers.ports['HTTP_PORT']}/events?limit=3"
    answer = httpx.get(url, follow_redirects=False, trust_env=False)
    assert answer.is_redirect
    assert answer.headers["location"] == f"{containers.environment['GATEWAY_URL']}/events?limit=3"


@pytest.mark.parametrize(
    ("version", "is_spoken"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_only_modern_tls_is_spoken(
    containers: Containers, version: ssl.TLSVersion, *, is_spoken: bool
) -> None:
    context = trust()
    context.set_ciphers("ALL:@SECLEVEL=0")  # this side would speak the old ones
    context.minimum_version = context.maximum_version = version
    with socket.create_connection((LOOPBACK, containers.ports["HTTPS_PORT"]), timeout=10) as plain:
        if not is_spoken:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert|version|protocol"):
                context.wrap_socket(plain, server_hostname="localhost")
            return
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            assert secure.version() == version.name.replace("_", ".")


def test_tools_may_come_without_tls_from_this_machine(containers: Containers) -> None:
    url = f"http://localhost:{containers.ports['GATEWAY_PORT']}/health"
    assert httpx.get(url, trust_env=False).status_code == 200


def test_only_traefik_is_published_beyond_this_machine(containers: Containers) -> None:
    published: dict[str, set[str]] = {}
    for line in containers.run("ps", "--format", "json").splitlines():
        container = json.loads(line)
        ports = container["Publishers"] or []
        published[container["Service"]] = {each["URL"] for each in ports if each["PublishedPort"]}
    assert {name for name, hosts in published.items() if hosts - {LOOPBACK}} == {"traefik"}


def test_processes_of_ours_run_with_little(containers: Containers) -> None:
    for service in (*APPS, *WORKERS):
        [container] = containers.of(service)
        told = containers.inspect(container)
        assert told["State"]["Health"]["Status"] == "healthy"
        assert told["Config"]["User"] not in ("", "0", "root", "0:0")
        host = told["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["Memory"] > 0
        assert host["CapDrop"] == ["ALL"]


def test_admin_that_everybody_knows_is_there_in_the_dev_profile(shop: Shop) -> None:
    me = shop.admin.get("/auth/me")
    assert (me["email"], me["role"]) == ("admin@example.com", "admin")
    Client(shop.gateway).call("GET", "/auth/me", expect=401)
