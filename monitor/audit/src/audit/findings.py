"""What is looked for and what is found."""

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString, NamedTuple


@dataclass(frozen=True)
class Check:
    name: str
    """Short, stable: its section in docs/runbooks/audit.md has this heading."""
    title: str
    """What is true when nothing is found."""
    means: str
    settles: bool = False
    """Whether a healthy system may look so for a moment, while messages are under way."""
    sql: LiteralString = ""
    """Rows of (id, text, since) for those that are checked by the database alone."""


class Finding(NamedTuple):
    check: Check
    id: str
    text: str
    since: datetime | None = None
    """Since when at the latest; None: since it was first seen. Looked at when the check settles."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.check.name, self.id)
