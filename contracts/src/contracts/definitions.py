"""The contracts as they are written: `topics.yaml`, the JSON Schemas and their examples."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import yaml
from jsonschema import Draft202012Validator
from msgspec import Meta, Struct

from contracts.schemas import Schema, schema_problems, snake

CONTRACTS = Path(__file__).parents[2]


class TopicDefinition(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A topic of `topics.yaml`, whose head says what each field means."""

    owner: str
    key: str
    partitions: Annotated[int, Meta(ge=1)]
    cleanup: Literal["delete", "keep"]
    retention_days: Annotated[int, Meta(ge=1)] | None = None
    messages: list[str]
    subscribers: dict[str, str]


class ReplayDefinition(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where a subscriber gets its dead letters again, and what it can make nothing of goes."""

    topic: str
    dead_letters: str


class _Document(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    topics: dict[str, TopicDefinition]
    replays: dict[str, ReplayDefinition] = {}
    dead_letter_audit: str = ""


class MessageDefinition(NamedTuple):
    """One version of a message type; `topic` names the topic that it is on."""

    type: str
    version: int
    topic: str
    schema: Schema
    example: Any

    @property
    def name(self) -> str:
        return f"{self.type}.v{self.version}"

    @property
    def struct(self) -> str:
        """The name of its Python struct: `OrderPaid`, of a later version `OrderPaidV2`."""
        name = "".join(word.capitalize() for word in re.split(r"[.\-_]", self.type))
        return name if self.version == 1 else f"{name}V{self.version}"

    @property
    def is_deprecated(self) -> bool:
        """Nobody publishes it any more; consumers read what is left of it."""
        return self.schema.get("deprecated", False)


class Contracts(NamedTuple):
    """Topics by name; messages by type and version, in the order of the topics, older versions first; replay
    topics by their subscriber.
    """

    topics: dict[str, TopicDefinition]
    messages: dict[tuple[str, int], MessageDefinition]
    replays: dict[str, ReplayDefinition]
    dead_letter_audit: str

    def versions(self, message_type: str) -> list[MessageDefinition]:
        return [each for each in self.messages.values() if each.type == message_type]

    def on(self, topic: str) -> list[MessageDefinition]:
        return [each for each in self.messages.values() if each.topic == topic]


class InvalidContracts(Exception):
    """What is wrong in the files under `contracts/`: a sentence for each `problem`.

    `but_for_examples` are the contracts when it is examples alone that are wrong.
    """

    def __init__(self, problems: list[str], *, but_for_examples: Contracts | None = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.but_for_examples = but_for_examples


def read_contracts(folder: Path = CONTRACTS, *, released: bool = False) -> Contracts:
    """Raises `InvalidContracts`, with everything that is wrong.

    What is released was right when it was written, and has no examples.
    """
    document = _read_topics(folder / "topics.yaml")
    topics = document.topics
    topic_of = {each: name for name, topic in topics.items() for each in topic.messages}
    problems = list(_topic_problems(topics))
    wrong_examples: list[str] = []
    found: list[MessageDefinition] = []
    for path in sorted((folder / "schemas").glob("*")):
        name = re.fullmatch(r"([a-z0-9_.\-]+)\.v([1-9][0-9]{0,3})\.json", path.name)
        if name is None:
            problems.append(f"schemas/{path.name}: the name is not <type>.v<N>.json")
            continue
        message_type, version = name[1], int(name[2])
        if message_type not in topic_of:
            problems.append(
                f"schemas/{path.name}: no topic has it. Add {message_type} to the `messages` of a topic in"
                " topics.yaml"
            )
            continue
        try:
            schema = json.loads(path.read_bytes())
        except ValueError as error:
            problems.append(f"schemas/{path.name}: not JSON: {error}")
            continue
        message = MessageDefinition(message_type, version, topic_of[message_type], schema, None)
        if not released:
            if wrong := _schema_problems(message, topics[message.topic]):
                problems.extend(f"schemas/{path.name}: {each}" for each in wrong)
            else:
                try:
                    message = message._replace(example=_read_example(folder, message))
                except _WrongExample as error:
                    wrong_examples += [f"schemas/{path.name}: {each}" for each in error.args]
        found.append(message)
    order = {each: position for position, each in enumerate(topic_of)}
    found.sort(key=lambda each: (order[each.type], each.version))
    for missing in order.keys() - {each.type for each in found}:
        problems.append(f"topics.yaml: {missing} has no schema. Write schemas/{missing}.v1.json")
    if not released:
        problems.extend(_stray_examples(folder, found))
        problems.extend(_replay_problems(document))
    if problems:
        raise InvalidContracts(problems + wrong_examples)
    messages = {(each.type, each.version): each for each in found}
    contracts = Contracts(topics, messages, document.replays, document.dead_letter_audit)
    if wrong_examples:
        raise InvalidContracts(wrong_examples, but_for_examples=contracts)
    return contracts


def _read_topics(path: Path) -> _Document:
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), _Document)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise InvalidContracts([f"{path.name}: {error}"]) from None


def _replay_problems(document: _Document) -> Iterator[str]:
    subscribers = {each for topic in document.topics.values() for each in topic.subscribers}
    for service in sorted(subscribers - document.replays.keys()):
        yield f"topics.yaml: {service} subscribes and has no topic under `replays` for its dead letters"
    for service, replay in document.replays.items():
        if replay.topic != f"{service}.replay":
            yield f"topics.yaml: the replay topic of {service} is {service}.replay, not {replay.topic}"
    if not document.dead_letter_audit:
        yield "topics.yaml: deadLetterAudit names no topic"


def _topic_problems(topics: dict[str, TopicDefinition]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, topic in topics.items():
        if (topic.cleanup == "delete") is (topic.retention_days is None):
            yield f"topics.yaml: {name}: retentionDays belongs to `cleanup: delete`, and to nothing else"
        for message_type in topic.messages:
            if message_type in seen:
                yield (
                    f"topics.yaml: {message_type} is on {seen[message_type]} and on {name}: a type is on one"
                    " topic, so that its order is known. Give the second another type"
                )
            seen[message_type] = name
    dead_letters: set[str] = set(topics)
    for name, topic in topics.items():
        for subscriber, dead_letter_topic in topic.subscribers.items():
            if dead_letter_topic in dead_letters:
                yield (
                    f"topics.yaml: {name}: the dead-letter topic of {subscriber}, {dead_letter_topic}, is"
                    f" used already. Each subscriber has its own, such as {name}.{subscriber}.dlq"
                )
            dead_letters.add(dead_letter_topic)


def _schema_problems(message: MessageDefinition, topic: TopicDefinition) -> list[str]:
    if problems := list(schema_problems(message.type, message.version, message.schema)):
        return problems
    if topic.key not in message.schema.get("required", []):
        return [f"the key of {message.topic} is {topic.key}: make it a required field"]
    if message.schema["properties"][topic.key].get("type") != "string":
        return [f"the key {topic.key} is not a string"]
    return []


class _WrongExample(Exception):
    """A sentence for each thing that is wrong with it."""


def _read_example(folder: Path, message: MessageDefinition) -> Any:
    path = f"examples/{message.name}.json"
    try:
        example = json.loads((folder / path).read_bytes())
    except OSError:
        raise _WrongExample(f"no example. Write one message of it as JSON into {path}") from None
    except ValueError as error:
        raise _WrongExample(f"{path} is not JSON: {error}") from None
    validator = Draft202012Validator(message.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    problems = [
        f"{path} does not fit: {error.json_path}: {error.message}" for error in validator.iter_errors(example)
    ]
    if isinstance(example, dict):
        unknown = example.keys() - message.schema["properties"].keys()
        problems += [f"{path} has {name}, which the schema does not" for name in sorted(unknown)]
    if problems:
        raise _WrongExample(*problems)
    return example


def _stray_examples(folder: Path, found: list[MessageDefinition]) -> Iterator[str]:
    for path in sorted((folder / "examples").glob("*")):
        if path.name not in {f"{each.name}.json" for each in found}:
            yield f"examples/{path.name}: there is no such schema. Remove it, or write schemas/{path.name}"


def python_key(topic: TopicDefinition) -> str:
    """The name of the key's field in the structs."""
    return snake(topic.key)
