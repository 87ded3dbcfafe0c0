"""Examples for the OpenAPI documents, put together from what the types say."""

import inspect
from http import HTTPStatus
from typing import Any

from libs.web.problems import InvalidRequest, Problem

_EXAMPLES = {
    "uuid": "01975f0e-5c6a-7d3b-9a51-1d6f0a2b3c01",
    "date-time": "2030-05-01T19:00:00Z",
    "uri": "https://example.com/poster.jpg",
}


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A whole example, put together from those of its members."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for given in ("examples", "enum"):
        if given in schema:
            return schema[given][0]
    if "anyOf" in schema:
        return example_of(next(each for each in schema["anyOf"] if each.get("type") != "null"), schemas)
    match schema.get("type"):
        case "object":
            return {name: example_of(each, schemas) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [example_of(schema["items"], schemas)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return schema.get("default", False)
        case "string":
            return _EXAMPLES.get(schema.get("format", ""), "text"[: schema.get("maxLength", 4)])
        case _:
            return None


def cause_of(kind: type[Problem]) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())


def example_problem(kind: type[Problem]) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": f"urn:ticketing:problem:{kind.code}",
        "title": HTTPStatus(kind.status).phrase,
        "status": kind.status,
        "code": kind.code,
        "detail": cause_of(kind),
        "message": cause_of(kind),
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    if kind is InvalidRequest:
        example["errors"] = [{"pointer": "/name", "detail": "Expected `str` of length >= 1"}]
    return example
