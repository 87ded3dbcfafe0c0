-- Orders, what Stripe captured and gave back, what Stripe told us, and what is still to be asked of Stripe.

-- Projection of inventory's holds, fed by `inventory.holds`.
CREATE TABLE holds (
    id           uuid PRIMARY KEY,
    event_id     uuid NOT NULL,
    user_id      uuid NOT NULL,
    status       text NOT NULL CHECK (status IN ('active', 'confirmed', 'released', 'expired', 'lost')),
    -- Null until hold.placed was seen: a replayed message may come after a later one.
    seat_ids     uuid[],
    seats        jsonb,
    amount_minor bigint CHECK (amount_minor >= 0),
    currency     text CHECK (currency ~ '^[a-z]{3}$'),
    expires_at   timestamptz,
    -- When inventory saw that the deadline had passed; a later deadline than this takes the hold up again.
    expired_at   timestamptz,
    -- Set by the checkout that won; a hold has one order, ever.
    order_id     uuid UNIQUE,
    CHECK (num_nulls(seat_ids, seats, amount_minor, currency) IN (0, 4)),
    CHECK (order_id IS NULL OR seats IS NOT NULL)
);
CREATE INDEX holds_by_owner ON holds (user_id, event_id);
CREATE INDEX holds_to_forget ON holds (expires_at) WHERE order_id IS NULL;

CREATE TABLE orders (
    id                uuid PRIMARY KEY,
    hold_id           uuid NOT NULL UNIQUE REFERENCES holds,
    event_id          uuid NOT NULL,
    user_id           uuid NOT NULL,
    status            text NOT NULL CHECK (status IN
                      ('pending', 'paid', 'fulfilled', 'cancelled', 'expired', 'refunding', 'refunded')),
    amount_minor      bigint NOT NULL CHECK (amount_minor >= 0),
    currency          text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    email             text,
    seats             jsonb NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    -- The payment deadline.
    expires_at        timestamptz NOT NULL,
    payment_intent_id text UNIQUE,
    client_secret     text,
    -- Part of Stripe's idempotency key: another number after a definite error, whose answer Stripe would repeat.
    intent_attempt    integer NOT NULL DEFAULT 1,
    paid_at           timestamptz,
    fulfilled_at      timestamptz,
    -- When it was cancelled or expired; stays when a late payment revives it.
    ended_at          timestamptz,
    refund_reason     text CHECK (refund_reason IN
                      ('admin', 'dashboard', 'wrong_amount', 'sale_rejected', 'tickets_voided')),
    refunding_at      timestamptz,
    -- From here on the money goes back for certain: no valid ticket is left.
    refund_cleared_at timestamptz,
    refunded_at       timestamptz,
    traceparent       text,
    CHECK (num_nulls(payment_intent_id, client_secret) IN (0, 2)),
    CHECK (amount_minor > 0 OR payment_intent_id IS NULL),
    CHECK (status NOT IN ('paid', 'fulfilled') OR paid_at IS NOT NULL),
    CHECK (status NOT IN ('pending', 'cancelled', 'expired') OR paid_at IS NULL),
    CHECK (status <> 'fulfilled' OR fulfilled_at IS NOT NULL),
    CHECK (status NOT IN ('cancelled', 'expired') OR ended_at IS NOT NULL),
    CHECK ((status IN ('refunding', 'refunded')) = (refunding_at IS NOT NULL)),
    CHECK (num_nulls(refunding_at, refund_reason) IN (0, 2)),
    CHECK (refund_cleared_at IS NULL OR refunding_at IS NOT NULL),
    CHECK ((status = 'refunded') = (refunded_at IS NOT NULL)),
    CHECK (status <> 'refunded' OR refund_cleared_at IS NOT NULL)
);
CREATE INDEX orders_by_owner ON orders (user_id, id);
CREATE INDEX orders_by_deadline ON orders (expires_at) WHERE status = 'pending';

-- Money that Stripe captured. An order has one, and at most rarely a second one by mistake, which is given back.
CREATE TABLE payments (
    payment_intent_id text PRIMARY KEY,
    order_id          uuid NOT NULL REFERENCES orders,
    amount_minor      bigint NOT NULL CHECK (amount_minor > 0),
    currency          text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    recorded_at       timestamptz NOT NULL DEFAULT now(),
    -- Part of Stripe's idempotency key, like orders.intent_attempt.
    refund_attempt    integer NOT NULL DEFAULT 1
);
CREATE INDEX payments_by_order ON payments (order_id);

-- Money that went back, or is on its way; Stripe's states. Ours and those made in Stripe's dashboard.
CREATE TABLE refunds (
    refund_id         text PRIMARY KEY,
    payment_intent_id text NOT NULL REFERENCES payments,
    amount_minor      bigint NOT NULL CHECK (amount_minor > 0),
    currency          text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    status            text NOT NULL CHECK (status IN
                      ('pending', 'requires_action', 'succeeded', 'failed', 'canceled')),
    recorded_at       timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refunds_by_payment ON refunds (payment_intent_id);

-- Every webhook event that was received, once. What it says about a person is not kept.
CREATE TABLE stripe_events (
    event_id          text PRIMARY KEY,
    type              text NOT NULL,
    object_id         text,
    payment_intent_id text,
    received_at       timestamptz NOT NULL DEFAULT now()
);

-- What is to be asked of Stripe, until there is a definite answer.
CREATE TABLE stripe_jobs (
    id                uuid PRIMARY KEY DEFAULT uuidv7(),
    kind              text NOT NULL CHECK (kind IN ('cancel_intent', 'inspect', 'refund', 'reconcile')),
    order_id          uuid NOT NULL REFERENCES orders,
    -- Empty for a cancellation: it is the order's own, once that is known.
    payment_intent_id text NOT NULL DEFAULT '',
    reason            text,
    -- How often it was wished for: a wish that comes while the job runs makes it run again.
    asked             integer NOT NULL DEFAULT 1,
    attempts          integer NOT NULL DEFAULT 0,
    run_at            timestamptz NOT NULL DEFAULT now(),
    leased_until      timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    last_error        text,
    traceparent       text,
    UNIQUE (kind, order_id, payment_intent_id),
    CHECK ((kind = 'cancel_intent') = (payment_intent_id = '')),
    CHECK ((kind = 'cancel_intent') = (reason IS NOT NULL)),
    CHECK (reason IN ('buyer', 'hold_ended', 'expired'))
);
CREATE INDEX stripe_jobs_by_time ON stripe_jobs (run_at);
CREATE INDEX stripe_jobs_by_order ON stripe_jobs (order_id);

GRANT SELECT, UPDATE (order_id) ON holds TO payments_app;
GRANT SELECT, INSERT, UPDATE ON orders TO payments_app;
GRANT SELECT ON payments, refunds TO payments_app;
GRANT INSERT ON stripe_events TO payments_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON stripe_jobs TO payments_app;

GRANT SELECT, INSERT, UPDATE, DELETE ON holds TO payments_worker;
GRANT SELECT, UPDATE ON orders TO payments_worker;
GRANT SELECT, INSERT, UPDATE ON payments, refunds TO payments_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON stripe_jobs TO payments_worker;
