"""Stripe's own paths (https://docs.stripe.com/api)."""

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from stripe_emulator import charges, confirmations, events, payment_intents, refunds
from stripe_emulator.api import Api, HttpRequest
from stripe_emulator.charges import ListCharges
from stripe_emulator.confirmations import ConfirmIntent
from stripe_emulator.events import ListEvents
from stripe_emulator.payment_intents import (
    CancelIntent,
    CaptureIntent,
    CreateIntent,
    ListIntents,
    UpdateIntent,
)
from stripe_emulator.refunds import CreateRefund, ListRefunds


class NoParams(msgspec.Struct):
    """Of a retrieval."""


def stripe_routes(api: Api) -> list[HTTPRouteHandler]:
    return [*payment_intent_routes(api), *refund_routes(api), *charge_routes(api), *event_routes(api)]


def payment_intent_routes(api: Api) -> list[HTTPRouteHandler]:
    @post("/v1/payment_intents")
    async def create(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, CreateIntent, payment_intents.create)

    @get("/v1/payment_intents")
    async def list_all(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, ListIntents, payment_intents.list_intents)

    @get("/v1/payment_intents/{intent_id:str}")
    async def retrieve(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(
            request,
            NoParams,
            lambda tx, _: payment_intents.retrieve(tx, intent_id),
            client_secret_of=intent_id,
        )

    @post("/v1/payment_intents/{intent_id:str}")
    async def update(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(
            request, UpdateIntent, lambda tx, params: payment_intents.update(tx, intent_id, params)
        )

    @post("/v1/payment_intents/{intent_id:str}/confirm")
    async def confirm(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(
            request,
            ConfirmIntent,
            lambda tx, params: confirmations.confirm(tx, payment_intents.retrieve(tx, intent_id), params),
            client_secret_of=intent_id,
        )

    @post("/v1/payment_intents/{intent_id:str}/cancel")
    async def cancel(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(
            request, CancelIntent, lambda tx, params: payment_intents.cancel(tx, intent_id, params)
        )

    @post("/v1/payment_intents/{intent_id:str}/capture")
    async def capture(request: HttpRequest, intent_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(
            request, CaptureIntent, lambda tx, params: payment_intents.capture(tx, intent_id, params)
        )

    return [create, list_all, retrieve, update, confirm, cancel, capture]


def refund_routes(api: Api) -> list[HTTPRouteHandler]:
    @post("/v1/refunds")
    async def create(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, CreateRefund, refunds.create)

    @get("/v1/refunds")
    async def list_all(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, ListRefunds, refunds.list_refunds)

    @get("/v1/refunds/{refund_id:str}")
    async def retrieve(request: HttpRequest, refund_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(request, NoParams, lambda tx, _: refunds.retrieve(tx, refund_id))

    return [create, list_all, retrieve]


def charge_routes(api: Api) -> list[HTTPRouteHandler]:
    @get("/v1/charges")
    async def list_all(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, ListCharges, charges.list_charges)

    @get("/v1/charges/{charge_id:str}")
    async def retrieve(request: HttpRequest, charge_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(request, NoParams, lambda tx, _: charges.retrieve(tx, charge_id))

    @get("/v1/disputes")
    async def list_disputes(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, ListCharges, charges.list_disputes)

    @get("/v1/disputes/{dispute_id:str}")
    async def retrieve_dispute(request: HttpRequest, dispute_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(request, NoParams, lambda tx, _: charges.retrieve_dispute(tx, dispute_id))

    return [list_all, retrieve, list_disputes, retrieve_dispute]


def event_routes(api: Api) -> list[HTTPRouteHandler]:
    @get("/v1/events")
    async def list_all(request: HttpRequest) -> Response[bytes]:
        return await api.answer(request, ListEvents, events.list_events)

    @get("/v1/events/{event_id:str}")
    async def retrieve(request: HttpRequest, event_id: FromPath[str]) -> Response[bytes]:
        return await api.answer(request, NoParams, lambda tx, _: events.retrieve(tx, event_id))

    return [list_all, retrieve]
