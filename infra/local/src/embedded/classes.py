"""A cache of the broker's loaded classes: with it Kafka is up in 1 s instead of 3, for a third of the work.

Java writes it when a broker that ran with `-XX:AOTCacheOutput` ends, which takes it some 8 s.
"""

import os
import shutil
import subprocess
import sys
import time

from embedded import kafka, locks
from embedded.ports import free_port_base
from embedded.settings import ROOT, Settings
from embedded.supervision import MARKER, inherited

READY_SECONDS = 60
WRITTEN_SECONDS = 180


def exist() -> bool:
    return kafka.class_cache().exists()


def make() -> None:
    """Run a broker of its own for a moment and let it leave its classes behind. Once made, they are kept."""
    lock = locks.take(kafka.tools() / "classes.lock")
    folder = kafka.tools() / "training"
    try:
        if not exist():
            shutil.rmtree(folder, ignore_errors=True)
            _make(Settings(folder, free_port_base(), durable=False))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def make_in_background(settings: Settings) -> None:
    """The same, without haste and beside the stack of these settings, which takes it down with itself."""
    subprocess.Popen(
        ("nice", "-n", "19", sys.executable, "-m", "embedded", "classes"),
        cwd=ROOT,
        env=inherited() | {MARKER: str(settings.state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _make(settings: Settings) -> None:
    draft = kafka.class_cache().with_suffix(".new")
    program = kafka.program(settings)
    settings.run.mkdir(parents=True)
    program.prepare()
    broker = subprocess.Popen(
        kafka.java(settings, f"-XX:AOTCacheOutput={draft}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while program.trouble() is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        broker.terminate()
        broker.wait(WRITTEN_SECONDS)
        if draft.exists():
            draft.rename(kafka.class_cache())
    finally:
        broker.kill()
        broker.wait()
