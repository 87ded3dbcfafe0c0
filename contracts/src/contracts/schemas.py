"""The JSON Schemas that contracts may use: of draft 2020-12 what a Python struct can say as well.

Readers ignore fields that they do not know, so no schema closes its objects.
"""

import json
import keyword
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FORMATS = ("uuid", "date-time")
LIMITS = {
    "string": ("minLength", "maxLength", "pattern"),
    "integer": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
}
KEYWORDS: dict[str, set[str]] = {
    "object": {"title", "properties", "required"},
    "array": {"items", *LIMITS["array"]},
    "string": {"format", "enum", *LIMITS["string"]},
    "integer": {"enum", *LIMITS["integer"]},
    "boolean": set(),
}
SUPPORTED = "contracts/README.md lists what schemas may use"


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def non_null(schema: Schema) -> tuple[Schema, bool]:
    """What a value is when it is not null, and whether it may be null."""
    if options := schema.get("anyOf"):
        return options[0], True
    return schema, False


def schema_problems(message_type: str, version: int, schema: Any) -> Iterator[str]:
    """Says what is wrong with the schema of a message; nothing for a good one."""
    if not isinstance(schema, dict):
        yield "not an object"
        return
    schema = cast(Schema, schema)
    expected = {"$schema": DIALECT, "$id": f"{message_type}.v{version}.json", "title": message_type}
    for name, value in expected.items():
        if schema.get(name) != value:
            yield f"{name} is {schema.get(name)!r}: make it {value!r}"
    if (problem := _dialect_problem(json.dumps(schema))) is not None:
        yield f"not valid in JSON Schema 2020-12: {problem}"
        return
    if schema.get("type") != "object" or not schema.get("description"):
        yield "a message is an object with a description that says when it is sent"
        return
    inner = {name: value for name, value in schema.items() if name not in ("$schema", "$id", "deprecated")}
    yield from _value_problems("", inner)


@cache  # some 10 ms each, and tests look at the same ones again and again
def _dialect_problem(text: str) -> str | None:
    try:
        Draft202012Validator.check_schema(json.loads(text))
    except SchemaError as error:
        return f"{error.json_path}: {error.message}"
    return None


def _value_problems(path: str, schema: Schema) -> Iterator[str]:
    where = path or "the message"
    options = schema.get("anyOf")
    if options is not None:
        if len(options) != 2 or options[1] != {"type": "null"} or "anyOf" in options[0]:
            yield f"{where}: anyOf may only say that a value may be null, in its second place. {SUPPORTED}"
            return
        for name in schema.keys() - {"anyOf", "description"}:
            yield f"{where}: {name} belongs inside of anyOf"
        yield from _value_problems(path, options[0])
        return
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in KEYWORDS:
        yield f"{where}: no Python type for type {kind!r}. {SUPPORTED}"
        return
    for name in sorted(schema.keys() - KEYWORDS[kind] - {"type", "description"}):
        yield f"{where}: {name} is not supported for type {kind}. {SUPPORTED}"
    if "format" in schema and (
        schema["format"] not in FORMATS or schema.keys() & {"enum", *LIMITS["string"]}
    ):
        yield f"{where}: format is one of {', '.join(FORMATS)}, without enum and limits"
    if "enum" in schema and schema.keys() & set(LIMITS[kind]):
        yield f"{where}: an enum needs no limits"
    if "enum" in schema and not all(
        type(each) is (str if kind == "string" else int) for each in schema["enum"]
    ):
        yield f"{where}: enum has values that are no {kind}"
    if kind == "array":
        if "items" not in schema:
            yield f"{where}: items says what is in the array; it is missing"
        else:
            yield from _value_problems(f"{path}[]", schema["items"])
    if kind == "object":
        yield from _object_problems(path, schema)


def _object_problems(path: str, schema: Schema) -> Iterator[str]:
    where = path or "the message"
    properties: dict[str, Schema] = schema.get("properties", {})
    if not properties:
        yield f"{where}: an object without properties"
    if path and not re.fullmatch(r"[A-Z][A-Za-z0-9]*", schema.get("title", "")):
        yield f"{where}: a nested object needs a title, which names its struct, such as HeldSeat"
    for name in schema.get("required", []):
        if name not in properties:
            yield f"{where}: {name} is required, but is no property"
    for name, value in properties.items():
        if camel(snake(name)) != name or keyword.iskeyword(snake(name)) or not name.isidentifier():
            yield f"{where}: {name!r} makes no name in Python: write it in camelCase"
        yield from _value_problems(f"{path}.{name}" if path else name, value)
