"""`python -m stripe_emulator --port 3020`: one process, so that a kill leaves nothing behind."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from stripe_emulator.app import create_app
from stripe_emulator.settings import SettingMissing, read_settings
from stripe_emulator.store import StateUnusable, Store


class PortTaken(Exception):
    """Something else listens there."""


def check_port(host: str, port: int) -> None:
    """Raises PortTaken. Granian itself would share the port with whoever has it (SO_REUSEPORT)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error


async def serve(host: str, port: int) -> None:
    settings = read_settings(os.environ)
    check_port(host, port)
    store = Store(settings.state_file)
    stopping = asyncio.Event()
    server = Server(
        create_app(settings, store, stopping=stopping),
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        log_level=LogLevels.error,
    )

    def stop() -> None:
        stopping.set()
        server.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    logging.getLogger(__name__).info(
        "listening on http://%s:%s, webhooks to %s", host, port, settings.webhook_url
    )
    try:
        await server.serve()
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stripe_emulator", description="Stripe's far side.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3020)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments.host, arguments.port))
    except (SettingMissing, StateUnusable, PortTaken) as error:
        sys.exit(f"stripe-emulator: {error}")


main()
