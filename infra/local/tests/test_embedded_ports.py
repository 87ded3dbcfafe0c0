"""Free ports and taken ones."""

import os
import re
import socket

import pytest
from embedded.ports import free_port_base, is_free, require_free
from embedded.problems import Problem


def test_a_taken_port_is_told_with_its_holder_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Problem) as problem:
            require_free({port: "redis"})
    text = str(problem.value)
    assert re.search(
        rf"port {port}, which redis needs, is taken by process {os.getpid()} \(.*python.*\)", text
    )
    assert "PORT_BASE" in text
    assert "\n" not in text


def test_a_port_is_free_again_while_old_connections_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first is left in TIME_WAIT
    assert is_free(port)


def test_who_asks_for_ports_never_gets_those_of_another() -> None:
    assert len({free_port_base() for _ in range(4)}) == 4
