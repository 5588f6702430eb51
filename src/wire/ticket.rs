//! TLS session tickets that any node of a fleet can open: sealed under keys from a file that all of them have.
//!
//! A ticket is `name of its key (16) | nonce (12) | sealed: when it was made (8), the session | tag (16)`. It is sealed with
//! AES-256-GCM-SIV (RFC 8452), which stays safe should two nodes ever draw one nonce. The first key seals, all of them open;
//! [`rotate`] brings a new key in behind the first, so that every node can open its tickets before any seals with it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use super::rdata;
use crate::base::clock::Wall;

/// Octets of a key.
pub const KEY: usize = 32;
/// Octets of a nonce.
pub const NONCE: usize = NONCE_LEN;
/// Keys that a file may have (ours: a day of hourly ones).
pub const MOST_KEYS: usize = 24;
/// Longest ticket: its length has two octets (RFC 8446 section 4.6.1, RFC 5077 section 3.3).
const MAX_TICKET: usize = 65_535;
/// How far the clocks of two nodes may be apart (ours).
const SKEW: Duration = Duration::from_mins(5);
const NAME: usize = 16;
const TIME: usize = 8;
const TAG: usize = 16;

/// What a key is made of: random octets.
pub type Secret = [u8; KEY];

/// The keys of a fleet. What is not the first opens only.
pub struct Keys(Vec<Key>);

struct Key {
    name: [u8; NAME],
    seal: LessSafeKey,
}

/// What is wrong with a file of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// A line that is none.
    #[error("line {line} is no key: expected 64 hexadecimal digits, as `openssl rand -hex 32` prints them")]
    Line {
        /// Which.
        line: usize,
    },
    /// One key twice.
    #[error("line {line} has a key that stands above already")]
    Twice {
        /// Where the second time.
        line: usize,
    },
    /// More than there is a use for.
    #[error("{found} keys are too many: at most {MOST_KEYS}")]
    Many {
        /// How many.
        found: usize,
    },
    /// None at all.
    #[error("no key in it: `springtide keys tickets FILE` makes some")]
    Empty,
}

/// Reads a file of keys: one of 64 hexadecimal digits a line, `#` begins a remark.
///
/// # Errors
/// As [`KeysError`] lists.
pub fn parse(text: &str) -> Result<Vec<Secret>, KeysError> {
    let mut secrets: Vec<Secret> = Vec::new();
    for (line, said) in (1..).zip(text.lines()) {
        let said = said.split('#').next().unwrap_or_default().trim();
        if said.is_empty() {
            continue;
        }
        let secret = rdata::hex(said).and_then(|octets| octets.try_into().ok()).ok_or(KeysError::Line { line })?;
        if secrets.contains(&secret) {
            return Err(KeysError::Twice { line });
        }
        secrets.push(secret);
    }
    match secrets.len() {
        0 => Err(KeysError::Empty),
        1..=MOST_KEYS => Ok(secrets),
        found => Err(KeysError::Many { found }),
    }
}

/// Writes a file of keys.
pub fn write(secrets: &[Secret], remark: &str) -> String {
    let mut text = format!("# Keys of TLS session tickets: the first makes them, all open them. {remark}\n");
    for secret in secrets {
        for b in secret {
            let _ = write!(text, "{b:02x}");
        }
        text.push('\n');
    }
    text
}

/// The keys after `before`, with `fresh` as the next one. The second key, which every node has by now, becomes the first,
/// `fresh` waits behind it, and the others open what they have sealed. At most `keep` stay, two at least.
pub fn rotate(before: &[Secret], fresh: Secret, keep: usize) -> Vec<Secret> {
    let mut after = match before {
        [current, next, older @ ..] => [&[*next, fresh, *current], older].concat(),
        // Nobody else knows a second one yet.
        [current] => vec![*current, fresh],
        [] => vec![fresh],
    };
    after.truncate(keep.clamp(2, MOST_KEYS));
    after
}

impl Keys {
    /// Of these secrets, the first of which seals. `None`: the library refuses them, which it does for none of this length.
    pub fn of(secrets: &[Secret]) -> Option<Self> {
        secrets.iter().map(Key::of).collect::<Option<Vec<_>>>().map(Self)
    }

