"""What a record says, for a screen: anyone may have written it, and a terminal obeys what it is sent."""

import json


def body_text(value: bytes | None, *, limit: int | None = None) -> str:
    """JSON set out, other bytes escaped, at most `limit` characters of it."""
    if value is None:
        return "(null)"
    try:
        text = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = text_of(value)
    lines = "\n".join(safe(line) for line in text.split("\n"))
    if limit is None or len(lines) <= limit:
        return lines
    return f"{lines[:limit]}\n... {len(lines) - limit} more characters: LETTER= (--letter) shows all"


def text_of(value: bytes | None) -> str:
    """A key or a header."""
    if value is None:
        return "-"
    try:
        return safe(value.decode())
    except UnicodeDecodeError:
        return safe(repr(value)[2:-1])


def safe(text: str) -> str:
    """Without what a terminal would obey: control characters, changes of direction, half characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
