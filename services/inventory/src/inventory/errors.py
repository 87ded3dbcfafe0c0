"""What inventory refuses, with its code and status."""

from libs.web.problems import Problem


class SeatsUnavailable(Problem):
    """Some seats are held or sold by others, or are no seats of this event; `seatIds` names them."""

    code = "seats_unavailable"
    status = 409
    cure = "Read the seats of the event again and choose others; nothing was held."


class EventCancelled(Problem):
    """The event will not take place."""

    code = "event_cancelled"
    status = 409
    cure = "Choose another event."


class HoldQuotaExceeded(Problem):
    """The buyer would hold more seats of this event than one person may."""

    code = "hold_quota"
    status = 409
    cure = "Let another reservation of this event go, or take fewer seats."


class OrderPending(Problem):
    """The hold belongs to an order: cancel the order instead."""

    code = "order_pending"
    status = 409
    cure = "Cancel the order: `POST /orders/{id}/cancel`."


class AlreadyCheckedIn(Problem):
    """The ticket was used before; `checkedInAt` says when."""

    code = "already_checked_in"
    status = 409
    cure = "Do not admit: somebody came in with this ticket."


class TicketVoid(Problem):
    """The ticket was refunded or its event cancelled."""

    code = "ticket_void"
    status = 409
    cure = "Do not admit."
