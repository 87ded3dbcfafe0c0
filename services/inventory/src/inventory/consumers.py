"""What inventory does with messages. The transaction and the inbox are the subscription's."""

from contracts.messages import (
    EventCancelled,
    EventCreated,
    EventPublished,
    EventUpdated,
    OrderCancelled,
    OrderExpired,
    OrderPaid,
    OrderPlaced,
    OrderRefundRequested,
    SeatMapPart,
    UserDisabled,
    UserTokensRevoked,
)
from libs.messaging.deliveries import Handlers
from libs.postgres import Conn
from libs.revocations import on_user_disabled, on_user_tokens_revoked

from inventory.events import save_event, save_seat_map_part
from inventory.holds import extend_hold, release_hold_of_order
from inventory.sales import confirm_sale, void_order


async def on_order_cancelled(conn: Conn, order: OrderCancelled) -> None:
    await release_hold_of_order(
        conn, order.hold_id, event_id=order.event_id, order_id=order.order_id, reason="order_cancelled"
    )


async def on_order_expired(conn: Conn, order: OrderExpired) -> None:
    await release_hold_of_order(
        conn, order.hold_id, event_id=order.event_id, order_id=order.order_id, reason="order_expired"
    )


HANDLERS: Handlers = {
    EventCreated: save_event,
    EventUpdated: save_event,
    EventPublished: save_event,
    EventCancelled: save_event,
    SeatMapPart: save_seat_map_part,
    OrderPlaced: extend_hold,
    OrderPaid: confirm_sale,
    OrderCancelled: on_order_cancelled,
    OrderExpired: on_order_expired,
    OrderRefundRequested: void_order,
    UserDisabled: on_user_disabled,
    UserTokensRevoked: on_user_tokens_revoked,
}
