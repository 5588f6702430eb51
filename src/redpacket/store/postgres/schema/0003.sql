-- Cash: accounts, packets, shares and the queue for booking them. Every fen is in one place at every commit, and the tables
-- themselves refuse what would be a fen too many. Amounts are integer fen; text is compared byte by byte, as in 0001.

-- Money that was paid in (all of it, ever) and what of it is in no packet.
CREATE TABLE account (
    payer text COLLATE "C" PRIMARY KEY,
    deposited bigint NOT NULL,
    balance bigint NOT NULL,
    CONSTRAINT never_more_than_was_paid_in CHECK (balance >= 0 AND balance <= deposited)
) WITH (fillfactor = 50);

-- I2: a payment counts once.
CREATE TABLE deposit (
    payer text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (payer, idempotency_key)
);

-- Phases: 0 funded, 1 open, 2 exhausted, 3 expired, 4 refunded. `lasts` are the 64 bits of a number without a sign, `ends` is
-- when the packet is over.
CREATE TABLE packet (
    packet_id text COLLATE "C" PRIMARY KEY,
    activity_id text COLLATE "C" NOT NULL,
    payer text COLLATE "C" NOT NULL REFERENCES account,
    total bigint NOT NULL,
    count integer NOT NULL,
    mode smallint NOT NULL CHECK (mode BETWEEN 0 AND 2),
    seed bytea NOT NULL CHECK (octet_length(seed) = 16),
    lasts bigint NOT NULL,
    phase smallint NOT NULL CHECK (phase BETWEEN 0 AND 4),
    left_fen bigint NOT NULL,
    left_count integer NOT NULL,
    refund bigint NOT NULL,
    ends bigint NOT NULL,
    created bigint NOT NULL,
    updated bigint NOT NULL,
    CONSTRAINT a_fen_for_each CHECK (count >= 1 AND total >= count),
    -- I3, as far as one row can tell: what is left is neither negative nor more than there was.
    CONSTRAINT never_more_than_its_total CHECK (left_fen >= 0 AND refund >= 0 AND left_fen + refund <= total),
    CONSTRAINT never_more_than_its_count CHECK (left_count >= 0 AND left_count <= count),
    CONSTRAINT nothing_left_at_an_end CHECK (phase < 2 OR phase = 3 OR left_fen = 0),
    CONSTRAINT given_back_at_the_end CHECK (refund = 0 OR phase = 4)
) WITH (fillfactor = 50);
CREATE INDEX packet_ends ON packet (ends, packet_id) WHERE phase < 2;

-- Somebody's share; the number is made of packet and user, so that a user has one (I3), and a rank is one share's.
-- While its booking is open, that stands in `booking`; the columns from `state` on are those of a closed one.
CREATE TABLE share (
    order_no bytea PRIMARY KEY CHECK (octet_length(order_no) = 17),
    packet_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C",
    rank integer NOT NULL CHECK (rank >= 1),
    amount bigint NOT NULL CHECK (amount >= 1),
    created bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 5),
    attempts bigint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    spent bigint NOT NULL DEFAULT 0 CHECK (spent BETWEEN 0 AND attempts),
    due bigint NOT NULL,
    failure smallint,
    updated bigint NOT NULL,
    CONSTRAINT one_for_each_rank UNIQUE (packet_id, rank)
) WITH (fillfactor = 85);
-- I2: a user's key opens one packet.
CREATE UNIQUE INDEX one_packet_for_each_key ON share (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Shares that are still to be booked: 0 accepted, 1 delivering, 2 waiting for another try.
CREATE TABLE booking (
    order_no bytea PRIMARY KEY,
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 2),
    attempts bigint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    spent bigint NOT NULL DEFAULT 0 CHECK (spent BETWEEN 0 AND attempts),
    due bigint NOT NULL,
    failure smallint,
    created bigint NOT NULL,
    updated bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX booking_due ON booking (due, order_no);
CREATE INDEX booking_created ON booking (created);

-- Shares whose booking was given up, by when.
CREATE TABLE dead_share (
    order_no bytea PRIMARY KEY,
    died bigint NOT NULL
);
CREATE INDEX dead_share_died ON dead_share (died, order_no);

-- All of the above in sums: fen, packets by phase, shares by the state of their booking. In slots, so that writers count in
-- different rows. A slot alone may be negative.
CREATE TABLE till (
    slot smallint PRIMARY KEY,
    deposited_fen bigint NOT NULL DEFAULT 0,
    balances_fen bigint NOT NULL DEFAULT 0,
    left_fen bigint NOT NULL DEFAULT 0,
    opened_fen bigint NOT NULL DEFAULT 0,
    refunded_fen bigint NOT NULL DEFAULT 0,
    funded bigint NOT NULL DEFAULT 0,
    open bigint NOT NULL DEFAULT 0,
    exhausted bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0,
    refunded bigint NOT NULL DEFAULT 0,
    accepted bigint NOT NULL DEFAULT 0,
    delivering bigint NOT NULL DEFAULT 0,
    retry_wait bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    dead bigint NOT NULL DEFAULT 0,
    compensated bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO till (slot) SELECT generate_series(0, 31);

-- What grabs are signed with, so that every process on this database knows the others' tokens. Random, from the server's
-- generator for secrets (244 bits of it).
CREATE TABLE grab_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (octet_length(key) = 32)
);
INSERT INTO grab_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
