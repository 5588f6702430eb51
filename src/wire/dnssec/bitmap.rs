//! Type bitmaps (RFC 4034 section 4.1.2): which types exist at a name.

/// Octets of one window at the most: its number, its length, its bits.
pub const WINDOW: usize = 34;

/// Gives `put` every window of the bitmap of `types`, which are in ascending order, each once or more often.
///
/// # Errors
/// Those of `put`, which ends the walk.
pub fn write<E>(types: &[u16], mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut octets = [0u8; WINDOW];
        let mut length = 0;
        for rtype in window {
            let (octet, bit) = (usize::from(*rtype as u8 >> 3), *rtype as u8 & 7);
            if let Some(place) = octets.get_mut(2 + octet) {
                *place |= 0x80 >> bit;
            }
            length = length.max(octet + 1);
        }
        octets[0] = window.first().map_or(0, |t| (t >> 8) as u8);
        octets[1] = length as u8;
        put(octets.get(..2 + length).unwrap_or_default())?;
    }
    Ok(())
}

/// The types of a bitmap, in ascending order. `None` where it breaks a rule: windows out of order, a length of none or
/// more than 32, a trailing octet without a bit.
pub fn read(mut bitmap: &[u8]) -> Option<Vec<u16>> {
    let mut types = Vec::new();
    let mut last = None;
    while let Some((&[window, length], rest)) = bitmap.split_first_chunk::<2>() {
        let (bits, after) = rest.split_at_checked(length.into())?;
        let ordered = last.is_none_or(|last| window > last);
        if !ordered || !(1..=32).contains(&length) || bits.last() == Some(&0) {
            return None;
        }
        for (octet, byte) in bits.iter().enumerate() {
            let set = (0..8).filter(|bit| byte & (0x80 >> bit) != 0);
            types.extend(set.map(|bit| u16::from(window) << 8 | (octet as u16) << 3 | bit));
        }
        (last, bitmap) = (Some(window), after);
    }
    bitmap.is_empty().then_some(types)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn written(types: &[u16]) -> Vec<u8> {
        let mut out = Vec::new();
        let done: Result<(), Infallible> = write(types, |window| {
            out.extend_from_slice(window);
            Ok(())
        });
        done.unwrap();
        out
    }

    #[test]
    fn the_example_of_rfc_4034_section_4_3() {
        let want = [
            0, 6, 0x40, 1, 0, 0, 0, 3, 4, 27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0x20,
        ];
        assert_eq!(written(&[1, 15, 46, 47, 1234]), want);
        assert_eq!(read(&want).as_deref(), Some(&[1, 15, 46, 47, 1234][..]));
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for broken in [&[0][..], &[0, 0], &[0, 33], &[0, 1, 0], &[0, 2, 1, 0], &[1, 1, 1, 0, 1, 1], &[0, 1, 1, 0, 1, 1]]
        {
            assert_eq!(read(broken), None, "{broken:?}");
        }
        assert_eq!(read(&[]), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(types in prop::collection::btree_set(any::<u16>(), 0..40)) {
            let types: Vec<u16> = types.into_iter().collect();
            prop_assert_eq!(read(&written(&types)), Some(types));
        }
    }
}
