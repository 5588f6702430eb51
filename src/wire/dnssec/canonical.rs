//! The canonical form (RFC 4034 section 6): the order of names, and record data as it is signed.

use std::cmp::Ordering;

use super::super::name;

/// The canonical order of two names (RFC 4034 section 6.1): by labels from the right, each by its octets in lower case.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (labels(a), labels(b));
    loop {
        match (left.pop(), right.pop()) {
            (Some(l), Some(r)) => {
                let lower = |label: &[u8]| label.to_ascii_lowercase();
                match lower(l).cmp(&lower(r)) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
            (l, r) => return l.is_some().cmp(&r.is_some()),
        }
    }
}

fn labels(of: &[u8]) -> Vec<&[u8]> {
    name::labels(of).collect()
}

/// Where names stand in the data of the types whose names are signed in lower case (RFC 4034 section 6.2, as RFC 6840
/// section 5.1 has it): octets ahead, character-strings after those, then names. Types of later RFCs are not among them.
const fn layout(rtype: u16) -> Option<(usize, usize, usize)> {
    Some(match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME.
        2..=5 | 7..=9 | 12 | 30 | 39 => (0, 0, 1),
        // SOA, MINFO, RP.
        6 | 14 | 17 => (0, 0, 2),
        // MX, AFSDB, RT, KX.
        15 | 18 | 21 | 36 => (2, 0, 1),
        // SIG.
        24 => (18, 0, 1),
        // PX.
        26 => (2, 0, 2),
        // SRV.
        33 => (6, 0, 1),
        // NAPTR.
        35 => (4, 3, 1),
        _ => return None,
    })
}

/// Brings `data` of a record of type `rtype` into canonical form, in place. What is not of the form of its type stays.
pub fn lower(rtype: u16, data: &mut [u8]) {
    let Some((fixed, strings, names)) = layout(rtype) else { return };
    let mut at = fixed;
    for _ in 0..strings {
        let Some(length) = data.get(at) else { return };
        at += 1 + usize::from(*length);
    }
    for _ in 0..names {
        let Some(length) = data.get(at..).and_then(name::octets) else { return };
        if let Some(name) = data.get_mut(at..at + length) {
            // Length octets are below `A`.
            name.make_ascii_lowercase();
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_of_rfc_4034_section_6_1() {
        let order = [
            r"example.",
            r"a.example.",
            r"yljkjljk.a.example.",
            r"Z.a.example.",
            r"zABC.a.EXAMPLE.",
            r"z.example.",
            r"\001.z.example.",
            r"*.z.example.",
            r"\200.z.example.",
        ];
        let names: Vec<Vec<u8>> = order.iter().map(|n| name::parse(n, None).unwrap()).collect();
        for (i, a) in names.iter().enumerate() {
            for (j, b) in names.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{} {}", order[i], order[j]);
            }
        }
    }

    #[test]
    fn only_names_of_the_old_types_are_lowered() {
        for (rtype, before, after) in [
            (15u16, &b"\0A\x02MX\0"[..], &b"\0A\x02mx\0"[..]),
            (33, b"ABCDEF\x01T\0", b"ABCDEF\x01t\0"),
            (35, b"ABCD\x01U\x01S\0\x01R\0", b"ABCD\x01U\x01S\0\x01r\0"),
            (6, b"\x01N\0\x01H\0AAAABBBBCCCCDDDDEEEE", b"\x01n\0\x01h\0AAAABBBBCCCCDDDDEEEE"),
            (16, b"\x02TX", b"\x02TX"),
            (65, b"\0A\x01T\0", b"\0A\x01T\0"),
            (2, b"\x09CUT", b"\x09CUT"),
        ] {
            let mut data = before.to_vec();
            lower(rtype, &mut data);
            assert_eq!(data, after, "{rtype}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(
            names in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..4), 0..4), 3),
        ) {
            let wire = |labels: &Vec<Vec<u8>>| {
                let mut out: Vec<u8> = labels.iter().flat_map(|l| [&[l.len() as u8], l.as_slice()].concat()).collect();
                out.push(0);
                out
            };
            let [a, b, c] = [wire(&names[0]), wire(&names[1]), wire(&names[2])];
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a.to_ascii_uppercase()), Ordering::Equal);
            if compare(&a, &b) == Ordering::Less && compare(&b, &c) == Ordering::Less {
                prop_assert_eq!(compare(&a, &c), Ordering::Less);
            }
        }
    }
}
