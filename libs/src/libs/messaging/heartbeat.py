"""The worker's sign of life: a small file, rewritten while its parts make progress."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import msgspec

STALE_SECONDS = 30.0


class Heartbeat:
    """Collects what each part of a worker last said, and when."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, str]] = {}
        self.counts: Counter[str] = Counter()
        """Messages since the start: handled, skipped, not for us, dead letters."""

    def report(self, part: str, status: str) -> None:
        self._reports[part] = (time.monotonic(), status)

    def count_ready(self, part: str) -> int:
        """How many parts whose name begins so are ready, and not long ago."""
        return sum(
            name.startswith(part) and status == "ready" and time.monotonic() - at < STALE_SECONDS
            for name, (at, status) in self._reports.items()
        )

    def status(self) -> tuple[str, str]:
        """(`ready` | `starting` | `waiting`, what keeps it from being ready)."""
        troubles: list[str] = []
        for part, (at, status) in sorted(self._reports.items()):
            if time.monotonic() - at > STALE_SECONDS:
                troubles.append(f"{part}: no progress for {time.monotonic() - at:.0f} s")
            elif status not in ("ready", "standing by"):
                troubles.append(f"{part}: {status}")
        if not self._reports:
            return "starting", "starting"
        return ("waiting", "; ".join(troubles)) if troubles else ("ready", "")

    async def write(self, path: str) -> None:
        """Rewrites the file every second, for ever; more often until it is ready, which is waited for."""
        new = Path(f"{path}.new")
        while True:
            status, detail = self.status()
            # A few bytes: quicker than a thread.
            health = {"status": status, "detail": detail, "counts": self.counts}
            new.write_bytes(msgspec.json.encode(health))  # noqa: ASYNC240
            new.replace(path)  # noqa: ASYNC240
            await asyncio.sleep(1 if status == "ready" else 0.1)
