-- Claims seats for a hold: all of them or none. Returns the seats that cannot be had; none means all are claimed.
--
-- Lock order everywhere: seats in id order, then holds in id order.
CREATE FUNCTION claim_seats(p_event_id uuid, p_hold_id uuid, p_seat_ids uuid[], p_traceparent text)
RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    v_now     timestamptz;
    v_taken   uuid[];
    v_overdue uuid[];
    v_expired integer;
BEGIN
    -- Only the wanted seats are locked, in id order, so that two buyers never wait for each other in a ring.
    PERFORM FROM event_seats
      WHERE event_id = p_event_id AND seat_id = ANY (p_seat_ids)
      ORDER BY seat_id
        FOR UPDATE;
    -- After the wait for the locks: a deadline that passed meanwhile has passed.
    v_now := clock_timestamp();

    SELECT array_agg(wanted.seat_id ORDER BY wanted.seat_id)
      INTO v_taken
      FROM unnest(p_seat_ids) AS wanted (seat_id)
      LEFT JOIN event_seats seat ON seat.event_id = p_event_id AND seat.seat_id = wanted.seat_id
      LEFT JOIN holds hold ON hold.event_id = p_event_id AND hold.hold_id = seat.hold_id
     WHERE seat.seat_id IS NULL
        OR seat.sold_order_id IS NOT NULL
        OR (hold.hold_id <> p_hold_id AND hold.status = 'active' AND hold.expires_at > v_now);
    IF v_taken IS NOT NULL THEN
        RETURN v_taken;
    END IF;

    SELECT array_agg(DISTINCT hold.hold_id)
      INTO v_overdue
      FROM event_seats seat
      JOIN holds hold ON hold.event_id = p_event_id AND hold.hold_id = seat.hold_id
     WHERE seat.event_id = p_event_id AND seat.seat_id = ANY (p_seat_ids)
       AND hold.hold_id <> p_hold_id AND hold.status = 'active';
    IF v_overdue IS NOT NULL THEN
        PERFORM FROM holds
          WHERE event_id = p_event_id AND hold_id = ANY (v_overdue)
          ORDER BY hold_id
            FOR UPDATE;
        -- Ending the old hold frees its other seats with it.
        WITH expired AS (
            UPDATE holds
               SET status = 'expired'
             WHERE event_id = p_event_id AND hold_id = ANY (v_overdue)
               AND status = 'active' AND expires_at <= v_now
            RETURNING hold_id, event_id, user_id
        ), said AS (
            INSERT INTO outbox (topic, key, type, body, traceparent)
            SELECT 'inventory.holds', hold_id::text, 'hold.expired',
                   jsonb_build_object('holdId', hold_id, 'eventId', event_id, 'userId', user_id,
                                      'expiredAt', v_now)::text,
                   p_traceparent
              FROM expired
        )
        SELECT count(*) INTO v_expired FROM expired;
        IF v_expired < cardinality(v_overdue) THEN
            -- One of them was extended or ended while we waited for its row: look again.
            RETURN claim_seats(p_event_id, p_hold_id, p_seat_ids, p_traceparent);
        END IF;
    END IF;

    UPDATE event_seats
       SET hold_id = p_hold_id
     WHERE event_id = p_event_id AND seat_id = ANY (p_seat_ids) AND hold_id IS DISTINCT FROM p_hold_id;
    RETURN '{}';
END
$$;

-- Places a hold on all seats or none, in one round trip.
-- `outcome`: placed | unknown_event | draft | cancelled | quota | taken (then `taken` names the seats).
CREATE FUNCTION place_hold(
    p_hold_id uuid, p_event_id uuid, p_user_id uuid, p_seat_ids uuid[],
    p_hold_seconds integer, p_max_held_seats integer, p_traceparent text,
    OUT outcome text, OUT taken uuid[], OUT seats jsonb, OUT amount_minor bigint, OUT currency text,
    OUT placed_at timestamptz, OUT expires_at timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_event events;
BEGIN
    -- Not locked: every buyer would queue on it. A sweeper ends holds that were placed while it was cancelled.
    SELECT * INTO v_event FROM events WHERE event_id = p_event_id;
    IF v_event.event_id IS NULL OR v_event.built_version IS DISTINCT FROM v_event.seat_map_version THEN
        outcome := 'unknown_event';
        RETURN;
    ELSIF v_event.status <> 'published' THEN
        outcome := v_event.status;
        RETURN;
    END IF;

    -- Parallel requests of one buyer for one event pass one at a time, so that the quota is counted exactly.
    PERFORM pg_advisory_xact_lock(hashtextextended(p_user_id::text || p_event_id::text, 0));
    IF cardinality(p_seat_ids) + (
        SELECT coalesce(sum(cardinality(seat_ids)), 0)
          FROM holds
         WHERE event_id = p_event_id AND user_id = p_user_id
           AND status = 'active' AND expires_at > clock_timestamp()
    ) > p_max_held_seats THEN
        outcome := 'quota';
        RETURN;
    END IF;

    taken := claim_seats(p_event_id, p_hold_id, p_seat_ids, p_traceparent);
    IF taken <> '{}' THEN
        outcome := 'taken';
        RETURN;
    END IF;

    SELECT jsonb_agg(jsonb_build_object(
               'seatId', seat.seat_id, 'section', seat.section, 'row', seat.row_name,
               'seatNumber', seat.seat_number, 'tierId', price.tier_id,
               'amountMinor', coalesce(price.amount_minor, 0))
               ORDER BY seat.section, seat.row_name, seat.seat_number, seat.seat_id),
           sum(coalesce(price.amount_minor, 0))
      INTO seats, amount_minor
      FROM event_seats seat
      LEFT JOIN section_prices price ON price.event_id = seat.event_id AND price.section = seat.section
     WHERE seat.event_id = p_event_id AND seat.seat_id = ANY (p_seat_ids);
    currency := coalesce(v_event.currency, 'usd');
    placed_at := clock_timestamp();
    expires_at := placed_at + make_interval(secs => p_hold_seconds);

    INSERT INTO holds (event_id, hold_id, user_id, status, seat_ids, seats, amount_minor, currency, placed_at, expires_at)
    VALUES (p_event_id, p_hold_id, p_user_id, 'active', p_seat_ids, seats, amount_minor, currency, placed_at, expires_at);
    INSERT INTO outbox (topic, key, type, body, traceparent)
    VALUES ('inventory.holds', p_hold_id::text, 'hold.placed',
            jsonb_build_object('holdId', p_hold_id, 'eventId', p_event_id, 'userId', p_user_id, 'seats', seats,
                               'amountMinor', amount_minor, 'currency', currency,
                               'placedAt', placed_at, 'expiresAt', expires_at)::text,
            p_traceparent);
    outcome := 'placed';
END
$$;

GRANT EXECUTE ON FUNCTION claim_seats TO inventory_app, inventory_worker;
GRANT EXECUTE ON FUNCTION place_hold TO inventory_app;
