"""One supervised process: what is run, and how to tell that it does its work."""

import hashlib
import http.client
import importlib.util
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedded.problems import Problem

ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Program:
    name: str
    command: Sequence[str]
    trouble: Callable[[], str | None]
    """Why it is not ready; None when it is. Answers within `ANSWER_SECONDS`."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    prepare: Callable[[], object] = lambda: None
    """What has to be there before its first start; does nothing when it is."""
    port: int | None = None
    more_ports: Sequence[int] = ()
    stop_signal: str = "TERM"
    stop_seconds: int = 15
    """How long a graceful stop may take before it is killed."""

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(port for port in (self.port, *self.more_ports) if port is not None)

    def script(self, directory: Path) -> str:
        """The shell script that the supervisor runs. Being a file, it takes any value of the environment."""
        lines = [
            "#!/bin/sh",
            "# Written at each start of the stack. Run by the supervisor; can be run by hand too.",
            f"cd {shlex.quote(str(directory))} || exit",
            *(f"export {name}={shlex.quote(value)}" for name, value in sorted(self.environment.items())),
            f"exec {shlex.join(self.command)}",
        ]
        return "\n".join(lines) + "\n"

    def fingerprint(self, directory: Path) -> str:
        return hashlib.sha256(self.script(directory).encode()).hexdigest()[:16]


def package_folder(name: str) -> Path:
    """Where a package is installed, without importing it: its binaries are wanted, not its Python."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Problem(f"the package {name} is not installed: run make setup")
    return Path(spec.submodule_search_locations[0])


def ask(port: int, question: bytes) -> bytes:
    """What answers first on a local port; OSError when nothing does."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(question)
        return connection.recv(1024)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a local page; OSError or HTTPException when nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
