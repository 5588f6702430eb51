//! TSIG (RFC 8945): the signature of a message with a secret that both sides have.
//!
//! Reads the record at a message's end, verifies it, signs answers: one message, or a sequence of them (section 5.3.1).
//! Takes the time as an argument. Truncated signatures are not taken (section 5.2.2.1 leaves that to policy).

use aws_lc_rs::{constant_time, hmac};

use super::dns::{HEADER, Record, rtype, sections};
use super::name;

/// How far clocks may lie apart, in seconds (RFC 8945 section 10).
pub const FUDGE: u16 = 300;
/// The longest signature of ours: HMAC-SHA512.
const MAX_MAC: usize = 64;
/// The shortest that a signature may be cut to, whatever the algorithm (RFC 8945 section 5.2.2.1).
const MIN_MAC: usize = 10;
/// Class ANY.
const ANY: u16 = 255;

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Sha256,
    /// HMAC with SHA-384.
    Sha384,
    /// HMAC with SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// What it is called (RFC 8945 section 6), without the final dot.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    /// Octets of its signature, and of a secret worth having.
    pub const fn octets(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    const fn wire(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"\x0bhmac-sha256\0",
            Self::Sha384 => b"\x0bhmac-sha384\0",
            Self::Sha512 => b"\x0bhmac-sha512\0",
        }
    }

    const fn hash(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// A secret with its name. Shows the name alone.
#[derive(Clone)]
pub struct Key {
    name: Box<[u8]>,
    algorithm: Algorithm,
    secret: hmac::Key,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} {})", name::show(&self.name), self.algorithm.as_str())
    }
}

impl Key {
    /// The key called `name` (wire format, any case).
    pub fn new(name: &[u8], algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { name: name::lower(name), algorithm, secret: hmac::Key::new(algorithm.hash(), secret) }
    }

    /// Its name, lower case.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Octets that its record takes behind a message, without other data.
    pub fn record_octets(&self) -> usize {
        self.name.len() + 10 + self.algorithm.wire().len() + 16 + self.algorithm.octets()
    }
}

/// What is wrong with a signature, as the answer's error field says it (RFC 8945 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Bad {
    /// It cannot be one: its length is impossible. The whole message is malformed.
    Form = 1,
    /// The signature does not fit.
    Sig = 16,
    /// No such key here, or not by this algorithm.
    Key = 17,
    /// The clocks lie too far apart.
    Time = 18,
    /// The signature is cut shorter than we take.
    Trunc = 22,
}

/// The record at the end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tsig<'p> {
    /// Where it begins.
    pub start: usize,
    key: &'p [u8],
    algorithm: &'p [u8],
    time: u64,
    fudge: u16,
    mac: &'p [u8],
    id: u16,
    error: u16,
    other: &'p [u8],
}

impl<'p> Tsig<'p> {
    /// Reads the record that begins at `start`, where [`find`] found it. `None` where it breaks its own form: the message
    /// is malformed then.
    pub fn read(packet: &'p [u8], start: usize) -> Option<Self> {
        let key = name_at(packet, start)?;
        let record = Record::read(packet, start)?;
        let data = record.data;
        // Class ANY and TTL 0 (section 4.2); nothing follows.
        if (record.rtype, record.class, record.ttl) != (rtype::TSIG, ANY, 0) || record.end() != packet.len() {
            return None;
        }
        let algorithm = name_at(data, 0)?;
        let (fixed, rest) = data.get(algorithm.len()..)?.split_first_chunk::<10>()?;
        let [t0, t1, t2, t3, t4, t5, f0, f1, m0, m1] = *fixed;
        let (mac, rest) = rest.split_at_checked(u16::from_be_bytes([m0, m1]).into())?;
        let (&[i0, i1, e0, e1, o0, o1], other) = rest.split_first_chunk::<6>()?;
        let time = u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]);
        let (fudge, id, error) =
            (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([i0, i1]), u16::from_be_bytes([e0, e1]));
        let whole = other.len() == usize::from(u16::from_be_bytes([o0, o1]));
        whole.then_some(Self { start, key, algorithm, time, fudge, mac, id, error, other })
    }

    /// When it was made, in seconds since the epoch.
    pub const fn time(&self) -> u64 {
        self.time
    }

    /// The error that the other side tells of.
    pub const fn error(&self) -> u16 {
        self.error
    }

    /// Which of `keys` it names.
    pub fn key<'k, K: AsRef<Key>>(&self, keys: &'k [K]) -> Option<&'k Key> {
        let fits =
            |k: &&Key| k.name.eq_ignore_ascii_case(self.key) && k.algorithm.wire().eq_ignore_ascii_case(self.algorithm);
        keys.iter().map(AsRef::as_ref).find(fits)
    }

    /// Whether it is the signature of `packet`, which it ends, by `key`, at `now` (seconds since the epoch). `before` is
    /// the signature of the request, where `packet` is the answer. Key, signature and time are judged in this order
    /// (section 5.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, packet: &[u8], key: &Key, before: &[u8], now: u64) -> Result<(), Bad> {
        let full = key.algorithm.octets();
        if self.mac.len() > full || self.mac.len() < MIN_MAC.max(full / 2) {
            return Err(Bad::Form);
        }
        let message = packet.get(..self.start).ok_or(Bad::Form)?;
        let mut hash = hmac::Context::with_key(&key.secret);
        prior(&mut hash, before);
        unsigned(&mut hash, message, self.id);
        self.variables(&mut hash);
        let ours = hash.sign();
        let part = ours.as_ref().get(..self.mac.len()).unwrap_or_default();
        if constant_time::verify_slices_are_equal(part, self.mac).is_err() {
            return Err(Bad::Sig);
        }
        if now.abs_diff(self.time) > u64::from(self.fudge) {
            return Err(Bad::Time);
        }
        if self.mac.len() < full { Err(Bad::Trunc) } else { Ok(()) }
    }

    fn variables(&self, hash: &mut hmac::Context) {
        variables(hash, self.key, self.algorithm);
        timers(hash, self.time, self.fudge);
        hash.update(&self.error.to_be_bytes());
        hash.update(&(self.other.len() as u16).to_be_bytes());
        hash.update(self.other);
    }
}

