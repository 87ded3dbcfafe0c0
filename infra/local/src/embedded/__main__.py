"""The commands behind `make`: one for each target that deals with the stack."""

import argparse
import asyncio
import errno
import importlib
import importlib.util
import os
import shlex
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from embedded import classes, kafka
from embedded.problems import Problem
from embedded.settings import (
    DEFAULT_PORT_BASE,
    SERVICES,
    Settings,
    parse_port_base,
    passed_on,
    saved_settings,
    state_dir,
)
from embedded.stack import Stack
from embedded.terminal import Progress

CANCELLED = 130


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _leave)
    try:
        return arguments.command(arguments)
    except Problem as problem:
        return _complain(str(problem))
    except PermissionError as error:
        return _complain(f"{error.filename} belongs to another user: run make as that user, or remove it")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" (writing {error.filename})" if error.filename else ""
            return _complain(f"the disk is full{where}: free some space")
        if error.errno == errno.EPIPE:  # what read our output has gone: `make logs | head`
            sys.stdout = None
            return 0
        raise
    except KeyboardInterrupt:
        return CANCELLED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="embedded", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command, options in (
        ("install", install, ()),
        ("classes", make_classes, ()),
        ("up", up, ()),
        ("down", down, ()),
        ("reset", reset, ()),
        ("status", status, ()),
        ("env", env, ()),
        ("topics", topics, ()),
        ("rebuild", rebuild, ("--projection", "--forget")),
        ("logs", logs, ("--of", "--lines")),
        ("tail", tail, ("--topic", "--from")),
        ("run", run, ("--service",)),
        ("start", start, ("--processes",)),
        ("stop", stop, ("--processes",)),
        ("restart", restart, ("--processes",)),
    ):
        subparser = commands.add_parser(name, help=command.__doc__)
        subparser.set_defaults(command=command)
        for option in options:
            subparser.add_argument(option, default="")
    subparser = commands.add_parser("module", help=module.__doc__)
    subparser.set_defaults(command=module)
    subparser.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def install(_: argparse.Namespace) -> int:
    """Fetch what no package brings: Kafka's jars."""
    kafka.install()
    return 0


def make_classes(_: argparse.Namespace) -> int:
    """Make Kafka start faster from now on."""
    if not classes.exist():
        with Progress().step("kafka classes", "done"):
            classes.make()
    return 0


def up(_: argparse.Namespace) -> int:
    """Bring up the whole stack, or what of it is missing."""
    started = time.monotonic()
    stack = Stack(_wanted_settings())
    gateway = stack.environment()["GATEWAY_URL"]
    if not stack.up(Progress()):
        print(f"It is up already: {gateway}")
        return 0
    if not classes.exist():
        classes.make_in_background(stack.settings)
    print(f"Up after {time.monotonic() - started:.1f} s: {gateway}")
    return 0


def down(_: argparse.Namespace) -> int:
    """Stop everything."""
    started = time.monotonic()
    settings = saved_settings(state_dir()) or _wanted_settings()
    count = Stack(settings).down(Progress())
    print(
        f"Stopped {count} processes in {time.monotonic() - started:.1f} s."
        if count
        else "Nothing was running."
    )
    return 0


def reset(arguments: argparse.Namespace) -> int:
    """Stop everything and delete what it stored."""
    down(arguments)
    state = state_dir()
    existed = state.exists()
    Stack(saved_settings(state) or _wanted_settings()).reset(Progress())
    print(
        f"Removed {state}: databases, messages, secrets and logs." if existed else f"{state} was not there."
    )
    return 0


def status(_: argparse.Namespace) -> int:
    """Each process: pid, port, memory, ready or why not."""
    from embedded.status import report  # noqa: PLC0415

    text, is_ready = report(_known_stack())
    print(text)
    return 0 if is_ready else 1


def env(_: argparse.Namespace) -> int:
    """The addresses and keys of the running stack as KEY=VALUE."""
    for name, value in _known_stack().environment().items():
        print(f"{name}={shlex.quote(value)}")
    return 0


def topics(_: argparse.Namespace) -> int:
    """Topics, partitions, messages, and each group's lag."""
    from embedded import inspection  # noqa: PLC0415

    print(asyncio.run(inspection.topics_table(_known_stack().environment()["KAFKA_BROKERS"])))
    return 0


