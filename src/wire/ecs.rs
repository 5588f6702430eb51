//! The client subnet option (RFC 7871): who a resolver asks for, and for whom else the answer is good.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::prefix::truncate;

/// Option code.
pub const CODE: u16 = 8;
/// The most octets that [`Subnet::write`] takes.
pub const MAX_WRITTEN: usize = 4 + 4 + 16;

/// The option as a query has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    family: u8,
    source: u8,
    octets: [u8; 16],
}

/// Why the option is malformed; each means FORMERR (RFC 7871 section 7.1.2 and 11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EcsError {
    /// Shorter than its fixed part.
    #[error("the option is shorter than four octets")]
    Short,
    /// FAMILY is neither IPv4 nor IPv6 (nor 0 with nothing behind it).
    #[error("unknown address family")]
    Family,
    /// SOURCE PREFIX-LENGTH is longer than an address.
    #[error("the prefix is longer than an address")]
    Source,
    /// SCOPE PREFIX-LENGTH is not 0 in a query.
    #[error("a query must have scope 0")]
    Scope,
    /// ADDRESS does not have as many octets as SOURCE asks for.
    #[error("the address has another length than its prefix asks for")]
    Length,
    /// ADDRESS has bits beyond SOURCE.
    #[error("the address has bits beyond its prefix")]
    Bits,
}

impl Subnet {
    /// Reads the option's data as a query has it.
    ///
    /// FAMILY 0 is accepted where SOURCE is 0 and no address follows: that is how `dig +subnet=0` says "ask for nobody".
    ///
    /// # Errors
    /// As [`EcsError`] lists; all of them are the sender's fault.
    pub fn parse(data: &[u8]) -> Result<Self, EcsError> {
        let (&[high, low, source, scope], address) = data.split_first_chunk::<4>().ok_or(EcsError::Short)?;
        let (family, width) = match (high, low) {
            (0, 0) => (0, 0),
            (0, 1) => (1, 32),
            (0, 2) => (2, 128),
            _ => return Err(EcsError::Family),
        };
        if scope != 0 {
            return Err(EcsError::Scope);
        }
        if source > width {
            return Err(if family == 0 { EcsError::Family } else { EcsError::Source });
        }
        if address.len() != usize::from(source).div_ceil(8) {
            return Err(EcsError::Length);
        }
        let mut octets = [0; 16];
        for (to, from) in octets.iter_mut().zip(address) {
            *to = *from;
        }
        let spare = source.next_multiple_of(8) - source;
        if spare > 0 && address.last().is_some_and(|last| last.trailing_zeros() < spare.into()) {
            return Err(EcsError::Bits);
        }
        Ok(Self { family, source, octets })
    }

    /// The option that asks for `address`, of which the first `source` bits are told.
    pub fn of(address: IpAddr, source: u8) -> Self {
        let mut octets = [0; 16];
        let (family, width) = match truncate(address, source) {
            IpAddr::V4(a) => {
                octets[..4].copy_from_slice(&a.octets());
                (1, 32)
            }
            IpAddr::V6(a) => {
                octets = a.octets();
                (2, 128)
            }
        };
        Self { family, source: source.min(width), octets }
    }

    /// The client's network address; `None` where SOURCE is 0, which means: use the resolver's.
    pub fn address(&self) -> Option<IpAddr> {
        match (self.source, self.family) {
            (0, _) => None,
            (_, 1) => {
                let [a, b, c, d, ..] = self.octets;
                Some(Ipv4Addr::new(a, b, c, d).into())
            }
            _ => Some(Ipv6Addr::from(self.octets).into()),
        }
    }

    /// SOURCE PREFIX-LENGTH.
    pub const fn source(&self) -> u8 {
        self.source
    }

    /// Writes the option with its code and length and with this SCOPE; gives the octets written, 0 where `out` is too small.
    pub fn write(&self, scope: u8, out: &mut [u8]) -> usize {
        let address = usize::from(self.source).div_ceil(8);
        let Some(out) = out.get_mut(..8 + address) else { return 0 };
        let head = [0, CODE as u8, 0, 4 + address as u8, 0, self.family, self.source, scope];
        out[..8].copy_from_slice(&head);
        out[8..].copy_from_slice(&self.octets[..address]);
        8 + address
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_are_read_by_the_rules_of_rfc_7871() {
        type Case<'a> = (&'a [u8], Result<Option<&'a str>, EcsError>);
        let cases: &[Case<'_>] = &[
            (&[0, 1, 24, 0, 10, 1, 2], Ok(Some("10.1.2.0"))),
            (&[0, 1, 20, 0, 10, 1, 0x10], Ok(Some("10.1.16.0"))),
            (&[0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 1, 2], Ok(Some("2001:db8:1:200::"))),
            (&[0, 1, 32, 0, 10, 1, 2, 3], Ok(Some("10.1.2.3"))),
            (&[0, 1, 0, 0], Ok(None)),
            (&[0, 2, 0, 0], Ok(None)),
            (&[0, 0, 0, 0], Ok(None)),
            (&[0, 0, 8, 0, 10], Err(EcsError::Family)),
            (&[0, 3, 0, 0], Err(EcsError::Family)),
            (&[1, 1, 0, 0], Err(EcsError::Family)),
            (&[0, 1, 24, 24, 10, 1, 2], Err(EcsError::Scope)),
            (&[0, 1, 33, 0, 10, 1, 2, 3, 4], Err(EcsError::Source)),
            (&[0, 1, 24, 0, 10, 1], Err(EcsError::Length)),
            (&[0, 1, 24, 0, 10, 1, 2, 0], Err(EcsError::Length)),
            (&[0, 1, 20, 0, 10, 1, 0x18], Err(EcsError::Bits)),
            (&[0, 1, 1, 0, 0xc0], Err(EcsError::Bits)),
            (&[0, 1, 24], Err(EcsError::Short)),
            (&[], Err(EcsError::Short)),
        ];
        for (data, want) in cases {
            let got = Subnet::parse(data).map(|s| s.address().map(|a| a.to_string()));
            assert_eq!(got, want.map(|a| a.map(str::to_owned)), "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_asked_for_an_address_reads_as_its_network(v4: [u8; 4], v6: [u8; 16], source: u8) {
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                let asked = Subnet::of(address, source);
                let mut out = [0; MAX_WRITTEN];
                let length = asked.write(0, &mut out);
                prop_assert_eq!(Subnet::parse(&out[4..length]), Ok(asked));
                let network = (asked.source() > 0).then(|| truncate(address, asked.source()));
                prop_assert_eq!(asked.address(), network);
            }
        }

        #[test]
        fn an_answer_echoes_what_was_asked(data in prop::collection::vec(any::<u8>(), 0..24), scope: u8) {
            if let Ok(subnet) = Subnet::parse(&data) {
                let mut out = [0u8; MAX_WRITTEN];
                let n = subnet.write(scope, &mut out);
                prop_assert_eq!(&out[..4], &[0, 8, 0, data.len() as u8]);
                prop_assert_eq!((&out[4..7], out[7], &out[8..n]), (&data[..3], scope, &data[4..]));
                prop_assert_eq!(subnet.write(scope, &mut out[..n - 1]), 0);
            }
        }
    }
}
