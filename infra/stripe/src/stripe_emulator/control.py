"""The control surface, for tests and demos: no key, JSON both ways, settings that survive `kill -9`."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from litestar import MediaType, Response, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from stripe_emulator import confirmations, deliveries, events, faults, payment_intents
from stripe_emulator.api import HttpRequest
from stripe_emulator.confirmations import Outcome
from stripe_emulator.deliveries import DeliverySettings
from stripe_emulator.errors import ApiError
from stripe_emulator.faults import Fault
from stripe_emulator.objects import Charge, PaymentIntent
from stripe_emulator.payment_intents import Amount
from stripe_emulator.store import Store, Transaction

PATH_OF_ERROR = re.compile(r" - at `\$\.?(.*)`$")
UNKNOWN_FIELD = re.compile(r"unknown field `(.*?)`")
C = TypeVar("C", bound=msgspec.Struct)


class BadControl(Exception):
    """400: a body of the control surface that is not what it should be."""

    def __init__(self, message: str, *, field: str | None) -> None:
        super().__init__(message)
        self.body = msgspec.json.encode(
            {"error": {"type": "bad_request", "message": message, "field": field}}
        )


class NoBody(msgspec.Struct, forbid_unknown_fields=True):
    """Of a call that takes nothing."""


class SayOutcome(msgspec.Struct, forbid_unknown_fields=True):
    outcome: Outcome


class TamperIntent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`metadata` replaces all there is."""

    amount: Amount | None = None
    currency: str | None = None
    metadata: dict[str, str] | None = None


class DeliveryState(msgspec.Struct, rename="camel", kw_only=True):
    """Of one copy of an event. Times in ISO 8601; `last_status` is None when the receiver was not reached."""

    attempts: int
    delivered_at: datetime | None
    last_status: int | None
    last_error: str | None
    held: bool
    gave_up_at: datetime | None


async def read_body(request: HttpRequest, kind: type[C]) -> C:
    """An empty body is `{}`. Raises BadControl, which names the field."""
    raw = await request.body() or b"{}"
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        match = UNKNOWN_FIELD.search(text) or PATH_OF_ERROR.search(text)
        raise BadControl(text, field=match[1] if match else None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadControl(f"the body is not JSON: {error}", field=None) from error


def as_json(value: object) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=200, media_type=MediaType.JSON)


def control_routes(store: Store, *, wake: Callable[[], None]) -> list[HTTPRouteHandler]:
    return [*setting_routes(store), *event_routes(store, wake=wake), *intent_routes(store, wake=wake)]


def setting_routes(store: Store) -> list[HTTPRouteHandler]:
    @get("/_emulator/delivery")
    async def get_delivery() -> Response[bytes]:
        with store.transaction() as tx:
            return as_json(deliveries.read_settings(tx))

    @put("/_emulator/delivery")
    async def put_delivery(request: HttpRequest) -> Response[bytes]:
        settings = await read_body(request, DeliverySettings)
        with store.transaction() as tx:
            tx.put_control("delivery", settings)
        return as_json(settings)

    @get("/_emulator/faults")
    async def get_faults() -> Response[bytes]:
        with store.transaction() as tx:
            return as_json(faults.read_fault(tx))

    @put("/_emulator/faults")
    async def put_faults(request: HttpRequest) -> Response[bytes]:
        fault = await read_body(request, Fault)
        with store.transaction() as tx:
            tx.put_control("faults", fault)
        return as_json(fault)

    @post("/_emulator/reset")
    async def reset(request: HttpRequest) -> Response[bytes]:
        await read_body(request, NoBody)
        store.clear()
        return as_json({})

    return [get_delivery, put_delivery, get_faults, put_faults, reset]


def event_routes(store: Store, *, wake: Callable[[], None]) -> list[HTTPRouteHandler]:
    @get("/_emulator/events")
    async def list_events() -> Response[bytes]:
        with store.transaction() as tx:
            return as_json(events_with_deliveries(tx))

    @post("/_emulator/events/{event_id:str}/deliver")
    async def deliver(request: HttpRequest, event_id: FromPath[str]) -> Response[bytes]:
        await read_body(request, NoBody)
        with store.transaction() as tx:
            event = events.retrieve(tx, event_id)
            deliveries.add(tx, event_id, due_at=tx.now, held=False)
        wake()
        return as_json(event)

    @post("/_emulator/delivery/release")
    async def release(request: HttpRequest) -> Response[bytes]:
        await read_body(request, NoBody)
        with store.transaction() as tx:
            released = deliveries.release(tx)
        wake()
        return as_json(released)

    return [list_events, deliver, release]


def events_with_deliveries(tx: Transaction) -> list[dict[str, object]]:
    """Oldest first: each event as Stripe has it, and `deliveries`."""
    states: dict[str, list[DeliveryState]] = {}
    for event_id, attempts, delivered_at, last_status, last_error, held, gave_up_at in tx.db.execute(
        """
        SELECT event_id, attempts, delivered_at, last_status, last_error, held, gave_up_at
        FROM deliveries ORDER BY id
        """
    ):
        states.setdefault(event_id, []).append(
            DeliveryState(
                attempts=attempts,
                delivered_at=as_time(delivered_at),
                last_status=last_status,
                last_error=last_error,
                held=bool(held),
                gave_up_at=as_time(gave_up_at),
            )
        )
    rows = tx.db.execute("SELECT id, body FROM events ORDER BY seq")
    return [msgspec.json.decode(body) | {"deliveries": states.get(event_id, [])} for event_id, body in rows]


def as_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def intent_routes(store: Store, *, wake: Callable[[], None]) -> list[HTTPRouteHandler]:
    @put("/_emulator/payment_intents/{intent_id:str}")
    async def tamper(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        change = await read_body(request, TamperIntent)
        with store.transaction() as tx:
            return as_json(tamper_intent(tx, intent_id, change))

    @post("/_emulator/payment_intents/{intent_id:str}/authenticate")
    async def authenticate(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        outcome = (await read_body(request, SayOutcome)).outcome
        with store.transaction() as tx:
            intent = confirmations.authenticate(tx, payment_intents.retrieve(tx, intent_id), outcome)
        wake()
        return as_json(intent)

    @post("/_emulator/payment_intents/{intent_id:str}/settle")
    async def settle(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        outcome = (await read_body(request, SayOutcome)).outcome
        with store.transaction() as tx:
            intent = confirmations.settle(tx, payment_intents.retrieve(tx, intent_id), outcome)
        wake()
        return as_json(intent)

    return [tamper, authenticate, settle]


def tamper_intent(tx: Transaction, intent_id: str, change: TamperIntent) -> PaymentIntent:
    """Silently, in whatever state. What was captured already changes with it."""
    intent = payment_intents.retrieve(tx, intent_id)
    if change.currency is not None:
        try:
            intent.currency = payment_intents.read_currency(change.currency)
        except ApiError as error:
            raise BadControl(str(error), field="currency") from error
    if change.amount is not None:
        intent.amount = change.amount
        intent.amount_received = change.amount if intent.status == "succeeded" else 0
        intent.amount_capturable = change.amount if intent.status == "requires_capture" else 0
    if change.metadata is not None:
        intent.metadata = change.metadata
    tx.save(intent)
    charge = tx.find(Charge, intent.latest_charge) if intent.latest_charge else None
    if charge is not None and charge.status == "succeeded":
        charge.amount = intent.amount
        charge.amount_captured = intent.amount_received
        charge.currency = intent.currency
        tx.save(charge)
    return intent