impl AsRef<Self> for Key {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The message breaks the rules of its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Where the TSIG record of `packet` begins, if it has one. It is the last of the additional section (section 5.1).
///
/// # Errors
/// There is one, but not there, or more than one.
pub fn find(packet: &[u8]) -> Result<Option<usize>, Malformed> {
    let (mut at, counts) = sections(packet).ok_or(Malformed)?;
    let records = counts.into_iter().map(usize::from).sum();
    for left in (0..records).rev() {
        let start = at;
        let record = Record::read(packet, start).ok_or(Malformed)?;
        at = record.end();
        if record.rtype == rtype::TSIG {
            let last = left == 0 && counts[2] > 0 && at == packet.len();
            return if last { Ok(Some(start)) } else { Err(Malformed) };
        }
    }
    Ok(None)
}

/// A signature on its way into the answers to one request.
#[derive(Clone, Debug)]
pub struct Signer {
    key: Key,
    /// The signature that the next one builds on.
    mac: [u8; MAX_MAC],
    length: usize,
    first: bool,
}

impl Signer {
    /// For the answers to the request that carried `tsig`, which has been verified by `key`.
    pub fn answering(tsig: &Tsig<'_>, key: &Key) -> Self {
        let mut signer = Self { key: key.clone(), mac: [0; MAX_MAC], length: 0, first: true };
        signer.keep(tsig.mac);
        signer
    }

    /// For a request of our own.
    pub fn asking(key: &Key) -> Self {
        Self { key: key.clone(), mac: [0; MAX_MAC], length: 0, first: true }
    }

    /// The last signature made: what verifies the answer to a request of ours.
    pub fn mac(&self) -> &[u8] {
        self.mac.get(..self.length).unwrap_or_default()
    }

    /// Octets that it adds to a message.
    pub fn octets(&self) -> usize {
        self.key.record_octets()
    }

    fn keep(&mut self, mac: &[u8]) {
        self.length = 0;
        for (to, from) in self.mac.iter_mut().zip(mac) {
            *to = *from;
            self.length += 1;
        }
    }

