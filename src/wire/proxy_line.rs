//! The PROXY protocol, versions 1 and 2: for whom a balancer speaks, said before the first octet of what it carries.
//!
//! Pure and incremental: [`parse`] says how many octets of the header are still to come, so that a reader never takes one
//! that belongs to what follows. Whether the peer may be believed is the caller's to decide, before it calls. [`text`] and
//! [`binary`] write one. Source: the HAProxy project's proxy-protocol.txt, sections 2.1 and 2.2; of its extensions (TLVs)
//! the checksum is verified, the others are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its end of line (section 2.1).
pub const MAX_V1: usize = 107;
/// Longest header of version 2 that is read. Ours: room for addresses and for extensions with a client's certificate.
pub const MAX_V2: usize = 4_096;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const WORD: [u8; 6] = *b"PROXY ";
/// Octets of version 2 before the addresses.
const HEAD: usize = 16;
/// `PP2_TYPE_CRC32C`: the extension with a checksum of the whole header.
const CHECKSUM: u8 = 0x03;
/// The shortest whole header of version 1: `PROXY UNKNOWN` and the end of the line.
const SHORTEST: usize = 15;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Who made it.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

impl Ends {
    /// Both as they are: IPv4 where they came mapped into IPv6.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source: plain(source.ip(), source.port()), destination: plain(destination.ip(), destination.port()) }
    }
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// So far it is one; at least so many octets are still to come that belong to it.
    More(usize),
    /// It is whole.
    Whole {
        /// Its octets.
        length: usize,
        /// The connection for which the peer speaks; `None` where that is its own (a health check) or cannot be said.
        ends: Option<Ends>,
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
        return Ok(Line::Whole { length, ends: None });
    }
    let ends = said(line).ok_or(Fault::Broken)?;
    Ok(Line::Whole { length, ends: Some(ends) })
}

/// `TCP4 SOURCE DESTINATION PORT PORT`, with single spaces.
fn said(line: &str) -> Option<Ends> {
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
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| plain)
    };
    let (from, to) = (port()?, port()?);
    words.next().is_none().then(|| Ends { source: plain(source, from), destination: plain(destination, to) })
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
    // What a health check says beside that it is one is to be ignored (section 2.2).
    if is_local {
        return Ok(Line::Whole { length, ends: None });
    }
    let (stated, extensions) = rest.split_at_checked(addresses).ok_or(Fault::Broken)?;
    if !extensions.is_empty() {
        let whole = bytes.get(..length).unwrap_or_default();
        verify(whole, extensions).ok_or(Fault::Broken)?;
    }
    Ok(Line::Whole { length, ends: ends(family, stated) })
}

/// Walks through the `extensions` at the end of the header `whole`. `None`: they are cut short, or the checksum is wrong.
fn verify(whole: &[u8], extensions: &[u8]) -> Option<()> {
    let (mut rest, mut is_summed) = (extensions, false);
    while !rest.is_empty() {
        let (&[kind, l0, l1], after) = rest.split_first_chunk()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        if kind == CHECKSUM {
            let said = u32::from_be_bytes(value.try_into().ok()?);
            let at = whole.len() - after.len() - value.len();
            // The checksum is of the header with zeroes in its own place (section 2.2.3).
            let octets = whole.iter().enumerate().map(|(i, &b)| if (at..at + 4).contains(&i) { 0 } else { b });
            if is_summed || crc32c(octets) != said {
                return None;
            }
            is_summed = true;
        }
        rest = after;
    }
    Some(())
}

/// CRC32c (Castagnoli; RFC 3309 appendix A has the table and the method).
fn crc32c(octets: impl Iterator<Item = u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut sum, mut bit) = (i as u32, 0);
            while bit < 8 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            table[i] = sum;
            i += 1;
        }
        table
    };
    let step = |sum: u32, octet: u8| TABLE[usize::from(sum as u8 ^ octet)] ^ (sum >> 8);
    !octets.fold(!0, step)
}

/// A header of version 1 for `ends`; `None`: for nobody whom it could name.
pub fn text(ends: Option<&Ends>) -> Vec<u8> {
    let Some(ends) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (family, source, destination) = match alike(ends) {
        Alike::V4(source, destination) => ("TCP4", IpAddr::V4(source), IpAddr::V4(destination)),
        Alike::V6(source, destination) => ("TCP6", IpAddr::V6(source), IpAddr::V6(destination)),
    };
    let (from, to) = (ends.source.port(), ends.destination.port());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

/// A header of version 2 for `ends`; `None`: for the connection itself, as health checks have it (LOCAL).
pub fn binary(ends: Option<&Ends>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + 36);
    out.extend_from_slice(&SIGNATURE);
    let Some(ends) = ends else {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return out;
    };
    match alike(ends) {
        Alike::V4(source, destination) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        Alike::V6(source, destination) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&ends.source.port().to_be_bytes());
    out.extend_from_slice(&ends.destination.port().to_be_bytes());
    out
}

