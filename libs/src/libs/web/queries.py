"""Query parameters are read strictly: each once, and `null` is no value of a number or an id."""

from urllib.parse import parse_qsl

from litestar.types import ASGIApp, Receive, Scope, Send

from libs.web.problems import InvalidRequest


def queries_middleware(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"]:
            _refuse_ambiguous(
                scope["query_string"], set(scope["route_handler"].parsed_fn_signature.parameters)
            )
        await app(scope, receive, send)

    return middleware


def _refuse_ambiguous(query: bytes, declared: set[str]) -> None:
    seen: set[str] = set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in declared and (name in seen or value == "null"):
            raise InvalidRequest.at(f"query/{name}", "one value, and not `null`: leave it out instead")
        seen.add(name)
