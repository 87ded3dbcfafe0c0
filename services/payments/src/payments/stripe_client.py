"""Stripe, through its official SDK: what was asked, answered in our terms or refused in two ways.

No caller holds a transaction or a pooled connection while it waits here.
"""

import asyncio
import logging
import re
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import stripe
from libs.tracing import current_span, step

from payments.models import IntentState, RefundState

log = logging.getLogger(__name__)

NETWORK_RETRIES = 2

_OBJECT_ID = re.compile(r"/(?:pi|re|ch)_\w+")

T = TypeVar("T")


class StripeUnavailable(Exception):
    """No definite answer: it may or may not have been done. Ask again with the same idempotency key."""


class StripeRefused(Exception):
    """A definite error, which Stripe repeats for the same idempotency key for a day.

    (https://docs.stripe.com/api/idempotent_requests)
    """

    def __init__(self, *, status: int, code: str | None, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code

    @property
    def is_fault(self) -> bool:
        """Stripe's own fault, which says nothing about the request."""
        return self.status >= 500


class StripeGateway:
    """An async context manager. `timeout_seconds` bounds one request, twice that a call with its retries."""

    def __init__(self, *, secret_key: str, api_base: str | None, timeout_seconds: float) -> None:
        stripe.enable_telemetry = False
        self._http = _RecordedClient(timeout=timeout_seconds)
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base.rstrip("/")} if api_base else None,
            max_network_retries=NETWORK_RETRIES,
            http_client=self._http,
        )
        self._total_seconds = 2 * timeout_seconds
        self._creating: dict[str, asyncio.Task[IntentState]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._creating.values():
            task.cancel()
        await asyncio.gather(*self._creating.values(), return_exceptions=True)
        await self._http.close_async()

    async def create_intent(
        self, *, order_id: UUID, attempt: int, amount_minor: int, currency: str
    ) -> IntentState:
        """The order's PaymentIntent; the same one however often it is asked for with one `attempt`.

        Calls that run at the same time share one request: Stripe answers 409 to a key that is in use.
        """
        key = f"order:{order_id}:{attempt}"
        task = self._creating.get(key)
        if task is None:
            task = asyncio.create_task(
                self._create_intent(key, order_id=order_id, amount_minor=amount_minor, currency=currency)
            )
            self._creating[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: str, task: asyncio.Task[IntentState]) -> None:
        self._creating.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, though every caller may be gone

    async def _create_intent(
        self, key: str, *, order_id: UUID, amount_minor: int, currency: str
    ) -> IntentState:
        return _intent_state(
            await self._answer(
                self._client.v1.payment_intents.create_async(
                    {
                        "amount": amount_minor,
                        "currency": currency,
                        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                        "metadata": {"orderId": str(order_id)},
                    },
                    {"idempotency_key": key},
                )
            )
        )

    async def find_intent(self, payment_intent_id: str) -> IntentState | None:
        try:
            return _intent_state(
                await self._answer(self._client.v1.payment_intents.retrieve_async(payment_intent_id))
            )
        except StripeRefused as refusal:
            if refusal.code == "resource_missing":
                return None
            raise

    async def cancel_intent(self, payment_intent_id: str) -> IntentState | None:
        """The PaymentIntent as it is after the attempt: `canceled`, or in a state that forbids it.

        None when Stripe has no such intent.
        """
        try:
            # No idempotency key of ours: Stripe would repeat yesterday's "it is processing".
            return _intent_state(
                await self._answer(self._client.v1.payment_intents.cancel_async(payment_intent_id))
            )
        except StripeRefused as refusal:
            if refusal.code == "resource_missing":
                return None
            if refusal.code != "payment_intent_unexpected_state":
                raise
        return await self.find_intent(payment_intent_id)

    async def create_refund(self, payment_intent_id: str, *, key: str, order_id: UUID) -> RefundState:
        """Gives back what is left of a capture."""
        return _refund_state(
            await self._answer(
                self._client.v1.refunds.create_async(
                    {"payment_intent": payment_intent_id, "metadata": {"orderId": str(order_id)}},
                    {"idempotency_key": key},
                )
            )
        )

    async def list_refunds(self, payment_intent_id: str) -> list[RefundState]:
        """All refunds of a capture, whoever made them."""
        page = await self._answer(
            self._client.v1.refunds.list_async({"payment_intent": payment_intent_id, "limit": 100})
        )
        return [_refund_state(refund) for refund in page.data]

    async def _answer(self, call: Coroutine[Any, Any, T]) -> T:
        # `from None`: the SDK's errors carry the answer's body, with client secrets and cards in it.
        try:
            async with asyncio.timeout(self._total_seconds):
                return await call
        except TimeoutError:
            raise StripeUnavailable("no answer in time") from None
        except (
            stripe.APIConnectionError,
            stripe.RateLimitError,
            stripe.AuthenticationError,
            stripe.PermissionError,
        ) as error:
            raise StripeUnavailable(f"{type(error).__name__}: {_one_line(error)}") from None
        except stripe.StripeError as error:
            status = error.http_status or 0
            # 409: a request with the same idempotency key is running. Below 400: no answer of Stripe's.
            if status == 409 or status < 400:
                raise StripeUnavailable(f"{status}: {_one_line(error)}") from None
            raise StripeRefused(status=status, code=error.code, detail=_one_line(error)) from None


class _RecordedClient(stripe.HTTPXClient):
    """Each request of recorded work is a span of it: never its headers, which hold the key, nor its body."""

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        address = urlsplit(url)
        path = _OBJECT_ID.sub("/{id}", address.path)
        about = {
            "http.request.method": method.upper(),
            "server.address": address.hostname or "",
            "url.template": path,
        }
        with step(f"{method.upper()} {path}", kind="client", attributes=about):
            answer = await super().request_async(method, url, headers, post_data)
            if (span := current_span()) is not None:
                span.set_attribute("http.response.status_code", answer[1])
            return answer


def _one_line(error: stripe.StripeError) -> str:
    return " ".join(str(error).split())


def _intent_state(intent: stripe.PaymentIntent) -> IntentState:
    return IntentState(
        id=intent.id,
        client_secret=intent.client_secret or "",
        status=intent.status,
        amount_minor=intent.amount_received,
        currency=intent.currency,
        order_id=intent.metadata.to_dict().get("orderId") if intent.metadata else None,
    )


def _refund_state(refund: stripe.Refund) -> RefundState:
    return RefundState(
        id=refund.id,
        status=refund.status or "pending",
        amount_minor=refund.amount,
        currency=refund.currency,
    )
