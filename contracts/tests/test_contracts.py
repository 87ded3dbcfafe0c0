"""Schemas, examples and generated structs say the same."""

import json
from typing import Any

import msgspec
import pytest
from contracts.generate import CONTRACTS, messages_source, read_message_types, read_topics, topics_source
from contracts.messages import MESSAGE_TYPES
from contracts.topics import TOPICS
from jsonschema import Draft202012Validator, ValidationError

VERSIONS = [
    message
    for topic in read_topics().values()
    for name in topic["messages"]
    for message in read_message_types(name)
]


def example_of(name: str, version: int) -> dict[str, Any]:
    return json.loads((CONTRACTS / "examples" / f"{name}.v{version}.json").read_text())


@pytest.mark.parametrize("message", VERSIONS, ids=lambda each: f"{each.type}.v{each.version}")
def test_example_is_what_the_schema_and_the_struct_describe(message: Any) -> None:
    validator = Draft202012Validator(message.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    example = example_of(message.type, message.version)
    validator.validate(example)
    struct = MESSAGE_TYPES[message.type, message.version]
    encoded = msgspec.json.encode(msgspec.json.decode(json.dumps(example), type=struct))
    validator.validate(json.loads(encoded))
    for name in message.schema["required"]:
        without = {key: value for key, value in example.items() if key != name}
        with pytest.raises(ValidationError):
            validator.validate(without)
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(without), type=struct)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_messages_of_a_topic_carry_its_key(topic: Any) -> None:
    key = read_topics()[topic.name]["key"]
    for name in topic.messages:
        for message in read_message_types(name):
            assert key in message.schema["required"], message.type


def test_dead_letter_topics_are_each_subscribers_own() -> None:
    names = [dead_letters for topic in TOPICS for dead_letters in topic.subscribers.values()]
    assert len(names) == len(set(names))
    assert "payment.succeeded.dlq" in names


def test_every_schema_belongs_to_a_topic() -> None:
    listed = {f"{each.type}.v{each.version}.json" for each in VERSIONS}
    assert {path.name for path in (CONTRACTS / "schemas").iterdir()} == listed
    assert {path.name for path in (CONTRACTS / "examples").iterdir()} == listed


def test_generated_files_are_up_to_date() -> None:
    package = CONTRACTS / "src" / "contracts"
    assert (package / "messages.py").read_text() == messages_source()
    assert (package / "topics.py").read_text() == topics_source()
