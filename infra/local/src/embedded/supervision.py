"""supervisord for one stack: it stays and restarts what dies; spoken to over a socket in the state folder."""

import http.client
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from embedded.problems import Problem
from embedded.programs import Program
from embedded.settings import ROOT, Settings, write_private

MARKER = "TICKETING_STATE"
"""Every process of a stack carries its state folder in its environment under this name."""

INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
ALIVE = ("STARTING", "RUNNING", "BACKOFF", "STOPPING")

# All paths are relative to the state folder, in which supervisord runs: nothing here needs quoting. It would
# make that of the socket absolute, and then perhaps too long for one (107 characters), hence /proc/self/cwd.
CONFIGURATION = """\
[supervisord]
logfile=logs/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=run/supervisord.pid
childlogdir=logs
umask=077

[unix_http_server]
file=/proc/self/cwd/run/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

# A start that lasts less than `startsecs` is repeated after 1, 2, 3, ... seconds, without an end.
PROGRAM = """
[program:{name}]
command=/bin/sh run/{name}.sh
environment=TICKETING_PROGRAM="{fingerprint}"
autostart=false
autorestart=true
startsecs=5
startretries=1000000
stopsignal={stop_signal}
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


@dataclass(frozen=True)
class Process:
    """A supervised process as supervisord sees it."""

    name: str
    state: str
    pid: int | None
    started_at: int
    """Unix time of its latest start."""
    word: str

    @property
    def is_alive(self) -> bool:
        return self.state in ALIVE


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def is_running(self) -> bool:
        try:
            return self._call("getState")["statename"] == "RUNNING"
        except (OSError, http.client.HTTPException):
            return False

    def start(self, programs: Sequence[Program]) -> None:
        """Start supervisord, which starts nothing by itself yet."""
        self._configure(programs)
        (self._settings.run / "supervisor.sock").unlink(missing_ok=True)
        done = subprocess.run(
            (sys.executable, "-m", "supervisor.supervisord", "-c", "run/supervisord.conf"),
            cwd=self._settings.state,
            env=inherited() | {MARKER: str(self._settings.state)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Problem(f"supervisord does not start: {(done.stderr or done.stdout).strip()}")
        if not _becomes_true(self.is_running, seconds=15):
            raise Problem(f"supervisord does not answer: see {self._settings.logs / 'supervisord.log'}")

    def change(self, programs: Sequence[Program]) -> None:
        """Tell the running supervisord of these programs; what changed is stopped, to be started anew."""
        self._configure(programs)
        added, changed, removed = self._call("reloadConfig")[0]
        for name in (*removed, *changed):
            self._call("stopProcessGroup", name)
            self._call("removeProcessGroup", name)
        for name in (*added, *changed):
            self._call("addProcessGroup", name)

    def processes(self) -> dict[str, Process]:
        """What supervisord knows by name; empty when it does not run."""
        try:
            known = self._call("getAllProcessInfo")
        except (OSError, http.client.HTTPException):
            return {}
        return {
            info["name"]: Process(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"] or None,
                started_at=info["start"],
                word=info["spawnerr"] or info["description"],
            )
            for info in known
        }

    def pid(self) -> int | None:
        try:
            return self._call("getPID")
        except (OSError, http.client.HTTPException):
            return None

    def start_process(self, name: str) -> None:
        """Start it now; one that waits for its next try after a failure need not wait."""
        if self.processes()[name].state == "BACKOFF":
            self._call("stopProcess", name)
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise Problem(f"{name} does not start: {fault.faultString}") from None

    def stop_processes(self, names: Iterable[str]) -> None:
        """Ask all of them to stop, and wait until they have; supervisord kills what takes too long."""
        stopping = [name for name in names if (known := self.processes().get(name)) and known.is_alive]
        for name in stopping:
            try:
                self._call("stopProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if fault.faultString.split(":")[0] not in ("NOT_RUNNING", "SHUTDOWN_STATE"):
                    raise Problem(f"{name} does not stop: {fault.faultString}") from None
        _becomes_true(
            lambda: not any((known := self.processes().get(name)) and known.is_alive for name in stopping),
            seconds=60,
        )

    def shut_down(self) -> None:
        try:
            self._call("shutdown")
        except (OSError, http.client.HTTPException, xmlrpc.client.Fault):
            return
        _becomes_true(lambda: not leftovers(self._settings), seconds=60)

    def _configure(self, programs: Sequence[Program]) -> None:
        run = self._settings.run
        for program in programs:
            write_private(run / f"{program.name}.sh", program.script(ROOT))
        sections = (
            PROGRAM.format(
                name=program.name,
                fingerprint=program.fingerprint(ROOT),
                stop_signal=program.stop_signal,
                stop_seconds=program.stop_seconds,
            )
            for program in programs
        )
        write_private(run / "supervisord.conf", CONFIGURATION + "".join(sections))

    def _call(self, method: str, *arguments: str | bool) -> Any:
        with xmlrpc.client.ServerProxy(
            "http://supervisor", transport=_SocketTransport(self._settings)
        ) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


def inherited() -> dict[str, str]:
    """What a process of the stack may see of the environment in which `make` was called."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def leftovers(settings: Settings) -> list[psutil.Process]:
    """Every process that was started for this state folder and still lives, supervised or not."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid()
        and (_is_marked(process, settings) or _is_its_postgres(process, settings))
    ]


def stop_leftovers(settings: Settings) -> int:
    """Stop what an earlier supervisor left behind; how many processes that were."""
    found = leftovers(settings)
    # A supervisor goes first: it would restart the others.
    _stop([process for process in found if _is_supervisor(process)])
    _stop(leftovers(settings))
    return len(found)


def _is_marked(process: psutil.Process, settings: Settings) -> bool:
    try:
        return process.environ().get(MARKER) == str(settings.state)
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or somebody else's


def _is_its_postgres(process: psutil.Process, settings: Settings) -> bool:
    """Told by its command line: when it runs as another user, its environment cannot be read."""
    try:
        return process.name() == "postgres" and str(settings.state / "postgres") in process.cmdline()
    except (psutil.Error, OSError):
        return False


def _is_supervisor(process: psutil.Process) -> bool:
    try:
        return "supervisor.supervisord" in process.cmdline()
    except psutil.Error:
        return False


def _stop(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(alive, timeout=5)


def _becomes_true(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class _SocketTransport(xmlrpc.client.Transport):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def make_connection(self, host: tuple[str, dict[str, str]] | str) -> http.client.HTTPConnection:
        connection = _SocketConnection(self._settings)
        self._connection = (host, connection)  # where `close` looks for it
        return connection


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, settings: Settings) -> None:
        super().__init__("supervisor", timeout=30)
        self._settings = settings

    def connect(self) -> None:
        # Short again, whatever the folder's name: through its descriptor.
        folder = os.open(self._settings.run, os.O_PATH)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/supervisor.sock")
        finally:
            os.close(folder)
