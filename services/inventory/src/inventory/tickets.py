"""Use cases on tickets: their codes and the check-in."""

import secrets

from libs.postgres import Pool, transaction
from libs.web.problems import InvalidRequest, NotFound

from inventory.errors import AlreadyCheckedIn, TicketVoid
from inventory.models import Ticket, TicketStatus
from inventory.queries import tickets as queries
from inventory.ticket_codes import InvalidTicketCode, TicketCodes


async def load_ticket_codes(pool: Pool) -> TicketCodes:
    """The keys of the ticket codes; the first one is made when there is none."""
    async with transaction(pool) as conn:
        await queries.insert_first_ticket_key(conn, secrets.token_hex(4), secrets.token_bytes(32))
        return TicketCodes(await queries.list_ticket_keys(conn))


async def check_in(pool: Pool, code: str, *, codes: TicketCodes) -> Ticket:
    """Admits a ticket, exactly once however many scanners read it at the same moment.

    Raises `InvalidRequest`, `NotFound`, `AlreadyCheckedIn` or `TicketVoid`.
    """
    try:
        ticket_id, event_id = codes.verify(code)
    except InvalidTicketCode:
        raise InvalidRequest.at("/qrPayload", "this is no ticket code of ours") from None
    async with pool.connection() as conn:
        ticket = await queries.check_in_ticket(conn, ticket_id, event_id=event_id)
        if ticket is not None:
            return ticket
        use = await queries.find_ticket_use(conn, ticket_id, event_id=event_id)
    if use is None:
        raise NotFound("There is no such ticket.")
    status, checked_in_at = use
    if status == TicketStatus.VOID:
        raise TicketVoid("The ticket is void: it was refunded or its event was cancelled.")
    raise AlreadyCheckedIn("The ticket was checked in before.", checkedInAt=checked_in_at)
