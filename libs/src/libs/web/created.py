"""201 says where to read what was made."""

from typing import TypeVar

from litestar import Response

T = TypeVar("T")


def created(made: T, location: str) -> Response[T]:
    return Response(made, status_code=201, headers={"Location": location})
