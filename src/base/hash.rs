//! Hashes whose values leave the process: who goes where must be the same on every node and in every release.
//!
//! Tables inside a process use the standard library's randomly keyed hasher instead. But for [`sip24`], nothing here resists
//! an attacker who can choose keys and profits from collisions; a choice between three datacenters does not need that.

/// The finaliser of SplitMix64 (Stafford's variant 13): every input bit changes every output bit with probability 1/2.
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Joins two hashes; not commutative.
pub const fn join(a: u64, b: u64) -> u64 {
    mix(a.rotate_left(25) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Hashes bytes under a seed. FNV-1a over 8-byte words with a final [`mix`]; release-stable, pinned by a test.
pub const fn bytes(seed: u64, data: &[u8]) -> u64 {
    let mut h = seed ^ 0xcbf2_9ce4_8422_2325 ^ (data.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut rest = data;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        h = (h ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        h ^= h >> 29;
        rest = tail;
    }
    while let Some((byte, tail)) = rest.split_first() {
        h = (h ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = tail;
    }
    mix(h)
}

/// SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", INDOCRYPT 2012), which RFC 9018 prescribes for DNS
/// cookies: unlike the others here it resists who chooses what is hashed and does not know `key`.
pub const fn sip24(key: [u8; 16], data: &[u8]) -> u64 {
    let key = u128::from_le_bytes(key);
    let (k0, k1) = (key as u64, (key >> 64) as u64);
    // "somepseudorandomlygeneratedbytes".
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut rest = data;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        v[3] ^= word;
        v = sip_round(sip_round(v));
        v[0] ^= word;
        rest = tail;
    }
    // The last word: what is left, and the length in its highest octet.
    let mut last = (data.len() as u64) << 56;
    let mut shift = 0;
    while let Some((byte, tail)) = rest.split_first() {
        last |= (*byte as u64) << shift;
        shift += 8;
        rest = tail;
    }
    v[3] ^= last;
    v = sip_round(sip_round(v));
    v[0] ^= last;
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(sip_round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn sip_round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// Maps a hash onto `(0, 1]`, for logarithms and thresholds. Never zero.
pub const fn unit(hash: u64) -> f64 {
    ((hash >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// The score of one candidate in weighted rendezvous hashing: the highest score wins.
///
/// `-weight / ln(u)` (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005): each candidate wins
/// in proportion to its weight, the order in which candidates are listed does not matter, and changing one weight moves
/// only the keys which that change concerns. Zero where `weight` is not positive.
pub fn rendezvous(candidate: u64, key: u64, weight: f64) -> f64 {
    if weight > 0.0 {
        let u = unit(join(candidate, key));
        // ln(1) is 0: that key belongs to the candidate whatever its weight, as the limit says.
        if u >= 1.0 { f64::INFINITY } else { -weight / u.ln() }
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change_between_releases() {
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        assert_eq!(bytes(0, b"hongbao"), bytes(0, b"hongbao"));
        assert_ne!(bytes(0, b"hongbao"), bytes(1, b"hongbao"));
        assert_ne!(bytes(0, b"ab"), bytes(0, b"ab\0"));
        assert_ne!(join(1, 2), join(2, 1));
    }

    #[test]
    fn siphash_is_that_of_its_authors() {
        // Appendix A of the paper, and the first values of the reference implementation's table: key and input are 0, 1, 2...
        let key = std::array::from_fn(|i| i as u8);
        let input: [u8; 15] = std::array::from_fn(|i| i as u8);
        for (length, hash) in [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            assert_eq!(sip24(key, &input[..length]), hash, "{length}");
        }
    }

    #[test]
    fn rendezvous_shares_follow_weights_and_move_only_what_they_must() {
        let pick = |key: u64, weights: &[f64]| {
            (0..weights.len()).max_by(|&a, &b| {
                let score = |i: usize| rendezvous(mix(i as u64 + 1), mix(key), weights[i]);
                score(a).total_cmp(&score(b))
            })
        };
        let (before, after) = ([40.0, 40.0, 20.0], [40.0, 40.0, 0.0]);
        let mut shares = [0u32; 3];
        for key in 0..20_000 {
            let (a, b) = (pick(key, &before), pick(key, &after));
            shares[a.unwrap_or(9)] += 1;
            assert!(a == b || a == Some(2), "only keys of the candidate that left may move");
        }
        assert!(shares.iter().zip([8_000u32, 8_000, 4_000]).all(|(got, want)| got.abs_diff(want) < 250), "{shares:?}");
    }
}
