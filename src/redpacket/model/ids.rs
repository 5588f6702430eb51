//! Identifiers as text from outside: one type for each, so that a gift is never mistaken for a user.
//!
//! All follow one rule, narrow enough for a URL, a log line and a record without escaping: 1 to 64 characters out of
//! ASCII letters, digits and `- _ . : @ ~ + =`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest identifier, in bytes.
const MAX: usize = 64;

/// A text that is not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be 1 to 64 characters: letters, digits, - _ . : @ ~ + =")]
pub struct BadId {
    /// The name of the field, as in the API.
    pub field: &'static str,
}

fn valid(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@~+=".contains(&b);
    (1..=MAX).contains(&text.len()) && text.bytes().all(allowed)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $field:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads one.
            ///
            /// # Errors
            /// The text is empty, longer than 64 bytes, or has a character outside the allowed set.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                if valid(text) { Ok(Self(text.into())) } else { Err(BadId { field: $field }) }
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

ids! {
    /// Who claims.
    UserId = "user_id",
    /// What is given.
    GiftId = "gift_id",
    /// The campaign, with its window and its stock.
    ActivityId = "activity_id",
    /// The coupon that a user opens: at most one order for each in an activity.
    PacketId = "packet_id",
    /// The game that a gift is delivered to.
    GameId = "game_id",
    /// A server of a game.
    ZoneId = "zone_id",
    /// A user's character on a server.
    RoleId = "role_id",
    /// The caller's own name for one attempt: the same key never means two different claims.
    IdempotencyKey = "idempotency_key",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_an_identifier_or_an_error_with_the_field() {
        assert_eq!(UserId::parse("u-1.2:3@x~y+z=").map(|u| u.to_string()).as_deref(), Ok("u-1.2:3@x~y+z="));
        for bad in ["", "a b", "a/b", "\u{7ea2}\u{5305}", "a\0", &"x".repeat(65)] {
            assert_eq!(UserId::parse(bad), Err(BadId { field: "user_id" }), "{bad:?}");
        }
        assert!(serde_json::from_str::<GiftId>("\"no way\"").unwrap_err().to_string().contains("gift_id"));
    }
}
