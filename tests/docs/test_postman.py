"""The Postman collection and the OpenAPI document agree: every operation, its bodies, statuses and rights."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
COLLECTION: dict[str, Any] = json.loads((ROOT / "api/ticketing-api.postman.json").read_text())
DOCUMENT: dict[str, Any] = json.loads((ROOT / "contracts/src/contracts/openapi.json").read_text())
ENVIRONMENTS = sorted((ROOT / "api").glob("postman-env-*.json"))
VARIABLE = re.compile(r"\{\{([\w$]+)\}\}")
SAVED = re.compile(r"pm\.collectionVariables\.set\('(\w+)'")
# What the answer's members are called in the scripts.
MEMBERS = re.compile(r"include\.keys\((.*?)\)")
MEMBER = re.compile(r"\banswer\.([a-zA-Z]+)\b(?!\()")
# Of an array, not of an object.
ARRAY_METHODS = {"map", "every", "forEach"}


def requests_of(folder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in folder["item"]:
        if "item" in item:
            yield from requests_of(item)
        else:
            yield item


REQUESTS = list(requests_of(COLLECTION))
OURS = [item for item in REQUESTS if item["request"]["url"].startswith("{{baseUrl}}")]
each_of_ours = pytest.mark.parametrize("item", OURS, ids=lambda item: item["name"])


def script_of(item: dict[str, Any], listen: str = "test") -> str:
    found = [event["script"]["exec"] for event in item["event"] if event["listen"] == listen]
    return "\n".join(found[0]) if found else ""


def operation_of(item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(its path's template, the operation); a literal path, `/orders/checkout`, is nearer than a template."""
    path = item["request"]["url"].removeprefix("{{baseUrl}}")
    templates = [each for each in DOCUMENT["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each), path)]
    assert templates, f"{item['name']}: the document has no {path}"
    template = min(templates, key=lambda each: each.count("{"))
    operation = DOCUMENT["paths"][template].get(item["request"]["method"].lower())
    assert operation, f"{item['name']}: the document has no {item['request']['method']} {template}"
    return template, operation


def status_of(item: dict[str, Any]) -> str:
    found = re.findall(r"pm\.response\.to\.have\.status\((\d+)\)", script_of(item))
    assert len(found) == 1, f"{item['name']} checks no status, or several"
    return found[0]


def answer_of(item: dict[str, Any]) -> dict[str, Any]:
    """The schema of the answer that the request expects."""
    response = operation_of(item)[1]["responses"][status_of(item)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    [content] = response["content"].values()
    return content["schema"]


def members(schema: dict[str, Any]) -> set[str]:
    if "$ref" in schema:
        return members(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "items" in schema:
        return members(schema["items"])
    inner = [members(each) for word in ("anyOf", "oneOf", "allOf") for each in schema.get(word, [])]
    return set(schema.get("properties", {})).union(*inner)


def test_every_operation_is_in_the_collection() -> None:
    sent = {(operation_of(item)[0], item["request"]["method"].lower()) for item in OURS}
    assert sent == {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}


def test_names_are_unique() -> None:
    """A request that asks again is found by its name."""
    names = [item["name"] for item in REQUESTS]
    assert len(set(names)) == len(names)


@each_of_ours
def test_status_is_documented(item: dict[str, Any]) -> None:
    assert status_of(item) in operation_of(item)[1]["responses"]


@each_of_ours
def test_token_is_sent_where_it_is_asked_for(item: dict[str, Any]) -> None:
    is_open = item["request"].get("auth", {}).get("type") == "noauth"
    assert is_open == (not operation_of(item)[1].get("security"))


def example_of(variable: str) -> str:
    return "ada@example.com" if variable.lower().endswith("email") else "01975f0e-5c6a-7d3b-9a51-1d6f0a2b3c01"


@each_of_ours
def test_body_is_what_the_operation_takes(item: dict[str, Any]) -> None:
    operation = operation_of(item)[1]
    raw = item["request"].get("body", {}).get("raw")
    if raw is None:
        assert not operation.get("requestBody", {}).get("required", False)
        return
    body = json.loads(VARIABLE.sub(lambda found: example_of(found[1]), raw))
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})
    problems = [error.message for error in validator.iter_errors(body)]
    assert bool(problems) == (status_of(item) == "400"), problems
    assert set(body) <= members(schema)


@each_of_ours
def test_scripts_read_members_that_the_answer_has(item: dict[str, Any]) -> None:
    script = script_of(item)
    named = {name.strip(" '") for found in MEMBERS.findall(script) for name in found.split(",")}
    named |= set(MEMBER.findall(script)) - ARRAY_METHODS
    if named:
        assert named <= members(answer_of(item))


def test_variables_are_set_before_they_are_used() -> None:
    for environment in ENVIRONMENTS:
        known = {each["key"] for each in json.loads(environment.read_text())["values"]}
        known |= {"token", "$guid"} | {f"seat{number}" for number in range(1, 11)}
        for item in REQUESTS:
            known |= set(SAVED.findall(script_of(item, "prerequest")))
            used = set(VARIABLE.findall(json.dumps(item["request"]))) - known
            assert not used, f"{item['name']}: {used}"
            known |= set(SAVED.findall(script_of(item)))


def test_environments_name_the_same_variables() -> None:
    local, https = ({each["key"] for each in json.loads(path.read_text())["values"]} for path in ENVIRONMENTS)
    assert local == https
