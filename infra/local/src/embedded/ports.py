"""Which ports are free, and who has the others."""

import os
import random
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from embedded import locks
from embedded.problems import Problem
from embedded.settings import DEFAULT_PORT_BASE, OFFSETS, PORTS_PER_STACK

TEST_BASES = range(21000, 32600, PORTS_PER_STACK)
"""Below the ports that Linux hands out by itself (32768 and up)."""

_reservations: list[int] = []
"""Locks of this process, open until it ends."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(ports: Mapping[int, str]) -> None:
    """Raise the problem that names the first taken one; `ports` maps each to what needs it."""
    patience = time.monotonic() + 3  # for what is just being killed
    for port, name in sorted(ports.items()):
        while not is_free(port):
            if time.monotonic() > patience:
                raise Problem(
                    f"port {port}, which {name} needs, is taken by {_holder(port)}: "
                    f"stop it, or set PORT_BASE to another number (default {DEFAULT_PORT_BASE})"
                )
            time.sleep(0.05)


def free_port_base() -> int:
    """A port base with all its ports free, kept from others who ask for one until this process ends."""
    folder = Path(tempfile.gettempdir()) / f"ticketing-ports-{os.geteuid()}"
    for base in random.sample(TEST_BASES, len(TEST_BASES)):
        lock = locks.take_if_free(folder / str(base))
        if lock is None:
            continue
        if _are_free(base + offset for offset in OFFSETS.values()):
            _reservations.append(lock)
            return base
        os.close(lock)
    raise Problem("no free range of ports between 21000 and 32600: stop some of the stacks that run")


def _are_free(ports: Iterable[int]) -> bool:
    return all(is_free(port) for port in ports)


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"process {connection.pid} ({command[:80]})"
    except psutil.Error:
        pass
    return "a process of another user"
