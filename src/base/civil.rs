//! The civil calendar: days since 1970-01-01 and dates of the Gregorian calendar, both ways (Howard Hinnant,
//! "chrono-Compatible Low-Level Date Algorithms"). Knows no time zones and no leap seconds.

/// Days of 400 years, after which everything repeats.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// Days from 1970-01-01 to a day. Years begin in March here, so that the leap day is the last day of one and months have
/// lengths that repeat.
pub const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH
}

/// The way back of [`days`]: year, month, day.
pub const fn date(days: i64) -> (i64, i64, i64) {
    let (era, day) = ((days + EPOCH).div_euclid(ERA), (days + EPOCH).rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    if month < 10 { (era * 400 + year, month + 3, day) } else { (era * 400 + year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every day until seconds no longer fit 32 bits, counted one by one.
    #[test]
    fn every_day_from_1970_to_2106_both_ways() {
        let mut count = 0;
        for year in 1970..=2106 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if leap { 29 } else { 28 };
            for (length, month) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().zip(1..) {
                for day in 1..=length {
                    assert_eq!((days(year, month, day), date(count)), (count, (year, month, day)));
                    count += 1;
                }
            }
        }
        assert_eq!((date(-1), days(1969, 12, 31)), ((1969, 12, 31), -1));
    }
}
