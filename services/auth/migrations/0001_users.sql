-- Accounts, refresh tokens and the keys that sign access tokens.

CREATE TABLE users (
    id           uuid PRIMARY KEY,
    email        text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    email_key    text NOT NULL UNIQUE,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    role         text NOT NULL CHECK (role IN ('user', 'admin', 'scanner')),
    password_phc text NOT NULL CHECK (password_phc LIKE '$argon2id$%'),
    disabled_at  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN users.email IS 'As its owner typed it';
COMMENT ON COLUMN users.email_key IS 'The e-mail with case folded: one account for each';
COMMENT ON COLUMN users.password_phc IS 'Argon2id in PHC string format';

CREATE TABLE refresh_tokens (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    family_id  uuid NOT NULL,
    user_id    uuid NOT NULL REFERENCES users,
    issued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL CHECK (expires_at > issued_at),
    rotated_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE refresh_tokens IS 'Every change happens under the lock of the user''s row';
COMMENT ON COLUMN refresh_tokens.digest IS 'SHA-256 of the token, which only its owner has';
COMMENT ON COLUMN refresh_tokens.family_id IS 'All tokens that descend from one login';
COMMENT ON COLUMN refresh_tokens.rotated_at IS 'Set: used once. Seen again, its family is revoked';
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_by_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE known_networks (
    user_id uuid NOT NULL REFERENCES users,
    network cidr NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, network)
);
COMMENT ON TABLE known_networks IS 'Where a user has logged in from: strangers'' guesses do not lock these out';
COMMENT ON COLUMN known_networks.seen_at IS 'By the day';
CREATE INDEX known_networks_by_age ON known_networks (seen_at);

CREATE TABLE signing_keys (
    kid         text PRIMARY KEY,
    private_pem text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    active_from timestamptz NOT NULL,
    retire_at   timestamptz CHECK (retire_at > active_from)
);
COMMENT ON TABLE signing_keys IS 'Ed25519. The newest one that is active signs; all are published until they retire';
COMMENT ON COLUMN signing_keys.active_from IS 'Later than created_at: verifiers have it before it signs';
COMMENT ON COLUMN signing_keys.retire_at IS 'Set by its successor: the last token that it signed has expired by then';

GRANT SELECT, INSERT ON users TO auth_app;
GRANT UPDATE (role, password_phc, disabled_at, updated_at) ON users TO auth_app;
GRANT SELECT, INSERT ON refresh_tokens TO auth_app;
GRANT UPDATE (rotated_at, revoked_at) ON refresh_tokens TO auth_app;
GRANT SELECT, INSERT ON known_networks TO auth_app;
GRANT UPDATE (seen_at) ON known_networks TO auth_app;
GRANT SELECT, INSERT ON signing_keys TO auth_app;
GRANT UPDATE (retire_at) ON signing_keys TO auth_app;
-- Revocations are made here; the other services have theirs from messages.
GRANT INSERT, UPDATE ON token_revocations TO auth_app;

GRANT SELECT (expires_at), DELETE ON refresh_tokens TO auth_worker;
GRANT SELECT (seen_at), DELETE ON known_networks TO auth_worker;
