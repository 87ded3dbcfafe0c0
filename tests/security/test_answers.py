"""What an answer may say: every route answers a struct with its fields written down, and none is a secret."""

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

import msgspec
import pytest
from catalog.models import Event
from inventory.routes import SeatView
from libs.web.application import route_handlers
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from msgspec import inspect

# Parts of a field's name that say that its value is not for everybody.
SECRET = re.compile(
    r"password|phc|hash|digest|secret|seed|private|pem|salt|token|key|credential|signature|email|phone|address|"
    r"card|intent|traceparent|attempt|error",
    re.IGNORECASE,
)

# Where such a field belongs, and who gets it.
ALLOWED = {
    ("Session", "token"),  # who logged in
    ("Session", "refreshToken"),
    ("Account", "email"),  # the caller's own
    ("UserState", "email"),  # an admin who changes a user
    ("OrderBody", "email"),  # its buyer, or an admin
    ("CheckoutAnswer", "email"),
    ("CheckoutAnswer", "clientSecret"),  # its buyer alone: Stripe.js pays with it
    ("Organizer", "email"),  # the public contact of an organizer
    ("Venue", "address"),  # of a building
}

# Bytes that were encoded before: tests/system/test_secrets.py looks into them.
ENCODED = {
    "/events/{event_id:str}/seats",
    "/events",
    "/events/{event_id:str}",
    "/tickets/{ticket_id:str}/qr.svg",
    "/.well-known/jwks.json",
    "/.well-known/ticket-keys.json",
    "/openapi.json",
    *(f"/{service}/openapi.json" for service in ("auth", "catalog", "inventory", "payments")),
}


class Planted(msgspec.Struct, rename="camel"):
    id: UUID
    password_phc: str


class PlantedInside(msgspec.Struct):
    people: list[Planted] | None


class PlantedOpen(msgspec.Struct):
    anything: dict[str, Any]


def fields_of(annotation: Any) -> Iterator[tuple[str, str]]:
    """(struct, field as it is written) of everything that an answer of this type may contain.

    Raises `TypeError` for what has no fields written down.
    """
    yield from _fields(inspect.type_info(annotation), set())


def _fields(kind: inspect.Type, seen: set[type]) -> Iterator[tuple[str, str]]:
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            if cls in seen:
                return
            seen.add(cls)
            for field in fields:
                yield cls.__name__, field.encode_name
                yield from _fields(field.type, seen)
        case inspect.UnionType(types=types):
            for each in types:
                yield from _fields(each, seen)
        case inspect.CollectionType(item_type=item):
            yield from _fields(item, seen)
        case inspect.DictType() | inspect.CustomType() | inspect.AnyType() | inspect.RawType():
            raise TypeError(f"{kind} may contain anything")
        case _:
            return


def answers_of(app: Litestar) -> Iterator[tuple[str, Any]]:
    """(path, type) of every answer."""
    for path, handler in route_handlers(app):
        if isinstance(handler, HTTPRouteHandler) and "{file_path:path}" not in path:
            for annotation in _alternatives(handler.parsed_fn_signature.return_type.annotation):
                yield path, annotation


def _alternatives(annotation: Any) -> Iterator[Any]:
    """`Response[A] | Response[B]` answers A or B."""
    if get_origin(annotation) in (UnionType, Union, Response):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation


def test_no_answer_has_a_field_for_a_secret(apps: Mapping[str, Litestar]) -> None:
    answers = [answer for app in apps.values() for answer in answers_of(app)]
    encoded = {path for path, annotation in answers if annotation is bytes}
    assert encoded == ENCODED, "only these answer bytes, whose fields cannot be seen here"
    fields = {
        field
        for _, annotation in answers
        if annotation not in (bytes, None, type(None))
        for field in fields_of(annotation)
    }
    # What is encoded before it is answered.
    for annotation in (SeatView, Event):
        fields |= set(fields_of(annotation))
    assert ("TicketView", "qrPayload") in fields, "the walk has lost the fields"
    assert {field for field in fields if SECRET.search(field[1])} == ALLOWED


@pytest.mark.parametrize("planted", [Planted, PlantedInside, list[Planted]])
def test_walk_finds_a_secret_wherever_it_is(planted: Any) -> None:
    assert ("Planted", "passwordPhc") in set(fields_of(planted))
    assert SECRET.search("passwordPhc")


@pytest.mark.parametrize("planted", [PlantedOpen, dict[str, str], Any])
def test_walk_refuses_an_answer_whose_fields_are_not_written_down(planted: Any) -> None:
    with pytest.raises(TypeError, match="may contain anything"):
        list(fields_of(planted))