/// Two addresses of one family.
enum Alike {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// A header names two addresses of one family: where they differ, both are IPv6.
fn alike(ends: &Ends) -> Alike {
    let wide = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    match (ends.source.ip(), ends.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Alike::V4(source, destination),
        (source, destination) => Alike::V6(wide(source), wide(destination)),
    }
}

fn ends(family: u8, addresses: &[u8]) -> Option<Ends> {
    let (source, destination, ports): (IpAddr, IpAddr, &[u8]) = match family >> 4 {
        1 => {
            let (from, rest) = addresses.split_first_chunk::<4>()?;
            let (to, ports) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*from).into(), Ipv4Addr::from(*to).into(), ports)
        }
        2 => {
            let (from, rest) = addresses.split_first_chunk::<16>()?;
            let (to, ports) = rest.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*from).into(), Ipv6Addr::from(*to).into(), ports)
        }
        _ => return None,
    };
    let [f0, f1, t0, t1] = *ports.first_chunk()?;
    let (from, to) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([t0, t1]));
    Some(Ends { source: plain(source, from), destination: plain(destination, to) })
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

    fn whole(length: usize, ends: &str) -> Line {
        let ends = ends.split_once(' ').map(|(from, to)| Ends::new(from.parse().unwrap(), to.parse().unwrap()));
        Line::Whole { length, ends }
    }

    /// An extension.
    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    #[test]
    fn the_text_of_version_1_is_taken_to_the_letter() {
        let cases = [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 51234 53\r\n", Ok(whole(44, "192.0.2.7:51234 198.51.100.1:53"))),
            ("PROXY TCP6 2001:db8::7 ::1 1 53\r\n", Ok(whole(33, "[2001:db8::7]:1 [::1]:53"))),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 53\r\n", Ok(whole(38, "192.0.2.7:1 [::1]:53"))),
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
            (v2(0x21, 0x11, &v4), Ok(whole(28, "192.0.2.7:51234 198.51.100.1:53"))),
            (v2(0x21, 0x12, &v4), Ok(whole(28, "192.0.2.7:51234 198.51.100.1:53"))),
            (v2(0x21, 0x11, &[&v4[..], &tlv(4, &[0])].concat()), Ok(whole(32, "192.0.2.7:51234 198.51.100.1:53"))),
            (v2(0x21, 0x21, &v6), Ok(whole(52, "[2001::]:9 [::]:0"))),
            (v2(0x21, 0x31, &[0; 216]), Ok(whole(232, ""))),
            (v2(0x21, 0x00, &[]), Ok(whole(16, ""))),
            (v2(0x20, 0x00, &[]), Ok(whole(16, ""))),
            (v2(0x20, 0x11, &[]), Ok(whole(16, ""))),
            (v2(0x20, 0x11, &v4), Ok(whole(28, ""))),
            (v2(0x21, 0x11, &[&v4[..], &[4, 0, 2, 0]].concat()), Err(Fault::Broken)),
            (v2(0x21, 0x11, &[&v4[..], &[4, 0]].concat()), Err(Fault::Broken)),
            (v2(0x20, 0x11, &[&v4[..], &[4, 0]].concat()), Ok(whole(30, ""))),
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

    #[test]
    fn a_checksum_is_verified_where_there_is_one() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283, "RFC 3720 appendix B.4 and others");
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0, 53];
        let mut header = v2(0x21, 0x11, &[&v4[..], &tlv(4, &[0]), &tlv(CHECKSUM, &[0; 4]), &tlv(0xea, b"x")].concat());
        let at = HEAD + 12 + 4 + 3;
        assert_eq!(parse(&header), Err(Fault::Broken), "zero is not it");
        let sum = crc32c(header.iter().copied());
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        let length = header.len();
        assert_eq!(parse(&header), Ok(whole(length, "192.0.2.7:51234 198.51.100.1:53")));
        header[HEAD + 3] ^= 1;
        assert_eq!(parse(&header), Err(Fault::Broken), "another address under the same checksum");
        let twice = v2(0x21, 0x11, &[&v4[..], &tlv(CHECKSUM, &[0; 3])].concat());
        assert_eq!(parse(&twice), Err(Fault::Broken), "no checksum has three octets");
    }

    proptest! {
        /// What is written is read; of two families as one.
        #[test]
        fn what_is_written_is_read(from: IpAddr, to: IpAddr, ports: (u16, u16)) {
            let ends = Ends::new(SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
            for header in [text(Some(&ends)), binary(Some(&ends))] {
                prop_assert_eq!(parse(&header), Ok(Line::Whole { length: header.len(), ends: Some(ends) }));
            }
            prop_assert!(text(Some(&ends)).len() <= MAX_V1);
            for header in [text(None), binary(None)] {
                prop_assert_eq!(parse(&header), Ok(Line::Whole { length: header.len(), ends: None }));
            }
        }

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
                rest.extend(tlv(0xe0, &extra));
                v2(0x21, 0x11, &rest)
            };
            let mut taken = 0;
            while let Line::More(n) = parse(&header[..taken]).unwrap() {
                prop_assert!(n > 0);
                taken += n;
                prop_assert!(taken <= header.len());
            }
            let ends = Ends::new(SocketAddr::new(client.into(), port), ([127, 0, 0, 1], 53).into());
            let wanted = Line::Whole { length: header.len(), ends: Some(ends) };
            prop_assert_eq!(parse(&header[..taken]), Ok(wanted));
            prop_assert_eq!(taken, header.len());
            prop_assert_eq!(parse(&[&header[..], b"more"].concat()), Ok(wanted));
        }
    }
}
