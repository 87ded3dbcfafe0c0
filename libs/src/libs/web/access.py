"""Who may call a route. Every handler names exactly one of these guards; `create_app` refuses one without."""

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from libs.web.problems import Problem, Unauthenticated
from libs.web.tokens import Caller, TokenVerifier

_Connection = ASGIConnection[Any, Any, Any, Any]


class Forbidden(Problem):
    """The caller's role does not allow this."""

    code = "forbidden"
    status = 403


async def anyone(connection: _Connection, _: BaseRouteHandler) -> None:
    """Open to all; a valid token is honoured, a bad one is as good as none."""
    token = bearer_token(connection)
    caller: Caller | None = None
    if token is not None:
        try:
            caller = await _verifier(connection).verify(token)
        except Unauthenticated:
            caller = None
    connection.scope["user"] = caller


async def authenticated(connection: _Connection, _: BaseRouteHandler) -> None:
    """A valid access token of any role."""
    connection.scope["user"] = await _required_caller(connection)


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


GUARDS = (anyone, authenticated, admin, scanner, stripe_signature)


async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The dependency `caller` of routes behind `authenticated` or `admin`."""
    return request.scope["user"]


async def provide_visitor(request: Request[Any, Any, Any]) -> Caller | None:
    """The dependency `visitor` of routes open to anyone."""
    return request.scope["user"]


async def _required_caller(connection: _Connection) -> Caller:
    token = bearer_token(connection)
    if token is None:
        raise Unauthenticated
    return await _verifier(connection).verify(token)


def _verifier(connection: _Connection) -> TokenVerifier:
    return connection.app.state.token_verifier


def bearer_token(connection: _Connection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