    /// A ticket for `session`, made at `now`. `None`: it would be too long.
    pub fn seal(&self, session: &[u8], nonce: [u8; NONCE], now: Wall) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        if NAME + NONCE + TIME + session.len() + TAG > MAX_TICKET {
            return None;
        }
        let mut inside = Vec::with_capacity(TIME + session.len() + TAG);
        inside.extend_from_slice(&(now.0 / 1_000).to_be_bytes());
        inside.extend_from_slice(session);
        let nonced = Nonce::assume_unique_for_key(nonce);
        key.seal.seal_in_place_append_tag(nonced, Aad::from(key.name), &mut inside).ok()?;
        Some([&key.name[..], &nonce, &inside].concat())
    }

    /// The session in `ticket`, which was made no longer than `lifetime` before `now`.
    pub fn open(&self, ticket: &[u8], lifetime: Duration, now: Wall) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let key = self.0.iter().find(|key| key.name == *name)?;
        let mut inside = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let open = key.seal.open_in_place(nonce, Aad::from(key.name), &mut inside).ok()?;
        let (made, session) = open.split_first_chunk::<TIME>()?;
        let made = Wall(u64::from_be_bytes(*made).saturating_mul(1_000));
        (now.since(made) <= lifetime && made.since(now) <= SKEW).then(|| session.to_vec())
    }
}

impl Key {
    /// Name and key of a ticket are each a pseudorandom function of the secret: the name tells nothing of the key.
    fn of(secret: &Secret) -> Option<Self> {
        let derive = |what: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), what);
        let (name, key) = (derive(b"springtide ticket name"), derive(b"springtide ticket seal"));
        let seal = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_ref()).ok()?);
        Some(Self { name: *name.as_ref().first_chunk()?, seal })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOW: Wall = Wall(1_800_000_000_000);

    fn keys(secrets: &[u8]) -> Keys {
        Keys::of(&secrets.iter().map(|&s| [s; KEY]).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn whoever_has_the_key_opens_a_ticket_for_as_long_as_it_is_good() {
        let (one, two) = (keys(&[1, 2]), keys(&[3, 1]));
        let ticket = one.seal(b"session", [7; NONCE], NOW).unwrap();
        assert_eq!(two.open(&ticket, HOUR, NOW).unwrap(), b"session", "not its first key, but one of its keys");
        assert_eq!(keys(&[2, 3]).open(&ticket, HOUR, NOW), None);
        assert!(one.open(&ticket, HOUR, NOW + HOUR).is_some());
        assert_eq!(one.open(&ticket, HOUR, NOW + HOUR + Duration::from_secs(1)), None, "too old");
        assert!(one.open(&ticket, HOUR, Wall(NOW.0 - 299_000)).is_some(), "a clock behind ours");
        assert_eq!(one.open(&ticket, HOUR, Wall(NOW.0 - 301_000)), None, "from a future too far away");
        assert_eq!(one.seal(&vec![0; MAX_TICKET - 51], [7; NONCE], NOW), None);
        assert!(format!("{one:?}") == "Keys(2)", "{one:?} shows no key");
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let (a, b) = ("0a".repeat(KEY), "0b".repeat(KEY));
        assert_eq!(parse(&format!("# new\n{a} # in use\n\n  {b}\n")).unwrap(), [[10; KEY], [11; KEY]]);
        assert_eq!(parse(&write(&[[10; KEY], [11; KEY]], "")).unwrap(), [[10; KEY], [11; KEY]]);
        assert_eq!(parse(&format!("{a}\n{}", &b[1..])), Err(KeysError::Line { line: 2 }));
        assert_eq!(parse(&format!("{a}\n#\n{a}")), Err(KeysError::Twice { line: 3 }));
        assert_eq!(parse("# nothing\n"), Err(KeysError::Empty));
        let many: Vec<String> = (0..25).map(|i| format!("{i:064x}")).collect();
        assert_eq!(parse(&many.join("\n")), Err(KeysError::Many { found: 25 }));
    }

    proptest! {
        /// Nodes that are a rotation apart open each other's tickets, as long as keys are kept.
        #[test]
        fn a_rotation_leaves_nobody_out(steps in 1..12_u8, keep in 3..6_usize) {
            let mut before = rotate(&rotate(&[], [100; KEY], keep), [101; KEY], keep);
            for step in 0..steps {
                let after = rotate(&before, [step; KEY], keep);
                prop_assert!(after.len() <= keep);
                prop_assert!(after.contains(&before[0]), "what was sealed is opened");
                prop_assert!(before.contains(&after[0]), "who has not rotated yet opens it too");
                prop_assert_ne!(after[0], before[0]);
                before = after;
            }
        }

        #[test]
        fn a_ticket_that_was_touched_is_none(session in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let keys = keys(&[1, 2]);
            let mut ticket = keys.seal(&session, [7; NONCE], NOW).unwrap();
            prop_assert_eq!(keys.open(&ticket, HOUR, NOW), Some(session));
            let at = at.index(ticket.len());
            ticket[at] ^= 1 << bit;
            prop_assert_eq!(keys.open(&ticket, HOUR, NOW), None);
            prop_assert_eq!(keys.open(&ticket[..at], HOUR, NOW), None);
        }
    }
}
