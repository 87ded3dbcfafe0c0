"""Lists answer a bare JSON array; the next page is in the `Link` header (RFC 8288).

Rows are ordered by id, newest first: ids are UUIDv7, which sort by time.
"""

from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response
from litestar.params import QueryParameter

MAX_PAGE = 1000

Limit = Annotated[int | None, QueryParameter(ge=1, le=MAX_PAGE, description="Page size; without it: all")]
Cursor = Annotated[UUID | None, QueryParameter(description="The id of the last item of the page before")]

T = TypeVar("T")


def page_response(request: Request[Any, Any, Any], items: list[T], *, limit: int | None) -> Response[list[T]]:
    """`items` are at most `limit + 1`: one more than fits tells that there is a next page."""
    if limit is None or len(items) <= limit:
        return Response(items)
    items = items[:limit]
    last: Any = items[-1]
    query = urlencode({"limit": limit, "cursor": str(last.id)})
    return Response(items, headers={"Link": f'<{request.url.path}?{query}>; rel="next"'})


def query_limit(limit: int | None) -> int | None:
    """What a query's LIMIT is for a page of `limit`; null means all."""
    return None if limit is None else limit + 1
