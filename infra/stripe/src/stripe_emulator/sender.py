"""Sends due deliveries: at once, side by side, signed anew for each attempt (https://docs.stripe.com/webhooks)."""

import asyncio
import hashlib
import hmac
import logging
import time

import httpcore

from stripe_emulator import deliveries
from stripe_emulator.alarm import AFTER_A_FAULT_SECONDS, Alarm
from stripe_emulator.deliveries import Due
from stripe_emulator.settings import Settings
from stripe_emulator.store import Store

log = logging.getLogger(__name__)
MAX_UNDER_WAY = 32
ATTEMPT_SECONDS = 10.0


def sign(body: bytes, secret: str, *, timestamp: int) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over `timestamp.body`."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class Sender:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._pool = httpcore.AsyncConnectionPool(max_connections=MAX_UNDER_WAY, keepalive_expiry=15)
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._alarm = Alarm(self._start_due)
        self.wake = self._alarm.ring

    async def run(self) -> None:
        """Until cancelled; what is under way then is sent again after the next start."""
        with self._store.transaction() as tx:
            deliveries.resume(tx)
        try:
            await self._alarm.run()
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)
            await self._pool.aclose()

    def _start_due(self) -> float | None:
        """Returns the seconds until the next delivery is due; each end of an attempt rings as well."""
        with self._store.transaction() as tx:
            for due in deliveries.take_due(tx, limit=MAX_UNDER_WAY + len(self._under_way)):
                if due.id not in self._under_way and len(self._under_way) < MAX_UNDER_WAY:
                    self._under_way[due.id] = asyncio.create_task(self._attempt(due))
            next_at = deliveries.next_due(tx)
            return None if next_at is None else max(0.0, next_at - tx.now)

    async def _attempt(self, due: Due) -> None:
        try:
            status, error = await self._post(due)
            with self._store.transaction() as tx:
                wait = deliveries.record_attempt(tx, due, status=status, error=error)
            then = "" if wait is None else f", again in {wait:g} s"
            # Of many failures in a row only the first is worth a line.
            level = logging.DEBUG if wait is not None and due.attempts > 0 else logging.INFO
            log.log(level, "webhook %s %s -> %s%s", due.event_type, due.event_id, status or error, then)
        except Exception:  # the attempt could not be written down: it will be made again, but not at once
            log.exception("webhook %s %s: its outcome is not recorded", due.event_type, due.event_id)
            await asyncio.sleep(AFTER_A_FAULT_SECONDS)
        finally:
            del self._under_way[due.id]
            self.wake()

    async def _post(self, due: Due) -> tuple[int | None, str | None]:
        """The receiver's status, or why there is none."""
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": sign(due.body, self._settings.webhook_secret, timestamp=int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                response = await self._pool.request(
                    "POST", self._settings.webhook_url, headers=list(headers.items()), content=due.body
                )
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            TimeoutError,
        ) as error:
            return None, type(error).__name__
        return response.status, None
