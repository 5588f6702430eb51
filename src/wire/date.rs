//! Dates of HTTP (RFC 9110 section 5.6.7): one form is written, three are read.

use crate::base::civil;
use crate::base::clock::Wall;

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// `at` as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http(at: Wall) -> [u8; 29] {
    let seconds = at.0 / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil::date(days.cast_signed());
    let mut out = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    let digits = |n: u64| [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
    out[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    out[5..7].copy_from_slice(&digits(day.unsigned_abs()));
    out[8..11].copy_from_slice(MONTHS[(month - 1).rem_euclid(12) as usize]);
    let year = year.unsigned_abs();
    out[12..14].copy_from_slice(&digits(year / 100));
    out[14..16].copy_from_slice(&digits(year % 100));
    out[17..19].copy_from_slice(&digits(second / 3_600));
    out[20..22].copy_from_slice(&digits(second / 60 % 60));
    out[23..25].copy_from_slice(&digits(second % 60));
    out
}

/// The date that `text` says, in any of the three forms that a recipient has to know. `None`: it says none.
///
/// A year of two digits is of this century where it is below 70, else of the last one: nothing that HTTP dates is older.
pub fn parse(text: &[u8]) -> Option<Wall> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let (_, second) = (words.next()?, words.next()?);
    let (day, month, year, time) = if let Some((day, rest)) = second.split_once('-') {
        // Sunday, 06-Nov-94 08:49:37 GMT
        let (month, year) = rest.split_once('-')?;
        let year = number(year, 2)?;
        (number(day, 2)?, month, if year < 70 { 2_000 + year } else { 1_900 + year }, words.next()?)
    } else if second.starts_with(|c: char| c.is_ascii_digit()) {
        // Sun, 06 Nov 1994 08:49:37 GMT
        (number(second, 2)?, words.next()?, number(words.next()?, 4)?, words.next()?)
    } else {
        // Sun Nov  6 08:49:37 1994
        let (day, time) = (words.next()?, words.next()?);
        let day = number(day, day.len().min(2))?;
        let year = number(words.next()?, 4)?;
        return at(day, second, year, time).filter(|_| words.next().is_none());
    };
    (words.next()? == "GMT" && words.next().is_none()).then(|| at(day, month, year, time))?
}

fn at(day: u64, month: &str, year: u64, time: &str) -> Option<Wall> {
    let (month, _) = (1_i64..).zip(MONTHS).find(|(_, name)| name.eq_ignore_ascii_case(month.as_bytes()))?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    // A leap second is the next one to whoever has none.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 || day == 0 {
        return None;
    }
    let days = civil::days(year.cast_signed(), month, day.cast_signed());
    // The 31st of a month that has none is no date.
    if civil::date(days) != (year.cast_signed(), month, day.cast_signed()) {
        return None;
    }
    let seconds = days.checked_mul(86_400)? + (hour * 3_600 + minute * 60 + second).cast_signed();
    Some(Wall(u64::try_from(seconds).ok()? * 1_000))
}

/// So many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_forms_are_read() {
        let then = Some(Wall(784_111_777_000));
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes()), then, "{text}");
        }
        assert_eq!(parse(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(Wall(0)));
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 31 Feb 2020 00:00:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..253_402_300_800) {
            let at = Wall(seconds * 1_000);
            prop_assert_eq!(parse(&http(at)), Some(at));
        }
    }

    #[test]
    fn dates_are_written_as_http_wants_them() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_799, "Wed, 28 Feb 2024 23:59:59 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(String::from_utf8_lossy(&http(Wall(seconds * 1_000))), text);
        }
    }
}
