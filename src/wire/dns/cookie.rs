//! DNS cookies (RFC 7873) with server cookies that any implementation can make and check (RFC 9018, version 1).
//!
//! A client that shows a server cookie of ours has received an answer at its address before: it is no victim of forged
//! queries. The secrets come from a file that a whole fleet shares, in the format that NSD and unbound keep theirs in. Reads
//! no clock and makes no secret; what is checked or made is not remembered.

use std::net::IpAddr;

use crate::base::hash;
use crate::wire::rdata;

/// Option code (RFC 7873 section 4).
pub const CODE: u16 = 10;
/// Octets of the cookie that a client makes.
pub const CLIENT: usize = 8;
/// Octets of a server cookie of version 1.
pub const SERVER: usize = 16;
/// Octets of both.
pub const WHOLE: usize = CLIENT + SERVER;
/// The most secrets that are in use at a time: the one that makes cookies, the one to come, the one before.
const MAX_SECRETS: usize = 3;

/// For how long a cookie is good, in seconds (RFC 9018 section 4.3).
const LIFETIME: i32 = 3_600;
/// How far the clocks of a fleet may be apart, in seconds (the same).
const SKEW: i32 = 300;
/// From this age on a client gets a new cookie, in seconds (the same).
const RENEW: i32 = 1_800;
/// The version that all of this is.
const VERSION: u8 = 1;

/// The option as a query has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    client: [u8; CLIENT],
    /// A server cookie, where it has the length of ours. Of another length it is nobody's here.
    server: Option<[u8; SERVER]>,
    /// Whether there is a server cookie, of whatever length.
    shown: bool,
}

/// The option has an impossible length, which means FORMERR (RFC 7873 section 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cookie has 8 octets, or 16 to 40")]
pub struct CookieError;

impl Cookie {
    /// Reads the option's data as a query has it.
    ///
    /// # Errors
    /// An impossible length.
    pub fn parse(data: &[u8]) -> Result<Self, CookieError> {
        let (client, server) = data.split_first_chunk::<CLIENT>().ok_or(CookieError)?;
        match server.len() {
            0 => Ok(Self { client: *client, server: None, shown: false }),
            8..=32 => Ok(Self { client: *client, server: server.try_into().ok(), shown: true }),
            _ => Err(CookieError),
        }
    }

    /// Whether the client shows a server cookie, be it good or not.
    pub const fn is_shown(&self) -> bool {
        self.shown
    }
}

/// The secrets of this node, the newest first to make cookies with. Without any, cookies are not spoken.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<[u8; 16]>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// What is wrong with a file of secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// A line that is none.
    #[error("line {line} is no secret: expected 32 hexadecimal digits, as `openssl rand -hex 16` prints them")]
    Line {
        /// Which.
        line: usize,
    },
    /// More than can be in use.
    #[error("{found} secrets are too many: the one in use, the next and the one before are all that count")]
    Many {
        /// How many.
        found: usize,
    },
    /// None at all.
    #[error("there is no secret in it: write 32 hexadecimal digits, as `openssl rand -hex 16` prints them")]
    Empty,
}

impl Secrets {
    /// One secret, which makes and checks.
    pub fn one(secret: [u8; 16]) -> Self {
        Self(vec![secret])
    }

