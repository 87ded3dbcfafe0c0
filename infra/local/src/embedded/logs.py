"""Following log files, several at once, each line with the name of its process."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedded.problems import Problem
from embedded.settings import SERVICES
from embedded.stack import Stack

OTHERS = ("migrations", "topics", "admin", "supervisord")
"""Logs of what is no supervised process."""


def named(stack: Stack, name: str) -> list[str]:
    """The logs meant by a name: a service's are those of its two processes."""
    known = [*stack.programs, *OTHERS]
    if name not in known:
        raise Problem(f"there is no log of {name or 'nothing'}: say S=, one of {', '.join(known)}")
    return [name, f"{name}-worker"] if name in SERVICES else [name]


def follow(stack: Stack, names: Sequence[str], *, lines: int) -> Iterator[str]:
    """The last lines of each log, then every new one, without an end."""
    width = max(len(name) for name in names)
    files = [_LogFile(stack.settings.logs / f"{name}.log", f"{name:<{width}} | ", lines) for name in names]
    while True:
        news = [line for file in files for line in file.news()]
        yield from news
        if not news:
            time.sleep(0.2)


class _LogFile:
    def __init__(self, path: Path, prefix: str, lines: int) -> None:
        self._path = path
        self._prefix = prefix
        self._lines = lines
        self._inode = 0
        self._position = 0

    def news(self) -> list[str]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return []
        is_first = not self._inode
        if status.st_ino != self._inode or status.st_size < self._position:  # rotated, or begun anew
            self._inode, self._position = status.st_ino, 0
        if status.st_size == self._position:
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        found = [self._prefix + line for line in whole.decode(errors="replace").splitlines()]
        return found[-self._lines :] if is_first else found
