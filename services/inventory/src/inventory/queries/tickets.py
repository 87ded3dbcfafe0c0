"""Statements on sales and tickets."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Conn
from msgspec import Struct
from psycopg.rows import class_row

from inventory.models import SaleStatus, Ticket


class Sale(Struct, frozen=True):
    order_id: UUID
    event_id: UUID
    hold_id: UUID
    user_id: UUID
    status: SaleStatus


async def lock_sale(conn: Conn, order_id: UUID, *, event_id: UUID, hold_id: UUID, user_id: UUID) -> Sale:
    """The order's row, made when new, and locked: what is decided about an order is decided under it."""
    values = {"order_id": order_id, "event_id": event_id, "hold_id": hold_id, "user_id": user_id}
    await conn.execute(
        """
        INSERT INTO sales (order_id, event_id, hold_id, user_id, status)
        VALUES (%(order_id)s, %(event_id)s, %(hold_id)s, %(user_id)s, 'placed')
        ON CONFLICT DO NOTHING
        """,
        values,
    )
    async with conn.cursor(row_factory=class_row(Sale)) as cursor:
        await cursor.execute(
            """
            SELECT order_id, event_id, hold_id, user_id, status
              FROM sales
             WHERE order_id = %(order_id)s
               FOR UPDATE
            """,
            values,
        )
        sale = await cursor.fetchone()
    assert sale is not None  # noqa: S101  # inserted above, and rows are never deleted
    return sale


async def set_sale_status(conn: Conn, order_id: UUID, status: SaleStatus) -> None:
    await conn.execute("UPDATE sales SET status = %s WHERE order_id = %s", [status, order_id])


async def lock_issued_sales_of_cancelled_events(conn: Conn, *, limit: int) -> list[Sale]:
    async with conn.cursor(row_factory=class_row(Sale)) as cursor:
        await cursor.execute(
            """
            SELECT sale.order_id, sale.event_id, sale.hold_id, sale.user_id, sale.status
              FROM events event
              JOIN sales sale ON sale.event_id = event.event_id AND sale.status = 'issued'
             WHERE event.status = 'cancelled'
             LIMIT %(limit)s
               FOR UPDATE OF sale SKIP LOCKED
            """,
            {"limit": limit},
        )
        return await cursor.fetchall()


async def sell_seats(conn: Conn, order_id: UUID, *, event_id: UUID, seat_ids: list[UUID]) -> int:
    """How many seats became the order's."""
    cursor = await conn.execute(
        """
        UPDATE event_seats
           SET sold_order_id = %(order_id)s
         WHERE event_id = %(event_id)s AND seat_id = ANY (%(seat_ids)s) AND sold_order_id IS NULL
        """,
        {"order_id": order_id, "event_id": event_id, "seat_ids": seat_ids},
    )
    return cursor.rowcount


async def free_sold_seats(conn: Conn, order_id: UUID, *, event_id: UUID) -> None:
    await conn.execute(
        """
        UPDATE event_seats
           SET sold_order_id = NULL, hold_id = NULL
         WHERE event_id = %(event_id)s AND sold_order_id = %(order_id)s
           AND seat_id IN (
               SELECT seat_id FROM tickets WHERE event_id = %(event_id)s AND order_id = %(order_id)s)
        """,
        {"order_id": order_id, "event_id": event_id},
    )


