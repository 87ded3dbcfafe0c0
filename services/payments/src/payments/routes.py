"""The HTTP surface under `/orders`: decode, authorise, one call, answer."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from libs.web.access import Forbidden, admin, buyer, stripe_signature
from libs.web.fields import AmountMinor, Currency, EmailAddress, Row, SeatNumber, Section, Time
from libs.web.limits import UNLIMITED
from libs.web.openapi import describe
from libs.web.paging import Cursor, Limit, page_response, query_limit
from libs.web.problems import BodyTooLarge, InvalidRequest, NotFound
from libs.web.tokens import Caller
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody
from msgspec import Meta, Struct

from payments import cancellations, checkouts, refunds, webhooks
from payments.errors import (
    HoldOver,
    InvalidSignature,
    OrderNeverPaid,
    OrderNotCancellable,
    OrderOver,
    PaymentNotPossible,
)
from payments.models import Hold, Order, OrderStatus
from payments.queries import orders

WEBHOOK_BODY_LIMIT = 262_144
MAX_SEATS = 1000

StripeSignature = Annotated[
    str | None,
    HeaderParameter(name="Stripe-Signature", max_length=4096, description="Signs the bytes of the body."),
]


ClientSecret = Annotated[str, Meta(examples=["pi_3Nxy_secret_Vt9d"])]


class CheckoutBody(Struct, frozen=True, rename="camel"):
    """Either `reservationId`, or `eventId` and `seatIds`: exactly the seats of one reservation of yours."""

    reservation_id: UUID | None = None
    user_id: (
        Annotated[str, Meta(max_length=36, description="Your own id, or empty", examples=[""])] | None
    ) = None
    event_id: UUID | None = None
    seat_ids: Annotated[list[UUID], Meta(min_length=1, max_length=MAX_SEATS)] | None = None
    tier_id: (
        Annotated[
            str,
            Meta(max_length=200, description="Ignored: a reservation knows its prices", examples=["vip"]),
        ]
        | None
    ) = None
    email: (
        Annotated[str, Meta(max_length=254, pattern=r"^([^@\s]+@[^@\s]+)?$", examples=["ada@example.com"])]
        | None
    ) = None


class SeatBody(Struct, frozen=True, rename="camel"):
    id: UUID
    section: Section
    row: Row | None
    seat_number: SeatNumber | None
    tier_id: UUID | None
    amount_minor: AmountMinor


class OrderBody(Struct, frozen=True, rename="camel"):
    """Amounts are minor units of `currency` (ISO 4217); `expiresAt` is the payment deadline."""

    id: UUID
    event_id: UUID
    reservation_id: UUID
    status: OrderStatus
    amount_minor: AmountMinor
    currency: Currency
    email: EmailAddress | None
    seats: list[SeatBody]
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, order: Order) -> "OrderBody":
        return cls(**_members(order))


class CheckoutAnswer(OrderBody, frozen=True, rename="camel", kw_only=True):
    """`clientSecret` is for Stripe.js; null when nothing is to be paid."""

    order_id: UUID
    client_secret: ClientSecret | None

    @classmethod
    def of(cls, order: Order) -> "CheckoutAnswer":
        return cls(**_members(order), order_id=order.id, client_secret=order.client_secret)


def _members(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "event_id": order.event_id,
        "reservation_id": order.hold_id,
        "status": order.status,
        "amount_minor": order.amount_minor,
        "currency": order.currency,
        "email": order.email,
        "seats": [msgspec.convert({"id": seat["seatId"], **seat}, SeatBody) for seat in order.seats],
        "created_at": order.created_at,
        "expires_at": order.expires_at,
    }


class StripeEvent(Struct, frozen=True):
    """https://docs.stripe.com/api/events/object: stored as it comes."""

    id: Annotated[str, Meta(examples=["evt_1PgafmB7WZ01zgkW6dKueIc5"])]
    type: Annotated[str, Meta(examples=["payment_intent.succeeded"])]
    data: dict[str, Any]


class Received(Struct, frozen=True):
    received: bool = True


