"""Checks of orders against seats and tickets, in one snapshot of the database."""

from audit.findings import Check

FULFILLED_HAS_TICKETS = Check(
    "order-without-tickets",
    "a fulfilled order has a valid ticket for each seat",
    "somebody paid and does not get in",
    settles=True,  # a cancelled event's tickets are void a moment before its orders know
    sql="""
    SELECT bought.id::text,
           count(ticket.ticket_id) || ' valid tickets for ' || jsonb_array_length(bought.seats) || ' seats',
           NULL
      FROM payments.orders bought
      LEFT JOIN inventory.tickets ticket
             ON ticket.event_id = bought.event_id AND ticket.order_id = bought.id AND ticket.status <> 'void'
     WHERE bought.status = 'fulfilled'
     GROUP BY bought.id
    HAVING count(ticket.ticket_id) <> jsonb_array_length(bought.seats)
        OR bool_or(NOT bought.seats @> jsonb_build_array(jsonb_build_object('seatId', ticket.seat_id)))
    """,
)

TICKET_IS_PAID = Check(
    "ticket-without-payment",
    "a valid ticket belongs to an order that is paid, and to its buyer",
    "somebody gets in for nothing, or in place of who paid",
    # A refund that was not cleared yet leaves its tickets valid. One made in the dashboard after a ticket was
    # used has raised an alarm, and nothing can be done about it here.
    sql="""
    SELECT ticket.order_id::text,
           count(*) || ' valid tickets of '
           || CASE WHEN bought.id IS NULL THEN 'an order that is not there'
                   WHEN bool_or(ticket.user_id <> bought.user_id) THEN 'another user than its order'
                   WHEN bought.status NOT IN ('paid', 'fulfilled') THEN 'an order that is ' || bought.status
                   ELSE 'an order without a captured payment' END, NULL
      FROM inventory.tickets ticket
      LEFT JOIN payments.orders bought ON bought.id = ticket.order_id
     WHERE ticket.status <> 'void'
       AND (bought.id IS NULL
            OR ticket.user_id <> bought.user_id
            OR bought.status IN ('pending', 'cancelled', 'expired')
            OR bought.refund_cleared_at IS NOT NULL
               AND NOT (bought.refund_reason = 'dashboard' AND ticket.status = 'checked_in')
            OR bought.amount_minor > 0
               AND NOT EXISTS (SELECT FROM payments.payments WHERE order_id = bought.id))
     GROUP BY ticket.order_id, bought.id
    """,
)

SALE_AGREES = Check(
    "sale-and-order",
    "inventory and payments agree on what became of an order",
    "a message between them was lost or handled wrongly",
    settles=True,
    sql="""
    SELECT sale.order_id::text,
           'the sale is ' || sale.status || ', the order '
           || coalesce('is ' || bought.status, 'is not there'), NULL
      FROM inventory.sales sale
      LEFT JOIN payments.orders bought ON bought.id = sale.order_id
     WHERE bought.id IS NULL
        OR sale.status = 'issued' AND bought.status NOT IN ('paid', 'fulfilled', 'refunding')
           AND bought.refund_reason IS DISTINCT FROM 'dashboard'
        OR sale.status IN ('rejected', 'voided') AND bought.status NOT IN ('refunding', 'refunded')
        OR sale.status = 'placed' AND bought.status = 'fulfilled'
     UNION ALL
    SELECT bought.id::text, 'the order is fulfilled, inventory knows of no sale', NULL
      FROM payments.orders bought
      LEFT JOIN inventory.sales sale ON sale.order_id = bought.id
     WHERE bought.status = 'fulfilled' AND sale.order_id IS NULL
    """,
)

