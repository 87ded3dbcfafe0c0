"""Who may call a route. Every handler names exactly one of these guards; `create_app` refuses one without."""

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from libs.web.problems import Problem, TemporarilyUnavailable, Unauthenticated
from libs.web.tokens import Caller, TokenVerifier

_Connection = ASGIConnection[Any, Any, Any, Any]

_SEEN = "ticketing.caller"


class Forbidden(Problem):
    """The caller's role does not allow this."""

    code = "forbidden"
    status = 403
    cure = "Use the account of somebody whose role allows it."


async def anyone(connection: _Connection, _: BaseRouteHandler) -> None:
    """Open to all; a valid token is honoured, one that is bad or cannot be checked now is as good as none."""
    connection.scope["user"] = await find_caller(connection)


async def authenticated(connection: _Connection, _: BaseRouteHandler) -> None:
    """A valid access token of any role: for what concerns the caller's own account."""
    connection.scope["user"] = await _required_caller(connection)


async def buyer(connection: _Connection, _: BaseRouteHandler) -> None:
    """A valid access token of a user or an admin: a scanner's may check tickets in and nothing else."""
    caller = await _required_caller(connection)
    if caller.role not in ("user", "admin"):
        raise Forbidden("A scanner may only check tickets in.")
    connection.scope["user"] = caller


async def admin(connection: _Connection, _: BaseRouteHandler) -> None:
    """A valid access token of an admin."""
    caller = await _required_caller(connection)
    if not caller.is_admin:
        raise Forbidden("Admin role required.")
    connection.scope["user"] = caller


async def scanner(connection: _Connection, _: BaseRouteHandler) -> None:
    """A valid access token of someone who checks tickets: a scanner or an admin."""
    caller = await _required_caller(connection)
    if caller.role not in ("scanner", "admin"):
        raise Forbidden("Scanner or Admin role required.")
    connection.scope["user"] = caller


async def stripe_signature(_: _Connection, __: BaseRouteHandler) -> None:
    """Open to all: the handler checks a signature over the body."""


GUARDS = (anyone, authenticated, buyer, admin, scanner, stripe_signature)


async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The dependency `caller` of routes that need a token."""
    return request.scope["user"]


async def provide_visitor(request: Request[Any, Any, Any]) -> Caller | None:
    """The dependency `visitor` of routes open to anyone."""
    return request.scope["user"]


async def find_caller(connection: _Connection) -> Caller | None:
    """Whom the request's token names; None when it has none, or none that is good."""
    caller = await _look_at_token(connection)
    return caller if isinstance(caller, Caller) else None


async def _required_caller(connection: _Connection) -> Caller:
    caller = await _look_at_token(connection)
    if isinstance(caller, Problem):
        raise caller
    return caller


async def _look_at_token(connection: _Connection) -> Caller | Problem:
    """Once for each request, however many ask."""
    scope: dict[str, Any] = connection.scope  # pyright: ignore[reportAssignmentType]
    if _SEEN not in scope:
        verifier: TokenVerifier = connection.app.state.token_verifier
        token = bearer_token(connection)
        try:
            scope[_SEEN] = await verifier.verify(token) if token else Unauthenticated()
        except (Unauthenticated, TemporarilyUnavailable) as refusal:
            scope[_SEEN] = refusal
    return scope[_SEEN]


def bearer_token(connection: _Connection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
