//! EDNS (RFC 6891): the OPT of a query read, the OPT of an answer written. Every option that we speak is here.
//!
//! An option that is not known is passed over, as the RFC asks; one that breaks its own rules is noted, for the answer to
//! say so. What the answer carries is put together as an [`Opt`], which alone knows the order, the lengths and the room.

use super::cookie::{self, Cookie};
use super::{Rcode, rtype};
use crate::wire::ecs::{self, Subnet};

/// Option code of NSID (RFC 5001).
pub const NSID: u16 = 3;
/// Option code of the TCP keepalive (RFC 7828).
const KEEPALIVE: u16 = 11;
/// Option code of padding (RFC 7830).
const PADDING: u16 = 12;
/// Option code of extended errors (RFC 8914).
const EDE: u16 = 15;
/// Answers over encrypted transports are padded to a multiple of this, in octets (RFC 8467 section 4.1).
pub const BLOCK: u16 = 468;
/// Octets of an OPT without options.
const FIXED: usize = 11;

/// What a query says of EDNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// The largest answer that it takes over UDP.
    pub size: u16,
    /// 0 is the only one there is.
    pub version: u8,
    /// DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// NXDOMAIN may stand beside a compact denial (RFC 9824 section 5.1).
    pub compact_ok: bool,
    /// Our name is wanted.
    pub nsid: bool,
    /// For whom it asks.
    pub subnet: Option<Subnet>,
    /// Its cookie.
    pub cookie: Option<Cookie>,
    /// It would like to know for how long its connection may be idle.
    pub keepalive: bool,
    /// It is padded, so the answer may be.
    pub padding: bool,
    /// An option breaks its own rules.
    pub flaw: Option<Flaw>,
}

/// Which option breaks its own rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The client subnet.
    Subnet,
    /// The cookie.
    Cookie,
}

impl Edns {
    /// Reads an OPT: what stands between owner and data, and the data. `None`: options that break off.
    pub(super) fn read(&mut self, fixed: &[u8; 10], data: &[u8]) -> Option<()> {
        self.size = u16::from_be_bytes([fixed[2], fixed[3]]);
        self.version = fixed[5];
        self.dnssec_ok = fixed[6] & 0x80 != 0;
        self.compact_ok = fixed[6] & 0x40 != 0;
        let mut rest = data;
        while let Some((&[c0, c1, l0, l1], tail)) = rest.split_first_chunk::<4>() {
            let (value, after) = tail.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
            self.option(u16::from_be_bytes([c0, c1]), value);
            rest = after;
        }
        rest.is_empty().then_some(())
    }

    /// The OPT of an answer that has nothing to say but that EDNS is spoken.
    pub fn plain(&self) -> Opt<'static> {
        Opt { size: super::MAX_UDP as u16, dnssec_ok: self.dnssec_ok, compact_ok: self.compact_ok, ..Opt::default() }
    }

    /// Of an option that comes twice the first one counts, as in BIND.
    fn option(&mut self, code: u16, value: &[u8]) {
        match code {
            NSID => self.nsid = true,
            ecs::CODE if self.subnet.is_none() => match Subnet::parse(value) {
                Ok(subnet) => self.subnet = Some(subnet),
                Err(_) => self.flaw = Some(Flaw::Subnet),
            },
            cookie::CODE if self.cookie.is_none() => match Cookie::parse(value) {
                Ok(cookie) => self.cookie = Some(cookie),
                Err(_) => self.flaw = Some(Flaw::Cookie),
            },
            KEEPALIVE => self.keepalive = true,
            PADDING => self.padding = true,
            _ => {}
        }
    }
}

/// Why an answer is as it is, for people who look for the reason (RFC 8914). Says nothing to the resolver's logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede {
    /// Info code, of the IANA's registry.
    pub code: u16,
    /// A few words; may be empty.
    pub text: &'static str,
}

impl Ede {
    /// None of the registered reasons.
    pub const fn other(text: &'static str) -> Self {
        Self { code: 0, text }
    }