ORDER_MATCHES_HOLD = Check(
    "order-amount",
    "an order's amount is the price of the seats that its buyer held",
    "somebody pays another price than was promised, or for other seats",
    sql="""
    SELECT bought.id::text,
           CASE WHEN hold.hold_id IS NULL THEN 'its hold ' || bought.hold_id || ' is not there'
                WHEN hold.user_id <> bought.user_id THEN 'its hold is of user ' || hold.user_id
                ELSE bought.amount_minor || ' ' || bought.currency || ' for seats of ' || priced.amount_minor
                     || ', held for ' || hold.amount_minor || ' ' || hold.currency END, NULL
      FROM payments.orders bought
      LEFT JOIN inventory.holds hold ON hold.hold_id = bought.hold_id
     CROSS JOIN LATERAL (
           SELECT coalesce(sum((seat ->> 'amountMinor')::bigint), 0) AS amount_minor,
                  array_agg((seat ->> 'seatId')::uuid ORDER BY (seat ->> 'seatId')::uuid) AS seat_ids
             FROM jsonb_array_elements(bought.seats) AS seat) AS priced
     WHERE hold.hold_id IS NULL
        OR (bought.user_id, bought.event_id) <> (hold.user_id, hold.event_id)
        OR (bought.amount_minor, lower(bought.currency)) <> (hold.amount_minor, lower(hold.currency))
        OR priced.amount_minor <> hold.amount_minor
        OR priced.seat_ids IS DISTINCT FROM ARRAY(SELECT unnest(hold.seat_ids) ORDER BY 1)
    """,
)

ONE_ORDER_FOR_A_HOLD = Check(
    "hold-with-two-orders",
    "a hold has one order",
    "a buyer may pay twice for the same seats",
    sql="""
    SELECT hold_id::text, 'orders ' || string_agg(id || ' (' || status || ')', ', '), NULL
      FROM payments.orders
     GROUP BY hold_id
    HAVING count(*) > 1
    """,
)

HOLDS_ARE_KNOWN = Check(
    "hold-projection",
    "payments knows inventory's holds",
    "a message about a hold was lost or is late: a buyer cannot check out, or checks out what is gone",
    settles=True,
    sql="""
    SELECT hold.hold_id::text,
           'the hold is ' || hold.status || ', payments '
           || CASE WHEN known.id IS NULL THEN 'does not know it'
                   WHEN known.user_id <> hold.user_id THEN 'has it as of user ' || known.user_id
                   WHEN known.amount_minor <> hold.amount_minor
                   THEN 'has it at ' || known.amount_minor || ', not ' || hold.amount_minor
                   ELSE 'says ' || known.status END,
           CASE WHEN known.id IS NULL THEN hold.placed_at END
      FROM inventory.holds hold
      LEFT JOIN payments.holds known ON known.id = hold.hold_id
     WHERE known.id IS NULL AND hold.placed_at > now() - interval '50 days'
        OR (known.user_id, known.amount_minor) <> (hold.user_id, hold.amount_minor)
        OR known.status = 'active' AND hold.status IN ('released', 'expired', 'confirmed')
        OR known.status IN ('released', 'confirmed') AND hold.status = 'active'
    """,
)

EVENTS_ARE_KNOWN = Check(
    "event-projection",
    "inventory knows catalog's events and their seats",
    "an event is sold as it was, not as it is, or not at all",
    settles=True,
    sql="""
    SELECT event.id::text,
           'version ' || event.version || ' (' || event.status || ', ' || event.seat_count
           || ' seats), inventory has '
           || CASE WHEN known.event_id IS NULL THEN 'nothing'
                   ELSE 'version ' || known.version || ' (' || known.status || ', '
                        || coalesce(seats.number, 0) || ' seats)' END,
           event.updated_at
      FROM catalog.events event
      LEFT JOIN inventory.events known ON known.event_id = event.id
      LEFT JOIN (SELECT event_id, count(*) AS number FROM inventory.event_seats GROUP BY event_id) AS seats
             ON seats.event_id = event.id
     WHERE (known.version, known.status, coalesce(seats.number, 0)) IS DISTINCT FROM
           (event.version, event.status, event.seat_count::bigint)
    """,
)

CHECKS = (
    FULFILLED_HAS_TICKETS,
    TICKET_IS_PAID,
    SALE_AGREES,
    ORDER_MATCHES_HOLD,
    ONE_ORDER_FOR_A_HOLD,
    HOLDS_ARE_KNOWN,
    EVENTS_ARE_KNOWN,
)
