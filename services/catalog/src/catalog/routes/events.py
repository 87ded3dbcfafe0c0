"""Events: public reads from the cache, changes by admins."""

from typing import Any
from uuid import UUID

import msgspec
from libs.postgres import Pool
from libs.web.access import admin, anyone
from libs.web.created import created
from libs.web.etags import IfMatch, PreconditionFailed, etag_of, etag_response, tagged
from libs.web.idempotency import Attempt
from libs.web.openapi import describe
from libs.web.paging import Cursor, Limit, page_response, query_limit
from libs.web.problems import NotFound
from libs.web.tokens import Caller
from litestar import Request, Response, get, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from catalog.cache import Answer
from catalog.errors import EventIsCancelled, EventIsPublished, UnknownReference, UnknownSections
from catalog.events import EventChange, NewEvent
from catalog.models import Event
from catalog.queries import events as queries

# A browser or a shared cache may show a list that is so old; an event itself is asked for each time.
LIST_CACHE_CONTROL = "public, max-age=5"


@post(
    "/events",
    guards=[admin],
    summary="Make an event",
    opt=describe(
        UnknownReference,
        UnknownSections,
        links={
            "getEvent": "event_id",
            "patchEvent": "event_id",
            "publishEvent": "event_id",
            "cancelEvent": "event_id",
            "listEventSeats": "event_id",
            "createReservation": "/eventId",
        },
    ),
)
async def post_event(
    data: JSONBody[NewEvent], attempt: NamedDependency[Attempt], state: State
) -> Response[Event]:
    """A draft, or on sale at once with `isPublished: true`, with the seats that its venue has now."""
    event = Event.of(await state.events.create(data, attempt=attempt))
    return created(event, f"/events/{event.id}")


@patch(
    "/events/{event_id:str}",
    guards=[admin],
    summary="Change an event",
    opt=describe(PreconditionFailed, EventIsCancelled, EventIsPublished, UnknownReference, UnknownSections),
)
async def patch_event(
    event_id: FromPath[UUID], data: JSONBody[EventChange], state: State, if_match: IfMatch = None
) -> Response[Event]:
    """`isPublished: true` publishes. A cancelled event is 409 `event_cancelled`; what only a draft may change
    is 409 `event_published`.
    """
    return tagged(Event.of(await state.events.change(event_id, data, if_match=if_match)))


@post(
    "/events/{event_id:str}/publish",
    guards=[admin],
    status_code=200,
    summary="Put an event on sale",
    opt=describe(EventIsCancelled, UnknownSections),
)
async def publish_event(event_id: FromPath[UUID], state: State) -> Event:
    """Its seats are now those of the venue, for good. Published already: 200 as well."""
    return Event.of(await state.events.publish(event_id))


@post(
    "/events/{event_id:str}/cancel",
    guards=[admin],
    status_code=200,
    summary="Cancel an event",
)
async def cancel_event(event_id: FromPath[UUID], state: State) -> Event:
    """Holds end, tickets are voided, orders are refunded. Cancelled already: 200 as well."""
    return Event.of(await state.events.cancel(event_id))


@get("/events", guards=[anyone], summary="Events on sale, newest first", opt=describe(answer=list[Event]))
async def get_events(
    request: Request[Any, Any, Any], state: State, limit: Limit = None, cursor: Cursor = None
) -> Response[bytes]:
    """All of them, or pages of `limit`, the next of which is in the `Link` header."""

    async def load() -> Answer:
        async with state.pool.connection() as conn:
            rows = await queries.list_published_events(conn, before=cursor, limit=query_limit(limit))
        page = page_response(request, [Event.of(row) for row in rows], limit=limit)
        return _encoded(page.content, link=page.headers.get("Link"))

    answer: Answer = await state.cache.get(f"events:{limit or ''}:{cursor or ''}", load)
    return _response(answer, LIST_CACHE_CONTROL)


@get("/events/{event_id:str}", guards=[anyone], summary="An event", opt=describe(answer=Event))
async def get_event(
    event_id: FromPath[UUID],
    visitor: NamedDependency[Caller | None],
    state: State,
) -> Response[bytes] | Response[Event]:
    """A draft is 404 except to admins. A cancelled event that was on sale stays readable."""
    pool: Pool = state.pool

    async def load() -> Answer | None:
        async with pool.connection() as conn:
            row = await queries.find_event(conn, event_id)
        return _encoded(Event.of(row)) if row and row.is_public else None

    answer: Answer | None = await state.cache.get(f"event:{event_id}", load)
    if answer is not None:
        return _response(answer, "public, no-cache")
    if visitor is not None and visitor.is_admin:
        async with pool.connection() as conn:
            row = await queries.find_event(conn, event_id)
        if row is not None:
            return Response(Event.of(row))
    raise NotFound("There is no such event.")


def _encoded(value: Event | list[Event], *, link: str | None = None) -> Answer:
    body = msgspec.json.encode(value)
    return Answer(body, etag_of(body), link)


def _response(answer: Answer, cache_control: str) -> Response[bytes]:
    response = etag_response(answer.body, etag=answer.etag, cache_control=cache_control)
    if answer.link is not None:
        response.headers["Link"] = answer.link
    return response


EVENT_ROUTES = [post_event, patch_event, publish_event, cancel_event, get_events, get_event]
