-- Stock that moves between homes. `gift.total` stays what the configuration says; what may be issued is total + taken - given.
ALTER TABLE gift ADD COLUMN taken bigint NOT NULL DEFAULT 0 CHECK (taken >= 0);
ALTER TABLE gift ADD COLUMN given bigint NOT NULL DEFAULT 0 CHECK (given >= 0);

-- The latest transfer with a home, of a gift, in a direction: 0 to that home, 1 from it. Written under the lock of the gift.
CREATE TABLE transfer (
    way smallint NOT NULL CHECK (way BETWEEN 0 AND 1),
    home text COLLATE "C" NOT NULL,
    gift_id text COLLATE "C" NOT NULL REFERENCES gift,
    number bigint NOT NULL CHECK (number >= 1),
    amount bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (way, home, gift_id)
);