@post(
    "/orders/checkout",
    guards=[buyer],
    status_code=200,
    tags=["orders"],
    summary="Check out a reservation",
    opt=describe(
        Forbidden,
        NotFound,
        HoldOver,
        OrderOver,
        PaymentNotPossible,
        links={"readOrder": "order_id", "cancelOrder": "order_id", "refundOrder": "order_id"},
    ),
)
async def check_out(
    data: JSONBody[CheckoutBody], caller: NamedDependency[Caller], state: State
) -> CheckoutAnswer:
    """Makes the reservation's one order and its payment; again, the same while it is pending or paid."""
    hold = await _find_hold(data, caller, state)
    order = await checkouts.check_out(
        state.pool,
        state.stripe,
        hold=hold,
        user_id=caller.user_id,
        email=(data.email or "").strip() or None,
        payment_seconds=state.payment_seconds,
    )
    return CheckoutAnswer.of(order)


async def _find_hold(data: JSONBody[CheckoutBody], caller: Caller, state: State) -> Hold:
    if data.user_id and data.user_id.lower() != str(caller.user_id):
        raise Forbidden("You can only check out for yourself: userId must be your own id, or empty.")
    if data.reservation_id is not None:
        return await checkouts.find_hold(
            state.pool, state.freshness_gate, hold_id=data.reservation_id, user_id=caller.user_id
        )
    if data.event_id is None:
        raise InvalidRequest.at("/eventId", "required, with seatIds, unless there is a reservationId")
    if data.seat_ids is None:
        raise InvalidRequest.at("/seatIds", "required, with eventId, unless there is a reservationId")
    if len(set(data.seat_ids)) < len(data.seat_ids):
        raise InvalidRequest.at("/seatIds", "names a seat twice")
    return await checkouts.find_hold_of_seats(
        state.pool,
        state.freshness_gate,
        event_id=data.event_id,
        seat_ids=data.seat_ids,
        user_id=caller.user_id,
    )


@post(
    "/orders/webhook",
    guards=[stripe_signature],
    status_code=200,
    request_max_body_size=WEBHOOK_BODY_LIMIT,
    tags=["stripe"],
    summary="Receive an event of Stripe's",
    opt=UNLIMITED | describe(InvalidSignature, BodyTooLarge, body=StripeEvent),
)
async def receive_webhook(
    request: Request[Any, Any, Any], state: State, signature: StripeSignature = None
) -> Received:
    """The `Stripe-Signature` header signs the body's bytes. The answer comes once the event is stored."""
    await webhooks.receive_event(
        state.pool,
        body=await request.body(),
        signature=signature,
        secrets=state.webhook_secrets,
    )
    return Received()


@get("/orders", guards=[buyer], tags=["orders"], summary="List your orders")
async def list_orders(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    state: State,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response[list[OrderBody]]:
    """Newest first. With `limit`, the `Link` header leads to the next page."""
    async with state.pool.connection() as conn:
        found = await orders.list_own_orders(
            conn, user_id=caller.user_id, limit=query_limit(limit), cursor_id=cursor
        )
    return page_response(request, [OrderBody.of(order) for order in found], limit=limit)


@get(
    "/orders/{order_id:str}",
    guards=[buyer],
    tags=["orders"],
    summary="Read an order",
)
async def read_order(order_id: FromPath[UUID], caller: NamedDependency[Caller], state: State) -> OrderBody:
    """Your own; an admin reads any."""
    async with state.pool.connection() as conn:
        order = (
            await orders.find_order(conn, order_id)
            if caller.is_admin
            else await orders.find_own_order(conn, order_id, user_id=caller.user_id)
        )
    if order is None:
        raise NotFound("There is no such order.")
    return OrderBody.of(order)


@post(
    "/orders/{order_id:str}/cancel",
    guards=[buyer],
    status_code=200,
    tags=["orders"],
    summary="Cancel an order that is not paid",
    opt=describe(OrderNotCancellable),
)
async def cancel_order(order_id: FromPath[UUID], caller: NamedDependency[Caller], state: State) -> OrderBody:
    """409 once it is paid. 503 when Stripe does not answer: the wish is recorded and will be carried out."""
    return OrderBody.of(
        await cancellations.cancel_order(state.pool, state.stripe, order_id=order_id, user_id=caller.user_id)
    )


@post(
    "/orders/{order_id:str}/refund",
    guards=[admin],
    status_code=200,
    tags=["orders"],
    summary="Refund an order",
    opt=describe(OrderNeverPaid),
)
async def refund_order(order_id: FromPath[UUID], state: State) -> OrderBody:
    """Answers with status `refunding`: tickets are voided first. A ticket that was used keeps its order."""
    return OrderBody.of(await refunds.request_refund(state.pool, order_id=order_id))


ROUTES = [check_out, receive_webhook, list_orders, read_order, cancel_order, refund_order]
