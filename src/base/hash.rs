//! Hashes whose values leave the process: who goes where must be the same on every node and in every release.
//!
//! Tables inside a process use the standard library's randomly keyed hasher instead. Nothing here resists an attacker
//! who can choose keys and profits from collisions; a choice between three datacenters does not need that.

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
