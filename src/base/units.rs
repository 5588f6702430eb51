//! Quantities as people write them: `500ms`, `64KiB`, `48k rps`, `20%`, `1 per 5s`.
//!
//! Parsing says what was wrong and what would be right; formatting gives back the shortest form that parses to the
//! same value. A bare number is refused: every duration, size and rate carries its unit.

use std::time::Duration;

/// Why a quantity was refused: what was expected, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnitError {
    /// What would have been right, with an example.
    pub expected: &'static str,
}

const DURATION: UnitError =
    UnitError { expected: "a duration with its unit, such as \"500ms\", \"2s\", \"5m\", \"1h\" or \"7d\"" };
const SIZE: UnitError = UnitError { expected: "a size with its unit, such as \"512B\", \"64KiB\" or \"1MiB\"" };
const RATE: UnitError = UnitError { expected: "a rate with its unit, such as \"500 rps\" or \"48k rps\"" };
const SHARE: UnitError = UnitError { expected: "a share in per cent, such as \"20%\"" };
const PER: UnitError = UnitError { expected: "a count in a time, such as \"1 per 5s\"" };

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text.get(..at)?.parse().ok()?;
    Some((number, text.get(at..)?.trim()))
}

/// Reads a duration: `us`, `ms`, `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text).ok_or(DURATION)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return Err(DURATION),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| DURATION)
}

/// Writes a duration in the largest unit that divides it.
pub fn show_duration(d: Duration) -> String {
    let us = d.as_micros();
    for (unit, size) in
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)]
    {
        if us >= size && us.is_multiple_of(size) {
            return format!("{}{unit}", us / size);
        }
    }
    if us == 0 { "0s".into() } else { format!("{us}us") }
}

/// Reads a size in bytes: `B`, `KiB`, `MiB`, `GiB`.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(SIZE)?;
    let scale = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(SIZE),
    };
    Ok((number * scale) as u64)
}

/// Reads a rate in requests or queries a second: `rps` or `qps`, with `k` or `M` before it.
pub fn rate(text: &str) -> Result<f64, UnitError> {
    let (number, unit) = split(text).ok_or(RATE)?;
    match unit.split_whitespace().collect::<String>().as_str() {
        "rps" | "qps" => Ok(number),
        "krps" | "kqps" => Ok(number * 1e3),
        "Mrps" | "Mqps" => Ok(number * 1e6),
        _ => Err(RATE),
    }
}

/// Reads a share as a fraction: `20%` is 0.2. At most `100%`.
pub fn share(text: &str) -> Result<f64, UnitError> {
    match split(text) {
        Some((number, "%")) if number <= 100.0 => Ok(number / 100.0),
        _ => Err(SHARE),
    }
}

/// Reads a count in a time: `1 per 5s` is `(1, 5 s)`.
pub fn per(text: &str) -> Result<(u32, Duration), UnitError> {
    let (count, time) = text.split_once("per").ok_or(PER)?;
    let count: u32 = count.trim().parse().map_err(|_| PER)?;
    let time = duration(time).map_err(|_| PER)?;
    if count == 0 || time.is_zero() { Err(PER) } else { Ok((count, time)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_written() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!((rate("48k rps"), rate("500 qps")), (Ok(48_000.0), Ok(500.0)));
        assert_eq!(share("20%"), Ok(0.2));
        assert_eq!(per("1 per 5s"), Ok((1, Duration::from_secs(5))));
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_an_example() {
        for bad in ["500", "", "ms", "5 parsecs", "-1s", "1e400s", "9e99h"] {
            assert_eq!(duration(bad), Err(DURATION), "{bad}");
        }
        assert!(size("10").is_err() && rate("10").is_err() && share("120%").is_err() && per("0 per 5s").is_err());
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["500ms", "2s", "5m", "1h", "7d", "1500ms", "250us", "0s"] {
            assert_eq!(duration(text).map(show_duration).as_deref(), Ok(text));
        }
    }
}
