"""Traefik: the one public port. Its routes are in traefik/dynamic; this starts it."""

import http.client
import sys
from pathlib import Path

from embedded.programs import Program, ask, get
from embedded.settings import ROOT, SERVICES, Settings

ROUTES = ROOT / "traefik" / "dynamic"
OPTIONS = {
    "providers.file.directory": str(ROUTES),
    "global.checknewversion": "false",
    "global.sendanonymoususage": "false",
    "log.level": "WARN",
    "log.nocolor": "true",
    # Somewhat wider than the services' own limits (libs.web.sizes), whose refusals are problem documents.
    # Bodies have no limit of size here: Traefik would hold whole bodies and whole answers to count them,
    # while the services refuse by Content-Length before they read, and count what has none while it comes.
    "entrypoints.web.transport.respondingtimeouts.readtimeout": "10s",
    "entrypoints.web.transport.respondingtimeouts.writetimeout": "30s",
    "entrypoints.web.transport.respondingtimeouts.idletimeout": "120s",
    "entrypoints.web.transport.lifecycle.gracetimeout": "5s",
    "entrypoints.web.http.maxheaderbytes": "32768",
    # Which characters a path may hold is for the service to judge.
    "entrypoints.web.http.sanitizepath": "false",
    "entrypoints.web.http.aliasheadersstrategy": "delete",
    "serverstransport.forwardingtimeouts.dialtimeout": "2s",
    "serverstransport.forwardingtimeouts.responseheadertimeout": "30s",
}


def program(settings: Settings) -> Program:
    port = settings.port("gateway")
    options = OPTIONS | {"entrypoints.web.address": f"127.0.0.1:{port}"}
    return Program(
        name="gateway",
        command=(
            str(Path(sys.executable).with_name("traefik")),
            *(f"--{name}={value}" for name, value in options.items()),
        ),
        environment={f"{name.upper()}_URL": settings.url(name) for name in ("gateway", *SERVICES)},
        port=port,
        trouble=lambda: _trouble(port),
        stop_seconds=10,
    )


def _trouble(port: int) -> str | None:
    try:
        # Without a Host header: it refuses that by itself.
        refusal = ask(port, b"GET / HTTP/1.1\r\n\r\n")
    except OSError as error:
        return f"does not answer on port {port}: {error.strerror or error}"
    if not refusal.startswith(b"HTTP/1.1 400"):
        return f"answers no HTTP on port {port}: {refusal[:60]!r}"
    try:
        status, _ = get(port, "/health")
    except TimeoutError:
        return None  # there is a route, and it waits for its service
    except (OSError, http.client.HTTPException) as error:
        return f"answers no HTTP on port {port}: {error!r}"
    # Any other answer comes from a route, be it that its service is not up yet.
    return "has not read its routes yet" if status == 404 else None
