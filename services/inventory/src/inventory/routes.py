"""Requests and answers of inventory."""

import io
from typing import Annotated, Any
from uuid import UUID

import msgspec
import segno
from libs.web.access import anyone, buyer, scanner
from libs.web.etags import etag_response
from libs.web.fields import AmountMinor, Currency, Row, SeatNumber, Section, Time
from libs.web.idempotency import Attempt
from libs.web.keys import KeySet
from libs.web.openapi import describe
from libs.web.paging import Cursor, Limit, page_response, query_limit
from libs.web.problems import InvalidRequest, NotFound
from libs.web.tokens import Caller
from litestar import Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from inventory import holds, tickets
from inventory.errors import (
    AlreadyCheckedIn,
    EventCancelled,
    HoldQuotaExceeded,
    OrderPending,
    SeatsUnavailable,
    TicketVoid,
)
from inventory.models import Hold, HoldStatus, SeatStatus, Ticket, TicketStatus
from inventory.queries import holds as hold_queries
from inventory.queries import tickets as ticket_queries
from inventory.seat_maps import SeatMap, require_visible_event
from inventory.ticket_codes import MAX_LENGTH

# Of docs/tickets.md.
CODE_EXAMPLE = (
    "TKT1.doc1.AYkKXayWd0u8zrMCCZqAVwGJCl2slndLvM6zAgmagFg."
    "dHRhqM5J1GO02gOFU8zeUoQgtw4_fpp83LQ40poOdmehCfeAwd5JhPa3sjMi6-WOktpISO5wYxW1tXk1DJh_Aw"
)
# Anybody may keep it, and asks each time whether it is still so.
PUBLIC_CACHE_CONTROL = "public, no-cache"

QrPayload = Annotated[str, Meta(description="Signed; good once", examples=[CODE_EXAMPLE])]


class SeatView(Struct, frozen=True, rename="camel"):
    id: UUID
    section: Section
    row: Row | None
    seat_number: SeatNumber | None
    status: SeatStatus
    tier_id: UUID | None
    amount_minor: AmountMinor


class ReservationRequest(Struct, frozen=True, rename="camel"):
    event_id: UUID
    seat_ids: Annotated[list[UUID], Meta(min_length=1, max_length=500)]


class ReservationView(Struct, frozen=True, rename="camel"):
    id: UUID
    event_id: UUID
    user_id: UUID
    status: HoldStatus
    seats: list[SeatView]
    amount_minor: AmountMinor
    currency: Currency
    expires_at: Time
    created_at: Time


class TicketSeatView(Struct, frozen=True, rename="camel"):
    id: UUID
    section: Section
    row: Row | None
    seat_number: SeatNumber | None


class TicketView(Struct, frozen=True, rename="camel"):
    id: UUID
    order_id: UUID
    event_id: UUID
    seat: TicketSeatView
    status: TicketStatus
    qr_payload: QrPayload
    issued_at: Time
    checked_in_at: Time | None


class CheckInRequest(Struct, frozen=True, rename="camel"):
    qr_payload: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_LENGTH, examples=[CODE_EXAMPLE]),
    ]


class CheckInView(Struct, frozen=True, rename="camel"):
    ticket: TicketView
    checked_in_at: Time


_SEAT_STATUS_OF_HOLD = {HoldStatus.ACTIVE: SeatStatus.RESERVED, HoldStatus.CONFIRMED: SeatStatus.SOLD}


def reservation_view(hold: Hold) -> ReservationView:
    seat_status = _SEAT_STATUS_OF_HOLD.get(hold.status, SeatStatus.AVAILABLE)
    return ReservationView(
        id=hold.hold_id,
        event_id=hold.event_id,
        user_id=hold.user_id,
        status=hold.status,
        seats=[
            SeatView(
                id=seat.seat_id,
                section=seat.section,
                row=seat.row,
                seat_number=seat.seat_number,
                status=seat_status,
                tier_id=seat.tier_id,
                amount_minor=seat.amount_minor,
            )
            for seat in hold.seats
        ],
        amount_minor=hold.amount_minor,
        currency=hold.currency,
        expires_at=hold.expires_at,
        created_at=hold.placed_at,
    )


