-- Projection of catalog.events: what placing a hold must know. The newest version wins.
CREATE TABLE events (
    event_id         uuid PRIMARY KEY,
    version          integer NOT NULL,
    status           text NOT NULL CHECK (status IN ('draft', 'published', 'cancelled')),
    currency         text,
    seat_map_version integer NOT NULL,
    seat_count       integer NOT NULL,
    -- The version of the map that event_seats holds; null while parts are missing: then the event is unknown.
    built_version    integer
);
CREATE INDEX events_cancelled ON events (event_id) WHERE status = 'cancelled';

-- The price of a section; a section without a row is free.
CREATE TABLE section_prices (
    event_id     uuid NOT NULL,
    section      text NOT NULL,
    tier_id      uuid NOT NULL,
    amount_minor integer NOT NULL CHECK (amount_minor >= 0),
    PRIMARY KEY (event_id, section)
);

-- Parts of a seat map wait here until all have come.
CREATE TABLE seat_map_parts (
    event_id uuid NOT NULL,
    version  integer NOT NULL,
    part     integer NOT NULL,
    parts    integer NOT NULL,
    seats    jsonb NOT NULL,
    PRIMARY KEY (event_id, version, part)
);

-- A buyer's claim on seats with a deadline. Ending it frees its seats: they are reserved only while
-- their hold is active and its deadline lies ahead.
CREATE TABLE holds (
    event_id     uuid NOT NULL,
    hold_id      uuid NOT NULL,
    user_id      uuid NOT NULL,
    status       text NOT NULL CHECK (status IN ('active', 'confirmed', 'released', 'expired', 'lost')),
    -- Sorted: rows are always locked in this order.
    seat_ids     uuid[] NOT NULL CHECK (cardinality(seat_ids) > 0),
    -- [{seatId, section, row, seatNumber, tierId, amountMinor}], as at the moment of placing.
    seats        jsonb NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency     text NOT NULL,
    placed_at    timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    -- The order that was placed for it: since then the deadline is the payment's.
    order_id     uuid,
    PRIMARY KEY (event_id, hold_id),
    CHECK (status <> 'confirmed' OR order_id IS NOT NULL)
);
CREATE UNIQUE INDEX holds_by_id ON holds (hold_id);
CREATE INDEX holds_of_user ON holds (user_id, hold_id);
CREATE INDEX holds_active ON holds (expires_at) WHERE status = 'active';
CREATE INDEX holds_active_of_event ON holds (event_id, user_id) WHERE status = 'active';

-- One seat for one event. Sold is what `sold_order_id` says; reserved is what its hold says.
CREATE TABLE event_seats (
    event_id      uuid NOT NULL,
    seat_id       uuid NOT NULL,
    section       text NOT NULL,
    row_name      text,
    seat_number   integer,
    hold_id       uuid,
    sold_order_id uuid,
    PRIMARY KEY (event_id, seat_id)
) WITH (fillfactor = 80);

CREATE TABLE tickets (
    event_id      uuid NOT NULL,
    ticket_id     uuid NOT NULL,
    order_id      uuid NOT NULL,
    user_id       uuid NOT NULL,
    seat_id       uuid NOT NULL,
    section       text NOT NULL,
    row_name      text,
    seat_number   integer,
    status        text NOT NULL CHECK (status IN ('issued', 'checked_in', 'void')),
    issued_at     timestamptz NOT NULL,
    checked_in_at timestamptz,
    PRIMARY KEY (event_id, ticket_id),
    CHECK (status <> 'checked_in' OR checked_in_at IS NOT NULL),
    CHECK (status <> 'issued' OR checked_in_at IS NULL)
);
-- A seat has at most one valid ticket, and an order at most one ticket for a seat.
CREATE UNIQUE INDEX tickets_valid_seat ON tickets (event_id, seat_id) WHERE status <> 'void';
CREATE UNIQUE INDEX tickets_of_order ON tickets (event_id, order_id, seat_id);
CREATE UNIQUE INDEX tickets_by_id ON tickets (ticket_id);
CREATE INDEX tickets_of_user ON tickets (user_id, ticket_id);

-- What was decided about an order: an answer once given is given again, whatever comes later.
CREATE TABLE sales (
    order_id uuid PRIMARY KEY,
    event_id uuid NOT NULL,
    hold_id  uuid NOT NULL,
    user_id  uuid NOT NULL,
    status   text NOT NULL CHECK (status IN ('placed', 'issued', 'rejected', 'voided'))
);
CREATE INDEX sales_of_event ON sales (event_id) WHERE status = 'issued';

-- Ed25519 keys that sign the QR codes and nothing else.
CREATE TABLE ticket_keys (
    key_id       text PRIMARY KEY,
    seed         bytea NOT NULL CHECK (octet_length(seed) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Later than created_at: doors have it before it signs. The one that is active since last signs.
    active_from  timestamptz NOT NULL,
    -- Null: it verifies what it signed.
    withdrawn_at timestamptz
);

GRANT SELECT ON events, section_prices, event_seats TO inventory_app;
GRANT SELECT, INSERT, UPDATE ON holds TO inventory_app;
GRANT UPDATE (hold_id) ON event_seats TO inventory_app;
GRANT SELECT ON tickets TO inventory_app;
GRANT UPDATE (status, checked_in_at) ON tickets TO inventory_app;
GRANT SELECT, INSERT ON ticket_keys TO inventory_app;
GRANT UPDATE (withdrawn_at) ON ticket_keys TO inventory_app;

GRANT SELECT, INSERT, UPDATE ON holds, tickets, sales TO inventory_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON events, section_prices, seat_map_parts, event_seats TO inventory_worker;
