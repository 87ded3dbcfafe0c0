"""Entity tags (RFC 9110, section 8.8.3) of bodies that were encoded once."""

import hashlib
from typing import Annotated, TypeVar

import msgspec
from litestar import Response
from litestar.params import HeaderParameter

from libs.web.problems import Problem

T = TypeVar("T")


def etag_of(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def matches(tag: str, header: str) -> bool:
    """Whether an `If-None-Match` header names this entity tag, by weak comparison."""
    known = _listed(header)
    return "*" in known or tag.removeprefix("W/") in {each.removeprefix("W/") for each in known}


def _listed(header: str) -> set[str]:
    return {each.strip() for each in header.split(",")}


def etag_response(body: bytes, *, etag: str, cache_control: str = "public, no-cache") -> Response[bytes]:
    """A JSON body that was encoded once; libs.web.edge makes it a 304 for the client that has it already."""
    return Response(
        body, headers={"ETag": etag, "Cache-Control": cache_control}, media_type="application/json"
    )


class PreconditionFailed(Problem):
    """The thing has changed: it has none of the entity tags that `If-Match` names."""

    code = "precondition_failed"
    status = 412
    cure = "Read it again, look at what has changed, and send the change with the new `ETag`."


IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        max_length=1000,
        description="Entity tags: 412 when the thing has none of them any more.",
    ),
]


def tagged(value: T) -> Response[T]:
    """A changed thing with its new entity tag, the same as a read gives."""
    return Response(value, headers={"ETag": etag_of(msgspec.json.encode(value))})


def require_match(if_match: str | None, current: object) -> None:
    """Raises `PreconditionFailed` when an `If-Match` header was sent that does not name what is there now."""
    # RFC 9110, section 13.1.1: by strong comparison, in which a weak tag is none.
    if if_match is not None and _listed(if_match).isdisjoint(("*", etag_of(msgspec.json.encode(current)))):
        raise PreconditionFailed("It has changed since you read it.")
