-- Orders, stock and delivery queue of one set. Order, stock and queue move in one transaction.
-- Text is compared byte by byte (COLLATE "C"): identifiers are ASCII, and sums come out in the order of every other store.

-- What a gift may give in all, as it was asked for.
CREATE TABLE gift (
    gift_id text COLLATE "C" PRIMARY KEY,
    total bigint NOT NULL CHECK (total >= 0)
);

-- Its stock, in buckets: writers take from different rows. I1: what is not there cannot be issued.
CREATE TABLE bucket (
    gift_id text COLLATE "C" NOT NULL REFERENCES gift,
    idx smallint NOT NULL CHECK (idx >= 0),
    quota bigint NOT NULL,
    issued bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (gift_id, idx),
    CONSTRAINT never_more_than_its_quota CHECK (issued >= 0 AND issued <= quota)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- I2: one order for each (activity, packet, user), and one order for each key of a user.
-- While an order is in the outbox, its state stands there; the columns from `state` on are those of a closed one.
CREATE TABLE orders (
    order_no bytea PRIMARY KEY CHECK (octet_length(order_no) = 17),
    activity_id text COLLATE "C" NOT NULL,
    packet_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    gift_id text COLLATE "C" NOT NULL,
    zone_id text COLLATE "C" NOT NULL,
    role_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C",
    bucket smallint NOT NULL,
    created bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 5),
    attempts bigint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    spent bigint NOT NULL DEFAULT 0 CHECK (spent BETWEEN 0 AND attempts),
    due bigint NOT NULL,
    failure smallint,
    updated bigint NOT NULL,
    CONSTRAINT one_for_each UNIQUE (activity_id, packet_id, user_id)
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX one_for_each_key ON orders (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Orders that are still to be delivered: 0 accepted, 1 delivering, 2 waiting for another try.
CREATE TABLE outbox (
    order_no bytea PRIMARY KEY,
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 2),
    attempts bigint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    spent bigint NOT NULL DEFAULT 0 CHECK (spent BETWEEN 0 AND attempts),
    due bigint NOT NULL,
    failure smallint,
    created bigint NOT NULL,
    updated bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX outbox_due ON outbox (due, order_no);
CREATE INDEX outbox_created ON outbox (created);

-- Dead letters, by when they died.
CREATE TABLE dead (
    order_no bytea PRIMARY KEY,
    died bigint NOT NULL
);
CREATE INDEX dead_died ON dead (died, order_no);

-- What was tried: 0 delivered, else why not.
CREATE TABLE delivery_log (
    order_no bytea NOT NULL,
    attempt bigint NOT NULL,
    at bigint NOT NULL,
    result smallint NOT NULL,
    PRIMARY KEY (order_no, attempt)
);

-- Orders by state, counted as they move; in slots, so that writers count in different rows. A slot alone may be negative.
CREATE TABLE tally (
    slot smallint PRIMARY KEY,
    accepted bigint NOT NULL DEFAULT 0,
    delivering bigint NOT NULL DEFAULT 0,
    retry_wait bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    dead bigint NOT NULL DEFAULT 0,
    compensated bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO tally (slot) SELECT generate_series(0, 31);

-- Written to find out whether writing works again.
CREATE TABLE pulse (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    at bigint NOT NULL
);
INSERT INTO pulse (at) VALUES (0);
