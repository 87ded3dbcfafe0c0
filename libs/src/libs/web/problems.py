"""Errors are problem documents (RFC 9457) with a stable `code`.

`message` equals `detail`, because clients of the original API read `message`.
"""

import logging
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap
from psycopg_pool import PoolTimeout, TooManyRequests

from libs.postgres import is_transient
from libs.tracing import current_trace_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An expected refusal. A subclass says its code and HTTP status; `members` are added to the document."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.members = members


class InvalidRequest(Problem):
    """A field of the body, path, query or header is not what it is declared to be; `errors` names it."""

    code = "invalid_request"
    status = 400

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidRequest":
        """`pointer` is a JSON Pointer into the body, or `path/name`, `query/name`, `header/name`."""
        return cls(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


class Unauthenticated(Problem):
    """No valid access token was sent."""

    code = "unauthenticated"
    status = 401

    def __init__(self, detail: str = "A valid access token is required.") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class NotFound(Problem):
    """There is no such thing, or it is someone else's."""

    code = "not_found"
    status = 404


class TemporarilyUnavailable(Problem):
    """Something the answer needs is away for a moment: ask again after `Retry-After` seconds."""

    code = "temporarily_unavailable"
    status = 503

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


def problem_document(*, status: int, code: str, detail: str, **members: Any) -> bytes:
    return msgspec.json.encode(
        {
            "type": f"urn:ticketing:problem:{code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "code": code,
            "detail": detail,
            "message": detail,
            "traceId": current_trace_id(),
            **members,
        }
    )


def problem_response(problem: Problem) -> Response[bytes]:
    document = problem_document(
        status=problem.status, code=problem.code, detail=problem.detail, **problem.members
    )
    return Response(document, status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def _on_problem(_: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    return problem_response(problem)


def _on_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    status = HTTPStatus(error.status_code)
    document = problem_document(
        status=status, code=status.name.lower(), detail=_detail(error) if status < 500 else status.phrase
    )
    return Response(document, status_code=status, media_type=MEDIA_TYPE, headers=error.headers)


def _detail(error: HTTPException) -> str:
    return error.detail if error.detail else HTTPStatus(error.status_code).phrase


def _on_invalid_parameters(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    errors: list[dict[str, str]] = []
    extra: Any = error.extra
    for each in extra or []:
        source, key = getattr(each.get("source"), "value", "body"), str(each.get("key", ""))
        if key in request.path_params:
            source = "path"
        if key == "data":
            return problem_response(InvalidRequest.at("/", "a JSON body is required"))
        errors.append({"pointer": f"{source}/{key}", "detail": str(each.get("message", "invalid"))})
    detail = "; ".join(f"{each['pointer']}: {each['detail']}" for each in errors) or _detail(error)
    return problem_response(InvalidRequest(detail, errors=errors))


def _on_database_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    if not is_transient(error):
        return _on_bug(request, error)
    log.warning("database: %s", error)
    request.app.state.pool_repair.start()
    return problem_response(TemporarilyUnavailable("The service is busy or restarting. Try again."))


def _on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    document = problem_document(
        status=500, code="internal_error", detail="Something went wrong on our side. It has been recorded."
    )
    return Response(document, status_code=500, media_type=MEDIA_TYPE)


# psycopg's errors must be named before Exception: Litestar looks for the nearest class.
EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    Problem: _on_problem,
    ValidationException: _on_invalid_parameters,
    HTTPException: _on_http_exception,
    psycopg.Error: _on_database_error,
    PoolTimeout: _on_database_error,
    TooManyRequests: _on_database_error,
    Exception: _on_bug,
}
