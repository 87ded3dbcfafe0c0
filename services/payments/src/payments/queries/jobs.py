"""Statements on what is to be asked of Stripe."""

from uuid import UUID

from libs.postgres import Conn
from libs.tracing import current_traceparent
from psycopg.rows import class_row

from payments.models import CancelReason, Job, JobKind


async def enqueue_job(
    conn: Conn,
    kind: JobKind,
    *,
    order_id: UUID,
    payment_intent_id: str,
) -> None:
    """One job for each wish, however often it is wished; one that is running runs once more."""
    await conn.execute(
        """
        INSERT INTO stripe_jobs AS known (kind, order_id, payment_intent_id, traceparent)
        VALUES (%(kind)s, %(order_id)s, %(intent)s, %(traceparent)s)
        ON CONFLICT (kind, order_id, payment_intent_id) DO UPDATE
           SET asked = known.asked + 1, run_at = LEAST(known.run_at, EXCLUDED.run_at)
        """,
        {
            "kind": kind,
            "order_id": order_id,
            "intent": payment_intent_id,
            "traceparent": current_traceparent(),
        },
    )


async def enqueue_reconciliation(conn: Conn, payment_intent_id: str) -> None:
    """Nothing when the payment is no order's: the Stripe account may serve others too."""
    await conn.execute(
        """
        INSERT INTO stripe_jobs AS known (kind, order_id, payment_intent_id, traceparent)
        SELECT 'reconcile', order_id, %(intent)s, %(traceparent)s
          FROM (SELECT order_id FROM payments WHERE payment_intent_id = %(intent)s
                UNION
                SELECT id FROM orders WHERE payment_intent_id = %(intent)s) AS owner
        ON CONFLICT (kind, order_id, payment_intent_id) DO UPDATE
           SET asked = known.asked + 1, run_at = LEAST(known.run_at, EXCLUDED.run_at)
        """,
        {"intent": payment_intent_id, "traceparent": current_traceparent()},
    )


async def enqueue_cancellation(
    conn: Conn, order_id: UUID, *, reason: CancelReason, delay_seconds: float = 0.0
) -> None:
    """Nothing when the order does not wait for a payment. The first reason stays."""
    await conn.execute(
        """
        INSERT INTO stripe_jobs AS known (kind, order_id, reason, run_at, traceparent)
        SELECT 'cancel_intent', id, %(reason)s, now() + make_interval(secs => %(delay)s), %(traceparent)s
          FROM orders
         WHERE id = %(order_id)s AND status = 'pending'
        ON CONFLICT (kind, order_id, payment_intent_id) DO UPDATE
           SET asked = known.asked + 1, run_at = LEAST(known.run_at, EXCLUDED.run_at)
        """,
        {
            "order_id": order_id,
            "reason": reason,
            "delay": delay_seconds,
            "traceparent": current_traceparent(),
        },
    )


async def enqueue_overdue_cancellations(conn: Conn, *, limit: int) -> int:
    """A cancellation of each order past its payment deadline that has none yet."""
    cursor = await conn.execute(
        """
        INSERT INTO stripe_jobs (kind, order_id, reason, traceparent)
        SELECT 'cancel_intent', id, 'expired', traceparent
          FROM orders
         WHERE status = 'pending' AND expires_at <= now()
           AND NOT EXISTS (SELECT FROM stripe_jobs WHERE kind = 'cancel_intent' AND order_id = orders.id)
         ORDER BY expires_at
         LIMIT %(limit)s
        ON CONFLICT DO NOTHING
        """,
        {"limit": limit},
    )
    return cursor.rowcount


async def delete_cancellation(conn: Conn, order_id: UUID) -> None:
    await conn.execute(
        "DELETE FROM stripe_jobs WHERE kind = 'cancel_intent' AND order_id = %(order_id)s",
        {"order_id": order_id},
    )


async def claim_due_jobs(conn: Conn, *, limit: int, lease_seconds: float) -> list[Job]:
    """Jobs that no other worker has; theirs again should this one die before the lease ends."""
    async with conn.cursor(row_factory=class_row(Job)) as cursor:
        await cursor.execute(
            """
            WITH due AS MATERIALIZED (
                SELECT id
                  FROM stripe_jobs
                 WHERE run_at <= now() AND (leased_until IS NULL OR leased_until <= now())
                 ORDER BY run_at
                 LIMIT %(limit)s
                   -- Workers that claim at the same time pass over each other's rows.
                   FOR UPDATE SKIP LOCKED
            )
            UPDATE stripe_jobs job
               SET attempts = attempts + 1, leased_until = now() + make_interval(secs => %(lease)s)
              FROM due
             WHERE job.id = due.id
            RETURNING job.id, kind, order_id, payment_intent_id, reason, asked, attempts,
                      EXTRACT(EPOCH FROM now() - created_at)::float AS age_seconds, traceparent
            """,
            {"limit": limit, "lease": lease_seconds},
        )
        return await cursor.fetchall()


async def finish_job(conn: Conn, job: Job) -> bool:
    """False when the claim is lost. A job that was wished for again meanwhile is due again."""
    cursor = await conn.execute(
        "DELETE FROM stripe_jobs WHERE id = %(id)s AND attempts = %(attempts)s AND asked = %(asked)s",
        {"id": job.id, "attempts": job.attempts, "asked": job.asked},
    )
    if cursor.rowcount == 1:
        return True
    cursor = await conn.execute(
        """
        UPDATE stripe_jobs
           SET leased_until = NULL, run_at = now()
         WHERE id = %(id)s AND attempts = %(attempts)s
        """,
        {"id": job.id, "attempts": job.attempts},
    )
    return cursor.rowcount == 1


async def postpone_job(conn: Conn, job: Job, *, seconds: float, error: str) -> None:
    await conn.execute(
        """
        UPDATE stripe_jobs
           SET leased_until = NULL, last_error = %(error)s,
               -- Wished for again while it ran: what was found out may be out of date.
               run_at = CASE WHEN asked = %(asked)s
                             THEN now() + make_interval(secs => %(seconds)s) ELSE now() END
         WHERE id = %(id)s AND attempts = %(attempts)s
        """,
        {
            "id": job.id,
            "attempts": job.attempts,
            "asked": job.asked,
            "seconds": seconds,
            "error": error[:1000],
        },
    )
