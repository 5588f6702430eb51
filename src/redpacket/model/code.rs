//! What we answer: a closed set of codes, each with its HTTP status and whether trying again makes sense.
//!
//! The table is ours; unknown outcome and "same number again" follow WeChat Pay's rule that "not found" is not "failed".

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The outcome of a request, as clients match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// Done.
    Ok,
    /// Written down durably and queued for delivery.
    Accepted,
    /// Claimed before: the original order is in the reply.
    AlreadyClaimed,
    /// Nothing is left.
    SoldOut,
    /// The activity is over.
    Expired,
    /// The activity has not begun.
    NotStarted,
    /// This user asks too often.
    RateLimited,
    /// Shed early; nothing was done.
    Overloaded,
    /// Out of time; the outcome may be unknown. Ask again with the same key.
    Deadline,
    /// This gift or packet is not for this user.
    NotEligible,
    /// The zone or the role is not usable.
    BadRole,
    /// The same key was used for a different claim.
    KeyConflict,
    /// Accepted, and not delivered yet.
    Pending,
    /// Written down far from the user's home, which cannot be reached: home will judge it, and nothing is granted yet.
    Intent,
    /// The request cannot be understood.
    BadRequest,
    /// There is no such thing.
    NotFound,
    /// The store cannot be written or read now; nothing was done.
    Unavailable,
    /// The account has less than this packet needs.
    Unfunded,
}

/// status, retryable, least wait in ms where a wait makes sense, key for translations, words for a person.
type Row = (StatusCode, bool, Option<u64>, &'static str, &'static str);

impl Code {
    /// Every code.
    pub const ALL: [Self; 18] = [
        Self::Ok,
        Self::Accepted,
        Self::AlreadyClaimed,
        Self::SoldOut,
        Self::Expired,
        Self::NotStarted,
        Self::RateLimited,
        Self::Overloaded,
        Self::Deadline,
        Self::NotEligible,
        Self::BadRole,
        Self::KeyConflict,
        Self::Pending,
        Self::Intent,
        Self::BadRequest,
        Self::NotFound,
        Self::Unavailable,
        Self::Unfunded,
    ];

    const fn row(self) -> Row {
        match self {
            Self::Ok => (StatusCode::OK, false, None, "ok", "Done."),
            Self::Accepted => (StatusCode::ACCEPTED, false, None, "accepted", "Your gift is on its way."),
            Self::AlreadyClaimed => {
                (StatusCode::OK, false, None, "already_claimed", "You have claimed this packet already.")
            }
            Self::SoldOut => (StatusCode::GONE, false, None, "sold_out", "All of these gifts are gone."),
            Self::Expired => (StatusCode::GONE, false, None, "expired", "This activity is over."),
            Self::NotStarted => {
                (StatusCode::TOO_EARLY, true, Some(1_000), "not_started", "This activity has not begun yet.")
            }
            Self::RateLimited => {
                (StatusCode::TOO_MANY_REQUESTS, true, Some(5_000), "rate_limited", "A little slower, please.")
            }
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                true,
                Some(1_000),
                "overloaded",
                "Very many people are here. Please try again in a moment.",
            ),
            Self::Deadline => (
                StatusCode::GATEWAY_TIMEOUT,
                true,
                Some(500),
                "deadline",
                "This took too long. Please try again; you will not claim twice.",
            ),
            Self::NotEligible => {
                (StatusCode::FORBIDDEN, false, None, "not_eligible", "This gift is not open to this packet.")
            }
            Self::BadRole => {
                (StatusCode::UNPROCESSABLE_ENTITY, false, None, "bad_role", "Please choose a server and a role.")
            }
            Self::KeyConflict => (
                StatusCode::UNPROCESSABLE_ENTITY,
                false,
                None,
                "key_conflict",
                "This key was used for a different claim.",
            ),
            Self::Pending => {
                (StatusCode::ACCEPTED, true, Some(2_000), "pending", "Accepted; the delivery is still under way.")
            }
            Self::Intent => (
                StatusCode::ACCEPTED,
                true,
                Some(2_000),
                "intent",
                "We have noted your claim; it is decided as soon as your home can be reached.",
            ),
            Self::BadRequest => (StatusCode::BAD_REQUEST, false, None, "bad_request", "This cannot be understood."),
            Self::NotFound => (StatusCode::NOT_FOUND, false, None, "not_found", "There is nothing by that name."),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                true,
                Some(1_000),
                "unavailable",
                "This cannot be done right now. Nothing was lost; please try again in a moment.",
            ),
            Self::Unfunded => (
                StatusCode::PAYMENT_REQUIRED,
                false,
                None,
                "unfunded",
                "There is not enough in the account for this packet.",
            ),
        }
    }

    /// As on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Accepted => "ACCEPTED",
            Self::AlreadyClaimed => "ALREADY_CLAIMED",
            Self::SoldOut => "SOLD_OUT",
            Self::Expired => "EXPIRED",
            Self::NotStarted => "NOT_STARTED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Overloaded => "OVERLOADED",
            Self::Deadline => "DEADLINE",
            Self::NotEligible => "NOT_ELIGIBLE",
            Self::BadRole => "BAD_ROLE",
            Self::KeyConflict => "KEY_CONFLICT",
            Self::Pending => "PENDING",
            Self::Intent => "INTENT",
            Self::BadRequest => "BAD_REQUEST",
            Self::NotFound => "NOT_FOUND",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unfunded => "UNFUNDED",
        }
    }

    /// Its HTTP status.
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// Whether the same request may do better later.
    pub const fn retryable(self) -> bool {
        self.row().1
    }

    /// How long to wait before that: the table's wait and up to as much again by `draw` (64 random bits), so that those
    /// who were turned away together do not come back together.
    pub const fn retry_after(self, draw: u64) -> Option<Duration> {
        match self.row().2 {
            Some(least) => Some(Duration::from_millis(least + draw % (least + 1))),
            None => None,
        }
    }

    /// The key of its message, for translations.
    pub const fn msg_key(self) -> &'static str {
        self.row().3
    }

    /// Its message in English.
    pub const fn message(self) -> &'static str {
        self.row().4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_is_the_serialised_name() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(serde_json::from_value::<Code>(code.as_str().into()).unwrap(), code);
        }
    }

    #[test]
    fn who_may_retry_learns_when_and_nobody_else_does() {
        for code in Code::ALL {
            assert_eq!(code.retryable(), code.retry_after(0).is_some(), "{code:?}");
            if let Some(wait) = code.retry_after(0) {
                assert!(code.retry_after(u64::MAX).unwrap() <= wait * 2, "{code:?}");
            }
            let server_fault = code.status().is_server_error();
            assert!(!server_fault || code.retryable(), "{code:?}: what is our fault is worth another try");
        }
    }
}
