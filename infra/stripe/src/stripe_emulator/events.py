"""Snapshot events, each recorded with its deliveries in the transaction of what it tells of."""

import msgspec

from stripe_emulator import deliveries
from stripe_emulator.errors import no_such
from stripe_emulator.lists import Page, PageParams, list_page
from stripe_emulator.objects import Event, Json, StoredObject, new_id
from stripe_emulator.store import Transaction

# The version that the `stripe` SDK pins: a test compares them.
API_VERSION = "2026-10-28.endive"


class ListEvents(PageParams, kw_only=True):
    type: str | None = None


def record(tx: Transaction, event_type: str, subject: StoredObject, *, previous: Json | None = None) -> None:
    """`previous`: the values before, of the fields that an `...updated` event tells of."""
    data: Json = {"object": subject}
    if previous is not None:
        data["previous_attributes"] = previous
    event = Event(
        id=new_id("evt"),
        api_version=API_VERSION,
        created=int(tx.now),
        data=data,
        request={"id": tx.request_id, "idempotency_key": tx.idempotency_key},
        type=event_type,
    )
    # Indented as Stripe sends it, so that a receiver that verifies re-serialised JSON fails here too.
    body = msgspec.json.format(msgspec.json.encode(event), indent=2)
    tx.db.execute(
        "INSERT INTO events (id, type, created, body) VALUES (?, ?, ?, ?)",
        (event.id, event_type, event.created, body),
    )
    deliveries.schedule(tx, event.id)


def retrieve(tx: Transaction, event_id: str) -> msgspec.Raw:
    row = tx.db.execute("SELECT body FROM events WHERE id = ?", (event_id,)).fetchone()
    if row is None:
        raise no_such("event", event_id, param="id")
    return msgspec.Raw(row[0])


def list_events(tx: Transaction, params: ListEvents) -> Page:
    return list_page(tx, params, url="/v1/events", kind=params.type)
