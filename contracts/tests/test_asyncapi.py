"""The AsyncAPI document holds to the specification, as far as it uses it, and says what the contracts say.

https://www.asyncapi.com/docs/reference/specification/v3.0.0 and its Kafka bindings 0.5.0.
"""

import re
from typing import Any

import pytest
import yaml
from contracts.asyncapi import asyncapi_source
from contracts.definitions import CONTRACTS, read_contracts
from jsonschema import Draft7Validator, Draft202012Validator

CONTRACTS_READ = read_contracts()
DOCUMENT: dict[str, Any] = yaml.safe_load(asyncapi_source(CONTRACTS_READ))

# Each object's fields: those that it must have, those that it may have.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "asyncapi": (
        {"asyncapi", "info"},
        {"defaultContentType", "servers", "channels", "operations", "components"},
    ),
    "info": ({"title", "version"}, {"description"}),
    "server": ({"host", "protocol"}, {"variables", "description"}),
    "channel": ({"address"}, {"summary", "description", "messages", "bindings"}),
    "operation": ({"action", "channel"}, {"messages", "bindings", "summary"}),
    "message": (
        set(),
        {"name", "title", "summary", "tags", "contentType", "headers", "payload", "bindings", "examples"},
    ),
    "channel binding": (set(), {"topic", "partitions", "replicas", "topicConfiguration", "bindingVersion"}),
    "operation binding": (set(), {"groupId", "clientId", "bindingVersion"}),
    "message binding": (set(), {"key", "bindingVersion"}),
    "example": (set(), {"name", "summary", "headers", "payload"}),
}


def assert_fields(kind: str, document: dict[str, Any]) -> None:
    required, optional = FIELDS[kind]
    assert required <= document.keys() <= required | optional, kind


def resolve(reference: dict[str, str]) -> Any:
    assert reference.keys() == {"$ref"}
    found: Any = DOCUMENT
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> list[dict[str, str]]:
    if isinstance(node, list):
        return [each for item in node for each in references(item)]
    if not isinstance(node, dict):
        return []
    here = [node] if isinstance(node.get("$ref"), str) else []
    return here + [each for item in node.values() for each in references(item)]


def test_file_is_the_generated_one() -> None:
    text = (CONTRACTS / "asyncapi.yaml").read_text()
    assert text.startswith("# Generated")
    assert yaml.safe_load(text) == DOCUMENT


def test_document_has_the_fields_of_the_specification() -> None:
    assert_fields("asyncapi", DOCUMENT)
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert_fields("info", DOCUMENT["info"])
    for server in DOCUMENT["servers"].values():
        assert_fields("server", server)
        assert set(re.findall(r"{(\w+)}", server["host"])) == server["variables"].keys()
    for channel in DOCUMENT["channels"].values():
        assert_fields("channel", channel)
        assert_fields("channel binding", channel.get("bindings", {}).get("kafka", {}))
    for operation in DOCUMENT["operations"].values():
        assert_fields("operation", operation)
        assert operation["action"] in ("send", "receive")
        assert_fields("operation binding", operation.get("bindings", {}).get("kafka", {}))
    for message in DOCUMENT["components"]["messages"].values():
        assert_fields("message", message)
        assert_fields("message binding", message.get("bindings", {}).get("kafka", {}))
        for example in message.get("examples", []):
            assert_fields("example", example)
    for group in DOCUMENT["components"].values():
        assert all(re.fullmatch(r"[a-zA-Z0-9.\-_]+", name) for name in group)


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 100
    for reference in found:
        assert resolve(reference)


def test_messages_of_an_operation_are_those_of_its_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        names = {each["$ref"].removeprefix(f"{channel}/messages/") for each in operation["messages"]}
        assert names == resolve(operation["channel"])["messages"].keys()


def test_owner_sends_and_each_subscriber_receives_in_its_group() -> None:
    expected: set[tuple[str, str, str]] = set()
    for name, topic in CONTRACTS_READ.topics.items():
        expected.add((topic.owner, "send", name))
        for subscriber, dead_letters in topic.subscribers.items():
            expected |= {(subscriber, "receive", name), (subscriber, "send", dead_letters)}
    for service, replay in CONTRACTS_READ.replays.items():
        expected |= {(service, "receive", replay.topic), (service, "send", replay.dead_letters)}
    found = {
        (name.partition(".")[0], each["action"], resolve(each["channel"])["address"])
        for name, each in DOCUMENT["operations"].items()
    }
    assert found == expected
    for name, operation in DOCUMENT["operations"].items():
        if operation["action"] == "receive":
            assert operation["bindings"]["kafka"]["groupId"]["enum"] == [name.partition(".")[0]]


def test_channel_of_a_topic_has_its_partitions_and_retention() -> None:
    for name, topic in CONTRACTS_READ.topics.items():
        binding = DOCUMENT["channels"][name]["bindings"]["kafka"]
        assert binding["partitions"] == topic.partitions
        days = binding["topicConfiguration"]["retention.ms"] / 86_400_000
        assert days == topic.retention_days or (days < 0 and topic.retention_days is None)


@pytest.mark.parametrize("message", CONTRACTS_READ.messages.values(), ids=lambda each: each.name)
def test_message_has_key_headers_payload_and_an_example_that_fits(message: Any) -> None:
    described = DOCUMENT["components"]["messages"][message.name]
    key = described["bindings"]["kafka"]["key"]
    assert key["format"] == "uuid"
    assert CONTRACTS_READ.topics[message.topic].key in key["description"]
    shared, own = described["headers"]["allOf"]
    headers = {
        name: {**each, **own["properties"].get(name, {})}
        for name, each in resolve(shared)["properties"].items()
    }
    assert headers["ce_type"]["const"] == message.type
    assert headers["ce_dataschema"]["const"] == f"{message.name}.json"
    payload = resolve(described["payload"])
    # AsyncAPI's own schema format is built on draft 07: the payload must mean the same in both.
    for dialect in (Draft7Validator, Draft202012Validator):
        dialect.check_schema(payload)
        dialect(payload).validate(described["examples"][0]["payload"])
        assert not dialect(payload).is_valid({})


def test_page_names_every_topic_message_and_field() -> None:
    page = (CONTRACTS / "messages.md").read_text()
    assert page.startswith("<!-- Generated")
    for name, topic in CONTRACTS_READ.topics.items():
        assert f"## Topic {name}\n" in page
        for dead_letters in topic.subscribers.values():
            assert f"`{dead_letters}`" in page
    for message in CONTRACTS_READ.messages.values():
        section = page.partition(f"### {message.name}\n")[2].partition("\n#")[0]
        assert message.schema["description"] in section
        for field in message.schema["properties"]:
            assert f"| `{field}` |" in section
    # A link in the page leads to a heading, as GitHub names them.
    anchors = {
        re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-")
        for each in re.findall("^#+ (.*)$", page, re.M)
    }
    assert set(re.findall(r"\(#(.*?)\)", page)) <= anchors
