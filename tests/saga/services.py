"""Catalog, inventory and payments as they are wired in their processes, all in this one.

Each talks to the database through its own roles, one connection each, so that nothing can need a second one.
"""

import logging
from collections.abc import Mapping
from functools import partial
from unittest.mock import patch

import httpx
from catalog.cache import EventCache
from catalog.events import Events
from inventory.consumers import HANDLERS as INVENTORY_HANDLERS
from inventory.holds import expire_holds, release_holds_of_cancelled_events
from inventory.sales import void_orders_of_cancelled_events
from inventory.ticket_keys import TicketKeys
from libs.messaging.deliveries import Handlers
from libs.messaging.worker import Sweep
from libs.postgres import Pool, create_pool
from payments.consumers import HANDLERS as PAYMENTS_HANDLERS
from payments.jobs import StripeJobs
from payments.orders import expire_unpaid_orders
from payments.stripe_client import StripeGateway
from stripe_emulator.testing import SECRET_KEY

POOLS = ("CATALOG", "INVENTORY", "INVENTORY_WORKER", "PAYMENTS", "PAYMENTS_WORKER")


class Errors(logging.Handler):
    """What a person has to look at, and what went wrong unseen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.alarms: list[str] = []
        self.bugs: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        found = self.alarms if record.name == "payments.alarms" else self.bugs
        found.append(self.format(record))


class Services:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.pools = {name: create_pool(environment[f"{name}_DATABASE_URL"], max_size=1) for name in POOLS}
        self._cache = EventCache(redis_url=environment["REDIS_URL"], ttl_seconds=60)

    async def open(self, stripe: httpx.AsyncBaseTransport) -> None:
        for pool in self.pools.values():
            await pool.open(wait=True)
        self.catalog, self.inventory, self.inventory_worker, self.payments, self.payments_worker = (
            self.pools[name] for name in POOLS
        )
        self.events = Events(pool=self.catalog, cache=self._cache)
        self.keys = TicketKeys(self.inventory)
        await self.keys.load()
        # Of the application and of the worker: each process has its own.
        self.gateway = _open_gateway(stripe)
        self.jobs = StripeJobs(_open_gateway(stripe))

    async def close(self) -> None:
        await self._cache.close()
        for pool in self.pools.values():
            await pool.close()

    def is_resting(self) -> bool:
        """No connection is in use."""
        all_stats = [pool.get_stats() for pool in self.pools.values()]
        return all(stats["pool_available"] == stats["pool_size"] for stats in all_stats)

    @property
    def subscribers(self) -> dict[str, tuple[Pool, Handlers]]:
        return {
            "inventory": (self.inventory_worker, INVENTORY_HANDLERS),
            "payments": (self.payments_worker, PAYMENTS_HANDLERS),
        }

    @property
    def sweeps(self) -> list[tuple[Sweep, Pool]]:
        return [
            (expire_holds, self.inventory_worker),
            (release_holds_of_cancelled_events, self.inventory_worker),
            (void_orders_of_cancelled_events, self.inventory_worker),
            (expire_unpaid_orders, self.payments_worker),
        ]


def _open_gateway(stripe: httpx.AsyncBaseTransport) -> StripeGateway:
    # No time-out of the client's own: it is the machine that says when an answer is lost.
    with patch.object(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=stripe)):
        return StripeGateway(secret_key=SECRET_KEY, api_base="http://stripe.invalid", timeout_seconds=1e6)
