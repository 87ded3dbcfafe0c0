"""Runs what is to be asked of Stripe, again and again until there is a definite answer.

A job is claimed with a lease and committed; then Stripe is called with neither transaction nor connection;
then one transaction applies the answer and deletes the job. A worker that dies in between loses its lease,
and the job is run again: each of them finds out what was done already.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from libs.postgres import Pool, is_transient
from libs.tracing import continued, start_trace

from payments.alarms import raise_alarm
from payments.cancellations import run_cancellation
from payments.errors import LeaseLost, NotYet
from payments.models import Job, JobKind
from payments.payments import run_inspection
from payments.queries import jobs as queries
from payments.stripe_client import StripeGateway, StripeRefused, StripeUnavailable
from payments.stripe_refunds import run_reconciliation, run_refund

log = logging.getLogger(__name__)

# Each lane claims up to this many jobs and runs them together; a slow answer holds up one lane only.
LANES = 3
BATCH_SIZE = 8
# Longer than any job's calls to Stripe take, each with its time-out and retries.
JOB_SECONDS = 60.0
LEASE_SECONDS = 75.0
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 60.0
ALARM_AFTER_SECONDS = 300.0

_KINDS: Mapping[JobKind, Callable[[Pool, StripeGateway, Job], Awaitable[None]]] = {
    JobKind.CANCEL_INTENT: run_cancellation,
    JobKind.INSPECT: run_inspection,
    JobKind.REFUND: run_refund,
    JobKind.RECONCILE: run_reconciliation,
}


class StripeJobs:
    def __init__(self, stripe: StripeGateway) -> None:
        self._stripe = stripe

    async def run_due_jobs(self, pool: Pool) -> int:
        """Runs all jobs that are due and returns how many it claimed."""
        count = 0
        while True:
            async with pool.connection() as conn:
                claimed = await queries.claim_due_jobs(conn, limit=BATCH_SIZE, lease_seconds=LEASE_SECONDS)
            async with asyncio.TaskGroup() as group:
                for job in claimed:
                    group.create_task(self._run(pool, job))
            count += len(claimed)
            if len(claimed) < BATCH_SIZE:
                return count

    async def _run(self, pool: Pool, job: Job) -> None:
        start_trace(job.traceparent)
        try:
            with continued(job.traceparent, f"job {job.kind}"):
                async with asyncio.timeout(JOB_SECONDS):
                    await _KINDS[job.kind](pool, self._stripe, job)
        except LeaseLost:
            log.info("%s of order %s is done elsewhere", job.kind, job.order_id)
        except (NotYet, StripeUnavailable, StripeRefused, TimeoutError) as reason:
            log.info("%s of order %s waits: %s", job.kind, job.order_id, reason)
            await self._postpone(pool, job, reason)
        except Exception as error:
            if is_transient(error):
                log.warning("%s of order %s waits for the database: %s", job.kind, job.order_id, error)
            else:
                log.exception("%s of order %s failed", job.kind, job.order_id)
            await self._postpone(pool, job, error)

    async def _postpone(self, pool: Pool, job: Job, reason: Exception) -> None:
        if job.age_seconds > ALARM_AFTER_SECONDS:
            raise_alarm(
                f"{job.kind} has no answer for {job.age_seconds:.0f} s: {reason}",
                order=job.order_id,
                intent=job.payment_intent_id,
                attempts=job.attempts,
            )
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(job.attempts - 1, 20), MAX_PAUSE_SECONDS)
        try:
            async with pool.connection() as conn:
                await queries.postpone_job(
                    conn,
                    job,
                    seconds=pause * random.uniform(0.7, 1.3),  # noqa: S311
                    error=f"{type(reason).__name__}: {reason}",
                )
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("%s of order %s is run again after its lease: %s", job.kind, job.order_id, error)
