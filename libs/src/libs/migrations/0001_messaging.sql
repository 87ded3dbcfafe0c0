-- What every service's schema has: messages to send, messages seen, tokens revoked, requests answered.

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Relays share the rows by bucket, so that one key is always sent by one relay.
    bucket      smallint NOT NULL GENERATED ALWAYS AS (hashtext(key) & 63) STORED,
    topic       text NOT NULL,
    key         text NOT NULL,
    message_id  uuid NOT NULL DEFAULT uuidv7(),
    type        text NOT NULL,
    version     smallint NOT NULL DEFAULT 1,
    body        text NOT NULL,
    traceparent text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Returns within 10 ms of a row of these buckets being committed, or after half a second. The database looks
-- instead of the relay, for which fifty questions a second are most of an idle worker's work. Volatile: each
-- look sees what has been committed. It holds back the cleaning of dead rows for half a second at most.
CREATE FUNCTION wait_for_outbox(buckets int[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    enough timestamptz := clock_timestamp() + interval '0.5 seconds';
BEGIN
    LOOP
        PERFORM FROM outbox WHERE bucket = ANY (buckets) LIMIT 1;
        EXIT WHEN FOUND OR clock_timestamp() > enough;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;

CREATE TABLE inbox (
    message_id  text NOT NULL,
    consumer    text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (message_id, consumer)
);
-- They come in the order of their age: a block range index costs next to nothing.
CREATE INDEX inbox_by_age ON inbox USING brin (received_at);

-- Tokens of a user issued before `not_before` are refused.
CREATE TABLE token_revocations (
    user_id    uuid PRIMARY KEY,
    not_before timestamptz NOT NULL
);
CREATE INDEX token_revocations_by_age ON token_revocations (not_before);

-- Answers given under an Idempotency-Key; status is null while the first request runs. What the request makes has
-- the id `attempt_id`, also when it runs again.
CREATE TABLE idempotency_keys (
    user_id      uuid NOT NULL,
    key          text NOT NULL,
    digest       bytea NOT NULL,
    attempt_id   uuid NOT NULL,
    status       smallint,
    headers      jsonb,
    body         bytea,
    locked_until timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

DO $$
DECLARE
    app    text := quote_ident(current_schema() || '_app');
    worker text := quote_ident(current_schema() || '_worker');
BEGIN
    EXECUTE 'GRANT INSERT ON outbox TO ' || app;
    EXECUTE 'GRANT SELECT, INSERT, DELETE ON outbox TO ' || worker;
    EXECUTE 'GRANT EXECUTE ON FUNCTION wait_for_outbox TO ' || worker;
    EXECUTE 'GRANT SELECT, INSERT, DELETE ON inbox TO ' || worker;
    EXECUTE 'GRANT SELECT ON token_revocations TO ' || app;
    EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON token_revocations TO ' || worker;
    EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO ' || app;
    EXECUTE 'GRANT SELECT, DELETE ON idempotency_keys TO ' || worker;
END
$$;