    /// Signs the message that the first `length` octets of `packet` hold, at `now`; gives its new length, or nothing where
    /// the record does not fit. `bad` tells the other side what is wrong with its signature, and of one out of time when it
    /// was made: that an answer may tell it at all says section 5.3.2.
    pub fn sign(&mut self, packet: &mut [u8], length: usize, now: u64, bad: Option<(Bad, u64)>) -> Option<usize> {
        let message = packet.get(..length)?;
        let id = u16::from_be_bytes(*message.first_chunk()?);
        // A clock that is off could not check our time (section 5.2.3).
        let time = match bad {
            Some((Bad::Time, theirs)) => theirs,
            _ => now,
        };
        let mut hash = hmac::Context::with_key(&self.key.secret);
        prior(&mut hash, self.mac());
        hash.update(message);
        let (error, other) = error(bad.map(|b| b.0), now);
        if self.first {
            variables(&mut hash, &self.key.name, self.key.algorithm.wire());
        }
        timers(&mut hash, time, FUDGE);
        if self.first {
            hash.update(&error.to_be_bytes());
            hash.update(&(other.len() as u16).to_be_bytes());
            hash.update(other.as_slice());
        }
        let mac = hash.sign();
        self.keep(mac.as_ref());
        self.first = false;
        let record = Written {
            key: &self.key.name,
            algorithm: self.key.algorithm.wire(),
            time,
            mac: mac.as_ref(),
            id,
            error,
            other: other.as_slice(),
        };
        record.append(packet, length)
    }
}

/// Tells in the answer of `length` octets, without a signature, that that of the request was not accepted (section 5.3.2):
/// whoever has the wrong key could not check one. Gives the new length.
pub fn refuse(packet: &mut [u8], length: usize, tsig: &Tsig<'_>, bad: Bad) -> Option<usize> {
    let id = u16::from_be_bytes(*packet.first_chunk()?);
    let record = Written {
        key: tsig.key,
        algorithm: tsig.algorithm,
        time: tsig.time,
        mac: &[],
        id,
        error: bad as u16,
        other: &[],
    };
    record.append(packet, length)
}

/// BADTIME says in its other data what time it is here (section 5.2.3).
fn error(bad: Option<Bad>, now: u64) -> (u16, arrayed::Other) {
    match bad {
        Some(Bad::Time) => (Bad::Time as u16, arrayed::Other::time(now)),
        Some(bad) => (bad as u16, arrayed::Other::default()),
        None => (0, arrayed::Other::default()),
    }
}

mod arrayed {
    /// Nothing, or 48 bits of time.
    #[derive(Clone, Copy, Default)]
    pub(super) struct Other([u8; 6], usize);

    impl Other {
        pub(super) fn time(now: u64) -> Self {
            let [_, _, octets @ ..] = now.to_be_bytes();
            Self(octets, octets.len())
        }

        pub(super) fn as_slice(&self) -> &[u8] {
            self.0.get(..self.1).unwrap_or_default()
        }

        pub(super) const fn len(&self) -> usize {
            self.1
        }
    }
}

struct Written<'a> {
    key: &'a [u8],
    algorithm: &'a [u8],
    time: u64,
    mac: &'a [u8],
    id: u16,
    error: u16,
    other: &'a [u8],
}

impl Written<'_> {
    fn append(&self, packet: &mut [u8], length: usize) -> Option<usize> {
        let data = self.algorithm.len() + 16 + self.mac.len() + self.other.len();
        let [_, _, time @ ..] = self.time.to_be_bytes();
        let parts: [&[u8]; 14] = [
            self.key,
            &rtype::TSIG.to_be_bytes(),
            &ANY.to_be_bytes(),
            &[0; 4],
            &(data as u16).to_be_bytes(),
            self.algorithm,
            &time,
            &FUDGE.to_be_bytes(),
            &(self.mac.len() as u16).to_be_bytes(),
            self.mac,
            &self.id.to_be_bytes(),
            &self.error.to_be_bytes(),
            &(self.other.len() as u16).to_be_bytes(),
            self.other,
        ];
        let mut at = length;
        for part in parts {
            packet.get_mut(at..at + part.len())?.copy_from_slice(part);
            at += part.len();
        }
        let header = packet.first_chunk_mut::<HEADER>()?;
        let additional = u16::from_be_bytes([header[10], header[11]]).checked_add(1)?;
        [header[10], header[11]] = additional.to_be_bytes();
        Some(at)
    }
}

fn prior(hash: &mut hmac::Context, mac: &[u8]) {
    if !mac.is_empty() {
        hash.update(&(mac.len() as u16).to_be_bytes());
        hash.update(mac);
    }
}

/// The message as it was before it was signed: one record less, and the id that it began with (section 4.3.2).
fn unsigned(hash: &mut hmac::Context, message: &[u8], id: u16) {
    let Some((header, rest)) = message.split_first_chunk::<HEADER>() else { return };
    let mut header = *header;
    [header[0], header[1]] = id.to_be_bytes();
    let additional = u16::from_be_bytes([header[10], header[11]]).saturating_sub(1);
    [header[10], header[11]] = additional.to_be_bytes();
    hash.update(&header);
    hash.update(rest);
}

fn variables(hash: &mut hmac::Context, key: &[u8], algorithm: &[u8]) {
    hash.update(&key.to_ascii_lowercase());
    hash.update(&ANY.to_be_bytes());
    hash.update(&[0; 4]);
    hash.update(&algorithm.to_ascii_lowercase());
}

fn timers(hash: &mut hmac::Context, time: u64, fudge: u16) {
    let [_, _, time @ ..] = time.to_be_bytes();
    hash.update(&time);
    hash.update(&fudge.to_be_bytes());
}