    /// Reads a file of secrets: one a line in hexadecimal, the first one makes cookies, all of them check; empty lines and
    /// what follows a `#` mean nothing.
    ///
    /// # Errors
    /// As [`SecretError`] lists.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut secrets = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let secret = rdata::hex(line).and_then(|octets| octets.try_into().ok());
                secrets.push(secret.ok_or(SecretError::Line { line: number })?);
            }
        }
        match secrets.len() {
            0 => Err(SecretError::Empty),
            1..=MAX_SECRETS => Ok(Self(secrets)),
            found => Err(SecretError::Many { found }),
        }
    }

    /// Whether cookies are spoken.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What `client` gets for the cookie that it sent at `now` (seconds since 1970, the low 32 bits of them), and whether it
    /// showed a server cookie of ours. `None` where there are no secrets.
    ///
    /// What it sent comes back only if it is good and young; everything else gets a new one.
    pub fn answer(&self, cookie: &Cookie, client: IpAddr, now: u32) -> Option<(bool, [u8; WHOLE])> {
        let newest = self.0.first()?;
        let shown = cookie.server.filter(|server| is_timely(server, now)).and_then(|server| {
            let good = |secret: &&[u8; 16]| seal(cookie.client, &server, client, secret) == server;
            self.0.iter().find(good).map(|secret| (server, secret))
        });
        let server = match shown {
            Some((server, secret)) if secret == newest && age(&server, now) < RENEW => server,
            _ => {
                let [t0, t1, t2, t3] = now.to_be_bytes();
                let mut server = [0; SERVER];
                server[0] = VERSION;
                [server[4], server[5], server[6], server[7]] = [t0, t1, t2, t3];
                seal(cookie.client, &server, client, newest)
            }
        };
        let mut whole = [0; WHOLE];
        whole[..CLIENT].copy_from_slice(&cookie.client);
        whole[CLIENT..].copy_from_slice(&server);
        Some((shown.is_some(), whole))
    }
}

/// How old a server cookie is, in seconds; negative where it comes from the future. Time is compared as a serial number (RFC
/// 1982), as RFC 9018 section 4.3 asks.
const fn age(server: &[u8; SERVER], now: u32) -> i32 {
    now.wrapping_sub(u32::from_be_bytes([server[4], server[5], server[6], server[7]])).cast_signed()
}

fn is_timely(server: &[u8; SERVER], now: u32) -> bool {
    server[0] == VERSION && (-SKEW..=LIFETIME).contains(&age(server, now))
}

