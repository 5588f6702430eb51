//! One zone's keys at work: the octets that they publish, and signatures by them.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

use super::super::sets::record;
use super::cache::Budget;
use super::timeline::{Lapse, Moment, at, timeline};
use crate::config::Signed;
use crate::wire::dns::{IN, rtype};
use crate::wire::dnssec::keyfile::{Key, Private, Public, Secret, Times};
use crate::wire::dnssec::{Algorithm, RrsigHead, SIGNATURE, canonical, ds};
use crate::wire::zone::WireName;

/// A key that signs.
pub(super) enum Pair {
    Ecdsa(EcdsaKeyPair, SystemRandom),
    Ed25519(Ed25519KeyPair),
}

impl Pair {
    /// Joins the halves of `key`. `None` where they do not belong together.
    pub(super) fn of(key: &Key) -> Option<Self> {
        let (secret, public) = (&key.private.secret.0, &key.public.octets);
        match key.public.algorithm {
            Algorithm::EcdsaP256 => {
                // SEC 1 section 2.3.3: an uncompressed point; DNSKEY leaves the first octet out.
                let point = [&[4], &public[..]].concat();
                let pair =
                    EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, secret, &point);
                Some(Self::Ecdsa(pair.ok()?, SystemRandom::new()))
            }
            Algorithm::Ed25519 => Ed25519KeyPair::from_seed_and_public_key(secret, public).ok().map(Self::Ed25519),
        }
    }

    /// Signs `message`. `None` where the library would not.
    pub(super) fn sign(&self, message: &[u8]) -> Option<[u8; SIGNATURE]> {
        let signature = match self {
            Self::Ecdsa(pair, random) => pair.sign(random, message).ok()?,
            Self::Ed25519(pair) => pair.try_sign(message).ok()?,
        };
        signature.as_ref().try_into().ok()
    }
}

/// Makes a new key. `None` where the system has no entropy.
pub fn generate(owner: WireName, flags: u16, algorithm: Algorithm, times: Times) -> Option<Key> {
    use aws_lc_rs::encoding::AsBigEndian as _;
    let (octets, secret): (Vec<u8>, Vec<u8>) = match algorithm {
        Algorithm::EcdsaP256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
            let public = pair.public_key().as_ref().get(1..)?.to_vec();
            let secret: aws_lc_rs::encoding::EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().ok()?;
            (public, secret.as_ref().to_vec())
        }
        Algorithm::Ed25519 => {
            let pair = Ed25519KeyPair::generate().ok()?;
            let secret = pair.seed().ok()?.as_be_bytes().ok()?;
            (pair.public_key().as_ref().to_vec(), secret.as_ref().to_vec())
        }
    };
    let public = Public { owner, flags, algorithm, octets: octets.into() };
    Some(Key { public, private: Private { algorithm, secret: Secret(secret.into()), times } })
}

/// The DS data of a key (RFC 4034 section 5.1.4, SHA-256).
pub fn ds_of(public: &Public) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, &[&public.owner[..], &public.dnskey()].concat());
    ds(public.tag(), public.algorithm, digest.as_ref())
}

/// One key with what a signature by it says.
pub(super) struct SigningKey {
    pub(super) tag: u16,
    pub(super) algorithm: Algorithm,
    /// The public key, so that signatures by it are found as its own.
    pub(super) public: Box<[u8]>,
    pair: Pair,
}

/// What is published and who signs, from one time to the next.
pub(super) struct Epoch {
    pub(super) moment: Moment,
    /// DNSKEY, CDS, CDNSKEY: how many records, and the records, owned by the question.
    sets: [(u16, Box<[u8]>); 3],
}

impl Epoch {
    fn new(moment: Moment, keys: &[Key], ttl: u32) -> Self {
        let set = |rtype: u16, which: &[usize], data: &dyn Fn(&Public) -> Vec<u8>| {
            let mut octets = Vec::new();
            for key in which.iter().filter_map(|i| keys.get(*i)) {
                record(rtype, ttl, &data(&key.public), &mut octets);
            }
            (which.len() as u16, octets.into_boxed_slice())
        };
        let sets = [
            set(rtype::DNSKEY, &moment.listed, &Public::dnskey),
            set(rtype::CDS, &moment.asked, &ds_of),
            set(rtype::CDNSKEY, &moment.asked, &Public::dnskey),
        ];
        Self { moment, sets }
    }

    /// The set of this type: how many records, and the records. `None` where there are none.
    pub(super) fn set(&self, wanted: u16) -> Option<(u16, &[u8])> {
        let which = [rtype::DNSKEY, rtype::CDS, rtype::CDNSKEY].iter().position(|t| *t == wanted)?;
        self.sets.get(which).filter(|(count, _)| *count > 0).map(|(count, octets)| (*count, &**octets))
    }
}

/// A zone that is signed.
pub(crate) struct ZoneSigner {
    pub(super) apex: WireName,
    pub(super) rules: Signed,
    pub(super) keys: Vec<SigningKey>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) budget: Budget,
}

impl ZoneSigner {
    /// `keys` sign the zone at `apex` by `rules`. `None` where a key's halves do not fit, which loading excludes.
    pub(super) fn new(apex: &[u8], rules: &Signed, keys: &[Key]) -> Option<Self> {
        let signing = keys.iter().map(|key| {
            let pair = Pair::of(key)?;
            let Public { algorithm, octets, .. } = &key.public;
            Some(SigningKey { tag: key.public.tag(), algorithm: *algorithm, public: octets.clone(), pair })
        });
        let ttl = rules.dnskey_ttl.as_secs() as u32;
        Some(Self {
            apex: apex.into(),
            rules: rules.clone(),
            keys: signing.collect::<Option<_>>()?,
            epochs: timeline(keys).into_iter().map(|moment| Epoch::new(moment, keys, ttl)).collect(),
            budget: Budget::default(),
        })
    }

    /// What holds at `now`.
    pub(super) fn epoch(&self, now: u32) -> Option<&Epoch> {
        at(&self.epochs, |e| e.moment.from, now)
    }

    /// When this lapse begins, or `now` where it has.
    pub(super) fn lapse(&self, lapse: Lapse, now: u32) -> Option<u32> {
        lapse.from(self.epochs.iter().map(|e| &e.moment), now)
    }
}

impl std::fmt::Debug for ZoneSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags: Vec<u16> = self.keys.iter().map(|k| k.tag).collect();
        f.debug_struct("ZoneSigner").field("keys", &tags).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Signs the records of one set (RFC 4034 section 3.1.8.1): `records` stand as in a message, each with two octets for
    /// its owner, which is `owner` in lower case.
    pub(super) fn sign(&self, head: &RrsigHead, apex: &[u8], owner: &[u8], records: &[u8]) -> Option<[u8; SIGNATURE]> {
        let mut datas: Vec<Vec<u8>> = Vec::new();
        let mut rest = records;
        while let Some((fixed, tail)) = rest.split_first_chunk::<12>() {
            let (data, after) = tail.split_at_checked(u16::from_be_bytes([fixed[10], fixed[11]]).into())?;
            let mut data = data.to_vec();
            canonical::lower(head.covered, &mut data);
            datas.push(data);
            rest = after;
        }
        // RFC 4034 section 6.3: in the order of their octets, each once.
        datas.sort_unstable();
        datas.dedup();
        let mut message = [&head.octets()[..], apex].concat();
        for data in &datas {
            message.extend_from_slice(owner);
            message.extend(head.covered.to_be_bytes());
            message.extend(IN.to_be_bytes());
            message.extend(head.ttl.to_be_bytes());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend_from_slice(data);
        }
        self.pair.sign(&message)
    }
}
