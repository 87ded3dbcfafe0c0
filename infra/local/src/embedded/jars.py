"""Kafka's jars, fetched from the Maven registry and checked against the lock file.

python -m embedded.jars       needs nothing but jgo, so that it runs while other packages are installed
"""

import hashlib
import os
import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedded import locks
from embedded.problems import Problem
from embedded.settings import ROOT, TOOLS

if TYPE_CHECKING:
    from jgo.maven import MavenContext

LOCK = ROOT / "infra" / "local" / "kafka.lock"
FOLDER = TOOLS / "kafka" / "jars"


@dataclass(frozen=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.artifact}-{self.version}.jar"

    def is_whole(self, path: Path) -> bool:
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


def locked() -> list[Jar]:
    lines = [line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return [Jar(group, artifact, version, sha256) for group, artifact, version, sha256 in lines]


def fetch() -> None:
    """Fetch what is missing, one after another: the registry answers many at once more slowly."""
    with locks.held(FOLDER.with_suffix(".lock")):
        missing = [jar for jar in locked() if not jar.is_whole(jar.path)]
        if not missing:
            return
        from jgo.maven import MavenContext  # noqa: PLC0415 - slow to import, and wanted once only
        from requests import RequestException  # noqa: PLC0415

        _trust_what_the_system_trusts()
        FOLDER.mkdir(exist_ok=True)
        registry = MavenContext(timeout=60)
        for jar in missing:
            try:
                _fetch(registry, jar)
            except RequestException as error:
                raise Problem(
                    f"no network: {jar.path.name} cannot be fetched ({_cause(error)}): connect, set the proxy"
                    " of this network, or REQUESTS_CA_BUNDLE to the file of the certificates that it trusts"
                ) from None


def _trust_what_the_system_trusts() -> None:
    """A network may have an authority of its own, of which the list that requests brings knows nothing."""
    trusted = ssl.get_default_verify_paths().cafile
    if trusted and not os.environ.get("CURL_CA_BUNDLE"):
        os.environ.setdefault("REQUESTS_CA_BUNDLE", trusted)


def _cause(error: BaseException) -> str:
    """The innermost one: what is around it says that some URL was not answered."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


def _fetch(registry: "MavenContext", jar: Jar) -> None:
    draft = jar.path.with_suffix(".new")
    for _ in range(2):
        cached = registry.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        shutil.copyfile(cached, draft)
        if jar.is_whole(draft):
            draft.rename(jar.path)
            return
        cached.unlink()  # the user's Maven cache held something else: fetch it anew, once
    raise Problem(f"{jar.path.name} is not what {LOCK.name} says (SHA-256): what was downloaded is not used")


if __name__ == "__main__":
    fetch()
