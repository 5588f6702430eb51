-- Homes of users: under which epoch of their file this database decides, for whom, and the claims that it keeps for others.

-- One row; epoch 0 while nobody has held it. `sets` is a bit for each of the 256 sets, in four words.
CREATE TABLE fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL CHECK (epoch >= 0),
    sets bigint[] NOT NULL CHECK (cardinality(sets) = 4)
);
INSERT INTO fence (epoch, sets) VALUES (0, '{0,0,0,0}');

-- The same epoch beside every stock: claims lock these rows anyhow, so they see it at no cost, and none passes it unseen.
ALTER TABLE bucket ADD COLUMN epoch bigint NOT NULL DEFAULT 0;

-- Claims of users whose home could not be reached. Outcome 0 is open, 1 granted, the others refused; `record` has all of it,
-- the columns are what is searched by. Writers take turns by the row of `intent_sums`.
CREATE TABLE intent (
    order_no bytea PRIMARY KEY CHECK (octet_length(order_no) = 17),
    home_set smallint NOT NULL CHECK (home_set BETWEEN 0 AND 255),
    asked bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C",
    outcome smallint NOT NULL CHECK (outcome BETWEEN 0 AND 5),
    settled bigint NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX intent_open ON intent (home_set, asked, order_no) WHERE outcome = 0;
CREATE INDEX intent_settled ON intent (settled, order_no) WHERE outcome > 0;
CREATE INDEX intent_key ON intent (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL AND outcome <= 1;

-- How many there are, by outcome.
CREATE TABLE intent_sums (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    counts bigint[] NOT NULL CHECK (cardinality(counts) = 6)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO intent_sums (counts) VALUES ('{0,0,0,0,0,0}');
