//! DNSSEC on the wire (RFC 4034): algorithms, keys, digests, and the head of a signature.
//!
//! Pure octets, like all codecs here: nothing signs or verifies, nothing reads a file or a clock. The canonical form is in
//! `canonical`, type bitmaps in `bitmap`, successors of names in `successor`, key files as BIND writes them in `keyfile`.

pub mod bitmap;
pub mod canonical;
pub mod keyfile;
pub mod successor;

use std::fmt;

use super::name;

/// Flags of a key that signs records (RFC 4034 section 2.1.1: Zone Key).
pub const ZONE_KEY: u16 = 0x0100;
/// Flag of a key that a DS record points to (RFC 4034 section 2.1.1: Secure Entry Point).
pub const SEP: u16 = 0x0001;
/// The only protocol there is (RFC 4034 section 2.1.2).
const PROTOCOL: u8 = 3;
/// Digest type SHA-256 (RFC 4509).
pub const SHA256: u8 = 2;
/// Octets of a signature, with either algorithm (RFC 6605 section 4, RFC 8080 section 4).
pub const SIGNATURE: usize = 64;
/// Octets of RRSIG data ahead of the signer's name (RFC 4034 section 3.1).
pub const RRSIG_HEAD: usize = 18;

/// A signature algorithm that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 6605).
    EcdsaP256 = 13,
    /// Ed25519 (RFC 8080).
    Ed25519 = 15,
}

impl Algorithm {
    /// The algorithm of this number.
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            13 => Some(Self::EcdsaP256),
            15 => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What BIND calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSAP256SHA256",
            Self::Ed25519 => "ED25519",
        }
    }

    /// Octets of a public key as DNSKEY has it.
    pub const fn public_octets(self) -> usize {
        match self {
            Self::EcdsaP256 => 64,
            Self::Ed25519 => 32,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number(), self.as_str())
    }
}

/// DNSKEY data (RFC 4034 section 2.1); CDNSKEY has the same (RFC 7344 section 3.2).
pub fn dnskey(flags: u16, algorithm: Algorithm, public: &[u8]) -> Vec<u8> {
    let [f0, f1] = flags.to_be_bytes();
    [&[f0, f1, PROTOCOL, algorithm.number()], public].concat()
}

/// The key tag of DNSKEY data (RFC 4034 appendix B).
pub fn key_tag(dnskey: &[u8]) -> u16 {
    let (pairs, rest) = dnskey.as_chunks::<2>();
    let sum: u32 = pairs.iter().map(|p| u32::from(u16::from_be_bytes(*p))).sum::<u32>()
        + rest.first().map_or(0, |last| u32::from(*last) << 8);
    (sum + (sum >> 16)) as u16
}

/// DS data (RFC 4034 section 5.1) from its parts; CDS has the same (RFC 7344 section 3.1).
pub fn ds(tag: u16, algorithm: Algorithm, digest: &[u8]) -> Vec<u8> {
    let [t0, t1] = tag.to_be_bytes();
    [&[t0, t1, algorithm.number(), SHA256], digest].concat()
}

/// What stands in a signature beside the octets of the signature itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RrsigHead {
    /// The type that it covers.
    pub covered: u16,
    /// By which algorithm.
    pub algorithm: u8,
    /// How many labels the owner has (RFC 4034 section 3.1.3).
    pub labels: u8,
    /// The TTL that was signed.
    pub ttl: u32,
    /// Until when it is good, in seconds since 1970.
    pub expiration: u32,
    /// Since when.
    pub inception: u32,
    /// The tag of the key that made it.
    pub tag: u16,
}

impl RrsigHead {
    /// The octets ahead of the signer's name.
    pub fn octets(&self) -> [u8; RRSIG_HEAD] {
        let mut out = [0; RRSIG_HEAD];
        out[..2].copy_from_slice(&self.covered.to_be_bytes());
        (out[2], out[3]) = (self.algorithm, self.labels);
        out[4..8].copy_from_slice(&self.ttl.to_be_bytes());
        out[8..12].copy_from_slice(&self.expiration.to_be_bytes());
        out[12..16].copy_from_slice(&self.inception.to_be_bytes());
        out[16..].copy_from_slice(&self.tag.to_be_bytes());
        out
    }

    /// Reads RRSIG data: its head, the signer's name and the signature. `None` where it is cut or the name is broken.
    pub fn read(data: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (head, rest) = data.split_first_chunk::<RRSIG_HEAD>()?;
        let long = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let short = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (signer, signature) = rest.split_at_checked(name::octets(rest)?)?;
        let read = Self {
            covered: short(0),
            algorithm: head[2],
            labels: head[3],
            ttl: long(4),
            expiration: long(8),
            inception: long(12),
            tag: short(16),
        };
        Some((read, signer, signature))
    }
}

/// How many labels an owner counts for a signature: without the root and without a leading `*` (RFC 4034 section 3.1.3).
pub fn labels(owner: &[u8]) -> u8 {
    let all = name::labels(owner).count();
    all.saturating_sub(usize::from(owner.starts_with(b"\x01*"))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_tags_are_those_of_rfc_8080() {
        // RFC 8080 section 6.1: both examples, with their tags.
        for (public, tag) in [
            ("l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=", 3613),
            ("zPnZ/QwEe7S8C5SPz2OfS5RR40ATk2/rYnE9xHIEijs=", 35217),
        ] {
            let public = super::super::rdata::base64(public).unwrap();
            assert_eq!(key_tag(&dnskey(257, Algorithm::Ed25519, &public)), tag);
        }
    }

    #[test]
    fn a_signature_s_head_reads_as_it_was_written() {
        let head = RrsigHead {
            covered: 28,
            algorithm: 13,
            labels: 3,
            ttl: 300,
            expiration: 4_000_000_000,
            inception: 3_999_000_000,
            tag: 60_000,
        };
        let data = [&head.octets()[..], b"\x01z\0", &[7; SIGNATURE]].concat();
        assert_eq!(RrsigHead::read(&data), Some((head, &b"\x01z\0"[..], &[7; SIGNATURE][..])));
        assert_eq!(RrsigHead::read(&data[..19]), None);
    }

    #[test]
    fn labels_count_neither_the_root_nor_a_wildcard() {
        assert_eq!((labels(b"\0"), labels(b"\x01a\x01b\0"), labels(b"\x01*\x01b\0")), (0, 2, 1));
        assert_eq!(labels(b"\x02*a\x01b\0"), 2);
    }
}
