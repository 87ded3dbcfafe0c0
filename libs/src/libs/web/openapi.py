"""The OpenAPI 3.1 document of a service, made of its routes.

Bodies and their limits come from the structs that decode and encode them, so that the document is true. What
is common to many routes (access, idempotency, entity tags, errors) is told by the rules that the code goes
by. A handler says the rest: `@post(..., opt=describe(SlugTaken))`.
"""

import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, ParameterKwarg
from litestar.routes import HTTPRoute
from msgspec import Meta

from libs.web.access import Forbidden, admin, anyone, authenticated, buyer, scanner
from libs.web.examples import cause_of, example_of, example_problem
from libs.web.idempotency import MAX_KEY_LENGTH, IdempotencyKeyReused, RequestInProgress, takes_key
from libs.web.limits import RateLimited
from libs.web.problems import (
    MEDIA_TYPE,
    BodyTooLarge,
    FieldError,
    InternalError,
    InvalidRequest,
    NotFound,
    Problem,
    ProblemDocument,
    TemporarilyUnavailable,
    Unauthenticated,
)
from libs.web.sizes import BodyTooSlow

Document = dict[str, Any]

VERSION = "1.0.0"
_REF = "#/components/schemas/{name}"
_WHO = {
    authenticated: "Needs the token of any user.",
    buyer: "Needs the token of a user or an admin; a scanner's does not do.",
    scanner: "Needs the token of a scanner or an admin.",
    admin: "Needs the token of an admin.",
}
_RETRY = (TemporarilyUnavailable, RequestInProgress, RateLimited)


def describe(
    *refusals: type[Problem],
    answer: Any = None,
    body: Any = None,
    unavailable: Any = None,
    links: Mapping[str, str | Document] | None = None,
) -> dict[str, Any]:
    """What the signature of a handler does not tell, for its `opt`.

    `refusals` are its own, beside those that follow from its access rule, parameters and body. `answer`
    and `body` are the types of what goes out and comes in as bytes, `unavailable` that of a 503 that is no
    problem. `links` are operations that take the answer's `id`: operation id -> parameter, with a leading `/`
    for a member of its body; or a whole link.
    """
    return {
        "refusals": refusals,
        "answer": answer,
        "body": body,
        "unavailable": unavailable,
        "links": links or {},
    }


def build_document(app: Litestar, *, title: str) -> Document:
    """`links` may name operations of other services: `without_dangling_links` takes them out."""
    operations = [
        (route, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.resolve_include_in_schema() and handler.http_methods != {"OPTIONS"}
    ]
    types = {FieldError, ProblemDocument}
    for _, handler in operations:
        found = (_body_type(handler), _answer_type(handler), _told(handler, "unavailable", None))
        types |= {each for each in found if each is not None}
    listed = sorted(types, key=str)
    schemas, components = msgspec.json.schema_components(listed, ref_template=_REF)
    schema_of = dict(zip(listed, schemas, strict=True))
    document: Document = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": VERSION},
        "servers": [{"url": "/"}],
        "paths": {},
        "components": {
            "schemas": {name: _named_type(schema) for name, schema in sorted(components.items())},
            "responses": {},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "headers": _HEADERS,
        },
    }
    described = _Operations(schema_of, document["components"])
    # Litestar keeps a path's methods in a set, whose order is another in each process.
    operations.sort(key=lambda each: (each[0].path_format, sorted(each[1].http_methods)))
    for route, handler in operations:
        path = document["paths"].setdefault(route.path_format, {})
        for method in sorted(handler.http_methods):
            path[method.lower()] = described.describe(route, handler, str(method))
    return document


