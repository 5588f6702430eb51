//! The name that comes right after another in canonical order, within one zone (RFC 4471 section 3.1.2).
//!
//! An NSEC record from a name to its successor covers nothing in between: what compact denial (RFC 9824 section 3) needs.

use super::super::name;

/// Writes the successor of `of` (lower case, wire format) to the front of `out`; gives its length. `None` where there is
/// none above the root, or `of` is no name.
pub fn write(of: &[u8], out: &mut [u8; name::MAX]) -> Option<usize> {
    // The usual case: a label of one zero octet in front makes the first name beneath.
    if of.len() + 2 <= name::MAX {
        out[..2].copy_from_slice(&[1, 0]);
        out.get_mut(2..2 + of.len())?.copy_from_slice(of);
        return Some(2 + of.len());
    }
    let mut at = of;
    loop {
        let (&length, tail) = at.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = tail.split_at_checked(length.into())?;
        // The next label: one zero octet longer, where there is room for it.
        if label.len() < name::MAX_LABEL && at.len() < name::MAX {
            return join(&[&[length + 1], label, &[0], rest], out);
        }
        // Else its last octet that can grow does, and what follows that goes.
        if let Some(last) = label.iter().rposition(|b| *b < u8::MAX) {
            let (kept, grown) = (label.get(..last)?, label.get(last)? + 1);
            // Upper case does not exist in canonical form.
            let grown = if grown == b'A' { b'Z' + 1 } else { grown };
            return join(&[&[last as u8 + 1], kept, &[grown], rest], out);
        }
        at = rest;
    }
}

fn join(parts: &[&[u8]], out: &mut [u8; name::MAX]) -> Option<usize> {
    let mut length = 0;
    for part in parts {
        out.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::super::canonical;
    use super::*;

    fn successor(of: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; name::MAX];
        write(of, &mut out).map(|length| out[..length].to_vec())
    }

    fn named(labels: &[&[u8]]) -> Vec<u8> {
        let mut out: Vec<u8> = labels.iter().flat_map(|l| [&[l.len() as u8], *l].concat()).collect();
        out.push(0);
        out
    }

    #[test]
    fn the_shapes_of_rfc_4471() {
        assert_eq!(successor(b"\x01a\x01b\0").unwrap(), b"\x01\0\x01a\x01b\0");
        let (long, full) = (vec![b'x'; 61], vec![b'x'; 63]);
        let almost = named(&[&long[..60], &full, &full, &full]);
        assert_eq!(almost.len(), 254);
        assert_eq!(successor(&almost).unwrap(), named(&[&[&long[..60], &[0]].concat(), &full, &full, &full]));
        let whole = named(&[&long, &full, &full, &full]);
        assert_eq!(whole.len(), 255);
        let mut grown = long.clone();
        grown[60] = b'y';
        assert_eq!(successor(&whole).unwrap(), named(&[&grown, &full, &full, &full]));
        let tail = [&long[..60], &[255]].concat();
        let mut short = long[..60].to_vec();
        short[59] = b'y';
        assert_eq!(successor(&named(&[&tail, &full, &full, &full])).unwrap(), named(&[&short, &full, &full, &full]));
        let before = [&long[..60], b"@"].concat();
        let after = [&long[..60], b"["].concat();
        let name = |l: &[u8]| named(&[l, &full, &full, &full]);
        assert_eq!(successor(&name(&before)).unwrap(), name(&after));
        assert_eq!(successor(&[255; 255]), None, "no name");
    }

    proptest! {
        #[test]
        fn a_successor_is_a_name_and_comes_after(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=63), 1..8),
        ) {
            let labels: Vec<Vec<u8>> = labels.iter().map(|l| l.to_ascii_lowercase()).collect();
            let name = named(&labels.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assume!(name.len() <= name::MAX);
            if let Some(next) = successor(&name) {
                prop_assert_eq!(name::octets(&next), Some(next.len()));
                prop_assert!(next.len() <= name::MAX);
                prop_assert_eq!(canonical::compare(&name, &next), Ordering::Less);
            }
        }
    }
}
