//! The PROXY protocol, versions 1 and 2: for whom a balancer speaks, said before the first octet of what it carries.
//!
//! Pure and incremental: [`parse`] says how many octets of the header are still to come, so that a reader never takes one
//! that belongs to what follows. Whether the peer may be believed is the caller's to decide, before it calls. Source: the
//! HAProxy project's proxy-protocol.txt, sections 2.1 and 2.2; its extensions (TLVs) are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its end of line (section 2.1).
pub const MAX_V1: usize = 107;
/// Longest header of version 2 that is read. Ours: room for addresses and the extensions of the balancers there are.
pub const MAX_V2: usize = 2_048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const WORD: [u8; 6] = *b"PROXY ";
/// Octets of version 2 before the addresses.
const HEAD: usize = 16;
/// The shortest whole header of version 1: `PROXY UNKNOWN` and the end of the line.
const SHORTEST: usize = 15;

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// So far it is one; at least so many octets are still to come that belong to it.
    More(usize),
    /// It is whole.
    Whole {
        /// Its octets.
        length: usize,
        /// For whom the peer speaks; `None` where that is itself (a health check) or cannot be said.
        source: Option<SocketAddr>,
    },
}

/// Why something is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It begins like neither version.
    #[error("no PROXY header")]
    Absent,
    /// It begins like one and breaks its rules.
    #[error("a broken PROXY header")]
    Broken,
    /// It is longer than [`MAX_V1`] or [`MAX_V2`].
    #[error("a PROXY header that is too long")]
    TooLong,
}

/// Reads the header that `bytes` begins with.
///
/// # Errors
/// As [`Fault`] lists.
pub fn parse(bytes: &[u8]) -> Result<Line, Fault> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(&SIGNATURE) && !bytes.is_empty() {
        return second(bytes);
    }
    if begins(&WORD) {
        return first(bytes);
    }
    Err(Fault::Absent)
}

fn first(bytes: &[u8]) -> Result<Line, Fault> {
    let seen = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|w| w == b"\r\n") else {
        return match bytes.len() {
            MAX_V1.. => Err(Fault::TooLong),
            n @ ..SHORTEST => Ok(Line::More(SHORTEST - n)),
            _ if bytes.ends_with(b"\r") => Ok(Line::More(1)),
            _ => Ok(Line::More(2)),
        };
    };
    let line = seen.get(WORD.len()..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(Fault::Broken)?;
    let length = end + 2;
    // Whatever follows UNKNOWN is to be ignored (section 2.1).
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Line::Whole { length, source: None });
    }
    let source = said(line).ok_or(Fault::Broken)?;
    Ok(Line::Whole { length, source: Some(source) })
}

/// `TCP4 SOURCE DESTINATION PORT PORT`, with single spaces.
fn said(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(Into::into),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(Into::into),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| plain)
    };
    let (from, _to) = (port()?, port()?);
    words.next().is_none().then(|| plain(source, from))
}

fn second(bytes: &[u8]) -> Result<Line, Fault> {
    let Some(head) = bytes.first_chunk::<HEAD>() else { return Ok(Line::More(HEAD - bytes.len())) };
    let [.., version, family, l0, l1] = *head;
    let length = HEAD + usize::from(u16::from_be_bytes([l0, l1]));
    let is_local = match version {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Broken),
    };
    // Unspecified; IPv4, IPv6 and Unix, each over streams and datagrams (section 2.2).
    let addresses = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(Fault::Broken),
    };
    if length > MAX_V2 {
        return Err(Fault::TooLong);
    }
    // A health check of the balancer's own may leave the addresses out, whatever family it names.
    if !is_local && length < HEAD + addresses {
        return Err(Fault::Broken);
    }
    let Some(rest) = bytes.get(HEAD..length) else { return Ok(Line::More(length - bytes.len())) };
    let source = if is_local { None } else { source(family, rest) };
    Ok(Line::Whole { length, source })
}

fn source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    match family >> 4 {
        1 => {
            let [a, b, c, d, _, _, _, _, p0, p1] = *addresses.first_chunk()?;
            Some(plain(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([p0, p1])))
        }
        2 => {
            let address = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
            let [p0, p1] = *addresses.get(32..)?.first_chunk()?;
            Some(plain(address.into(), u16::from_be_bytes([p0, p1])))
        }
        _ => None,
    }
}