/// The name at `at`, which must not be compressed: nobody compresses these.
fn name_at(packet: &[u8], at: usize) -> Option<&[u8]> {
    let rest = packet.get(at..)?;
    rest.get(..name::octets(rest)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(algorithm: Algorithm) -> Key {
        Key::new(b"\x03Xfr\x04Test\0", algorithm, &[7; 32])
    }

    fn request() -> Vec<u8> {
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01t\0\0\xfc\0\x01".to_vec()
    }

    fn signed(signer: &mut Signer, message: &[u8], now: u64) -> Vec<u8> {
        let mut packet = message.to_vec();
        packet.resize(message.len() + signer.key.record_octets() + 6, 0);
        let length = signer.sign(&mut packet, message.len(), now, None).unwrap();
        packet.truncate(length);
        packet
    }

    #[test]
    fn what_is_signed_verifies_until_anything_is_changed() {
        for algorithm in Algorithm::ALL {
            let key = key(algorithm);
            let packet = signed(&mut Signer::asking(&key), &request(), 1_000);
            assert_eq!(packet.len(), request().len() + key.record_octets());
            let start = find(&packet).unwrap().unwrap();
            assert_eq!(start, request().len());
            let tsig = Tsig::read(&packet, start).unwrap();
            assert!(tsig.key(std::slice::from_ref(&key)).is_some());
            let judge = |packet: &[u8], now| {
                let tsig = Tsig::read(packet, start)?;
                Some(tsig.verify(packet, &key, &[], now))
            };
            assert_eq!(judge(&packet, 1_300), Some(Ok(())));
            assert_eq!(judge(&packet, 1_301), Some(Err(Bad::Time)));
            assert_eq!(judge(&packet, 699), Some(Err(Bad::Time)));
            for at in (2..packet.len()).filter(|at| *at != 10 && *at != 11) {
                let mut other = packet.clone();
                other[at] ^= 1;
                let verdict = Tsig::read(&other, start)
                    .map(|t| (t.key(std::slice::from_ref(&key)).is_some(), t.verify(&other, &key, &[], 1_000)));
                assert!(!matches!(verdict, Some((true, Ok(())))), "{algorithm:?} octet {at}");
            }
            let other = Key::new(b"\x05other\0", algorithm, &[7; 32]);
            assert!(tsig.key(std::slice::from_ref(&other)).is_none());
        }
    }

    #[test]
    fn a_sequence_is_chained_and_an_answer_bound_to_its_request() {
        let key = key(Algorithm::Sha256);
        let mut asking = Signer::asking(&key);
        let packet = signed(&mut asking, &request(), 5);
        let tsig = Tsig::read(&packet, request().len()).unwrap();
        let mut answering = Signer::answering(&tsig, &key);
        let first = signed(&mut answering, &request(), 5);
        let reply = Tsig::read(&first, request().len()).unwrap();
        assert_eq!(reply.verify(&first, &key, asking.mac(), 5), Ok(()));
        assert_eq!(reply.verify(&first, &key, &[], 5), Err(Bad::Sig), "not bound to nothing");
        let second = signed(&mut answering, &request(), 5);
        assert_ne!(first, second);
    }

    #[test]
    fn cut_signatures_and_stray_records_are_told_apart() {
        let key = key(Algorithm::Sha256);
        let packet = signed(&mut Signer::asking(&key), &request(), 5);
        let start = request().len();
        let tsig = Tsig::read(&packet, start).unwrap();
        let cut = |octets: usize| Tsig { mac: &tsig.mac[..octets], ..tsig };
        assert_eq!(cut(31).verify(&packet, &key, &[], 5), Err(Bad::Trunc));
        assert_eq!(cut(16).verify(&packet, &key, &[], 5), Err(Bad::Trunc));
        assert_eq!(cut(15).verify(&packet, &key, &[], 5), Err(Bad::Form));
        assert_eq!(cut(0).verify(&packet, &key, &[], 5), Err(Bad::Form));
        let mut twice = packet.clone();
        twice.extend_from_slice(&packet[start..]);
        twice[11] = 2;
        assert_eq!(find(&twice), Err(Malformed));
        assert_eq!(find(&request()), Ok(None));
        let mut answer = request();
        answer.resize(200, 0);
        let length = refuse(&mut answer, request().len(), &tsig, Bad::Key).unwrap();
        let told = Tsig::read(&answer[..length], start).unwrap();
        assert_eq!((told.error(), told.mac.len()), (17, 0));
    }

    proptest! {
        #[test]
        fn no_octets_panic(packet in prop::collection::vec(prop_oneof![0u8..20, any::<u8>()], 0..120)) {
            if let Ok(Some(at)) = find(&packet)
                && let Some(tsig) = Tsig::read(&packet, at)
            {
                let _ = tsig.verify(&packet, &key(Algorithm::Sha256), &[], 0);
            }
        }
    }
}
