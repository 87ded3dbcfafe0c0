"""One service in the foreground, restarted when its code changes; the rest of the stack stays as it is."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from watchfiles import PythonFilter, watch

from embedded import locks
from embedded.problems import Problem
from embedded.programs import Program
from embedded.settings import ROOT, SERVICES
from embedded.stack import Stack
from embedded.supervision import MARKER, inherited
from embedded.terminal import Progress

LOOK_MS = 500


def run(stack: Stack, service: str, progress: Progress) -> None:
    """Run app and worker here until a signal ends it; then the supervised processes come back."""
    if service not in SERVICES:
        raise Problem(
            f"there is no service {service or 'without a name'}: say S=, one of {', '.join(SERVICES)}"
        )
    lock = locks.take_if_free(stack.foreground_lock(service))
    if lock is None:
        raise Problem(f"{service} is in the foreground already, in another terminal")
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    names = [service, f"{service}-worker"]
    try:
        if not stack.supervisor.is_running():
            stack.up(progress)
        stack.stop(names)
        _run_until(stopped, stack, [stack.programs[name] for name in names], progress)
    finally:
        os.close(lock)
    if stack.supervisor.is_running():
        progress.say(f"{service} goes back to the background")
        for name in names:
            stack.supervisor.start_process(name)


def _run_until(
    stopped: threading.Event, stack: Stack, programs: Sequence[Program], progress: Progress
) -> None:
    service = programs[0].name
    folders = [ROOT / folder for folder in (f"services/{service}/src", "libs/src", "contracts/src")]
    progress.say(
        f"{service} runs here ({stack.settings.url(service)}), anew at each change of its code, until Ctrl-C"
    )
    running = [_spawn(stack, program) for program in programs]
    told: set[int] = set()
    try:
        for changes in watch(
            *folders,
            watch_filter=PythonFilter(),
            stop_event=stopped,
            raise_interrupt=False,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
        ):
            if not stack.supervisor.is_running():
                progress.say("the rest of the stack has gone down")
                return
            if changes:
                changed = sorted({str(Path(path).relative_to(ROOT)) for _, path in changes})
                progress.say(f"changed: {', '.join(changed)}")
                _end(running)
                running = [_spawn(stack, program) for program in programs]
            for program, process in zip(programs, running, strict=True):
                if process.poll() is not None and process.pid not in told:
                    told.add(process.pid)
                    progress.say(
                        f"{program.name} has ended ({process.returncode}): it waits for a change of its code"
                    )
    finally:
        _end(running)


def _spawn(stack: Stack, program: Program) -> subprocess.Popen[bytes]:
    program.prepare()
    return subprocess.Popen(
        # It gets SIGTERM when this process ends, however it ends.
        ("setpriv", "--pdeathsig", "TERM", "/bin/sh", str(stack.settings.run / f"{program.name}.sh")),
        env=inherited() | {MARKER: str(stack.settings.state)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process, which then stops it
    )


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
