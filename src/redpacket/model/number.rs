//! The number of an order, which says for whom and for what it is before anybody has looked it up.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ActivityId, PacketId, UserId};
use crate::base::hash;
use crate::config::homes;

/// The number of an order: one byte for the user's set, sixteen that hash (activity, packet, user, scene).
///
/// Written as 34 hexadecimal digits; the first two say which set it belongs to, so that it can be routed without a
/// look-up. The hash is not cryptographic: stores compare what the number stands for and refuse a collision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderNo([u8; 17]);

/// A text that is not an order number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an order number is 34 hexadecimal digits")]
pub struct BadOrderNo;

impl OrderNo {
    /// The number for these; `scene` tells kinds of packets apart.
    pub fn of(activity: &ActivityId, packet: &PacketId, user: &UserId, scene: &str) -> Self {
        let mut name = Vec::with_capacity(128);
        for part in [activity.as_str(), packet.as_str(), user.as_str(), scene] {
            // Lengths keep ("ab", "c") and ("a", "bc") apart; identifiers are at most 64 bytes.
            name.push(part.len() as u8);
            name.extend_from_slice(part.as_bytes());
        }
        let mut bytes = [0; 17];
        let [set, rest @ ..] = &mut bytes;
        *set = Self::set_of(user);
        let wide = (u128::from(hash::bytes(0x6f72_6465, &name)) << 64) | u128::from(hash::bytes(0x7220_6e6f, &name));
        rest.copy_from_slice(&wide.to_be_bytes());
        Self(bytes)
    }

    /// The set that a user belongs to: 256 sets, by hash.
    pub fn set_of(user: &UserId) -> u8 {
        homes::set_of(homes::hash_of(user.as_str().as_bytes()))
    }

    /// The set that this order belongs to.
    pub const fn set(self) -> u8 {
        self.0[0]
    }

    /// Its bytes, for a store's keys.
    pub const fn bytes(&self) -> &[u8; 17] {
        &self.0
    }

    /// The number with these bytes, from a store's keys.
    pub const fn from_bytes(bytes: [u8; 17]) -> Self {
        Self(bytes)
    }

    /// Reads one.
    ///
    /// # Errors
    /// The text is not 34 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, BadOrderNo> {
        let text: &[u8; 34] = text.as_bytes().try_into().map_err(|_| BadOrderNo)?;
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8).ok_or(BadOrderNo);
        let mut bytes = [0; 17];
        for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for OrderNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OrderNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for OrderNo {
    type Error = BadOrderNo;
    fn try_from(text: String) -> Result<Self, BadOrderNo> {
        Self::parse(&text)
    }
}

impl From<OrderNo> for String {
    fn from(no: OrderNo) -> Self {
        no.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::tests::claim;
    use super::*;

    #[test]
    fn numbers_never_change_between_releases_and_read_back() {
        let no = claim("u1", "p1").number();
        assert_eq!(no.to_string(), "c2e41ea393139d16715f9b7dcc242eed54");
        assert_eq!(OrderNo::parse(&no.to_string()), Ok(no));
        assert_eq!(no.set(), OrderNo::set_of(&UserId::parse("u1").unwrap()));
        assert_ne!(claim("u1", "p2").number(), claim("u1p", "2").number());
        for bad in ["", "zz", &"g".repeat(34), &"0".repeat(33), &"0".repeat(35), &"\u{e9}".repeat(17)] {
            assert_eq!(OrderNo::parse(bad), Err(BadOrderNo), "{bad}");
        }
    }
}