def ticket_view(ticket: Ticket, state: State) -> TicketView:
    return TicketView(
        id=ticket.ticket_id,
        order_id=ticket.order_id,
        event_id=ticket.event_id,
        seat=TicketSeatView(
            id=ticket.seat_id, section=ticket.section, row=ticket.row_name, seat_number=ticket.seat_number
        ),
        status=ticket.status,
        qr_payload=state.ticket_keys.sign(ticket.ticket_id, event_id=ticket.event_id),
        issued_at=ticket.issued_at,
        checked_in_at=ticket.checked_in_at,
    )


@get(
    "/events/{event_id:str}/seats",
    guards=[anyone],
    tags=["seats"],
    summary="Seats of an event",
    opt=describe(
        answer=list[SeatView],
        links={
            "createReservation": {
                "requestBody": {"eventId": "$request.path.event_id", "seatIds": ["$response.body#/0/id"]}
            }
        },
    ),
)
async def list_event_seats(
    event_id: FromPath[UUID],
    visitor: NamedDependency[Caller | None],
    request: Request[Any, Any, Any],
    state: State,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response[bytes] | Response[list[SeatView]]:
    """Every seat with its status (`available`, `reserved`, `sold`) and price, in the order of section, row
    and number. All of them, or pages of `limit`, the next of which is in the `Link` header.
    """
    is_admin = visitor is not None and visitor.is_admin
    await require_visible_event(state.pool, event_id, is_admin=is_admin, gate=state.freshness_gate)
    if limit is not None or cursor is not None:
        page = await state.seat_maps.read_page(event_id, cursor=cursor, limit=query_limit(limit))
        response = page_response(request, msgspec.json.decode(page, type=list[SeatView]), limit=limit)
        response.headers["Cache-Control"] = PUBLIC_CACHE_CONTROL
        return response
    seat_map: SeatMap = await state.seat_maps.read(event_id)
    return etag_response(seat_map.body, etag=seat_map.etag, cache_control=PUBLIC_CACHE_CONTROL)


@post(
    "/reservations",
    guards=[buyer],
    status_code=200,
    tags=["reservations"],
    summary="Hold seats",
    opt={"limit": "holds"}
    | describe(
        NotFound,
        SeatsUnavailable,
        HoldQuotaExceeded,
        EventCancelled,
        links={
            "getReservation": "reservation_id",
            "deleteReservation": "reservation_id",
            "checkOut": "/reservationId",
        },
    ),
)
async def create_reservation(
    data: JSONBody[ReservationRequest],
    caller: NamedDependency[Caller],
    attempt: NamedDependency[Attempt],
    state: State,
) -> ReservationView:
    """Holds all of the seats until `expiresAt`, or none: 409 names the taken ones in `seatIds`."""
    if len(set(data.seat_ids)) < len(data.seat_ids):
        raise InvalidRequest.at("/seatIds", "a seat is named twice")
    hold = await holds.place_hold(
        state.pool,
        user_id=caller.user_id,
        event_id=data.event_id,
        seat_ids=data.seat_ids,
        hold_seconds=state.settings.hold_seconds,
        max_held_seats=state.settings.max_held_seats,
        gate=state.freshness_gate,
        attempt=attempt,
    )
    return reservation_view(hold)


@get("/reservations", guards=[buyer], tags=["reservations"], summary="Own reservations")
async def list_reservations(
    caller: NamedDependency[Caller],
    request: Request[Any, Any, Any],
    state: State,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response[list[ReservationView]]:
    async with state.pool.connection() as conn:
        found = await hold_queries.list_holds_of_user(
            conn, caller.user_id, cursor_id=cursor, limit=query_limit(limit)
        )
    return page_response(request, [reservation_view(hold) for hold in found], limit=limit)


@get(
    "/reservations/{reservation_id:str}",
    guards=[buyer],
    tags=["reservations"],
    summary="One of the own reservations",
)
async def get_reservation(
    reservation_id: FromPath[UUID], caller: NamedDependency[Caller], state: State
) -> ReservationView:
    async with state.pool.connection() as conn:
        hold = await hold_queries.find_hold_of_user(conn, reservation_id, user_id=caller.user_id)
    if hold is None:
        raise NotFound("There is no such reservation.")
    return reservation_view(hold)


@delete(
    "/reservations/{reservation_id:str}",
    guards=[buyer],
    tags=["reservations"],
    summary="Let a reservation go",
    opt=describe(OrderPending),
)
async def delete_reservation(
    reservation_id: FromPath[UUID], caller: NamedDependency[Caller], state: State
) -> None:
    """409 `order_pending` once it was checked out: cancel the order instead."""
    await holds.release_hold(state.pool, reservation_id, user_id=caller.user_id)


@get("/tickets", guards=[buyer], tags=["tickets"], summary="Own tickets")
async def list_tickets(
    caller: NamedDependency[Caller],
    request: Request[Any, Any, Any],
    state: State,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response[list[TicketView]]:
    """Void ones too, with status `void`."""
    async with state.pool.connection() as conn:
        found = await ticket_queries.list_tickets_of_user(
            conn, caller.user_id, cursor_id=cursor, limit=query_limit(limit)
        )
    return page_response(request, [ticket_view(ticket, state) for ticket in found], limit=limit)


async def _own_ticket(ticket_id: UUID, caller: Caller, state: State) -> Ticket:
    async with state.pool.connection() as conn:
        ticket = await ticket_queries.find_ticket_of_user(conn, ticket_id, user_id=caller.user_id)
    if ticket is None:
        raise NotFound("There is no such ticket.")
    return ticket


@get(
    "/tickets/{ticket_id:str}",
    guards=[buyer],
    tags=["tickets"],
    summary="One of the own tickets",
)
async def get_ticket(ticket_id: FromPath[UUID], caller: NamedDependency[Caller], state: State) -> TicketView:
    return ticket_view(await _own_ticket(ticket_id, caller, state), state)


@get(
    "/tickets/{ticket_id:str}/qr.svg",
    guards=[buyer],
    tags=["tickets"],
    summary="The QR code of a ticket",
    media_type="image/svg+xml",
)
async def get_ticket_qr(
    ticket_id: FromPath[UUID], caller: NamedDependency[Caller], state: State
) -> Response[bytes]:
    ticket = await _own_ticket(ticket_id, caller, state)
    picture = io.BytesIO()
    code = state.ticket_keys.sign(ticket.ticket_id, event_id=ticket.event_id)
    segno.make_qr(code, error="m").save(picture, kind="svg", scale=4)
    return Response(picture.getvalue(), media_type="image/svg+xml")


@post(
    "/tickets/check-in",
    guards=[scanner],
    status_code=200,
    tags=["tickets"],
    summary="Admit a ticket",
    opt=describe(NotFound, AlreadyCheckedIn, TicketVoid),
)
async def check_in(
    data: JSONBody[CheckInRequest], attempt: NamedDependency[Attempt], state: State
) -> CheckInView:
    """200 once; then 409 `already_checked_in` with the first `checkedInAt`."""
    ticket = await tickets.check_in(state.pool, data.qr_payload, keys=state.ticket_keys, attempt=attempt)
    assert ticket.checked_in_at is not None  # noqa: S101  # a CHECK of the table says so
    return CheckInView(ticket=ticket_view(ticket, state), checked_in_at=ticket.checked_in_at)


@get(
    "/.well-known/ticket-keys.json",
    guards=[anyone],
    tags=["tickets"],
    summary="The public keys of ticket codes",
    opt=describe(answer=KeySet),
)
async def get_ticket_keys(state: State) -> Response[bytes]:
    """A JSON Web Key Set (RFC 7517), for doors that verify without a network: `docs/tickets.md`."""
    return etag_response(
        state.ticket_keys.jwks, etag=state.ticket_keys.jwks_etag, cache_control="public, max-age=300"
    )


ROUTES = [
    list_event_seats,
    create_reservation,
    list_reservations,
    get_reservation,
    delete_reservation,
    list_tickets,
    get_ticket,
    get_ticket_qr,
    check_in,
    get_ticket_keys,
]