/// The server cookie with its hash: SipHash-2-4 over the client's cookie, what stands before the hash, and the client's
/// address (RFC 9018 section 4.4).
fn seal(cookie: [u8; CLIENT], server: &[u8; SERVER], client: IpAddr, secret: &[u8; 16]) -> [u8; SERVER] {
    let mut input = [0; CLIENT + 8 + 16];
    input[..8].copy_from_slice(&cookie);
    input[8..16].copy_from_slice(&server[..8]);
    let length = match client.to_canonical() {
        IpAddr::V4(a) => {
            input[16..20].copy_from_slice(&a.octets());
            20
        }
        IpAddr::V6(a) => {
            input[16..32].copy_from_slice(&a.octets());
            32
        }
    };
    let hash = hash::sip24(*secret, &input[..length]);
    let mut sealed = *server;
    sealed[8..].copy_from_slice(&hash.to_le_bytes());
    sealed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// RFC 9018 appendix A: secrets, the client's address, what it sent, when, whether that was good, what it gets.
    #[test]
    fn the_rfc_s_own_cookies_are_made_and_known() {
        let first = "e5e973e5a6b2a43f48e7dc849e37bfcf";
        let rolled = "445536bcd2513298075a5d379663c962 # in use\ndd3bdf9344b678b185a6f5cb60fca715\n";
        let cases = [
            // A.1: a client learns its first server cookie.
            (first, "198.51.100.100", "2464c4abcf10c957", 1_559_731_985, false, "010000005cf79f111f8130c3eee29480"),
            // A.2: forty minutes later it gets a new one.
            (
                first,
                "198.51.100.100",
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
                1_559_734_385,
                true,
                "010000005cf7a871d4a564a1442aca77",
            ),
            // A.3: reserved bits are part of the hash, not of the judgement. (The example shows a cookie of 112 minutes; that
            // is expired, so it is looked at when it was young, below.)
            (
                first,
                "203.0.113.203",
                "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
                1_559_734_700,
                false,
                "010000005cf7a9acf73a7810aca2381e",
            ),
            // A.4: after a roll; what the old secret made is good and is replaced at once.
            (
                rolled,
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
                1_559_741_961,
                true,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ];
        for (secrets, client, sent, now, good, server) in cases {
            let secrets = Secrets::parse(secrets).unwrap();
            let cookie = Cookie::parse(&bytes(sent)).unwrap();
            let (was_good, whole) = secrets.answer(&cookie, client.parse().unwrap(), now).unwrap();
            assert_eq!((was_good, &whole[..CLIENT]), (good, &bytes(sent)[..CLIENT]), "{sent}");
            assert_eq!(whole[CLIENT..], bytes(server), "{sent}");
        }
        let young = Cookie::parse(&bytes("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")).unwrap();
        let (good, _) =
            Secrets::parse(first).unwrap().answer(&young, "203.0.113.203".parse().unwrap(), 0x5cf7_8f71).unwrap();
        assert!(good, "reserved bits that are not zero");
    }

    #[test]
    fn lengths_are_the_rfc_s() {
        for length in 0..=64 {
            let said = Cookie::parse(&vec![7; length]);
            assert_eq!(said.is_ok(), length == 8 || (16..=40).contains(&length), "{length}");
            assert_eq!(said.is_ok_and(|c| c.server.is_some()), length == WHOLE, "{length}");
        }
    }

    #[test]
    fn a_file_of_secrets_reads_or_says_why_not() {
        let line = "00112233445566778899aabbccddeeff";
        let text = format!("# fleet\n\n{line} # in use\r\n{}\n", line.to_uppercase());
        assert_eq!(Secrets::parse(&text).map(|s| s.0.len()), Ok(2));
        assert_eq!(Secrets::parse("# none\n"), Err(SecretError::Empty));
        assert_eq!(Secrets::parse(&format!("{line}\nnonsense")), Err(SecretError::Line { line: 2 }));
        assert_eq!(Secrets::parse(&format!("\n{line}0")), Err(SecretError::Line { line: 2 }));
        assert_eq!(Secrets::parse("+0112233445566778899aabbccddeeff"), Err(SecretError::Line { line: 1 }));
        assert_eq!(Secrets::parse(&format!("{line}\n").repeat(4)), Err(SecretError::Many { found: 4 }));
        assert_eq!(format!("{:?}", Secrets::one([7; 16])), "Secrets(1)", "a log shows no secret");
        let nobody = Secrets::default().answer(&Cookie::parse(&[0; 8]).unwrap(), [192, 0, 2, 1].into(), 0);
        assert_eq!(nobody, None);
    }

    proptest! {
        /// A cookie is good for its client from five minutes before it was made to an hour after, and for nobody else.
        #[test]
        fn a_cookie_is_good_for_its_client_and_its_hour(
            secret: [u8; 16], other: [u8; 16], client: [u8; 4], stranger: [u8; 4], cookie: [u8; 8], made: u32,
            later in -10_000i32..10_000,
        ) {
            prop_assume!(secret != other && client != stranger);
            let secrets = Secrets::one(secret);
            let asked = Cookie::parse(&cookie).unwrap();
            let (good, whole) = secrets.answer(&asked, client.into(), made).unwrap();
            prop_assert!(!good);
            let shown = Cookie::parse(&whole).unwrap();
            let now = made.wrapping_add_signed(later);
            let (good, again) = secrets.answer(&shown, client.into(), now).unwrap();
            prop_assert_eq!(good, (-300..=3_600).contains(&later));
            prop_assert_eq!(again == whole, (-300..1_800).contains(&later), "it comes back while it is young");
            prop_assert!(!secrets.answer(&shown, stranger.into(), made).unwrap().0);
            prop_assert!(!Secrets::one(other).answer(&shown, client.into(), made).unwrap().0);
            // The one before is known, and its cookies are replaced.
            let both = Secrets(vec![other, secret]);
            let (good, fresh) = both.answer(&shown, client.into(), made).unwrap();
            prop_assert!(good && fresh != whole);
            // IPv4 as a socket of both families shows it is the same client.
            let mapped = std::net::Ipv4Addr::from(client).to_ipv6_mapped();
            prop_assert!(secrets.answer(&shown, mapped.into(), made).unwrap().0);
        }
    }
}
