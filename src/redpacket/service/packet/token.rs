//! What a grab gives: leave to open one packet, for one user, for a while. Whoever has not grabbed does not reach the
//! ledger, and nobody makes a token but this key's holders: an HMAC-SHA256 over packet, user and end.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::{constant_time, hmac, rand};

use crate::base::clock::Wall;
use crate::redpacket::model::{PacketId, UserId};

const KEY_BYTES: usize = 32;
/// Bytes of the code that a token carries: nobody guesses 128 bits.
const CODE_BYTES: usize = 16;

/// Makes tokens and knows its own.
pub struct Tokens(hmac::Key);

impl Tokens {
    /// With this key, which every process that knows it shares: any of them takes the others' tokens.
    pub fn with(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// With a key that nobody else has: tokens end with the process.
    ///
    /// # Errors
    /// The system gives no secrets.
    pub fn random() -> io::Result<Self> {
        secret().map(|key| Self::with(&key))
    }

    /// With the key in the file at `path`, made for this user alone where there is none: tokens outlive the process.
    ///
    /// # Errors
    /// The file cannot be read or made, or is no key.
    pub fn load(path: &Path) -> io::Result<Self> {
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let key = secret()?;
                file.write_all(&key)?;
                file.sync_all()?;
                Ok(Self::with(&key))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (mut key, mut more) = ([0; KEY_BYTES], [0; 1]);
                let mut file = fs::File::open(path)?;
                file.read_exact(&mut key)?;
                match file.read(&mut more)? {
                    0 => Ok(Self::with(&key)),
                    _ => Err(io::Error::new(io::ErrorKind::InvalidData, "longer than a key")),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Leave for `user` to open `packet` until `until`.
    pub(super) fn grant(&self, packet: &PacketId, user: &UserId, until: Wall) -> String {
        let mut token = format!("{:x}.", until.0);
        for byte in self.code(packet, user, until) {
            // Writing into a text cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }

    /// Whether `token` is leave for `user` to open `packet` now.
    pub(super) fn holds(&self, token: &str, packet: &PacketId, user: &UserId, now: Wall) -> bool {
        let read = || {
            let (until, code) = token.split_once('.')?;
            let until = Wall(u64::from_str_radix(until, 16).ok()?);
            let code: &[u8; 2 * CODE_BYTES] = code.as_bytes().try_into().ok()?;
            let mut bytes = [0; CODE_BYTES];
            for (byte, pair) in bytes.iter_mut().zip(code.as_chunks::<2>().0) {
                let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
                *byte = digit(pair[0])? << 4 | digit(pair[1])?;
            }
            Some((until, bytes))
        };
        read().is_some_and(|(until, code)| {
            let own = self.code(packet, user, until);
            now < until && constant_time::verify_slices_are_equal(&own, &code).is_ok()
        })
    }

    fn code(&self, packet: &PacketId, user: &UserId, until: Wall) -> [u8; CODE_BYTES] {
        let mut name = until.0.to_le_bytes().to_vec();
        for part in [packet.as_str(), user.as_str()] {
            // Lengths keep ("ab", "c") and ("a", "bc") apart; identifiers are at most 64 bytes.
            name.push(part.len() as u8);
            name.extend_from_slice(part.as_bytes());
        }
        let tag = hmac::sign(&self.0, &name);
        let mut code = [0; CODE_BYTES];
        code.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        code
    }
}

/// Bytes that nobody can guess.
pub(super) fn secret<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no secrets"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str) -> PacketId {
        PacketId::parse(name).unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn a_token_is_for_one_packet_one_user_and_a_while() {
        let tokens = Tokens::random().unwrap();
        let token = tokens.grant(&packet("ab"), &user("c"), Wall(1_000));
        let holds = |p: &str, u: &str, now| tokens.holds(&token, &packet(p), &user(u), Wall(now));
        assert!(holds("ab", "c", 999));
        assert!(!holds("ab", "c", 1_000), "over");
        assert!(!holds("ab", "d", 1) && !holds("a", "bc", 1) && !holds("abc", "c", 1));
        assert!(!Tokens::random().unwrap().holds(&token, &packet("ab"), &user("c"), Wall(1)), "another key");
        let later = token.replacen("3e8.", "3e9.", 1);
        assert_ne!(later, token);
        assert!(!tokens.holds(&later, &packet("ab"), &user("c"), Wall(1)), "a longer while");
        for bad in ["", ".", "3e8", "3e8.", "3e8.zz", &"f".repeat(400), "\u{e9}.\u{e9}", &format!("{token}0")] {
            assert!(!tokens.holds(bad, &packet("ab"), &user("c"), Wall(1)), "{bad}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grab.key");
        let token = Tokens::load(&path).unwrap().grant(&packet("p"), &user("u"), Wall(9));
        assert!(Tokens::load(&path).unwrap().holds(&token, &packet("p"), &user("u"), Wall(8)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for wrong in [vec![0; 31], vec![0; 33]] {
            fs::write(&path, wrong).unwrap();
            assert!(Tokens::load(&path).is_err());
        }
    }
}
