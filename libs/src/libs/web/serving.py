"""`python -m libs.web.serving auth.app:create_app 3011`: one service's HTTP on granian, in one process.

The `granian` command does the same in two processes. The second one survives a `kill -9` of the first and
shares its port with the next one; both together cost 40 MB and half a second more.
"""

import argparse
import asyncio
import importlib
import signal
import socket
import sys
from typing import Any

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server


async def serve(app: Any, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was begun.

    Before it stops listening it answers for `drain_seconds` more and closes each connection with its answer,
    so that no request is on its way over one that is being closed.
    """
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=2048,
        log_level=LogLevels.error,
    )
    loop = asyncio.get_running_loop()

    def drain() -> None:
        app.state.edge.is_draining = True
        loop.call_later(app.state.drain_seconds, server.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    await server.serve()


def is_taken(host: str, port: int) -> bool:
    """Granian itself would share the port with who has it (SO_REUSEPORT)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m libs.web.serving", description=__doc__)
    parser.add_argument("factory", help="module:function that makes the ASGI application")
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    arguments = parser.parse_args()
    if is_taken(arguments.host, arguments.port):
        sys.exit(f"port {arguments.port} is taken")
    module, _, function = arguments.factory.partition(":")
    app = getattr(importlib.import_module(module), function)()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(app, host=arguments.host, port=arguments.port))


if __name__ == "__main__":
    main()
