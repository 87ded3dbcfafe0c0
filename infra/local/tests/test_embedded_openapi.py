"""The documents that clients build on: whole, true to the code, with examples that hold."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from embedded import openapi
from embedded.settings import SERVICES


@pytest.fixture(scope="module")
def document() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        openapi.set_environment(patch.setenv)
        yield openapi.merged_document()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found: Any = document
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_what_is_committed_is_what_the_code_says(document: dict[str, Any]) -> None:
    assert json.loads(openapi.DOCUMENT.read_text()) == document, "run `make openapi`"
    assert openapi.ERRORS.read_text() == openapi.error_page(), "run `make openapi`"


def test_every_operation_says_what_it_is_who_may_call_it_and_how_it_fails(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert len(operations(document)) > 40
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["tags"], name
        answers = operation["responses"]
        assert {"500", "503"} <= set(answers), name
        is_closed = operation["security"] == [{"token": []}]
        assert is_closed <= ("401" in answers), name
        if "requestBody" in operation:
            assert {"400", "413"} <= set(answers), name
        if "{" in name:
            assert {"400", "404"} <= set(answers), name
        if is_closed and not name.startswith("GET") and "/auth/" not in name:
            assert {"409", "422"} <= set(answers), name
            assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]], name
        if name.startswith("GET"):
            assert "304" in answers, name
        if "201" in answers:
            assert "Location" in answers["201"]["headers"], name
        for status, answer in answers.items():
            if int(status) >= 400 and "application/json" not in resolved(document, answer)["content"]:
                kinds = resolved(document, answer)["content"]["application/problem+json"]
                assert kinds["schema"]["properties"]["code"]["enum"] == list(kinds["examples"]), name


def examples(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    for name, operation in operations(document):
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in contents:
            for media_type, kind in resolved(document, content).get("content", {}).items():
                if media_type == "image/svg+xml":
                    continue
                if "example" in kind:
                    yield name, kind["schema"], kind["example"]
                else:
                    for example in kind["examples"].values():
                        yield name, kind["schema"], example["value"]


def test_every_body_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    checked = 0
    for name, schema, example in examples(document):
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(example)
        assert '"text"' not in json.dumps(example), f"{name}: a field has no example of its own"
        checked += 1
    assert checked > 150


def test_admin_bodies_say_that_they_take_no_other_fields(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("NewEvent", "EventChange", "NewVenue", "NewSeats", "NewSeat", "NewOrganizer", "UserChange"):
        assert schemas[name]["additionalProperties"] is False, name
    assert "additionalProperties" not in schemas["ReservationRequest"]


def test_every_link_leads_somewhere(document: dict[str, Any]) -> None:
    known = {operation["operationId"] for _, operation in operations(document)}
    links = [
        link["operationId"]
        for _, operation in operations(document)
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert len(links) > 10
    assert set(links) <= known
    assert len(known) == len(operations(document))


def test_page_of_errors_has_a_cause_and_a_cure_for_every_code(document: dict[str, Any]) -> None:
    rows = [line.split("|") for line in openapi.error_page().splitlines() if line.startswith("| `")]
    codes = {row[1].strip(" `") for row in rows}
    assert len(rows) == len({(row[1], row[2]) for row in rows}) > 30
    for row in rows:
        assert row[3].strip(), row
        assert row[4].strip(), row
    told = {
        code
        for answer in document["components"]["responses"].values()
        for kind in answer["content"].values()
        for code in kind["examples"]
    }
    assert told <= codes
    # These are no operation's: they are said of any.
    assert codes - told == {"method_not_allowed", "unknown_host", "uri_too_long", "headers_too_large"}


def test_services_have_a_document_each(document: dict[str, Any]) -> None:
    for service in SERVICES:
        assert f"/{service}/ready" in document["paths"]
