"""Lines for people: what is being done, how it went, how long it took."""

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Prints one line for each part; parts that come up at the same time may share it."""

    quiet: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        if not self.quiet:
            with self._lock:
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()

    def done(self, name: str, word: str, seconds: float) -> None:
        self.say(f"  {name:<18} {word:<10} {seconds:5.1f} s")

    @contextmanager
    def step(self, name: str, word: str = "ready") -> Generator[None]:
        started = time.monotonic()
        yield
        self.done(name, word, time.monotonic() - started)


def table(rows: list[tuple[str, ...]], *, right: frozenset[int] = frozenset()) -> str:
    """Aligned columns, the first row being the heading; the columns in `right` hold numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)
