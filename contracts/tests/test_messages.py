"""Schemas, examples and generated structs say the same."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from contracts.check import problems
from contracts.definitions import MessageDefinition, read_contracts
from contracts.messages import MESSAGE_TYPES
from jsonschema import Draft202012Validator, ValidationError

from .conftest import Repository

MESSAGES = list(read_contracts().messages.values())


def test_contracts_release_and_code_agree() -> None:
    assert problems() == []


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.name)
def test_example_is_what_the_schema_and_the_struct_describe(message: MessageDefinition) -> None:
    validator = Draft202012Validator(message.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    struct = MESSAGE_TYPES[message.type, message.version]
    encoded = msgspec.json.encode(msgspec.json.decode(json.dumps(message.example), type=struct))
    assert json.loads(encoded).keys() == message.example.keys()
    validator.validate(json.loads(encoded))
    for name in message.schema["required"]:
        without = {key: value for key, value in message.example.items() if key != name}
        with pytest.raises(ValidationError):
            validator.validate(without)
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(without), type=struct)


@pytest.mark.parametrize(
    ("value", "valid"),
    [("ab", True), ("a", False), ("abcd", False), ("AB", False), (3, False), (None, False)],
)
def test_struct_refuses_what_the_schema_refuses(repository: Repository, value: object, valid: bool) -> None:
    with repository.schema("user.disabled.v1") as schema:
        limits = {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-z]*$"}
        schema["properties"]["note"] = limits
        schema["required"].append("note")
    with repository.example("user.disabled.v1") as example:
        example["note"] = "ab"
    struct: Any = repository.messages().UserDisabled
    body = json.dumps(example | {"note": value})
    if valid:
        assert msgspec.json.decode(body, type=struct).note == value
        return
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=struct)


def test_optional_field_is_none_when_absent_and_stays_absent_when_not_set(repository: Repository) -> None:
    with repository.schema("user.disabled.v1") as schema:
        schema["properties"]["reason"] = {"type": "string", "enum": ["asked", "fraud"]}
        schema["properties"]["by"] = {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}
    source = (repository.messages().__file__) or ""
    assert "None | None" not in (repository.root / source).read_text()
    struct: Any = repository.messages().UserDisabled
    with repository.example("user.disabled.v1") as example:
        pass
    message = msgspec.json.decode(json.dumps(example), type=struct)
    assert (message.reason, message.by) == (None, None)
    again = json.loads(msgspec.json.encode(message))
    Draft202012Validator(schema).validate(again)
    assert again.keys() == example.keys()
    assert msgspec.json.decode(json.dumps(example | {"reason": "fraud"}), type=struct).reason == "fraud"


def test_consumer_takes_two_versions_of_a_type_side_by_side(repository: Repository) -> None:
    repository.add_version("order.paid", 2)
    with repository.schema("order.paid.v2") as schema:
        schema["properties"]["total"] = schema["properties"].pop("amountMinor")
        schema["required"] = list(schema["properties"])
    with repository.example("order.paid.v2") as example:
        example["total"] = example.pop("amountMinor")
    assert repository.problems() == []

    messages = repository.messages()
    # The two lines of a consumer that has handlers for both.
    handlers: dict[Any, Callable[[Any], int]] = {
        messages.OrderPaid: lambda paid: paid.amount_minor,
        messages.OrderPaidV2: lambda paid: paid.total,
    }
    for version in (1, 2):
        body = (repository.contracts / "examples" / f"order.paid.v{version}.json").read_bytes()
        message = msgspec.json.decode(body, type=messages.MESSAGE_TYPES["order.paid", version])
        assert ("order.paid", version, "order_id") == (message.TYPE, message.VERSION, message.KEY)
        assert handlers[type(message)](message) == 4500


def test_nested_objects_that_differ_need_two_titles(repository: Repository) -> None:
    repository.add_version("hold.placed", 2)
    with repository.schema("hold.placed.v2") as schema:
        del schema["properties"]["seats"]["items"]["properties"]["row"]
        schema["properties"]["seats"]["items"]["required"].remove("row")
    with repository.example("hold.placed.v2") as example:
        for seat in example["seats"]:
            del seat["row"]
    assert problems(repository.root) == [
        "contracts/schemas/hold.placed.v2.json: two different structs would be called HeldSeat. Give the"
        " object another title, such as HeldSeatV2"
    ]
    with repository.schema("hold.placed.v2") as schema:
        schema["properties"]["seats"]["items"]["title"] = "HeldSeatV2"
    assert repository.problems() == []
