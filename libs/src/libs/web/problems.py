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
from litestar.types import ExceptionHandlersMap, Send
from msgspec import UNSET, Struct, UnsetType
from psycopg_pool import PoolTimeout, TooManyRequests

from libs.postgres import is_transient
from libs.tracing import current_trace_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An expected refusal. A subclass says its code and HTTP status; its docstring is the cause, `cure` what
    the client can do: docs/errors.md and the OpenAPI documents are made of them. `members` are added to the
    document.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400
    cure: ClassVar[str] = ""

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.members = members


class ProblemDocument(Struct, frozen=True, rename="camel"):
    """RFC 9457. `code` keeps its meaning; `message` is `detail` once more. Some codes add members."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    message: str
    trace_id: str
    errors: "list[FieldError] | UnsetType" = UNSET


class FieldError(Struct, frozen=True):
    """`pointer` is a JSON Pointer (RFC 6901) into the body, or `path/name`, `query/name`, `header/name`."""

    pointer: str
    detail: str


class InvalidRequest(Problem):
    """A field of the body, path, query or header is not what it is declared to be; `errors` names it."""

    code = "invalid_request"
    status = 400
    cure = (
        "Mend what `errors` names: each has a JSON Pointer into the body, or `path/name`, `query/name`,"
        " `header/name`."
    )

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidRequest":
        """`pointer` is a JSON Pointer into the body, or `path/name`, `query/name`, `header/name`."""
        return cls(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


class Unauthenticated(Problem):
    """No access token was sent, or one that is malformed, expired or revoked."""

    code = "unauthenticated"
    status = 401
    cure = "Refresh the session (`POST /auth/refresh`) or log in again."

    def __init__(self, detail: str = "A valid access token is required.") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class NotFound(Problem):
    """There is no such thing, or it is someone else's."""

    code = "not_found"
    status = 404
    cure = "Check the path and the ids in it and in the body."


class MethodNotAllowed(Problem):
    """The path exists, and does not take this method."""

    code = "method_not_allowed"
    status = 405
    cure = "Use a method that the `Allow` header names."


class BodyTooLarge(Problem):
    """The request body is larger than this call takes."""

    code = "request_entity_too_large"
    status = 413
    cure = "Send less at once: 1 MiB is the rule, 4 MiB for a venue's seats."


class InternalError(Problem):
    """Something went wrong on our side. It was recorded, with the `traceId`."""

    code = "internal_error"
    status = 500
    cure = "Try again with the same `Idempotency-Key`. If it stays, tell us the `traceId`."


class TemporarilyUnavailable(Problem):
    """A part that the answer needs is away or restarting, too many requests wait, or what was asked for was
    made a moment ago and is not here yet.
    """

    code = "temporarily_unavailable"
    status = 503
    cure = "Try again after `Retry-After` seconds."

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


def _document_of(problem: Problem) -> bytes:
    return problem_document(
        status=problem.status, code=problem.code, detail=problem.detail, **problem.members
    )


def problem_response(problem: Problem) -> Response[bytes]:
    return Response(
        _document_of(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers
    )


async def send_problem(send: Send, problem: Problem) -> None:
    """For refusals outside of Litestar's reach."""
    body = _document_of(problem)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _on_problem(_: Request[Any, Any, Any], problem: Problem) -> Response[bytes]:
    return problem_response(problem)


_PROBLEMS_OF_LITESTAR = {each.status: each for each in (NotFound, MethodNotAllowed, BodyTooLarge)}


def _on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if error.status_code >= 500:
        return _on_bug(request, error)
    kind = _PROBLEMS_OF_LITESTAR.get(error.status_code, InvalidRequest)
    headers = dict(error.headers or {})
    # `HEAD` is answered wherever `GET` is: libs.web.edge.
    if "GET" in (allowed := headers.get("allow", "").split(", ")):
        headers["allow"] = ", ".join([*allowed, "HEAD"])
    return problem_response(kind(_detail(error), headers=headers))


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
    request.app.state.pool_repair.start(error)
    return problem_response(TemporarilyUnavailable("The service is busy or restarting. Try again."))


def _on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(InternalError("Something went wrong on our side. It has been recorded."))


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
