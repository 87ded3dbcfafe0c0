"""Writes `messages.py` and `topics.py` from `topics.yaml` and the JSON Schemas.

python -m contracts.generate            write the files
python -m contracts.generate --check    exit 1 when a file on disk is not what would be written
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

CONTRACTS = Path(__file__).parents[2]
PACKAGE = Path(__file__).parent
HEADER = '"""Generated from contracts/ by `make contracts`. Do not edit."""\n\n'

Schema = dict[str, Any]


class MessageType(NamedTuple):
    type: str
    version: int
    schema: Schema

    @property
    def struct(self) -> str:
        name = "".join(word.capitalize() for word in re.split(r"[.\-_]", self.type))
        return name if self.version == 1 else f"{name}V{self.version}"


def read_topics() -> dict[str, Schema]:
    """The topics of `topics.yaml` by name."""
    document = cast(Schema, yaml.safe_load((CONTRACTS / "topics.yaml").read_text()))
    return cast(dict[str, Schema], document["topics"])


def read_message_types(message_type: str) -> Iterator[MessageType]:
    """All versions of a message type, oldest first."""
    versions: list[MessageType] = []
    for path in (CONTRACTS / "schemas").glob(f"{message_type}.v*.json"):
        version = int(path.name.removeprefix(f"{message_type}.v").removesuffix(".json"))
        versions.append(MessageType(message_type, version, json.loads(path.read_text())))
    if not versions:
        sys.exit(f"contracts: topics.yaml names {message_type}, which has no schema in contracts/schemas")
    yield from sorted(versions, key=lambda each: each.version)


class StructWriter:
    """Collects the Python source of the structs, nested ones before those that use them."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def annotation(self, schema: Schema) -> str:
        if options := schema.get("anyOf"):
            return " | ".join(self.annotation(option) for option in options)
        if values := schema.get("enum"):
            return f"Literal[{', '.join(json.dumps(value) for value in values)}]"
        match schema["type"], schema.get("format"):
            case "string", "uuid":
                return "UUID"
            case "string", "date-time":
                return "Timestamp"
            case "string", _:
                return self.constrained("str", schema)
            case "integer", _:
                return self.constrained("int", schema)
            case "boolean", _:
                return "bool"
            case "null", _:
                return "None"
            case "array", _:
                return f"list[{self.annotation(schema['items'])}]"
            case "object", _:
                return self.nested(schema)
            case _:
                raise ValueError(f"contracts: no Python type for {schema}")

    @staticmethod
    def constrained(python: str, schema: Schema) -> str:
        limits: list[str] = []
        if (minimum := schema.get("minimum")) is not None:
            limits.append(f"ge={minimum}")
        if pattern := schema.get("pattern"):
            limits.append(f"pattern={json.dumps(pattern)}")
        return f"Annotated[{python}, Meta({', '.join(limits)})]" if limits else python

    def nested(self, schema: Schema) -> str:
        title = cast(str, schema["title"])
        source = f'class {title}(Struct, frozen=True, kw_only=True, rename="camel"):\n{self.fields(schema)}'
        if self.sources.setdefault(title, source) != source:
            raise ValueError(f"contracts: two different structs are titled {title}")
        return title

    def fields(self, schema: Schema) -> str:
        required = cast(list[str], schema["required"])
        lines: list[str] = []
        for name, value in schema["properties"].items():
            default = "" if name in required else " | None = None"
            lines.append(f"    {snake(name)}: {self.annotation(value)}{default}\n")
        return "".join(lines)

    def message(self, message: MessageType, topic: str, key: str) -> None:
        fields = self.fields(message.schema)
        self.sources[message.struct] = (
            f'class {message.struct}(Struct, frozen=True, kw_only=True, rename="camel"):\n'
            f'    """{message.type} v{message.version}: {message.schema["description"]}"""\n\n'
            f'    TYPE: ClassVar[str] = "{message.type}"\n'
            f"    VERSION: ClassVar[int] = {message.version}\n"
            f'    TOPIC: ClassVar[str] = "{topic}"\n'
            f'    KEY: ClassVar[str] = "{snake(key)}"\n\n'
            f"{fields}"
        )


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def messages_source() -> str:
    writer = StructWriter()
    structs: list[MessageType] = []
    for topic, definition in read_topics().items():
        for message_type in definition["messages"]:
            for message in read_message_types(message_type):
                writer.message(message, topic, definition["key"])
                structs.append(message)
    listed = "".join(f'    ("{each.type}", {each.version}): {each.struct},\n' for each in structs)
    union = " | ".join(each.struct for each in structs)
    return (
        HEADER
        + "from datetime import datetime\n"
        + "from typing import Annotated, ClassVar, Literal\n"
        + "from uuid import UUID\n\n"
        + "from msgspec import Meta, Struct\n\n"
        + "Timestamp = Annotated[datetime, Meta(tz=True)]\n\n\n"
        + "\n\n".join(writer.sources.values())
        + f"\n\nMessage = {union}\n\n"
        + f"MESSAGE_TYPES: dict[tuple[str, int], type[Message]] = {{\n{listed}}}\n"
    )


def topics_source() -> str:
    lines: list[str] = []
    for name, topic in read_topics().items():
        days = topic.get("retentionDays")
        lines.append(
            f"    Topic(\n        name={name!r},\n        owner={topic['owner']!r},\n"
            f"        partitions={topic['partitions']},\n        retention_days={days},\n"
            f"        messages={tuple(topic['messages'])!r},\n"
            f"        subscribers={topic['subscribers']!r},\n    ),\n"
        )
    return (
        HEADER
        + "from msgspec import Struct\n\n\n"
        + "class Topic(Struct, frozen=True, kw_only=True):\n"
        + '    """A topic; `subscribers` maps a consumer group to its dead-letter topic,\n'
        + '    `retention_days` is None where messages are kept for good."""\n\n'
        + "    name: str\n    owner: str\n    partitions: int\n    retention_days: int | None\n"
        + "    messages: tuple[str, ...]\n    subscribers: dict[str, str]\n\n\n"
        + f"TOPICS = (\n{''.join(lines)})\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate Python code from contracts/")
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    check = parser.parse_args().check
    stale: list[str] = []
    for name, source in (("messages.py", messages_source()), ("topics.py", topics_source())):
        path = PACKAGE / name
        if path.exists() and path.read_text() == source:
            continue
        stale.append(name)
        if not check:
            path.write_text(source)
    if check and stale:
        sys.exit(f"contracts: {', '.join(stale)} stale: run `make contracts` and commit the result")
    print(f"contracts: {'written: ' + ', '.join(stale) if stale else 'generated files are up to date'}")


if __name__ == "__main__":
    main()