async def insert_tickets(conn: Conn, tickets: list[Ticket]) -> None:
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO tickets (event_id, ticket_id, order_id, user_id, seat_id, section, row_name,
                                 seat_number, status, issued_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'issued', %s)
            """,
            [
                (
                    each.event_id,
                    each.ticket_id,
                    each.order_id,
                    each.user_id,
                    each.seat_id,
                    each.section,
                    each.row_name,
                    each.seat_number,
                    each.issued_at,
                )
                for each in tickets
            ],
        )


async def lock_tickets_of_order(conn: Conn, order_id: UUID, *, event_id: UUID) -> list[Ticket]:
    """Locked in id order, so that no check-in comes between looking and voiding."""
    async with conn.cursor(row_factory=class_row(Ticket)) as cursor:
        await cursor.execute(
            """
            SELECT event_id, ticket_id, order_id, user_id, seat_id, section, row_name, seat_number,
                   status, issued_at, checked_in_at
              FROM tickets
             WHERE event_id = %(event_id)s AND order_id = %(order_id)s
             ORDER BY ticket_id
               FOR UPDATE
            """,
            {"order_id": order_id, "event_id": event_id},
        )
        return await cursor.fetchall()


async def void_tickets(conn: Conn, order_id: UUID, *, event_id: UUID) -> None:
    await conn.execute(
        "UPDATE tickets SET status = 'void' WHERE event_id = %s AND order_id = %s AND status <> 'void'",
        [event_id, order_id],
    )


async def find_ticket_of_user(conn: Conn, ticket_id: UUID, *, user_id: UUID) -> Ticket | None:
    async with conn.cursor(row_factory=class_row(Ticket)) as cursor:
        await cursor.execute(
            """
            SELECT event_id, ticket_id, order_id, user_id, seat_id, section, row_name, seat_number,
                   status, issued_at, checked_in_at
              FROM tickets
             WHERE ticket_id = %(ticket_id)s AND user_id = %(user_id)s
            """,
            {"ticket_id": ticket_id, "user_id": user_id},
        )
        return await cursor.fetchone()


async def list_tickets_of_user(
    conn: Conn, user_id: UUID, *, cursor_id: UUID | None, limit: int | None
) -> list[Ticket]:
    async with conn.cursor(row_factory=class_row(Ticket)) as cursor:
        await cursor.execute(
            """
            SELECT event_id, ticket_id, order_id, user_id, seat_id, section, row_name, seat_number,
                   status, issued_at, checked_in_at
              FROM tickets
             WHERE user_id = %(user_id)s AND (%(cursor)s::uuid IS NULL OR ticket_id < %(cursor)s)
             ORDER BY ticket_id DESC
             LIMIT %(limit)s
            """,
            {"user_id": user_id, "cursor": cursor_id, "limit": limit},
        )
        return await cursor.fetchall()


async def check_in_ticket(
    conn: Conn, ticket_id: UUID, *, event_id: UUID, check_in_id: UUID, is_repeat: bool
) -> Ticket | None:
    """The ticket when this very call admitted it; of a repetition, also when the call before did."""
    async with conn.cursor(row_factory=class_row(Ticket)) as cursor:
        await cursor.execute(
            """
            UPDATE tickets
               SET status = 'checked_in', check_in_id = %(check_in_id)s,
                   checked_in_at = coalesce(checked_in_at, clock_timestamp())
             WHERE event_id = %(event_id)s AND ticket_id = %(ticket_id)s
               AND (status = 'issued'
                    OR (%(is_repeat)s AND status = 'checked_in' AND check_in_id = %(check_in_id)s))
            RETURNING event_id, ticket_id, order_id, user_id, seat_id, section, row_name, seat_number,
                      status, issued_at, checked_in_at
            """,
            {
                "event_id": event_id,
                "ticket_id": ticket_id,
                "check_in_id": check_in_id,
                "is_repeat": is_repeat,
            },
        )
        return await cursor.fetchone()


async def find_ticket_use(
    conn: Conn, ticket_id: UUID, *, event_id: UUID
) -> tuple[str, datetime | None] | None:
    """(status, when it was checked in)."""
    cursor = await conn.execute(
        "SELECT status, checked_in_at FROM tickets WHERE event_id = %s AND ticket_id = %s",
        [event_id, ticket_id],
    )
    row = await cursor.fetchone()
    return (row[0], row[1]) if row else None


async def count_sold_seats(conn: Conn) -> int:
    """Read from the index of valid tickets, not from all seats."""
    cursor = await conn.execute("SELECT count(*) FROM tickets WHERE status <> 'void'")
    row = await cursor.fetchone()
    return row[0] if row else 0
