"""The contracts as a page to read."""

import json
from collections.abc import Iterator

from contracts.definitions import Contracts, MessageDefinition
from contracts.schemas import Schema, non_null

HEADER = "<!-- Generated from contracts/ by `make contracts`. Do not edit. -->\n\n"


def page_source(contracts: Contracts) -> str:
    lines = [
        "# Topics and messages",
        "",
        "What each topic carries, from whom to whom. [README.md](README.md) says how it is sent and how to"
        " change"
        " it; [asyncapi.yaml](asyncapi.yaml) is the same for tools.",
        "",
        "| topic | owner | subscribers | messages |",
        "|---|---|---|---|",
    ]
    for name, topic in contracts.topics.items():
        messages = ", ".join(f"[{each.name}](#{_anchor(each.name)})" for each in contracts.on(name))
        lines.append(
            f"| [{name}](#topic-{_anchor(name)}) | {topic.owner} | {', '.join(topic.subscribers)} |"
            f" {messages} |"
        )
    lines.extend(
        ["", "Dead letters are sent again on topics of their own, and what was done with them is kept:", ""]
    )
    lines.extend(["| topic | what for |", "|---|---|"])
    for service, replay in contracts.replays.items():
        of_its_own = f"what it can make nothing of goes to `{replay.dead_letters}`"
        lines.append(f"| {replay.topic} | dead letters of {service}, to it alone; {of_its_own} |")
    lines.append(f"| {contracts.dead_letter_audit} | what was done with which dead letter |")
    for name in contracts.topics:
        lines.extend(_topic(contracts, name))
        for message in contracts.on(name):
            lines.extend(_message(message))
    return HEADER + "\n".join(lines) + "\n"


def _topic(contracts: Contracts, name: str) -> Iterator[str]:
    topic = contracts.topics[name]
    kept = f"{topic.retention_days} days" if topic.retention_days else "for good"
    yield from ("", f"## Topic {name}", "", "| | |", "|---|---|")
    yield f"| owner, the only publisher | {topic.owner} |"
    yield f"| key: its messages keep their order | `{topic.key}` |"
    yield f"| partitions | {topic.partitions} |"
    yield f"| kept | {kept} |"
    for subscriber, dead_letters in topic.subscribers.items():
        yield f"| subscriber, its dead letters | {subscriber}, `{dead_letters}` |"


def _message(message: MessageDefinition) -> Iterator[str]:
    schema = f"[schema](schemas/{message.name}.json)"
    yield from ("", f"### {message.name}", "")
    yield f"{message.schema['description']} {schema}, struct `{message.struct}`."
    if message.is_deprecated:
        yield from ("", "Deprecated: nobody publishes it any more.")
    yield from ("", "| field | type | meaning |", "|---|---|---|")
    yield from _fields("", message.schema)
    yield from ("", "```json", json.dumps(message.example, indent=2, ensure_ascii=False), "```")


def _fields(path: str, schema: Schema) -> Iterator[str]:
    for name, value in schema["properties"].items():
        where = f"{path}{name}"
        inner, is_nullable = non_null(value)
        kind = _kind(inner) + (", or null" if is_nullable else "")
        if name not in schema.get("required", []):
            kind += "; may be absent"
        meaning = value.get("description") or inner.get("description", "")
        yield f"| `{where}` | {_cell(kind)} | {_cell(meaning)} |"
        nested = inner
        while nested["type"] == "array":
            where += "[]"
            nested, _ = non_null(nested["items"])
        if nested["type"] == "object":
            yield from _fields(f"{where}.", nested)


def _kind(schema: Schema) -> str:
    if values := schema.get("enum"):
        return " or ".join(f"`{json.dumps(each)}`" for each in values)
    match schema["type"], schema.get("format"):
        case "array", _:
            item, is_nullable = non_null(schema["items"])
            name = "array of " + _kind(item) + (" or null" if is_nullable else "")
        case "object", _:
            name = schema["title"]
        case _, "uuid":
            name = "UUID"
        case _, "date-time":
            name = "time, ISO 8601 with its offset"
        case kind, _:
            name = kind
    words = {"minimum": "at least", "maximum": "at most", "pattern": "matching"}
    words |= {"minLength": "no shorter than", "maxLength": "no longer than"}
    words |= {"minItems": "no fewer than", "maxItems": "no more than"}
    limits = [f"{word} `{schema[limit]}`" for limit, word in words.items() if limit in schema]
    return ", ".join([name, *limits])


def _anchor(heading: str) -> str:
    return heading.replace(".", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
