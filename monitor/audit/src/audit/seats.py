"""Checks of seats, holds and tickets, in one snapshot of the database."""

from audit.findings import Check

ONE_OWNER = Check(
    "seat-twice",
    "a seat has one owner",
    "two people may come to the same seat",
    sql="""
    SELECT event_id || '/' || seat_id,
           'valid tickets ' || string_agg(ticket_id || ' (order ' || order_id || ')', ', '), NULL
      FROM inventory.tickets
     WHERE status <> 'void'
     GROUP BY event_id, seat_id
    HAVING count(*) > 1
     UNION ALL
    SELECT event_id || '/' || seat_id, 'the seat is there ' || count(*) || ' times', NULL
      FROM inventory.event_seats
     GROUP BY event_id, seat_id
    HAVING count(*) > 1
    """,
)

SOLD_SEAT_HAS_TICKET = Check(
    "seat-without-ticket",
    "a sold seat has its ticket",
    "a seat is sold and nobody can use it",
    sql="""
    SELECT seat.event_id || '/' || seat.seat_id,
           'sold to order ' || seat.sold_order_id || ', which has no valid ticket for it', NULL
      FROM inventory.event_seats seat
     WHERE seat.sold_order_id IS NOT NULL
       AND NOT EXISTS (
           SELECT FROM inventory.tickets ticket
            WHERE ticket.event_id = seat.event_id AND ticket.seat_id = seat.seat_id
              AND ticket.order_id = seat.sold_order_id AND ticket.status <> 'void')
    """,
)

TICKET_HAS_SEAT = Check(
    "ticket-without-seat",
    "a valid ticket's seat is sold to its order",
    "the seat of a valid ticket can be sold again",
    sql="""
    SELECT ticket.ticket_id::text,
           'seat ' || ticket.event_id || '/' || ticket.seat_id || ' is '
           || coalesce('sold to order ' || seat.sold_order_id,
                       CASE WHEN seat.seat_id IS NULL THEN 'not there' ELSE 'not sold' END)
           || ', the ticket is of order ' || ticket.order_id, NULL
      FROM inventory.tickets ticket
      LEFT JOIN inventory.event_seats seat USING (event_id, seat_id)
     WHERE ticket.status <> 'void' AND seat.sold_order_id IS DISTINCT FROM ticket.order_id
    """,
)

HOLD_HAS_SEATS = Check(
    "hold-without-seats",
    "an active hold has all its seats",
    "two buyers may pay for the same seat; one of them will be refunded",
    sql="""
    SELECT hold.hold_id::text,
           'without seats ' || string_agg(wanted.seat_id::text, ', ') || ' of event ' || hold.event_id, NULL
      FROM inventory.holds hold
     CROSS JOIN unnest(hold.seat_ids) AS wanted (seat_id)
      LEFT JOIN inventory.event_seats seat
             ON seat.event_id = hold.event_id AND seat.seat_id = wanted.seat_id
     WHERE hold.status = 'active' AND hold.expires_at > now()
       AND (seat.hold_id IS DISTINCT FROM hold.hold_id OR seat.sold_order_id IS NOT NULL)
     GROUP BY hold.hold_id, hold.event_id
    """,
)

CONFIRMED_HOLD_HAS_ORDER = Check(
    "hold-without-order",
    "a confirmed hold has a paid order",
    "seats were sold to nobody who paid",
    sql="""
    SELECT hold.hold_id::text,
           CASE WHEN placed.id IS NULL THEN 'confirmed for order ' || hold.order_id || ', which is not there'
                WHEN placed.hold_id <> hold.hold_id THEN 'confirmed for order ' || placed.id
                                                         || ', which is of hold ' || placed.hold_id
                ELSE 'confirmed for order ' || placed.id || ', which is ' || placed.status END, NULL
      FROM inventory.holds hold
      LEFT JOIN payments.orders placed ON placed.id = hold.order_id
     WHERE hold.status = 'confirmed'
       AND (placed.id IS NULL OR placed.hold_id <> hold.hold_id
            OR placed.status IN ('pending', 'cancelled', 'expired'))
    """,
)

HOLD_ENDS = Check(
    "hold-not-ended",
    "a hold ends at its deadline and with its order",
    "seats are kept from buyers for nothing",
    settles=True,
    sql="""
    SELECT hold.hold_id::text,
           'active, ' || CASE WHEN hold.expires_at < now() THEN 'past its deadline'
                              ELSE 'though its order ' || ended.id || ' is ' || ended.status END,
           CASE WHEN hold.expires_at < now() THEN hold.expires_at
                ELSE coalesce(ended.refunded_at, ended.ended_at) END
      FROM inventory.holds hold
      LEFT JOIN payments.orders ended
             ON ended.id = hold.order_id AND ended.status IN ('cancelled', 'expired', 'refunded')
     WHERE hold.status = 'active' AND (hold.expires_at < now() OR ended.id IS NOT NULL)
    """,
)

CANCELLED_EVENT_IS_EMPTY = Check(
    "cancelled-event",
    "a cancelled event has no valid ticket and no active hold",
    "people hold tickets for what does not take place, and are not refunded",
    settles=True,
    sql="""
    SELECT event.id::text,
           count(DISTINCT ticket.ticket_id) || ' valid tickets, '
           || count(DISTINCT hold.hold_id) || ' active holds', event.updated_at
      FROM catalog.events event
      LEFT JOIN inventory.tickets ticket ON ticket.event_id = event.id AND ticket.status <> 'void'
      LEFT JOIN inventory.holds hold ON hold.event_id = event.id AND hold.status = 'active'
     WHERE event.status = 'cancelled' AND (ticket.ticket_id IS NOT NULL OR hold.hold_id IS NOT NULL)
     GROUP BY event.id
    """,
)

CHECKS = (
    ONE_OWNER,
    SOLD_SEAT_HAS_TICKET,
    TICKET_HAS_SEAT,
    HOLD_HAS_SEATS,
    CONFIRMED_HOLD_HAS_ORDER,
    HOLD_ENDS,
    CANCELLED_EVENT_IS_EMPTY,
)