/// An IPv4 address that came as an IPv6 one is the IPv4 address: prefixes and counts mean that.
fn plain(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn whole(length: usize, source: &str) -> Line {
        Line::Whole { length, source: (!source.is_empty()).then(|| source.parse().unwrap()) }
    }

    #[test]
    fn the_text_of_version_1_is_taken_to_the_letter() {
        let cases = [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234 53\r\n", Ok(whole(44, "192.0.2.7:51234"))),
            ("PROXY TCP6 2001:db8::7 ::1 1 53\r\n", Ok(whole(33, "[2001:db8::7]:1"))),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 53\r\n", Ok(whole(38, "192.0.2.7:1"))),
            ("PROXY UNKNOWN\r\n", Ok(whole(15, ""))),
            ("PROXY UNKNOWN whatever it says\r\n", Ok(whole(32, ""))),
            ("PROXY UNKNOWNS\r\n", Err(Fault::Broken)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n", Err(Fault::Broken)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234 53 \r\n", Err(Fault::Broken)),
            ("PROXY TCP4 192.0.2.7  198.51.100.1 51234 53\r\n", Err(Fault::Broken)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 051234 53\r\n", Err(Fault::Broken)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +1 53\r\n", Err(Fault::Broken)),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 53\r\n", Err(Fault::Broken)),
            ("PROXY TCP4 ::1 198.51.100.1 1 53\r\n", Err(Fault::Broken)),
            ("PROXY TCP5 192.0.2.7 198.51.100.1 1 53\r\n", Err(Fault::Broken)),
            ("proxy TCP4 192.0.2.7 198.51.100.1 1 53\r\n", Err(Fault::Absent)),
            ("GET / HTTP/1.1\r\n", Err(Fault::Absent)),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text.as_bytes()), wanted, "{text}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(MAX_V1));
        assert_eq!(parse(long.as_bytes()), Err(Fault::TooLong));
    }

    #[test]
    fn version_2_says_addresses_of_every_family() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0, 53];
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 1]);
        v6[33] = 9;
        let cases = [
            (v2(0x21, 0x11, &v4), Ok(whole(28, "192.0.2.7:51234"))),
            (v2(0x21, 0x12, &v4), Ok(whole(28, "192.0.2.7:51234"))),
            (v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()), Ok(whole(32, "192.0.2.7:51234"))),
            (v2(0x21, 0x21, &v6), Ok(whole(52, "[2001::]:9"))),
            (v2(0x21, 0x31, &[0; 216]), Ok(whole(232, ""))),
            (v2(0x21, 0x00, &[]), Ok(whole(16, ""))),
            (v2(0x20, 0x00, &[]), Ok(whole(16, ""))),
            (v2(0x20, 0x11, &[]), Ok(whole(16, ""))),
            (v2(0x20, 0x11, &v4), Ok(whole(28, ""))),
            (v2(0x21, 0x11, &v4[..11]), Err(Fault::Broken)),
            (v2(0x21, 0x13, &v4), Err(Fault::Broken)),
            (v2(0x21, 0x41, &v4), Err(Fault::Broken)),
            (v2(0x22, 0x11, &v4), Err(Fault::Broken)),
            (v2(0x11, 0x11, &v4), Err(Fault::Broken)),
            (v2(0x21, 0x11, &[0; MAX_V2]), Err(Fault::TooLong)),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(parse(&bytes), wanted, "{bytes:?}");
        }
    }

    proptest! {
        /// Whoever reads only what is asked for ends exactly behind the header, however it is cut.
        #[test]
        fn a_reader_never_takes_more_than_the_header(
            client in any::<Ipv4Addr>(), port in any::<u16>(), extra in prop::collection::vec(any::<u8>(), 0..64), text in any::<bool>(),
        ) {
            let header = if text {
                format!("PROXY TCP4 {client} 127.0.0.1 {port} 53\r\n").into_bytes()
            } else {
                let mut rest = [client.octets(), [127, 0, 0, 1]].concat();
                rest.extend(port.to_be_bytes());
                rest.extend([0, 53]);
                rest.extend(&extra);
                v2(0x21, 0x11, &rest)
            };
            let mut taken = 0;
            while let Line::More(n) = parse(&header[..taken]).unwrap() {
                prop_assert!(n > 0);
                taken += n;
                prop_assert!(taken <= header.len());
            }
            let wanted = Line::Whole { length: header.len(), source: Some(SocketAddr::new(client.into(), port)) };
            prop_assert_eq!(parse(&header[..taken]), Ok(wanted));
            prop_assert_eq!(taken, header.len());
            prop_assert_eq!(parse(&[&header[..], b"more"].concat()), Ok(wanted));
        }
    }
}