    /// Older data than it should be, for want of newer (code 3).
    pub const STALE: Self = Self { code: 3, text: "" };
    /// A set stands without its signature (code 10).
    pub const RRSIGS_MISSING: Self = Self { code: 10, text: "no more signatures may be made in this second" };
    /// Not able to answer yet (code 14).
    pub const NOT_READY: Self = Self { code: 14, text: "" };
    /// Not for this client (code 18).
    pub const PROHIBITED: Self = Self { code: 18, text: "" };
    /// The name lies in none of our zones (code 20).
    pub const NOT_AUTHORITATIVE: Self = Self { code: 20, text: "" };
    /// Not a thing that we do (code 21).
    pub const NOT_SUPPORTED: Self = Self { code: 21, text: "" };
    /// A type that no question may have (code 30, RFC 9824 section 3.5).
    pub const INVALID_TYPE: Self = Self { code: 30, text: "" };
    /// Those who know could not be asked (code 22).
    pub const NO_REACHABLE_AUTHORITY: Self = Self { code: 22, text: "" };
}

/// The OPT of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opt<'a> {
    /// The largest query that we take over UDP.
    pub size: u16,
    /// DO is copied (RFC 3225).
    pub dnssec_ok: bool,
    /// CO is copied where DO is (RFC 9824 section 5.1).
    pub compact_ok: bool,
    /// The client subnet as it was asked for, and the answer's SCOPE.
    pub subnet: Option<(&'a Subnet, u8)>,
    /// Our name; empty where it was not asked for.
    pub nsid: &'a [u8],
    /// The client's cookie and ours.
    pub cookie: Option<[u8; cookie::WHOLE]>,
    /// For how long the connection may be idle, in tenths of a second. Never over UDP (RFC 7828 section 3.2.1).
    pub keepalive: Option<u16>,
    /// Why the answer is as it is. Left out where it does not fit.
    pub error: Option<Ede>,
    /// The message becomes a multiple of so many octets long, or as long as may be.
    pub block: Option<u16>,
}

impl Opt<'_> {
    /// The most octets that it takes, without those of the error and the padding, which take only what is left.
    pub fn reserve(&self) -> usize {
        let option = |there: bool, data: usize| if there { 4 + data } else { 0 };
        FIXED
            + if self.subnet.is_some() { ecs::MAX_WRITTEN } else { 0 }
            + option(!self.nsid.is_empty(), self.nsid.len())
            + option(self.cookie.is_some(), cookie::WHOLE)
            + option(self.keepalive.is_some(), 2)
    }

    /// Writes the record behind the `before` octets that the message has already; gives its length. `room` is all that the
    /// message may still take: 0 is written where it is too small.
    pub fn write(&self, rcode: Rcode, before: usize, room: &mut [u8]) -> usize {
        let Some((head, rest)) = room.split_first_chunk_mut::<FIXED>() else { return 0 };
        let mut options = Options { out: rest, at: 0 };
        // The client subnet comes first: `unsay` looks for it there.
        if let Some((subnet, scope)) = self.subnet {
            options.at += subnet.write(scope, options.rest());
        }
        if !self.nsid.is_empty() {
            options.put(NSID, &[self.nsid]);
        }
        if let Some(whole) = &self.cookie {
            options.put(cookie::CODE, &[whole]);
        }
        if let Some(tenths) = self.keepalive {
            options.put(KEEPALIVE, &[&tenths.to_be_bytes()]);
        }
        if let Some(Ede { code, text }) = self.error {
            options.put(EDE, &[&code.to_be_bytes(), text.as_bytes()]);
        }
        if let Some(block) = self.block {
            options.pad(before + FIXED, block.into());
        }
        let length = options.at;
        let [s0, s1] = self.size.to_be_bytes();
        let [l0, l1] = (length as u16).to_be_bytes();
        let flags = u8::from(self.dnssec_ok) << 7 | u8::from(self.dnssec_ok && self.compact_ok) << 6;
        *head = [0, 0, rtype::OPT as u8, s0, s1, (rcode as u16 >> 4) as u8, 0, flags, 0, l0, l1];
        FIXED + length
    }
}

/// Takes back what the record `opt` of an answer says of data that the answer has no more: it ends as `rcode`, and no data is
/// everybody's no data (RFC 7871 section 7.4).
pub(super) fn unsay(opt: &mut [u8], rcode: Rcode) {
    let Some((head, options)) = opt.split_first_chunk_mut::<FIXED>() else { return };
    head[5] = (rcode as u16 >> 4) as u8;
    if let Some(subnet) = options.get_mut(..8).filter(|o| o[..2] == ecs::CODE.to_be_bytes()) {
        subnet[7] = 0;
    }
}