def tail(arguments: argparse.Namespace) -> int:
    """Follow the messages of a topic."""
    from embedded import inspection  # noqa: PLC0415

    if getattr(arguments, "from") not in ("", "start", "end"):
        raise Problem("FROM is start (every message that is kept) or end (those that come from now on)")

    async def follow() -> None:
        brokers = _known_stack().environment()["KAFKA_BROKERS"]
        async for text in inspection.tail(
            brokers, arguments.topic, from_start=getattr(arguments, "from") == "start"
        ):
            print(text, flush=True)

    _end_with_parent()
    asyncio.run(follow())
    return 0


def module(arguments: argparse.Namespace) -> NoReturn:
    """Run a Python module with the stack's addresses in its environment; those that are set already stay."""
    _become(*arguments.words)


def rebuild(arguments: argparse.Namespace) -> NoReturn:
    """Rebuild a projection of a service from its topics."""
    service, _, name = arguments.projection.partition(".")
    projections = {
        each: [projection.name for projection in importlib.import_module(f"{each}.rebuild").PROJECTIONS]
        for each in SERVICES
        if importlib.util.find_spec(f"{each}.rebuild")
    }
    if name not in projections.get(service, ()):
        known = ", ".join(f"{each}.{one}" for each, names in projections.items() for one in names)
        wrong = (
            f"{arguments.projection} is no projection" if arguments.projection else "no projection is named"
        )
        raise Problem(f"{wrong}: say P=, one of {known}")
    _become(f"{service}.rebuild", name, *(("--forget",) if arguments.forget else ()))


def _become(*words: str) -> NoReturn:
    known = {} if os.environ.get("KAFKA_BROKERS") else _known_stack().environment()
    os.execve(sys.executable, (sys.executable, "-m", *words), known | os.environ)  # noqa: S606


def logs(arguments: argparse.Namespace) -> int:
    """Follow the logs of a service or a server."""
    from embedded import logs  # noqa: PLC0415

    if not (arguments.lines or "50").isdecimal():
        raise Problem(f"N={arguments.lines} is not a number of lines")
    stack = _known_stack()
    _end_with_parent()
    for line in logs.follow(stack, logs.named(stack, arguments.of), lines=int(arguments.lines or 50)):
        print(line, flush=True)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run one service in the foreground, with reload."""
    from embedded import foreground  # noqa: PLC0415

    settings = saved_settings(state_dir())
    stack = (
        Stack(settings) if settings and Stack(settings).supervisor.is_running() else Stack(_wanted_settings())
    )
    foreground.run(stack, arguments.service, Progress())
    return 0


def start(arguments: argparse.Namespace) -> int:
    """Start processes that were stopped."""
    stack, names = _named_processes(arguments.processes)
    stack.start(names, Progress())
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """Stop processes: they stay away until they are started again."""
    stack, names = _named_processes(arguments.processes)
    stack.stop(names, Progress())
    print(f"Stopped {', '.join(names)}. make start P='{' '.join(names)}' brings it back.")
    return 0


def restart(arguments: argparse.Namespace) -> int:
    """Stop processes and start them again."""
    stack, names = _named_processes(arguments.processes)
    stack.stop(names, Progress())
    stack.start(names, Progress())
    return 0


def _named_processes(text: str) -> tuple[Stack, list[str]]:
    stack = _running_stack()
    names = text.split()
    unknown = [name for name in names if name not in stack.programs]
    if unknown or not names:
        wrong = f"there is no process {unknown[0]}" if unknown else "no process is named"
        raise Problem(f"{wrong}: say P=, one or more of {', '.join(stack.programs)}")
    return stack, names


def _wanted_settings() -> Settings:
    """What the environment asks for; a stack that runs keeps its ports."""
    asked = os.environ.get("PORT_BASE")
    port_base = parse_port_base(asked) if asked else DEFAULT_PORT_BASE
    state = state_dir()
    saved = saved_settings(state)
    if saved and saved.port_base != port_base and Stack(saved).supervisor.is_running():
        if asked:
            raise Problem(
                f"this stack runs on PORT_BASE={saved.port_base}: make down first, to have it on {port_base}"
            )
        port_base = saved.port_base
    return Settings(state, port_base, passed_on=passed_on(os.environ))


def _known_stack() -> Stack:
    """The stack as it was started last, be it up or not."""
    settings = saved_settings(state_dir())
    if settings is None:
        raise Problem("the stack was never started here: make up")
    return Stack(settings)


def _running_stack() -> Stack:
    stack = _known_stack()
    if not stack.supervisor.is_running():
        raise Problem("the stack is not running: make up")
    return stack


def _end_with_parent() -> None:
    """Do not follow for ever for a reader who is gone: `kill -9` of make, a closed terminal."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that what has to be cleaned up is."""
    sys.exit(128 + number)


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
