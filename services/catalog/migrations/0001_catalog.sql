-- Organizers, venues with their seats, events with their prices.

CREATE TABLE organizers (
    id         uuid PRIMARY KEY,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    email      text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    slug       text NOT NULL CONSTRAINT organizers_slug UNIQUE CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
    logo_url   text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE venues (
    id            uuid PRIMARY KEY,
    organizer_id  uuid CONSTRAINT venues_organizer REFERENCES organizers,
    name          text NOT NULL,
    address       text NOT NULL,
    city          text NOT NULL,
    state         text NOT NULL,
    zip           text NOT NULL,
    country       text NOT NULL,
    description   text,
    seats_version integer NOT NULL DEFAULT 0 CHECK (seats_version >= 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN venues.seats_version IS
    'Grows with every call that adds seats. Who adds locks the row, who copies shares it: no map is torn';
CREATE INDEX venues_by_organizer ON venues (organizer_id);

CREATE TABLE venue_seats (
    id          uuid NOT NULL DEFAULT uuidv7(),
    venue_id    uuid NOT NULL REFERENCES venues,
    section     text NOT NULL CHECK (length(section) BETWEEN 1 AND 100),
    row_name    text CHECK (length(row_name) BETWEEN 1 AND 20),
    seat_number integer CHECK (seat_number >= 0),
    PRIMARY KEY (venue_id, id),
    -- Nulls differ from each other: seats without row or number may repeat.
    CONSTRAINT venue_seats_place UNIQUE (venue_id, section, row_name, seat_number)
);
CREATE TABLE venue_seat_calls (
    id       uuid PRIMARY KEY,
    venue_id uuid NOT NULL REFERENCES venues
);
COMMENT ON TABLE venue_seat_calls IS 'Calls that added seats: one that comes again adds nothing';
CREATE INDEX venue_seat_calls_by_venue ON venue_seat_calls (venue_id);

COMMENT ON COLUMN venue_seats.id IS 'Also the id of the seat in each event at this venue';

CREATE TABLE events (
    id                  uuid PRIMARY KEY,
    organizer_id        uuid CONSTRAINT events_organizer REFERENCES organizers,
    venue_id            uuid NOT NULL CONSTRAINT events_venue REFERENCES venues,
    name                text NOT NULL CHECK (length(name) BETWEEN 1 AND 300),
    description         text,
    image_url           text,
    starts_at           timestamptz NOT NULL,
    ends_at             timestamptz NOT NULL,
    status              text NOT NULL CHECK (status IN ('draft', 'published', 'cancelled')),
    currency            text CHECK (currency ~ '^[a-z]{3}$'),
    version             integer NOT NULL DEFAULT 1 CHECK (version >= 1),
    seat_map_version    integer NOT NULL DEFAULT 1 CHECK (seat_map_version >= 1),
    seat_count          integer NOT NULL CHECK (seat_count >= 0),
    venue_seats_version integer NOT NULL,
    published_at        timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CHECK (ends_at >= starts_at),
    CHECK (status <> 'published' OR published_at IS NOT NULL),
    CHECK (status <> 'draft' OR published_at IS NULL)
);
COMMENT ON COLUMN events.currency IS 'Of all its tiers; null while it has none';
COMMENT ON COLUMN events.version IS 'Grows with every change; messages carry it';
COMMENT ON COLUMN events.venue_seats_version IS 'The state of the venue''s seats that the seat map is a copy of';
COMMENT ON COLUMN events.published_at IS 'Null: never seen by the public, also when cancelled';
CREATE INDEX events_published ON events (id) WHERE status = 'published';
CREATE INDEX events_by_venue ON events (venue_id);
CREATE INDEX events_by_organizer ON events (organizer_id);

CREATE TABLE price_tiers (
    event_id     uuid NOT NULL REFERENCES events,
    id           uuid NOT NULL,
    position     integer NOT NULL,
    name         text NOT NULL,
    tier         text NOT NULL CHECK (tier IN ('standard', 'premium', 'vip', 'early_access')),
    amount_minor integer NOT NULL CHECK (amount_minor BETWEEN 0 AND 99999999),
    PRIMARY KEY (event_id, id)
);
COMMENT ON TABLE price_tiers IS 'Written under the lock of the event''s row';

CREATE TABLE tier_sections (
    event_id uuid NOT NULL,
    section  text NOT NULL,
    tier_id  uuid NOT NULL,
    position integer NOT NULL,
    -- A section has one price.
    PRIMARY KEY (event_id, section),
    FOREIGN KEY (event_id, tier_id) REFERENCES price_tiers ON DELETE CASCADE
);
CREATE INDEX tier_sections_by_tier ON tier_sections (event_id, tier_id);

GRANT SELECT, INSERT ON organizers, venues, venue_seats, venue_seat_calls, events, price_tiers, tier_sections TO catalog_app;
GRANT UPDATE (seats_version, updated_at) ON venues TO catalog_app;
GRANT UPDATE ON events TO catalog_app;
GRANT DELETE ON price_tiers TO catalog_app;