/// Options on their way into the room that there is.
struct Options<'o> {
    out: &'o mut [u8],
    at: usize,
}

impl Options<'_> {
    fn rest(&mut self) -> &mut [u8] {
        self.out.get_mut(self.at..).unwrap_or_default()
    }

    /// Appends an option, whole or not at all.
    fn put(&mut self, code: u16, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|p| p.len()).sum();
        let Some(out) = self.rest().get_mut(..4 + length) else { return };
        let (head, mut data) = out.split_at_mut(4);
        head[..2].copy_from_slice(&code.to_be_bytes());
        head[2..].copy_from_slice(&(length as u16).to_be_bytes());
        for part in parts {
            let (place, after) = data.split_at_mut(part.len());
            place.copy_from_slice(part);
            data = after;
        }
        self.at += 4 + length;
    }

    /// Pads the message, of which `before` octets stand before these options, to a multiple of `block`.
    fn pad(&mut self, before: usize, block: usize) {
        let bare = before + self.at + 4;
        let most = before + self.out.len();
        if block == 0 || bare > most {
            return;
        }
        let zeroes = bare.next_multiple_of(block).min(most).min(usize::from(u16::MAX)).saturating_sub(bare);
        let Some(out) = self.rest().get_mut(..4 + zeroes) else { return };
        out.fill(0);
        out[1] = PADDING as u8;
        [out[2], out[3]] = (zeroes as u16).to_be_bytes();
        self.at += 4 + zeroes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnets() -> impl Strategy<Value = Option<(Subnet, u8)>> {
        let subnet = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, source)| {
            let net = ipnet::Ipv4Net::new(a.into(), source).unwrap().trunc().network().octets();
            let data = [&[0, 1, source, 0], &net[..usize::from(source).div_ceil(8)]].concat();
            Subnet::parse(&data).unwrap()
        });
        prop::option::of((subnet, 0u8..=32))
    }

    proptest! {
        /// What is written reads as it was meant, takes no more than was reserved, and never more than the room.
        #[test]
        fn an_opt_reads_as_it_was_written(
            subnet in subnets(), nsid in prop::collection::vec(any::<u8>(), 0..64), cookie: Option<[u8; 24]>,
            keepalive: Option<u16>, ede: bool, block in prop::option::of(1u16..500), dnssec_ok: bool, size: u16,
            before in 12usize..700, room in 0usize..1_500,
        ) {
            let error = ede.then_some(Ede { code: 20, text: "not here" });
            let subnet = subnet.as_ref().map(|(subnet, scope)| (subnet, *scope));
            let opt = Opt { size, dnssec_ok, compact_ok: false, subnet, nsid: &nsid, cookie, keepalive, error, block };
            let mut out = vec![0xaa; room];
            let length = opt.write(Rcode::BadVers, before, &mut out);
            prop_assert!(length <= room);
            if opt.reserve() > room {
                return Ok(());
            }
            prop_assert_eq!(&out[..3], [0, 0, 41]);
            prop_assert_eq!(out[5], 1, "the high bits of the code");
            let (fixed, data) = (out[1..11].try_into().unwrap(), &out[11..length]);
            // An answer's scope and our cookie's length differ from what a query may say; all else reads alike.
            let mut read = Edns::default();
            read.read(&fixed, data).unwrap();
            prop_assert_eq!((read.size, read.dnssec_ok), (size, dnssec_ok));
            prop_assert_eq!((read.nsid, read.keepalive), (!nsid.is_empty(), keepalive.is_some()));
            prop_assert_eq!(read.cookie.is_some(), cookie.is_some());
            if let Some(block) = block.filter(|_| read.padding) {
                let whole = before + length;
                prop_assert!(whole.is_multiple_of(block.into()) || length == room);
            }
            prop_assert!(block.is_none() || read.padding || length + 4 > room);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let opt = Opt { size: 1232, error: Some(Ede::other("twelve octets")), ..Opt::default() };
        let mut out = [0; 64];
        assert_eq!(opt.write(Rcode::Refused, 30, &mut out), 11 + 4 + 2 + 13);
        assert_eq!(opt.write(Rcode::Refused, 30, &mut out[..29]), 11);
        assert_eq!(opt.write(Rcode::Refused, 30, &mut out[..10]), 0);
        assert_eq!(opt.reserve(), 11, "an error takes what is left");
    }
}
