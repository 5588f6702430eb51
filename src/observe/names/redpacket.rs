//! Metrics of the `redpacket` area.

use super::{Kind, SECONDS, table};

/// Sizes of batches: powers of two up to the largest batch.
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

table! {
    CLAIMS_TOTAL: Kind::Counter, "springtide_redpacket_claims_total", ["code"],
        "Claims answered, by reply code.";
    CLAIM_DURATION_SECONDS: Kind::Histogram(SECONDS), "springtide_redpacket_claim_duration_seconds", [],
        "From a claim's arrival to its answer, commit included.";
    COMMIT_BATCH_SIZE: Kind::Histogram(BATCHES), "springtide_redpacket_commit_batch_size", ["store"],
        "Operations that shared one commit.";
    COMMIT_DURATION_SECONDS: Kind::Histogram(SECONDS), "springtide_redpacket_commit_duration_seconds", ["store"],
        "One transaction, from its begin to its fsync.";
    COMMIT_FAILURES_TOTAL: Kind::Counter, "springtide_redpacket_commit_failures_total", ["store"],
        "Transactions that could not be written; the store refuses claims meanwhile.";
    DELIVERIES_TOTAL: Kind::Counter, "springtide_redpacket_deliveries_total", ["game", "result"],
        "Attempts at delivery, by game and what came of them: delivered, or why not. Beside them dead and deferred: given up, put off.";
    DELIVERY_RATE: Kind::Gauge, "springtide_redpacket_delivery_rate", ["game"],
        "Deliveries a second that a game gets at most at the moment: what was configured, less while it fails or is slow.";
    ORDERS: Kind::Gauge, "springtide_redpacket_orders", ["state"],
        "Orders in the store, by state.";
    PENDING_AGE_SECONDS: Kind::Gauge, "springtide_redpacket_pending_age_seconds", [],
        "Age of the oldest order that is still to be delivered; the promise is 48 h.";
    ALARM: Kind::Gauge, "springtide_redpacket_alarm", ["reason"],
        "1 while a person must look at the orders: `dead`, some were given up; `late`, some are open for longer than the 48 h that were promised.";
    STOCK_LEFT: Kind::Gauge, "springtide_redpacket_stock_left", ["gift"],
        "What this process may still give of a gift.";
    STOCK_TAKEN_TOTAL: Kind::Counter, "springtide_redpacket_stock_taken_total", ["gift"],
        "Gifts whose stock came from other homes, which had plenty, because it ran low here.";
    PACKET_ANSWERS_TOTAL: Kind::Counter, "springtide_redpacket_packet_answers_total", ["call", "code"],
        "Calls on cash packets (create, grab, open) answered, by reply code.";
    OPEN_DURATION_SECONDS: Kind::Histogram(SECONDS), "springtide_redpacket_open_duration_seconds", [],
        "From the arrival of an open to its answer, the wait in the packet's line and the commit included.";
    OPEN_BATCH_SIZE: Kind::Histogram(BATCHES), "springtide_redpacket_open_batch_size", [],
        "Openers of one packet that went to the store together.";
    PACKETS: Kind::Gauge, "springtide_redpacket_packets", ["phase"],
        "Cash packets in the store, by phase.";
    CASH_FEN: Kind::Gauge, "springtide_redpacket_cash_fen", ["place"],
        "Money in fen: deposited (ever), and where it is: accounts, packets, opened; these three add up to the first. Refunded (ever) is in accounts again.";
    BOOKINGS: Kind::Gauge, "springtide_redpacket_bookings", ["state"],
        "Shares of cash packets, by the state of their booking to the wallet.";
    BOOKING_AGE_SECONDS: Kind::Gauge, "springtide_redpacket_booking_age_seconds", [],
        "Age of the oldest share that is still to be booked.";
    DEGRADED_TOTAL: Kind::Counter, "springtide_redpacket_degraded_total", ["service", "reason"],
        "Answers that made do without a dependency, by why it was not used.";
    OVERLOADED_TOTAL: Kind::Counter, "springtide_redpacket_overloaded_total", ["service"],
        "Requests refused because the service had its limit in work.";
    INTENTS: Kind::Gauge, "springtide_redpacket_intents", [],
        "Claims of users whose home could not be reached, still to be decided there.";
    INTENT_AGE_SECONDS: Kind::Gauge, "springtide_redpacket_intent_age_seconds", [],
        "Age of the oldest of these; alert where it grows although the home is back.";
    INTENTS_SETTLED_TOTAL: Kind::Counter, "springtide_redpacket_intents_settled_total", ["outcome"],
        "Claims that their home has decided since, by what it said.";
    HOMES_EPOCH: Kind::Gauge, "springtide_redpacket_homes_epoch", [],
        "Epoch of the homes' file by which a claim process decides.";
    HOMES_REFUSED: Kind::Gauge, "springtide_redpacket_homes_refused", [],
        "1 while the homes' file says something else than what the process goes by, and cannot be taken: its log says why.";
    FORWARDS_TOTAL: Kind::Counter, "springtide_redpacket_forwards_total", ["result"],
        "Claims and questions passed on to a user's home: answered, or why not.";
    REQUESTS_TOTAL: Kind::Counter, "springtide_redpacket_requests_total", ["service", "class"],
        "Requests answered, by class of status: 2xx, 3xx, 4xx, 5xx.";
}
