"""The organizer: a venue, and one event on sale in it, whose price may change and which may be cancelled."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from catalog.events import EventChange, NewEvent
from catalog.tiers import NewTier
from catalog.venues import NewSeat, add_seats, create_venue
from libs.ids import new_id
from libs.web.idempotency import Attempt

from tests.saga.services import Services

PRICE = 4500


class Organizer:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def build_venue(self) -> None:
        venue = await create_venue(
            self._services.catalog,
            venue_id=new_id(),
            organizer_id=None,
            name="Odeon",
            address="1 Main Street",
            city="Springfield",
            state="IL",
            zip_code="62701",
            country="US",
            description=None,
        )
        self._venue_id = venue.id
        places = [("A", 1), ("A", 2), ("A", 3), ("Free", 1)]
        seats = [NewSeat(section=section, row="1", seat_number=number) for section, number in places]
        await add_seats(self._services.catalog, venue.id, call_id=new_id(), seats=seats)

    async def put_on_sale(self) -> UUID:
        """An event with seats A1, A2, A3 at 45.00 EUR and a free one; its id."""
        self.has_raised = self.has_cancelled = False
        now = datetime.now(UTC)
        event = await self._services.events.create(
            NewEvent(
                name="Opening night",
                venue_id=self._venue_id,
                start_date=now + timedelta(days=30),
                end_date=now + timedelta(days=30, hours=3),
                is_published=True,
                tiers=_tiers(PRICE),
            ),
            attempt=Attempt(new_id(), is_repeat=False),
        )
        self._event_id = event.id
        return event.id

    async def raise_price(self) -> None:
        await self._services.events.change(self._event_id, EventChange(tiers=_tiers(2 * PRICE)))
        self.has_raised = True

    async def cancel_event(self) -> None:
        await self._services.events.cancel(self._event_id)
        self.has_cancelled = True


def _tiers(amount_minor: int) -> list[NewTier]:
    return [NewTier(name="Stalls", amount_minor=amount_minor, currency="eur", sections=["A"])]
