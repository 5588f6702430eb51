//! Points in time as people write them: RFC 3339, with an offset.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::clock::Wall;

/// A moment, such as `2027-02-05T20:00:00+08:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(jiff::Timestamp);

/// A text that is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a moment such as \"2027-02-05T20:00:00+08:00\"")]
pub struct BadMoment;

impl Moment {
    /// On the wall clock; what lies before 1970 is its beginning.
    pub fn wall(self) -> Wall {
        Wall(u64::try_from(self.0.as_millisecond()).unwrap_or_default())
    }
}

impl From<Wall> for Moment {
    /// What lies beyond the year 9999 is its end.
    fn from(wall: Wall) -> Self {
        let at = i64::try_from(wall.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Self(at.unwrap_or(jiff::Timestamp::MAX))
    }
}

impl TryFrom<String> for Moment {
    type Error = BadMoment;
    fn try_from(text: String) -> Result<Self, BadMoment> {
        text.parse().map(Self).map_err(|_| BadMoment)
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_and_write() {
        let moment = Moment::try_from("2027-02-05T20:00:00+08:00".to_owned()).unwrap();
        assert_eq!(moment.wall(), Wall(1_801_828_800_000));
        assert_eq!(moment.to_string(), "2027-02-05T12:00:00Z");
        assert_eq!(Moment::from(moment.wall()), moment);
        assert_eq!(Moment::try_from("tomorrow".to_owned()), Err(BadMoment));
        assert!(Moment::from(Wall(u64::MAX)).to_string().starts_with("9999"));
    }
}
