"""What the database says: the SQL checks, and the rows that are compared with Stripe's record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from audit import orders, seats
from audit.findings import Check, Finding

OUTBOX = Check(
    "outbox",
    "messages leave the outbox",
    "what one service did the others do not know: orders, tickets and refunds stand still",
    settles=True,
)

Row = TypeVar("Row", bound=tuple[Any, ...])


class Order(NamedTuple):
    id: str
    status: str
    amount_minor: int
    currency: str
    payment_intent_id: str | None
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    ended_at: datetime | None
    refunding_at: datetime | None
    refunded_at: datetime | None
    tickets_worth: int
    """What inventory says that its valid tickets cost, in minor units."""


class Payment(NamedTuple):
    payment_intent_id: str
    order_id: str
    amount_minor: int
    currency: str
    recorded_at: datetime


class Refund(NamedTuple):
    refund_id: str
    payment_intent_id: str
    amount_minor: int
    currency: str
    status: str


@dataclass
class Books:
    at: datetime
    """The database's clock."""
    after: datetime | None
    """All orders that were made since then are here; None: all there are."""
    findings: list[Finding]
    orders: dict[str, Order]
    payments: dict[str, Payment]
    """By PaymentIntent."""
    refunds: dict[str, Refund]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


def read_books(database_url: str, *, after: datetime | None) -> Books:
    """One snapshot of all schemas, read only. `after` leaves out the money of orders that are older."""
    with psycopg.connect(database_url, connect_timeout=5, application_name="audit") as conn:
        conn.read_only = True
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("SET LOCAL statement_timeout = '120s'")
        conn.execute("SET LOCAL jit = off")
        row = conn.execute("SELECT now()").fetchone()
        assert row  # noqa: S101
        findings = [
            Finding(check, *found)
            for check in (*seats.CHECKS, *orders.CHECKS)
            for found in conn.execute(check.sql).fetchall()
        ]
        return Books(
            row[0],
            after,
            findings + _old_outbox_rows(conn),
            orders={each.id: each for each in _rows(conn, Order, ORDERS, after)},
            payments={each.payment_intent_id: each for each in _rows(conn, Payment, PAYMENTS, after)},
            refunds={each.refund_id: each for each in _rows(conn, Refund, REFUNDS, after)},
            counts=_counts(conn),
        )


# A ticket costs what its hold says of its seat: inventory's word, without payments'.
ORDERS: LiteralString = """
    SELECT bought.id::text, bought.status, bought.amount_minor, lower(bought.currency) AS currency,
           bought.payment_intent_id, bought.created_at, bought.expires_at, bought.paid_at, bought.ended_at,
           bought.refunding_at, bought.refunded_at, coalesce(worth.minor, 0)::bigint AS tickets_worth
      FROM payments.orders bought
      LEFT JOIN (
           SELECT ticket.order_id, sum((seat ->> 'amountMinor')::bigint) AS minor
             FROM inventory.tickets ticket
             JOIN inventory.holds hold ON hold.event_id = ticket.event_id AND hold.order_id = ticket.order_id
            CROSS JOIN LATERAL jsonb_array_elements(hold.seats) AS seat
            WHERE ticket.status <> 'void' AND (seat ->> 'seatId')::uuid = ticket.seat_id
            GROUP BY ticket.order_id) AS worth ON worth.order_id = bought.id
     WHERE %(after)s::timestamptz IS NULL OR bought.created_at >= %(after)s
"""
PAYMENTS: LiteralString = """
    SELECT payment.payment_intent_id, payment.order_id::text, payment.amount_minor,
           lower(payment.currency) AS currency, payment.recorded_at
      FROM payments.payments payment
      LEFT JOIN payments.orders bought ON bought.id = payment.order_id
     WHERE %(after)s::timestamptz IS NULL OR bought.created_at IS NULL OR bought.created_at >= %(after)s
"""
REFUNDS: LiteralString = """
    SELECT refund.refund_id, refund.payment_intent_id, refund.amount_minor,
           lower(refund.currency) AS currency, refund.status
      FROM payments.refunds refund
      LEFT JOIN payments.payments payment USING (payment_intent_id)
      LEFT JOIN payments.orders bought ON bought.id = payment.order_id
     WHERE %(after)s::timestamptz IS NULL OR bought.created_at IS NULL OR bought.created_at >= %(after)s
"""


def _rows(
    conn: psycopg.Connection, row: type[Row], statement: LiteralString, after: datetime | None
) -> list[Row]:
    with conn.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(statement, {"after": after}).fetchall()


def schemas_with(conn: psycopg.Connection, table: str) -> list[str]:
    rows = conn.execute(
        "SELECT schemaname FROM pg_tables WHERE tablename = %s ORDER BY 1", [table]
    ).fetchall()
    return [row[0] for row in rows]


def _old_outbox_rows(conn: psycopg.Connection) -> list[Finding]:
    """The oldest row of each service, which is the first one that should leave."""
    findings: list[Finding] = []
    for schema in schemas_with(conn, "outbox"):
        statement = sql.SQL(
            """
            SELECT id, topic, type, key, created_at, count(*) OVER ()
              FROM {}
             ORDER BY created_at
             LIMIT 1
            """
        ).format(sql.Identifier(schema, "outbox"))
        for id_, topic, type_, key, created_at, count in conn.execute(statement).fetchall():
            text = f"{count} rows wait; the oldest is {type_} for {topic}, key {key}"
            findings.append(Finding(OUTBOX, f"{schema}.outbox/{id_}", text, created_at))
    return findings


def _counts(conn: psycopg.Connection) -> dict[str, int]:
    """What was looked at, for the reader."""
    row = conn.execute(
        """
        SELECT (SELECT count(*) FROM inventory.event_seats),
               (SELECT count(*) FROM inventory.event_seats WHERE sold_order_id IS NOT NULL),
               (SELECT count(*) FROM inventory.holds),
               (SELECT count(*) FROM inventory.tickets WHERE status <> 'void'),
               (SELECT count(*) FROM payments.orders)
        """
    ).fetchone()
    assert row  # noqa: S101
    return dict(zip(("seats", "sold", "holds", "valid tickets", "orders"), row, strict=True))
