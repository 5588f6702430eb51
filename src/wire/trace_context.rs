//! Trace Context, level 1 (W3C Recommendation, 2021-11-23): which trace a request is a part of, and who asked.
//!
//! `traceparent` is read strictly for version 00; of a later version, what 00 has is read, and 00 is written (section 3.2.4). What
//! cannot be read is no trace, and its `tracestate` counts for nothing (section 3.3).

use std::fmt;

/// Length of version 00.
const LENGTH: usize = 55;
/// Most members of `tracestate`, and most octets of it that are passed on (sections 3.3.1.1 and 3.3.1.5).
const MEMBERS: usize = 32;
const STATE: usize = 512;
/// The one flag of level 1.
const SAMPLED: u8 = 1;

/// Who asked, within which trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace; not 0.
    pub trace: u128,
    /// The span that asked; not 0.
    pub span: u64,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
}

impl Parent {
    /// Reads a `traceparent`. `None`: it is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let [v0, v1, b'-', middle @ ..] = head else { return None };
        let version = hex(&[*v0, *v1])?;
        // Version ff is forbidden; 00 ends here; a later one goes on with a dash if at all.
        let goes_on = match version {
            0xff => return None,
            0 => rest.is_empty(),
            _ => rest.first().is_none_or(|b| *b == b'-'),
        };
        let (trace, middle) = middle.split_at_checked(32)?;
        let [b'-', middle @ ..] = middle else { return None };
        let (span, middle) = middle.split_at_checked(16)?;
        let [b'-', flags @ ..] = middle else { return None };
        let (trace, span, flags) = (hex(trace)?, hex(span)? as u64, hex(flags)? as u8);
        (goes_on && trace != 0 && span != 0).then_some(Self { trace, span, is_sampled: flags & SAMPLED != 0 })
    }
}

impl fmt::Display for Parent {
    /// As version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// Lower-case hexadecimal digits, and nothing else.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// Whether the fields of a `tracestate`, in order, may be passed on: visible text in members `key=value`, not too many.
pub fn may_pass<'v>(state: impl Iterator<Item = &'v [u8]>) -> bool {
    let (mut members, mut octets) = (0, 0);
    for field in state {
        octets += field.len();
        for member in field.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty()) {
            members += 1;
            let Some(equals) = member.iter().position(|b| *b == b'=') else { return false };
            let (key, value) = member.split_at(equals);
            let is_key = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(b);
            let is_value = |b: &u8| matches!(b, b' '..=b'~') && !b",=".contains(b);
            let value = value.get(1..).unwrap_or_default();
            if key.is_empty() || !key.iter().all(is_key) || value.is_empty() || !value.iter().all(is_value) {
                return false;
            }
        }
    }
    members <= MEMBERS && octets <= STATE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_shows_is_read() {
        let parent = Parent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((parent.trace, parent.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
        assert!(parent.is_sampled && parent.to_string() == GOOD);
        let later = format!("cc{}-what-comes-later", &GOOD[2..]);
        assert_eq!(Parent::parse(later.as_bytes()), Some(parent));
        let flags = GOOD.replace("-01", "-fe");
        assert!(!Parent::parse(flags.as_bytes()).unwrap().is_sampled);
    }

    #[test]
    fn what_is_none_is_none() {
        let zero = |digits: &str| GOOD.replace(digits, &"0".repeat(digits.len()));
        let cases = [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("{GOOD} "),
            format!("cc{}.", &GOOD[2..]),
            format!("ff{}", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            zero("4bf92f3577b34da6a3ce929d0e0e4736"),
            zero("00f067aa0ba902b7"),
        ];
        for text in cases {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn state_is_passed_on_only_where_it_is_one() {
        let pass = |fields: &[&str]| may_pass(fields.iter().map(|f| f.as_bytes()));
        assert!(pass(&[]) && pass(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a@b=1 2"]) && pass(&["a=1,,\tb=2"]));
        let many: Vec<String> = (0..33).map(|n| format!("a{n}=1")).collect();
        for bad in
            ["a", "=1", "a=", "A=1", "a=1=2", "a=\u{1}", "a=\u{e9}", &many.join(","), &format!("a={}", "x".repeat(511))]
        {
            assert!(!pass(&[bad]), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_read_is_written_again(text in any::<Vec<u8>>(), trace in 1u128.., span in 1u64.., is_sampled: bool) {
            if let Some(parent) = Parent::parse(&text) {
                prop_assert_eq!(Parent::parse(parent.to_string().as_bytes()), Some(parent));
            }
            may_pass(std::iter::once(&text[..]));
            let parent = Parent { trace, span, is_sampled };
            prop_assert_eq!(Parent::parse(parent.to_string().as_bytes()), Some(parent));
        }
    }
}
