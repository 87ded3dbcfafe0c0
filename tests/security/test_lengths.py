"""What a request may hold: every string, list and number of every body is bounded where it is declared."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from libs.web.application import route_handlers
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from msgspec import inspect


class Planted(msgspec.Struct):
    note: str


class PlantedInside(msgspec.Struct):
    parts: list[dict[str, Planted]] | None


SMALL = (
    inspect.UUIDType,
    inspect.BoolType,
    inspect.NoneType,
    inspect.DateTimeType,
    inspect.EnumType,
    inspect.LiteralType,
)


def unbounded(kind: inspect.Type, path: str) -> Iterator[str]:
    """Paths of what may be as large as the body."""
    if not is_bounded(kind):
        yield path
    for name, part in parts_of(kind):
        yield from unbounded(part, f"{path}{name}")


def is_bounded(kind: inspect.Type) -> bool:
    match kind:
        case inspect.StrType():
            return kind.max_length is not None
        case inspect.ListType():
            return kind.max_length is not None
        case inspect.IntType():
            return (kind.ge, kind.gt) != (None, None) and (kind.le, kind.lt) != (None, None)
        case inspect.Metadata() | inspect.UnionType() | inspect.StructType():
            return True
        case _:
            return isinstance(kind, SMALL)


def parts_of(kind: inspect.Type) -> list[tuple[str, inspect.Type]]:
    match kind:
        case inspect.Metadata():
            return [("", kind.type)]
        case inspect.UnionType():
            return [("", each) for each in kind.types]
        case inspect.StructType():
            return [(f"/{each.encode_name}", each.type) for each in kind.fields]
        case inspect.ListType():
            return [("/*", kind.item_type)]
        case inspect.DictType():
            return [("/*", kind.value_type)]
        case _:
            return []


def bodies(apps: Mapping[str, Litestar]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for app in apps.values():
        for path, handler in route_handlers(app):
            if isinstance(handler, HTTPRouteHandler) and handler.parsed_data_field is not None:
                found[path] = handler.parsed_data_field.annotation
    return found


@pytest.mark.parametrize(
    ("planted", "paths"),
    [
        (Planted, ["/note"]),
        (PlantedInside, ["/parts", "/parts/*", "/parts/*/*/note"]),
        (float, [""]),
    ],
)
def test_what_is_unbounded_is_found(planted: Any, paths: list[str]) -> None:
    assert list(unbounded(inspect.type_info(planted), "")) == paths


def test_no_body_has_an_unbounded_part(apps: dict[str, Litestar]) -> None:
    found = bodies(apps)
    assert len(found) >= 12
    assert {"/auth/login", "/venues/{venue_id:str}/seats", "/reservations", "/orders/checkout"} <= set(found)
    for path, body in found.items():
        assert list(unbounded(inspect.type_info(body), "")) == [], path
