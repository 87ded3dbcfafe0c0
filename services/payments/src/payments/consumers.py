"""What payments does with each message; transaction and inbox are the subscription's."""

from contracts.messages import (
    HoldConfirmed,
    HoldExpired,
    HoldExtended,
    HoldLost,
    HoldPlaced,
    HoldReleased,
    PaymentSucceeded,
    SaleRejected,
    TicketsIssued,
    TicketsVoided,
    UserDisabled,
    UserTokensRevoked,
    VoidRefused,
)
from libs.messaging.deliveries import Handlers
from libs.postgres import Conn
from libs.revocations import on_user_disabled, on_user_tokens_revoked

from payments import holds, orders, payments, refunds
from payments.models import HoldStatus


async def on_hold_placed(conn: Conn, message: HoldPlaced) -> None:
    await holds.project_hold(
        conn,
        message.hold_id,
        event_id=message.event_id,
        user_id=message.user_id,
        seats=message.seats,
        amount_minor=message.amount_minor,
        currency=message.currency,
        expires_at=message.expires_at,
    )


async def on_hold_extended(conn: Conn, message: HoldExtended) -> None:
    await holds.extend_hold(
        conn,
        message.hold_id,
        event_id=message.event_id,
        user_id=message.user_id,
        expires_at=message.expires_at,
    )


async def on_hold_lost(conn: Conn, message: HoldLost) -> None:
    await holds.end_hold(
        conn, message.hold_id, event_id=message.event_id, user_id=message.user_id, status=HoldStatus.LOST
    )


async def on_hold_released(conn: Conn, message: HoldReleased) -> None:
    await holds.end_hold(
        conn, message.hold_id, event_id=message.event_id, user_id=message.user_id, status=HoldStatus.RELEASED
    )


async def on_hold_expired(conn: Conn, message: HoldExpired) -> None:
    await holds.end_hold(
        conn,
        message.hold_id,
        event_id=message.event_id,
        user_id=message.user_id,
        status=HoldStatus.EXPIRED,
        expired_at=message.expired_at,
    )


async def on_hold_confirmed(conn: Conn, message: HoldConfirmed) -> None:
    await holds.confirm_hold(conn, message.hold_id, event_id=message.event_id, user_id=message.user_id)


async def on_payment_succeeded(conn: Conn, message: PaymentSucceeded) -> None:
    await payments.record_capture(
        conn,
        message.order_id,
        payment_intent_id=message.payment_intent_id,
        amount_minor=message.amount_minor,
        currency=message.currency,
    )


async def on_tickets_issued(conn: Conn, message: TicketsIssued) -> None:
    await orders.fulfil_order(conn, message.order_id)


async def on_sale_rejected(conn: Conn, message: SaleRejected) -> None:
    await refunds.reject_sale(conn, message.order_id)


async def on_tickets_voided(conn: Conn, message: TicketsVoided) -> None:
    await refunds.void_tickets(conn, message.order_id)


async def on_void_refused(conn: Conn, message: VoidRefused) -> None:
    await refunds.refuse_void(conn, message.order_id)


HANDLERS: Handlers = {
    UserDisabled: on_user_disabled,
    UserTokensRevoked: on_user_tokens_revoked,
    HoldPlaced: on_hold_placed,
    HoldExtended: on_hold_extended,
    HoldLost: on_hold_lost,
    HoldReleased: on_hold_released,
    HoldExpired: on_hold_expired,
    HoldConfirmed: on_hold_confirmed,
    PaymentSucceeded: on_payment_succeeded,
    TicketsIssued: on_tickets_issued,
    SaleRejected: on_sale_rejected,
    TicketsVoided: on_tickets_voided,
    VoidRefused: on_void_refused,
}
