"""What a span tells of an SQL statement."""

import re
from functools import lru_cache

from libs.tracing import Attributes

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+([a-z_]+)\b(?!\()")
_FUNCTION = re.compile(r"\b(?:FROM|SELECT)\s+([a-z_]+)\(")
_LONGEST = 2000


def statement_attributes(query: object) -> tuple[str, Attributes]:
    """(name of the span, its attributes), by OpenTelemetry's semantic conventions for databases."""
    return _attributes_of(query) if isinstance(query, str) else ("SQL", {"db.system.name": "postgresql"})


@lru_cache(maxsize=500)
def _attributes_of(query: str) -> tuple[str, Attributes]:
    text = " ".join(query.split())
    operation = text.partition(" ")[0].upper()
    target = _TABLE.search(text) or _FUNCTION.search(text)
    name = f"{operation} {target[1]}" if target else operation
    return name or "SQL", {
        "db.system.name": "postgresql",
        "db.operation.name": operation,
        "db.query.summary": name,
        "db.query.text": text[:_LONGEST],
    }