def without_dangling_links(document: Document) -> Document:
    """The same document, changed in place."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    known = {operation["operationId"] for operation in operations}
    for operation in operations:
        for response in operation["responses"].values():
            links = {
                name: link for name, link in response.pop("links", {}).items() if link["operationId"] in known
            }
            if links:
                response["links"] = links
    return document


class _Operations:
    """`schema_of` a type, and what their `$ref`s mean."""

    def __init__(self, schema_of: Mapping[Any, Document], components: Document) -> None:
        self._schema_of = schema_of
        self._schemas: Document = components["schemas"]
        self._shared: Document = components["responses"]

    def describe(self, route: HTTPRoute, handler: HTTPRouteHandler, method: str) -> Document:
        guard = _guard(handler)
        is_keyed = guard in _WHO and takes_key(method, route.path)
        parameters = _parameters(route, handler, is_keyed=is_keyed)
        description = [inspect.cleandoc(handler.fn.__doc__ or ""), _WHO.get(guard, "")]
        operation: Document = {
            "operationId": handler.operation_id or _camel(handler.handler_name),
            "summary": handler.summary,
            "description": "\n\n".join(part for part in description if part),
            "tags": sorted({tag for layer in handler.ownership_layers for tag in layer.tags or []}),
            "security": [{"token": []}] if guard in _WHO else [],
            "parameters": parameters,
        }
        refusals = [*_told(handler, "refusals", ()), InternalError, TemporarilyUnavailable]
        if handler.opt.get("limit", "requests") is not None:
            refusals.append(RateLimited)
        if parameters:
            refusals.append(InvalidRequest)
        if route.path_parameters:
            refusals.append(NotFound)
        if guard in _WHO:
            refusals.append(Unauthenticated)
        if guard in (admin, buyer, scanner):
            refusals.append(Forbidden)
        if is_keyed:
            refusals += [RequestInProgress, IdempotencyKeyReused]
        body = _body_type(handler)
        if body is not None:
            refusals += [InvalidRequest, BodyTooLarge, BodyTooSlow]
            operation["requestBody"] = {"required": True, "content": self._json(body)}
        responses = _problems(refusals, self._shared) | self._answers(handler, method)
        return operation | {"responses": dict(sorted(responses.items()))}

    def _answers(self, handler: HTTPRouteHandler, method: str) -> Document:
        status = str(handler.status_code)
        success: Document = {
            "description": HTTPStatus(handler.status_code).phrase,
            "headers": _header_refs("X-Request-Id", "Cache-Control"),
        }
        if handler.opt.get("limit", "requests") is not None:
            success["headers"] |= _header_refs("RateLimit", "RateLimit-Policy")
        answer = _answer_type(handler)
        if answer is not None:
            success["content"] = self._json(answer)
        elif status != "204":
            success["content"] = {str(handler.media_type): {"schema": {"type": "string"}}}
        if status == "201":
            success["headers"] |= _header_refs("Location")
        if "limit" in handler.parsed_fn_signature.parameters:
            success["headers"] |= _header_refs("Link")
        links: Mapping[str, str | Document] = _told(handler, "links", {})
        if links:
            success["links"] = {name: {"operationId": name, **_link(to)} for name, to in links.items()}
        responses = {status: success}
        if method == "GET":
            success["headers"] |= _header_refs("ETag")
            responses["304"] = {
                "description": "The client has it: `If-None-Match` names its entity tag.",
                "headers": _header_refs("X-Request-Id", "Cache-Control", "ETag"),
            }
        if (unavailable := _told(handler, "unavailable", None)) is not None:
            responses["503"] = {
                "description": "Not now.",
                "headers": _header_refs("X-Request-Id", "Retry-After"),
                "content": self._json(unavailable),
            }
        return responses

    def _json(self, kind: Any) -> Document:
        schema = self._schema_of[kind]
        return {"application/json": {"schema": schema, "example": example_of(schema, self._schemas)}}


def _link(target: str | Document) -> Document:
    if not isinstance(target, str):
        return target
    if target.startswith("/"):
        return {"requestBody": {target[1:]: "$response.body#/id"}}
    return {"parameters": {target: "$response.body#/id"}}


def _problems(refusals: Sequence[type[Problem]], shared: Document) -> Document:
    """The answers by status; those that say the same are written once, in `shared`."""
    responses: Document = {}
    for status in sorted({refusal.status for refusal in refusals}):
        kinds = sorted(
            {kind.code: kind for kind in refusals if kind.status == status}.values(),
            key=lambda kind: kind.code,
        )
        headers = ["X-Request-Id", *(["Retry-After"] if any(kind in _RETRY for kind in kinds) else [])]
        name = "".join(_camel(f"_{kind.code}") for kind in kinds)
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
        shared[name] = {
            "description": "\n\n".join(f"`{kind.code}`: {cause_of(kind)}" for kind in kinds),
            "headers": _header_refs(*headers),
            "content": {
                MEDIA_TYPE: {
                    "schema": {
                        "$ref": _REF.format(name="ProblemDocument"),
                        "properties": {"code": {"enum": [kind.code for kind in kinds]}},
                    },
                    "examples": {kind.code: {"value": example_problem(kind)} for kind in kinds},
                }
            },
        }
    return responses


def _parameters(route: HTTPRoute, handler: HTTPRouteHandler, *, is_keyed: bool) -> list[Document]:
    path_names = set(route.path_parameters)
    found: list[Document] = []
    for name, field in handler.parsed_fn_signature.parameters.items():
        kwarg = field.kwarg_definition
        if name in path_names:
            found.append(_parameter(name, "path", field.annotation, required=True))
        elif isinstance(kwarg, HeaderParameter):
            found.append(_parameter(kwarg.name or name, "header", field.annotation, kwarg))
        elif isinstance(kwarg, ParameterKwarg) and _is_query(kwarg):
            found.append(_parameter(kwarg.query or name, "query", field.annotation, kwarg))
    if "GET" in handler.http_methods:
        found.append(_IF_NONE_MATCH)
    if is_keyed:
        found.append(_IDEMPOTENCY_KEY)
    return found


def _is_query(kwarg: ParameterKwarg) -> bool:
    return type(kwarg).__name__ == "QueryParameter"


def _parameter(
    name: str, where: str, annotation: Any, kwarg: ParameterKwarg | None = None, *, required: bool = False
) -> Document:
    kinds = (
        [each for each in get_args(annotation) if each is not NoneType]
        if _is_union(annotation)
        else [annotation]
    )
    limits: Any = None
    if kwarg is not None:
        given: Any = {"ge": kwarg.ge, "le": kwarg.le, "max_length": kwarg.max_length}
        limits = Meta(**given)
    schema = msgspec.json.schema(Annotated[kinds[0], limits] if limits else kinds[0])
    parameter: Document = {"name": name, "in": where, "required": required, "schema": schema}
    if kwarg is not None and kwarg.description:
        parameter["description"] = kwarg.description
    return parameter


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _body_type(handler: HTTPRouteHandler) -> Any:
    field = handler.parsed_data_field
    return _told(handler, "body", None) if field is None else field.annotation


def _answer_type(handler: HTTPRouteHandler) -> Any:
    described = _told(handler, "answer", None)
    if described is not None:
        return described
    annotation = handler.parsed_fn_signature.return_type.annotation
    if get_origin(annotation) is Response:
        (annotation,) = get_args(annotation)
    return None if annotation in (None, NoneType, bytes, str) else annotation


def _told(handler: HTTPRouteHandler, name: str, default: Any) -> Any:
    return handler.opt.get(name, default)


def _guard(handler: HTTPRouteHandler) -> Any:
    return next(
        (
            guard
            for layer in handler.ownership_layers
            for guard in layer.guards or []
            if guard in (anyone, *_WHO)
        ),
        None,
    )


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def _named_type(schema: Document) -> Document:
    """msgspec leaves out that the values of an enumeration are strings."""
    if "enum" in schema and all(isinstance(value, str) for value in schema["enum"]):
        return {"type": "string", **schema}
    return schema


def _header_refs(*names: str) -> Document:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_HEADERS: Document = {
    "X-Request-Id": {
        "description": "The name of this request in our logs: the one that it came with, or a new one.",
        "schema": {"type": "string"},
    },
    "Cache-Control": {
        "description": "Who may keep the answer, and for how long.",
        "schema": {"type": "string"},
    },
    "ETag": {"description": "The entity tag of this answer.", "schema": {"type": "string"}},
    "Link": {
        "description": 'The next page, if there is one: `</events?limit=20&cursor=...>; rel="next"`.',
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where to read what was made.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": 'What is left of each limit, and when all is back: `"requests";r=199;t=5`.',
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": 'So many in so many seconds: `"requests";q=200;w=900`.',
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
}
_IF_NONE_MATCH: Document = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "Entity tags that the client has: 304 when one of them is right.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "For 24 hours the same request under one key is carried out once, and answered alike.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_LENGTH,
        "pattern": "^[!-~]([ -~]*[!-~])?$",
        "examples": ["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    },
}
