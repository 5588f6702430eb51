//! A moment, as RFC 3339 writes it: in quotes, or as TOML's own date and time. Without an offset it would mean another moment
//! on every machine, so it must have one.

use serde_json::json;
use toml::de::DeValue;
use toml::value::{Datetime, Offset};

use super::diag::{Code, Finding};
use super::reader::{Item, Kind, Reader};
use super::schema::Shape;
use crate::base::civil;
use crate::base::clock::Wall;

/// A moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) Wall);

impl Kind for Moment {
    fn shape() -> Shape {
        let words = "a date and time with its offset, such as \"2027-02-05T02:00:00+08:00\"";
        Shape::scalar(words, json!({ "type": "string", "format": "date-time" }))
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_datetime() || value.is_str()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let said = match item.value {
            DeValue::Datetime(said) => Some(*said),
            DeValue::String(text) => text.parse::<Datetime>().ok(),
            _ => {
                reader.mismatch(item, &Self::shape(), None);
                return None;
            }
        };
        let wrong = |message: &str| Finding::error(Code::BadValue, item.span, message).expected(Self::shape().words());
        let finding = match said {
            None => wrong("this is no date and time"),
            Some(Datetime { date: Some(_), time: Some(_), offset: None }) => wrong("this moment has no offset")
                .hint("add `Z` for UTC, or the offset of your place, such as `+08:00`"),
            Some(said) => match wall(&said) {
                Some(wall) => return Some(Self(wall)),
                None => wrong("a date and a time are wanted, from 1970 on"),
            },
        };
        reader.notes.push(finding);
        None
    }
}

/// Milliseconds since the Unix epoch.
fn wall(said: &Datetime) -> Option<Wall> {
    let (date, time) = (said.date?, said.time?);
    let minutes = match said.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let seconds = civil::days(date.year.into(), date.month.into(), date.day.into()) * 86_400
        + i64::from(time.hour) * 3_600
        + (i64::from(time.minute) - minutes) * 60
        + i64::from(time.second.unwrap_or(0));
    let millis = i64::from(time.nanosecond.unwrap_or(0)) / 1_000_000;
    u64::try_from(seconds.checked_mul(1_000)?.checked_add(millis)?).ok().map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_every_other_clock() {
        // As `date -u -d ... +%s` says.
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2027-02-05T02:00:00+08:00", 1_801_764_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2026-12-31T23:59:59-01:30", 1_798_766_999),
        ] {
            assert_eq!(wall(&text.parse().unwrap()), Some(Wall(seconds * 1_000)), "{text}");
        }
        assert_eq!(wall(&"1969-12-31T23:59:59Z".parse().unwrap()), None);
        assert_eq!(wall(&"2027-02-05".parse().unwrap()), None);
    }
}
