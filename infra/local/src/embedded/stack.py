"""The whole stack: its parts, the order in which they come up, and how they go down."""

import shutil
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from embedded import gateway, kafka, locks, ports, postgres, redis, services
from embedded.problems import Problem
from embedded.programs import Program
from embedded.settings import SERVICES, Settings
from embedded.supervision import Supervisor, stop_leftovers
from embedded.terminal import Progress

BACKING = ("postgres", "redis", "kafka")
PARTS = (*BACKING, "stripe", "gateway", *SERVICES)
READY_SECONDS = 120
LOOK_SECONDS = 0.7
"""How often the supervisor is asked whether the process had to be started anew."""
MAX_DEATHS = 3
"""So often a process may die on its way up before it is given up."""
MIN_FREE_MB = 512
SILENT = Progress(quiet=True)


class Stack:
    """`parts` is what of the stack is wanted; a service's name stands for its two processes.

    `keeper` is a lock file for stacks that belong to somebody, such as a test run: once nobody
    holds a lock on it any more, however they ended, the stack goes down by itself.
    """

    def __init__(
        self, settings: Settings, *, parts: Sequence[str] = PARTS, keeper: Path | None = None
    ) -> None:
        self.settings = settings
        self.supervisor = Supervisor(settings)
        self._parts = parts
        self._keeper = keeper
        self._is_given_up = threading.Event()
        self._has_topics = threading.Event()

    @property
    def programs(self) -> dict[str, Program]:
        """The parts' processes by name, in the order of `make status`."""
        servers = {
            "postgres": postgres.program,
            "redis": redis.program,
            "kafka": kafka.program,
            "stripe": services.stripe,
            "gateway": gateway.program,
        }
        programs = [make(self.settings) for name, make in servers.items() if name in self._parts]
        for service in SERVICES:
            if service in self._parts:
                programs += [services.app(self.settings, service), services.worker(self.settings, service)]
        return {program.name: program for program in programs}

    def up(self, progress: Progress = SILENT) -> bool:
        """Bring up what is not up; whether there was anything to do.

        Raises Problem, which names what is in the way; what came up until then stays up, to be looked at.
        """
        with self._alone(progress):
            is_running = self.supervisor.is_running()
            if not is_running:
                _require_disk(self.settings.state)
            self.settings.save()
            if is_running:
                self.supervisor.change(self._supervised)
                if self.is_ready():
                    return False
            else:
                self._begin(progress)
            self._bring_up(progress)
            return True

    def down(self, progress: Progress = SILENT) -> int:
        """Stop every process, gracefully where that works, and wait for its end; how many there were."""
        with self._alone(progress):
            return self._down()

    def reset(self, progress: Progress = SILENT) -> None:
        """Stop everything and delete the state: databases, messages, secrets, logs."""
        with self._alone(progress):
            self._down()
            if self.settings.state.exists():
                shutil.rmtree(self.settings.state)

    def start(self, names: Sequence[str], progress: Progress = SILENT) -> None:
        """Start these processes and wait until they are ready."""
        with self._alone(progress):
            self._is_given_up.clear()
            self._together([partial(self._start, name, progress) for name in names])

    def stop(self, names: Sequence[str], progress: Progress = SILENT) -> None:
        """Stop these processes; they stay away until they are started, or until `up`."""
        with self._alone(progress):
            self.supervisor.stop_processes(names)

    def environment(self) -> dict[str, str]:
        """What a client of this stack needs to know, as environment variables."""
        urls = {"ADMIN_DATABASE_URL": postgres.admin_url(self.settings)}
        for service in SERVICES:
            urls |= services.database_urls(self.settings, service)
        return {
            "GATEWAY_URL": f"http://localhost:{self.settings.port('gateway')}",
            "KAFKA_BROKERS": kafka.brokers(self.settings),
            "REDIS_URL": redis.url(self.settings),
            **urls,
            **services.stripe_environment(self.settings),
        }

    def is_ready(self) -> bool:
        return all(self.trouble(name) is None for name in self.programs if not self.is_in_foreground(name))

    def trouble(self, name: str) -> str | None:
        """Why this process is not ready; None when it is."""
        process = self.supervisor.processes().get(name)
        if process is None:
            return "is not running"
        if process.pid is None:
            return f"{process.state.lower()}: {process.word}"
        return self.programs[name].trouble()

    def foreground_lock(self, service: str) -> Path:
        """Held by `make run` while it runs that service in place of its supervised processes."""
        return self.settings.state / f"{service}.foreground"

    def is_in_foreground(self, name: str) -> bool:
        return locks.is_held(self.foreground_lock(name.removesuffix("-worker")))

    @contextmanager
    def _alone(self, progress: Progress) -> Generator[None]:
        """One at a time may start or stop things. The lock, beside the state folder, outlives a reset."""
        lock = self.settings.state.with_name(f"{self.settings.state.name}.lock")
        if locks.is_held(lock):
            progress.say("waiting for another command that starts or stops this stack")
        with locks.held(lock):
            yield

    @property
    def _supervised(self) -> list[Program]:
        return [*self.programs.values(), *([] if self._keeper is None else [_keeper_program(self._keeper)])]

    def _begin(self, progress: Progress) -> None:
        settings = self.settings
        if found := stop_leftovers(settings):
            progress.say(f"  stopped {found} processes that an earlier start had left behind")
        ports.require_free(
            {port: program.name for program in self.programs.values() for port in program.ports}
        )
        shutil.rmtree(settings.run, ignore_errors=True)
        for folder in (settings.run, settings.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.supervisor.start(self._supervised)
        if self._keeper:
            self.supervisor.start_process("keeper")

    def _bring_up(self, progress: Progress) -> None:
        self._is_given_up.clear()
        self._has_topics.clear()
        chains: list[Callable[[], None]] = []
        if "postgres" in self._parts:
            chains.append(partial(self._bring_up_databases, progress))
        if "kafka" in self._parts:
            chains.append(partial(self._bring_up_messaging, progress))
        chains += [
            partial(self._start, name, progress)
            for name in ("redis", "stripe", "gateway")
            if name in self._parts
        ]
        self._together(chains)

    def _bring_up_databases(self, progress: Progress) -> None:
        self._start("postgres", progress)
        postgres.create_database(self.settings)
        mine = [name for name in self.programs if name.removesuffix("-worker") in SERVICES]
        if mine and not self._is_given_up.is_set():
            with progress.step("migrations", "done"):
                services.migrate(self.settings)
            starts = [
                partial(self._start_worker if name.endswith("-worker") else self._start, name, progress)
                for name in mine
                if not self.is_in_foreground(name)
            ]
            self._together([*starts, partial(services.create_admin, self.settings)])

    def _start_worker(self, name: str, progress: Progress) -> None:
        # Workers can wait too, but a consumer that looks for its topics too early is slow to look again.
        while "kafka" in self._parts and not self._has_topics.wait(0.1):
            if self._is_given_up.is_set():
                return
        self._start(name, progress)

    def _bring_up_messaging(self, progress: Progress) -> None:
        if not kafka.is_installed():
            with progress.step("kafka jars", "done"):
                kafka.install()
        self._start("kafka", progress)
        if any(service in self._parts for service in SERVICES) and not self._is_given_up.is_set():
            with progress.step("topics", "done"):
                services.create_topics(self.settings)
        self._has_topics.set()

    def _start(self, name: str, progress: Progress) -> None:
        """Start one process and wait until it is ready, or until another one is given up."""
        program = self.programs[name]
        with progress.step(name):
            process = self.supervisor.processes()[name]
            if process.pid is None:
                program.prepare()
                self.supervisor.start_process(name)
            self._await_ready(program)

    def _await_ready(self, program: Program) -> None:
        started = looked_at = time.monotonic()
        starts: set[int] = set()
        while (trouble := program.trouble()) is not None and not self._is_given_up.is_set():
            now = time.monotonic()
            if now - looked_at > LOOK_SECONDS:
                looked_at = now
                starts.add(self.supervisor.processes()[program.name].started_at)
            if now - started > READY_SECONDS or len(starts) > MAX_DEATHS:
                raise Problem(f"{program.name} is not ready: {trouble}{self._last_words(program.name)}")
            time.sleep(0.1)

    def _last_words(self, name: str) -> str:
        log = self.settings.logs / f"{name}.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        if not lines:
            return ""
        full = next((line for line in reversed(lines[-50:]) if "No space left on device" in line), None)
        if full:
            return f"; the disk is full: free some space ({full.strip()})"
        return f'; the last line of its log: "{lines[-1].strip()}"; all of it: make logs S={name}'

    def _together(self, calls: Sequence[Callable[[], None]]) -> None:
        """Do all at once. The first problem ends the waiting of the others and is raised."""
        with ThreadPoolExecutor(max_workers=len(calls)) as pool:
            running = [pool.submit(call) for call in calls]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                failed = [problem for one in done if (problem := one.exception()) is not None]
            except BaseException:
                self._is_given_up.set()
                raise
            if failed:
                self._is_given_up.set()
                raise failed[0]

    def _down(self) -> int:
        alive = [process.name for process in self.supervisor.processes().values() if process.is_alive]
        # The servers last: who is being stopped may still have something to store or to say.
        self.supervisor.stop_processes([name for name in alive if name not in BACKING])
        self.supervisor.stop_processes([name for name in alive if name in BACKING])
        self.supervisor.shut_down()
        return len(alive) + stop_leftovers(self.settings)


def _keeper_program(lock: Path) -> Program:
    """Waits for the lock that its users share, then ends the supervisor, its parent."""
    return Program(
        name="keeper",
        command=("sh", "-c", 'exec flock --no-fork "$0" kill -TERM $PPID', str(lock)),
        trouble=lambda: None,
    )


def _require_disk(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free // 2**20
    if free < MIN_FREE_MB:
        raise Problem(
            f"the disk is full: {free} MB are left for {folder}, {MIN_FREE_MB} MB are needed: free some space"
        )
