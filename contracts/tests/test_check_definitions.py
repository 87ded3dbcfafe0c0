"""What `make check` says about files that are wrong in themselves."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from contracts.check import problems

from .conftest import Repository

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "path", ["src/contracts/messages.py", "src/contracts/topics.py", "asyncapi.yaml", "messages.md"]
)
def test_stale_generated_file_is_named(repository: Repository, path: str) -> None:
    with (repository.contracts / path).open("a") as file:
        file.write("\n# by hand\n")
    assert problems(repository.root) == [
        f"contracts/{path} is not what the contracts say: run `make contracts` and commit it"
    ]
    repository.generate()
    assert problems(repository.root) == []


EXAMPLES: list[tuple[Change, str]] = [
    (
        lambda each: each.pop("orderId"),
        "examples/order.paid.v1.json does not fit: $: 'orderId' is a required property",
    ),
    (lambda each: each.update(amountMinor=-1), "$.amountMinor: -1 is less than the minimum of 0"),
    (lambda each: each.update(paidAt="yesterday"), "$.paidAt: 'yesterday' is not a 'date-time'"),
    (lambda each: each.update(holdId="7"), "$.holdId: '7' is not a 'uuid'"),
    (
        lambda each: each.update(amount=1),
        "examples/order.paid.v1.json has amount, which the schema does not",
    ),
]


@pytest.mark.parametrize(("change", "said"), EXAMPLES)
def test_example_that_does_not_fit_is_named(repository: Repository, change: Change, said: str) -> None:
    with repository.example("order.paid.v1") as example:
        change(example)
    (problem,) = problems(repository.root)
    assert problem.startswith("contracts/schemas/order.paid.v1.json: ")
    assert problem.endswith(said)


def test_schema_without_an_example_is_named(repository: Repository) -> None:
    (repository.contracts / "examples" / "order.paid.v1.json").unlink()
    assert problems(repository.root) == [
        "contracts/schemas/order.paid.v1.json: no example. Write one message of it as JSON into"
        " examples/order.paid.v1.json"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not JSON: Expecting property name"), ("[]", "does not fit: $: [] is not of type")],
)
def test_example_that_is_no_message_at_all_is_named(repository: Repository, text: str, said: str) -> None:
    (repository.contracts / "examples" / "order.paid.v1.json").write_text(text)
    (problem,) = problems(repository.root)
    assert f"examples/order.paid.v1.json {said}" in problem


def test_example_without_a_schema_is_named(repository: Repository) -> None:
    (repository.contracts / "examples" / "order.lost.v1.json").write_text("{}")
    (problem,) = problems(repository.root)
    assert problem.startswith("contracts/examples/order.lost.v1.json: there is no such schema")


def field(name: str, schema: object) -> Change:
    return lambda each: each["properties"].update({name: schema})


SCHEMAS: list[tuple[Change, str]] = [
    (field("note", {"type": "strin"}), "not valid in JSON Schema 2020-12: $.properties.note.type"),
    (field("note", {"type": "integer", "minimum": "0"}), "not valid in JSON Schema 2020-12"),
    (
        lambda each: each.update({"$schema": "http://json-schema.org/draft-07/schema#"}),
        "make it 'https://json-schema",
    ),
    (lambda each: each.update({"$id": "order.payed.v1.json"}), "make it 'order.paid.v1.json'"),
    (lambda each: each.pop("description"), "a description that says when it is sent"),
    (field("note", {"type": "number"}), "note: no Python type for type 'number'"),
    (field("note", {"type": ["string", "null"]}), "note: no Python type for type"),
    (field("note", {"$ref": "#/$defs/note"}), "note: no Python type for type None"),
    (field("note", {"type": "string", "const": "x"}), "note: const is not supported for type string"),
    (field("note", {"type": "string", "default": "x"}), "note: default is not supported for type string"),
    (field("note", {"type": "string", "format": "email"}), "note: format is one of uuid, date-time"),
    (field("note", {"oneOf": [{"type": "string"}]}), "note: no Python type for type None"),
    (field("note", {"anyOf": [{"type": "string"}, {"type": "integer"}]}), "note: anyOf may only say"),
    (field("note", {"type": "array"}), "note: items says what is in the array"),
    (
        field("note", {"type": "object", "properties": {"a": {"type": "string"}}}),
        "note: a nested object needs a title",
    ),
    (lambda each: each.update(additionalProperties=False), "additionalProperties is not supported"),
    (lambda each: each["required"].append("note"), "note is required, but is no property"),
    (field("paid_by", {"type": "string"}), "'paid_by' makes no name in Python"),
    (field("from", {"type": "string"}), "'from' makes no name in Python"),
    (
        lambda each: each["required"].remove("orderId"),
        "the key of payments.orders is orderId: make it a required",
    ),
]


@pytest.mark.parametrize(("change", "said"), SCHEMAS)
def test_schema_that_the_generator_cannot_follow_is_named(
    repository: Repository, change: Change, said: str
) -> None:
    with repository.schema("order.paid.v1") as schema:
        change(schema)
    (problem,) = problems(repository.root)
    assert problem.startswith("contracts/schemas/order.paid.v1.json: ")
    assert said in problem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "messages: [seat-map.part]",
            "messages: [seat-map.part, seat-map.gone]",
            "seat-map.gone has no schema",
        ),
        ("messages: [seat-map.part]", "messages: []", "no topic has it. Add seat-map.part"),
        ("messages: [seat-map.part]", "messages: [seat-map.part, hold.lost]", "is on one topic"),
        (
            "inventory.holds.payments.dlq",
            "payment.succeeded.dlq",
            "is used already. Each subscriber has its own",
        ),
        ("retentionDays: 14\n    messages: [payment", "messages: [payment", "retentionDays belongs to"),
        ("owner: auth", "ownr: auth", "topics.yaml: "),
        (
            "  catalog: {topic: catalog.replay, deadLetters",
            "  auth: {topic: auth.replay, deadLetters",
            "catalog subscribes and has no topic under `replays`",
        ),
        ("{topic: catalog.replay", "{topic: catalog.again", "is catalog.replay, not catalog.again"),
        ("deadLetterAudit: dead-letters.audit", "", "deadLetterAudit names no topic"),
        ("owner: auth", "owner: billing", "auth.users names billing, and there is no services/billing"),
    ],
)
def test_topics_that_contradict_themselves_are_named(
    repository: Repository, old: str, new: str, said: str
) -> None:
    repository.replace("contracts/topics.yaml", old, new)
    assert any(said in each for each in problems(repository.root))


def test_command_exits_1_and_says_what_is_wrong(repository: Repository) -> None:
    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", f"contracts.{command}", *arguments],
            env=os.environ | {"PYTHONPATH": str(repository.contracts / "src")},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("check").returncode == 0
    with repository.schema("order.paid.v1") as schema:
        schema["properties"]["note"] = {"type": "string"}
    stale = run("check")
    assert stale.returncode == 1
    assert "contracts/messages.md is not what the contracts say: run `make contracts`" in stale.stderr
    assert run("generate").returncode == 0
    assert run("check").returncode == 0
    assert "released/schemas/order.paid.v1.json" in run("release").stdout
    released = json.loads((repository.contracts / "released/schemas/order.paid.v1.json").read_text())
    assert "note" in released["properties"]
    with repository.schema("order.paid.v1") as schema:
        del schema["properties"]["note"]
    assert run("generate").returncode == 0
    for command in ("check", "release"):
        broken = run(command)
        assert broken.returncode == 1
        assert "note is gone: consumers on the last release read it" in broken.stderr
    assert run("release", "--breaking").returncode == 0
    assert run("check").returncode == 0
