"""Which messages SQL inserts into the outbox, by its text.

What Python publishes is typed; a message that a function of the database writes is held against its schema
here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contracts.definitions import Contracts, MessageDefinition

Version = tuple[str, int]

INSERT = re.compile(r"INSERT\s+INTO\s+outbox\s*\(([^)]*)\)\s*(SELECT|VALUES)\b", re.IGNORECASE)
FUNCTION = re.compile(r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\s+([\w.]+)", re.IGNORECASE)
DROP = re.compile(r"DROP\s+(?:FUNCTION|PROCEDURE)\s+(?:IF\s+EXISTS\s+)?([\w.]+)", re.IGNORECASE)
WORD = re.compile(r"'(?:[^']|'')*'|\b\w+\b|\S|\s+")
BODY = re.compile(r"jsonb?_build_object\s*\((.*)\)\s*(?:::\s*text)?\s*", re.DOTALL)


class SqlUsage(NamedTuple):
    published: list[tuple[Version, str]]
    unreadable: list[str]


def read_migrations(folder: Path, contracts: Contracts) -> SqlUsage:
    """Of a function that later migrations replace or drop, only what stands in the end counts."""
    functions: dict[str, tuple[str, str]] = {}
    usage = SqlUsage([], [])
    for path in sorted(folder.glob("*.sql")):
        place = f"services/{folder.parent.name}/migrations/{path.name}"
        text = re.sub(r"--[^\n]*", "", path.read_text())
        for name in DROP.findall(text):
            functions.pop(name.lower(), None)
        first, *rest = FUNCTION.split(text)
        _merge(usage, read_inserts(first, place, contracts))
        for name, body in zip(rest[::2], rest[1::2], strict=True):
            functions[name.lower()] = place, body
    for place, body in functions.values():
        _merge(usage, read_inserts(body, place, contracts))
    return usage


def _merge(usage: SqlUsage, other: SqlUsage) -> None:
    usage.published.extend(other.published)
    usage.unreadable.extend(other.unreadable)


def read_inserts(sql: str, place: str, contracts: Contracts) -> SqlUsage:
    usage = SqlUsage([], [])
    for insert in INSERT.finditer(sql):
        columns = [each.strip().lower() for each in insert[1].split(",")]
        for values in _rows(sql[insert.end() :], is_select=insert[2].upper() == "SELECT"):
            row = dict(zip(columns, values, strict=False))
            topic, message_type = _text(row.get("topic", "")), _text(row.get("type", ""))
            version = row.get("version", "1")
            if topic is None or message_type is None or not version.isdigit():
                usage.unreadable.append(
                    f"{place}: a message inserted into the outbox cannot be read: write its topic, type and"
                    " version"
                    " as literals"
                )
                continue
            message = contracts.messages.get((message_type, int(version)))
            if message is None or message.topic != topic:
                usage.unreadable.append(
                    f"{place}: publishes {message_type} v{version} on {topic}, which contracts/topics.yaml"
                    " does not"
                    " say. Correct it here, or write the schema and add the type to the topic"
                )
                continue
            usage.published.append(((message.type, message.version), place))
            usage.unreadable.extend(
                f"{place}: {each}" for each in _body_problems(row.get("body", ""), message)
            )
    return usage


def _body_problems(body: str, message: MessageDefinition) -> Iterator[str]:
    built = BODY.fullmatch(body)
    if built is None:
        return
    names = {_text(each) for each in _split(built[1])[0][::2]}
    for name in sorted(set(message.schema.get("required", [])) - names):
        yield f"{message.name} is published without {name}, which its schema requires"
    for name in sorted(str(each) for each in names - message.schema["properties"].keys()):
        yield f"{message.name} is published with {name}, which its schema does not have"


def _rows(sql: str, *, is_select: bool) -> Iterator[list[str]]:
    """The expressions of a SELECT list, or of each row of VALUES."""
    if is_select:
        yield _split(sql, end="FROM")[0]
        return
    rest = sql.lstrip()
    while rest.startswith("("):
        values, rest = _split(rest[1:])
        yield values
        rest = rest.removeprefix(")").lstrip().removeprefix(",").lstrip()


def _split(sql: str, *, end: str = "") -> tuple[list[str], str]:
    """The comma-separated expressions up to a word, a semicolon or the parenthesis that closes them; the"
    " rest."""
    expressions = [""]
    depth = 0
    for match in WORD.finditer(sql):
        word = match[0]
        depth += (word == "(") - (word == ")")
        if depth < 0 or (depth == 0 and (word == ";" or (end and word.upper() == end))):
            return [each.strip() for each in expressions], sql[match.start() :]
        if word == "," and depth == 0:
            expressions.append("")
        else:
            expressions[-1] += word
    return [each.strip() for each in expressions], ""


def _text(expression: str) -> str | None:
    """What a literal says."""
    literal = re.fullmatch(r"'((?:[^']|'')*)'(?:\s*::\s*text)?", expression.strip())
    return literal[1].replace("''", "'") if literal else None
