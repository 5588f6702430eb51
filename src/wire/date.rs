//! `Date` (RFC 9110 section 5.6.7): the IMF-fixdate form, the only one that is written.

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

#[cfg(test)]
mod tests {
    use super::*;

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
