"""The background process: consumers, outbox relay, sweepers."""

import uvloop
from libs.messaging.worker import run_worker

from inventory.consumers import HANDLERS
from inventory.holds import expire_holds, release_holds_of_cancelled_events
from inventory.measures import MEASURES
from inventory.sales import void_orders_of_cancelled_events
from inventory.settings import settings_of

if __name__ == "__main__":
    uvloop.run(
        run_worker(
            settings_of("worker"),
            service="inventory",
            handlers=HANDLERS,
            sweeps={0.5: [expire_holds, release_holds_of_cancelled_events, void_orders_of_cancelled_events]},
            measures=MEASURES,
        )
    )
