"""Throws a projection away and builds it again from its topics, while the service runs.

python -m inventory.rebuild catalog        events, prices and seat maps
python -m inventory.rebuild revocations    revoked access tokens
"""

import sys

from contracts.messages import EventCancelled, EventCreated, EventPublished, EventUpdated, SeatMapPart
from libs.messaging.rebuilds import Projection, main
from libs.revocations import revocations_projection

from inventory.events import apply_event, apply_seat_map_part
from inventory.queries import rebuilds as queries
from inventory.queries.events import lock_projection

PROJECTIONS = (
    Projection(
        service="inventory",
        name="catalog",
        topics=("catalog.events", "catalog.seat-maps"),
        tables=("events", "section_prices", "seat_map_parts", "event_seats"),
        handlers={
            EventCreated: apply_event,
            EventUpdated: apply_event,
            EventPublished: apply_event,
            EventCancelled: apply_event,
            SeatMapPart: apply_seat_map_part,
        },
        copied_keys=queries.list_copied_events,
        live_keys=queries.list_live_events,
        lock=lock_projection,
        replace=queries.replace_event,
    ),
    revocations_projection("inventory"),
)

if __name__ == "__main__":
    sys.exit(main("inventory", PROJECTIONS))
