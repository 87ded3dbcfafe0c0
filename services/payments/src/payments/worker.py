"""The background process: consumers, outbox relay, deadlines, and what is asked of Stripe."""

import uvloop
from libs.messaging.worker import run_worker

from payments.consumers import HANDLERS
from payments.holds import forget_old_holds
from payments.jobs import LANES, StripeJobs
from payments.orders import expire_unpaid_orders
from payments.settings import settings_of
from payments.stripe_client import StripeGateway


async def main() -> None:
    settings = settings_of("worker")
    async with StripeGateway(
        secret_key=settings.stripe_secret_key,
        api_base=settings.stripe_api_base,
        timeout_seconds=settings.stripe_timeout_seconds,
    ) as stripe:
        await run_worker(
            settings,
            service="payments",
            handlers=HANDLERS,
            sweeps={
                0.2: [StripeJobs(stripe).run_due_jobs] * LANES,
                1.0: [expire_unpaid_orders],
                3600.0: [forget_old_holds],
            },
        )


if __name__ == "__main__":
    uvloop.run(main())
