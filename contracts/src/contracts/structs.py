"""Python from the contracts: a struct for each message, and the topics."""

import json
from typing import cast

from contracts.definitions import (
    Contracts,
    InvalidContracts,
    MessageDefinition,
    TopicDefinition,
    python_key,
)
from contracts.schemas import Schema, non_null, snake

REPLAY_DAYS = 14
HEADER = '"""Generated from contracts/ by `make contracts`. Do not edit."""\n\n'
LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}


class _Structs:
    """The source of each struct by its name, nested ones before those that use them."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def add(self, name: str, schema: Schema, *, of: MessageDefinition, head: str = "") -> None:
        body, has_optional = self._fields(schema, of)
        # What is not set stays away: the schema of an optional field need not allow null.
        omit = ", omit_defaults=True" if has_optional else ""
        source = f'class {name}(Struct, frozen=True, kw_only=True, rename="camel"{omit}):\n{head}{body}'
        if self.sources.setdefault(name, source) != source:
            raise InvalidContracts(
                [
                    f"schemas/{of.name}.json: two different structs would be called {name}. Give the object"
                    f" another title, such as {name}V{of.version}"
                ]
            )

    def _fields(self, schema: Schema, of: MessageDefinition) -> tuple[str, bool]:
        required = cast(list[str], schema.get("required", []))
        lines: list[str] = []
        for name, value in schema["properties"].items():
            annotation = self._annotation(value, of)
            if name not in required:
                annotation = f"{annotation.removesuffix(' | None')} | None = None"
            lines.append(f"    {snake(name)}: {annotation}\n")
        return "".join(lines), len(required) < len(lines)

    def _annotation(self, schema: Schema, of: MessageDefinition) -> str:
        schema, is_nullable = non_null(schema)
        python = self._python_type(schema, of)
        limits = [f"{LIMITS[name]}={json.dumps(schema[name])}" for name in LIMITS if name in schema]
        if limits:
            python = f"Annotated[{python}, Meta({', '.join(limits)})]"
        return f"{python} | None" if is_nullable else python

    def _python_type(self, schema: Schema, of: MessageDefinition) -> str:
        if values := schema.get("enum"):
            return f"Literal[{', '.join(json.dumps(value) for value in values)}]"
        match schema["type"], schema.get("format"):
            case "string", "uuid":
                return "UUID"
            case "string", "date-time":
                return "Timestamp"
            case "array", _:
                return f"list[{self._annotation(schema['items'], of)}]"
            case "object", _:
                self.add(schema["title"], schema, of=of)
                return schema["title"]
            case kind, _:
                return {"string": "str", "integer": "int", "boolean": "bool"}[kind]


def messages_source(contracts: Contracts) -> str:
    """Raises `InvalidContracts` when two structs would have one name."""
    structs = _Structs()
    for message in contracts.messages.values():
        text = message.schema["description"] + (" Deprecated." if message.is_deprecated else "")
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        head = (
            f'    """{message.type} v{message.version}: {text}"""\n\n'
            f'    TYPE: ClassVar[str] = "{message.type}"\n'
            f"    VERSION: ClassVar[int] = {message.version}\n"
            f'    TOPIC: ClassVar[str] = "{message.topic}"\n'
            f'    KEY: ClassVar[str] = "{python_key(contracts.topics[message.topic])}"\n\n'
        )
        structs.add(message.struct, message.schema, of=message, head=head)
    listed = "".join(
        f'    ("{each.type}", {each.version}): {each.struct},\n' for each in contracts.messages.values()
    )
    union = " | ".join(each.struct for each in contracts.messages.values())
    return (
        HEADER
        + "from datetime import datetime\n"
        + "from typing import Annotated, ClassVar, Literal\n"
        + "from uuid import UUID\n\n"
        + "from msgspec import Meta, Struct\n\n"
        + "Timestamp = Annotated[datetime, Meta(tz=True)]\n\n\n"
        + "\n\n".join(structs.sources.values())
        + f"\n\nMessage = {union}\n\n"
        + f"MESSAGE_TYPES: dict[tuple[str, int], type[Message]] = {{\n{listed}}}\n"
    )


def topics_source(contracts: Contracts) -> str:
    lines: list[str] = []
    replays = {
        replay.topic: TopicDefinition(
            owner=service,
            key="",
            partitions=1,
            cleanup="delete",
            retention_days=REPLAY_DAYS,
            messages=[],
            subscribers={service: replay.dead_letters},
        )
        for service, replay in contracts.replays.items()
    }
    for name, topic in (contracts.topics | replays).items():
        lines.append(
            f"    Topic(\n        name={name!r},\n        owner={topic.owner!r},\n"
            f"        partitions={topic.partitions},\n        retention_days={topic.retention_days},\n"
            f"        messages={tuple(topic.messages)!r},\n"
            f"        subscribers={topic.subscribers!r},\n    ),\n"
        )
    return (
        HEADER
        + "from msgspec import Struct\n\n\n"
        + "class Topic(Struct, frozen=True, kw_only=True):\n"
        + '    """A topic; `subscribers` maps a consumer group to its dead-letter topic,\n'
        + "    `retention_days` is None where messages are kept for good. A topic without messages\n"
        + '    carries dead letters that are sent again."""\n\n'
        + "    name: str\n    owner: str\n    partitions: int\n    retention_days: int | None\n"
        + "    messages: tuple[str, ...]\n    subscribers: dict[str, str]\n\n\n"
        + f"TOPICS = (\n{''.join(lines)})\n\n"
        + f"DEAD_LETTER_AUDIT = {contracts.dead_letter_audit!r}\n"
    )
