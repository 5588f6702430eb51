//! Forms of record data that only one or two types have: places, bitmaps, hyphenated octets, host identities, mnemonics.
//!
//! Each form is read from text and shown as text; what is shown reads as the same octets, and `None` where it would not.

use std::convert::Infallible;

use super::super::dnssec::bitmap;
use super::super::name;
use super::super::text::{base64 as base64_text, push_hex};
use super::{base64, hex, type_name};

/// DNSSEC algorithms by the names that BIND and Knot write (the IANA's registry).
const ALGORITHMS: &[(&str, u8)] = &[
    ("RSASHA1", 5),
    ("NSEC3RSASHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// Certificate types (RFC 4398 section 2.1).
const CERTIFICATES: &[(&str, u16)] = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// The number of an algorithm.
pub(super) fn algorithm(text: &str) -> Option<u8> {
    let named = ALGORITHMS.iter().find(|a| a.0.eq_ignore_ascii_case(text)).map(|a| a.1);
    named.or_else(|| text.parse().ok())
}

/// The number of a certificate type.
pub(super) fn certificate(text: &str) -> Option<u16> {
    let named = CERTIFICATES.iter().find(|c| c.0.eq_ignore_ascii_case(text)).map(|c| c.1);
    named.or_else(|| text.parse().ok())
}

/// What a certificate type is called.
pub(in crate::wire) fn certificate_name(number: u16) -> String {
    CERTIFICATES.iter().find(|c| c.1 == number).map_or_else(|| number.to_string(), |c| c.0.to_owned())
}

/// Octets with hyphens between them (RFC 7043 sections 3.2 and 4.2).
pub(super) fn eui(text: &str, octets: usize) -> Option<Vec<u8>> {
    let parts: Vec<&str> = text.split('-').collect();
    let whole = parts.len() == octets && parts.iter().all(|p| p.len() == 2);
    if whole { hex(&parts.concat()) } else { None }
}

/// The way back of [`eui`].
pub(in crate::wire) fn eui_text(octets: &[u8]) -> String {
    let parts = octets.iter().map(|o| {
        let mut text = String::new();
        push_hex(&mut text, &[*o]);
        text
    });
    parts.collect::<Vec<_>>().join("-")
}

/// Four groups of hexadecimal digits (RFC 6742 section 2.1.2).
pub(super) fn locator(text: &str) -> Option<Vec<u8>> {
    let groups: Vec<&str> = text.split(':').collect();
    let whole = groups.len() == 4 && groups.iter().all(|g| (1..=4).contains(&g.len()));
    let groups = groups.iter().map(|g| u16::from_str_radix(g, 16).ok().filter(|_| !g.starts_with('+')));
    let groups = groups.collect::<Option<Vec<_>>>().filter(|_| whole)?;
    Some(groups.iter().flat_map(|g| g.to_be_bytes()).collect())
}

/// A bitmap of types (RFC 4034 section 4.1.2).
pub(in crate::wire) fn bitmap(mut types: Vec<u16>) -> Vec<u8> {
    types.sort_unstable();
    let mut out = Vec::new();
    let Ok(()) = bitmap::write(&types, |window| {
        out.extend_from_slice(window);
        Ok::<_, Infallible>(())
    });
    out
}

/// The way back of [`bitmap`](fn@bitmap); `None` where the octets are not in its only form.
pub(in crate::wire) fn bitmap_text(octets: &[u8]) -> Option<Vec<String>> {
    Some(bitmap::read(octets)?.iter().map(|t| type_name(*t).into_owned()).collect())
}

/// The middle of the 32 bits: the equator, and the meridian of Greenwich.
const MIDDLE: u32 = 1 << 31;
/// Altitudes count from 100 km below the reference, in centimetres.
const DEPTH_CM: i64 = 10_000_000;

/// A place (RFC 1876 section 3): degrees, minutes, seconds, a direction, twice; altitude, size and precisions.
pub(super) fn loc(words: &[&str]) -> Option<Vec<u8>> {
    let mut rest = words;
    let latitude = angle(&mut rest, 90, ["N", "S"])?;
    let longitude = angle(&mut rest, 180, ["E", "W"])?;
    let [altitude, sizes @ ..] = rest else { return None };
    let altitude = u32::try_from(centimetres(altitude)?.checked_add(DEPTH_CM)?).ok()?;
    if sizes.len() > 3 {
        return None;
    }
    // The defaults of section 3: a metre across, 10 km and 10 m sure.
    let mut power = [0x12, 0x16, 0x13];
    for (to, text) in power.iter_mut().zip(sizes) {
        *to = precision(centimetres(text)?)?;
    }
    let mut out = vec![0];
    out.extend(power);
    for number in [latitude, longitude, altitude] {
        out.extend(number.to_be_bytes());
    }
    Some(out)
}

fn angle(words: &mut &[&str], max: u32, [plus, minus]: [&str; 2]) -> Option<u32> {
    let end = words.iter().position(|w| w.eq_ignore_ascii_case(plus) || w.eq_ignore_ascii_case(minus))?;
    let (numbers, rest) = words.split_at_checked(end)?;
    let direction = rest.first()?;
    let (degrees, minutes, seconds) = match numbers {
        [d] => (*d, "0", "0"),
        [d, m] => (*d, *m, "0"),
        [d, m, s] => (*d, *m, *s),
        _ => return None,
    };
    let (degrees, minutes) = (degrees.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
    let thousandths = u32::try_from(decimal(seconds, 3)?).ok()?;
    if minutes > 59 || thousandths > 59_999 || degrees > max {
        return None;
    }
    let all = (degrees * 60 + minutes) * 60_000 + thousandths;
    if all > max * 3_600_000 {
        return None;
    }
    *words = rest.get(1..)?;
    Some(if direction.eq_ignore_ascii_case(plus) { MIDDLE + all } else { MIDDLE - all })
}

/// A number with up to `places` decimals, in units of the last one.
fn decimal(text: &str, places: usize) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 10 || part.len() > places || !plain(whole) || !plain(part) {
        return None;
    }
    let padded = format!("{whole}{part:0<places$}");
    padded.parse::<i64>().ok().map(|n| sign * n)
}

fn centimetres(text: &str) -> Option<i64> {
    decimal(text.strip_suffix(['m', 'M']).unwrap_or(text), 2)
}

/// Centimetres as a digit and a power of ten (RFC 1876 section 2); what lies between is rounded down.
fn precision(mut centimetres: i64) -> Option<u8> {
    let mut power = 0u8;
    while centimetres > 9 {
        centimetres /= 10;
        power += 1;
    }
    let digit = u8::try_from(centimetres).ok()?;
    (power <= 9).then_some(digit << 4 | power)
}

/// The way back of [`loc`].
pub(in crate::wire) fn loc_text(octets: &[u8]) -> Option<String> {
    let [0, size, horizontal, vertical, numbers @ ..] = octets else { return None };
    let (numbers, []) = numbers.as_chunks::<4>() else { return None };
    let [latitude, longitude, altitude] = numbers else { return None };
    let angle = |octets: &[u8; 4], [plus, minus]: [&str; 2], max: u32| {
        let number = u32::from_be_bytes(*octets);
        let (direction, all) = if number >= MIDDLE { (plus, number - MIDDLE) } else { (minus, MIDDLE - number) };
        let (minutes, thousandths) = (all / 60_000, all % 60_000);
        let text =
            format!("{} {} {}.{:03} {direction}", minutes / 60, minutes % 60, thousandths / 1_000, thousandths % 1_000);
        (all <= max * 3_600_000).then_some(text)
    };
    let altitude = i64::from(u32::from_be_bytes(*altitude)) - DEPTH_CM;
    let sign = if altitude < 0 { "-" } else { "" };
    let altitude = altitude.abs();
    let sizes = [size, horizontal, vertical].map(|s| metres(*s));
    let [Some(size), Some(horizontal), Some(vertical)] = sizes else { return None };
    let shown = format!(
        "{} {} {sign}{}.{:02}m {size} {horizontal} {vertical}",
        angle(latitude, ["N", "S"], 90)?,
        angle(longitude, ["E", "W"], 180)?,
        altitude / 100,
        altitude % 100,
    );
    Some(shown)
}

fn metres(size: u8) -> Option<String> {
    let (digit, power) = (size >> 4, size & 15);
    // Nought has one form that reads back; what is beyond nine is no digit.
    if digit > 9 || power > 9 || digit == 0 && power > 0 {
        return None;
    }
    let centimetres = u64::from(digit) * 10u64.pow(power.into());
    Some(match centimetres % 100 {
        0 => format!("{}m", centimetres / 100),
        part => format!("{}.{part:02}m", centimetres / 100),
    })
}

/// A host identity (RFC 8005 section 5): algorithm, tag, key, rendezvous servers.
pub(super) fn hip(words: &[&str], origin: &[u8]) -> Option<Vec<u8>> {
    let [algorithm, tag, key, servers @ ..] = words else { return None };
    let (algorithm, tag, key) = (algorithm.parse::<u8>().ok()?, hex(tag)?, base64(key)?);
    let length = u8::try_from(tag.len()).ok().filter(|n| *n > 0)?;
    let mut out = vec![length, algorithm];
    out.extend(u16::try_from(key.len()).ok()?.to_be_bytes());
    out.extend(tag);
    out.extend(key);
    for server in servers {
        out.extend(name::parse(server, Some(origin)).ok()?);
    }
    Some(out)
}

/// The way back of [`hip`].
pub(in crate::wire) fn hip_text(octets: &[u8]) -> Option<String> {
    let (&[length, algorithm, k0, k1], rest) = octets.split_first_chunk::<4>()?;
    let (tag, rest) = rest.split_at_checked(length.into())?;
    let (key, mut rest) = rest.split_at_checked(u16::from_be_bytes([k0, k1]).into())?;
    if tag.is_empty() || key.is_empty() {
        return None;
    }
    let mut shown = format!("{algorithm} ");
    push_hex(&mut shown, tag);
    shown.push(' ');
    shown += &base64_text(key);
    while !rest.is_empty() {
        let (server, after) = rest.split_at_checked(name::octets(rest)?)?;
        shown.push(' ');
        shown += &name::show(server);
        rest = after;
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_in_all_its_forms() {
        // RFC 1876 section 4's examples; the octets are those that BIND's dig gives for them.
        let short = loc(&["42", "21", "54", "N", "71", "06", "18", "W", "-24m", "30m"]).unwrap();
        assert_eq!(short[..4], [0, 0x33, 0x16, 0x13]);
        assert_eq!(loc_text(&short).unwrap(), "42 21 54.000 N 71 6 18.000 W -24.00m 30m 10000m 10m");
        assert!(loc(&["42", "N", "71", "W", "0"]).is_some());
        for bad in [
            &["91", "N", "0", "E", "0"][..],
            &["90", "0", "0.001", "N", "0", "E", "0"],
            &["1", "60", "N", "0", "E", "0"],
            &["1", "N", "0", "E"],
            &["1", "N", "0", "E", "-100001m"],
            &["1", "N", "0", "E", "0", "1", "1", "1", "1"],
            &["N", "0", "E", "0"],
        ] {
            assert_eq!(loc(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_bitmap_has_one_form() {
        let mut want = b"\0\x06\x40\x01\0\0\0\x03\x04\x1b".to_vec();
        want.extend([0; 26]);
        want.push(0x20);
        assert_eq!(bitmap(vec![1, 15, 46, 47, 1234]), want, "RFC 4034 section 4.3");
        assert_eq!(bitmap_text(b"\0\x02\x40\0"), None, "a trailing nought");
        assert_eq!(bitmap_text(b"\0\0"), None);
        assert_eq!(bitmap_text(b""), Some(Vec::new()));
    }

    #[test]
    fn octets_and_groups_are_whole() {
        assert!(eui("00-00-5e-00-53", 6).is_none() && eui("0-0-0-0-0-0", 6).is_none());
        assert_eq!(locator("2001:db8:1140:1000"), Some(vec![0x20, 1, 0xd, 0xb8, 0x11, 0x40, 0x10, 0]));
        assert!(locator("2001:db8::1").is_none() && locator("+1:2:3:4").is_none());
    }
}
