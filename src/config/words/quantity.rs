//! Quantities, each with its unit: durations, shares, rates, sizes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Word, Wrong, short};
use crate::base::units;

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Time<const MIN: u64, const MAX: u64>(pub(in crate::config) Duration);

impl<const MIN: u64, const MAX: u64> Word for Time<MIN, MAX> {
    fn words() -> String {
        let show = |ms| units::show_duration(Duration::from_millis(ms));
        let example = [500, 2_000, 20_000].into_iter().find(|ms| (MIN..=MAX).contains(ms)).unwrap_or(MAX);
        format!("a duration from {} to {}, such as \"{}\"", show(MIN), show(MAX), show(example))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let Ok(duration) = units::duration(text) else {
            let wrong = Wrong::new(format!("`{}` is not a duration", short(text)));
            return Err(match text.trim().parse::<f64>() {
                Ok(number) => wrong.hint(format!("add its unit: \"{number}ms\" or \"{number}s\"")),
                Err(_) => wrong.hint("units are us, ms, s, m, h and d"),
            });
        };
        if (Duration::from_millis(MIN)..=Duration::from_millis(MAX)).contains(&duration) {
            Ok(Self(duration))
        } else {
            Err(Wrong::range(format!("`{}` is out of range", short(text))))
        }
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("every duration carries its unit: \"{number}ms\" or \"{number}s\""))
    }
}

/// A share in per cent, as a fraction.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Share(pub(in crate::config) f64);

impl Word for Share {
    fn words() -> String {
        "a share from 0% to 100%, such as \"20%\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        units::share(text).map(Self).map_err(|_| {
            let wrong = Wrong::new(format!("`{}` is not a share", short(text)));
            match Self::from_number(text.trim()) {
                Some(hint) => wrong.hint(hint),
                None => wrong,
            }
        })
    }

    fn from_number(number: &str) -> Option<String> {
        let said: f64 = number.parse().ok()?;
        let percent = if number.contains('.') && said <= 1.0 { said * 100.0 } else { said };
        (0.0..=100.0).contains(&percent).then(|| format!("write it in per cent: \"{percent}%\""))
    }
}

/// A rate in requests a second.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Rate(pub(in crate::config) f64);

impl Word for Rate {
    fn words() -> String {
        "a rate such as \"500 rps\" or \"48k rps\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *[kM]? *[rq]ps$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match units::rate(text) {
            Ok(rate) if rate > 0.0 && rate <= 1e12 => Ok(Self(rate)),
            Ok(_) => Err(Wrong::range(format!("`{}` is out of range", short(text)))),
            Err(_) => Err(Wrong::new(format!("`{}` is not a rate", short(text)))),
        }
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("every rate carries its unit: \"{number} rps\""))
    }
}

/// One of so many, as `1/1000`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Sampling(pub(in crate::config) u32);

impl Word for Sampling {
    fn words() -> String {
        "one of so many, from \"1/1\" to \"1/1000000\", such as \"1/1000\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^1/[0-9]+$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is no sampling", short(text)));
        match text.trim().strip_prefix("1/").map(str::parse) {
            Some(Ok(of @ 1..=1_000_000)) => Ok(Self(of)),
            Some(Ok(_)) => Err(Wrong::range(format!("`{}` is out of range", short(text)))),
            _ => Err(match text.strip_suffix('%').and_then(|p| p.trim().parse::<f64>().ok()).filter(|p| *p > 0.0) {
                Some(percent) if percent <= 100.0 => wrong().hint(format!("write it as \"1/{:.0}\"", 100.0 / percent)),
                _ => wrong(),
            }),
        }
    }

    fn from_number(number: &str) -> Option<String> {
        let said: f64 = number.parse().ok()?;
        let of = if said > 0.0 && said <= 1.0 { 1.0 / said } else { said };
        (1.0..=1e6).contains(&of).then(|| format!("write it as \"1/{of:.0}\""))
    }
}

/// A size of at most 1 GiB, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

impl Word for Size {
    fn words() -> String {
        "a size of at most 1GiB, such as \"64KiB\" or \"1MiB\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match units::size(text) {
            Ok(size) if size <= 1 << 30 => Ok(Self(size)),
            Ok(_) => Err(Wrong::range(format!("`{}` is out of range", short(text)))),
            Err(_) => Err(Wrong::new(format!("`{}` is not a size", short(text))).hint("units are B, KiB, MiB and GiB")),
        }
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("every size carries its unit: \"{number}B\""))
    }
}
