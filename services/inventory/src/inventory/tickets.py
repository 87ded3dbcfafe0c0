"""Use cases on tickets: the check-in."""

from libs.postgres import Pool
from libs.web.idempotency import Attempt
from libs.web.problems import InvalidRequest, NotFound

from inventory.errors import AlreadyCheckedIn, TicketVoid
from inventory.models import Ticket, TicketStatus
from inventory.queries import tickets as queries
from inventory.ticket_codes import InvalidTicketCode
from inventory.ticket_keys import TicketKeys


async def check_in(pool: Pool, code: str, *, keys: TicketKeys, attempt: Attempt) -> Ticket:
    """Admits a ticket, exactly once however many scanners read it at the same moment. An attempt that has
    admitted it before is told so again.

    Raises `InvalidRequest`, `NotFound`, `AlreadyCheckedIn` or `TicketVoid`.
    """
    try:
        ticket_id, event_id, _ = keys.read(code)
    except InvalidTicketCode as error:
        raise InvalidRequest.at("/qrPayload", str(error)) from None
    async with pool.connection() as conn:
        ticket = await queries.check_in_ticket(
            conn, ticket_id, event_id=event_id, check_in_id=attempt.id, is_repeat=attempt.is_repeat
        )
        if ticket is not None:
            return ticket
        use = await queries.find_ticket_use(conn, ticket_id, event_id=event_id)
    if use is None:
        raise NotFound("There is no such ticket.")
    status, checked_in_at = use
    if status == TicketStatus.VOID:
        raise TicketVoid("The ticket is void: it was refunded or its event was cancelled.")
    raise AlreadyCheckedIn("The ticket was checked in before.", checkedInAt=checked_in_at)
