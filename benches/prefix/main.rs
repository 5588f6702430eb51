//! What a lookup in a prefix map costs, what building one takes, and how much memory it holds, by the number of prefixes;
//! beside a binary search over the same runs. `cargo bench --bench prefix`

#![allow(clippy::print_stdout, reason = "the figures are the output")]
#![allow(clippy::disallowed_methods, reason = "a bench measures with the system's clock")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use springtide::base::prefix::PrefixMap;
use springtide::base::prefix::runs::Runs;

const LOOKUPS: usize = 2_000_000;

/// SplitMix64: the same prefixes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn address(&mut self, v4: bool) -> IpAddr {
        let (high, low) = (self.next(), self.next());
        if v4 {
            return IpAddr::V4((high as u32).into());
        }
        // Global unicast as it is given out: some registries, and far below.
        let registry = [0x2001u128, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00][low as usize % 6];
        IpAddr::V6((registry << 112 | u128::from(high) << 48 | u128::from(low) >> 16).into())
    }

    /// Lengths as in routing tables: most are the longest that is routed.
    fn net(&mut self, v4: bool) -> IpNet {
        let (longest, spread) = if v4 { (24, 12) } else { (48, 20) };
        let shorter = if self.next().is_multiple_of(2) { 0 } else { (self.next() % spread) as u8 };
        let address = self.address(v4);
        IpNet::new(address, longest - shorter).map_or(IpNet::from(address), |net| net.trunc())
    }
}

fn main() {
    println!("family  prefixes     runs    bytes  build ms  lookup ns  binary search ns");
    for v4 in [true, false] {
        for count in [100usize, 10_000, 500_000] {
            let mut random = Random(count as u64);
            let rules: Vec<(IpNet, u32)> =
                (0..count).map(|_| (random.net(v4), (random.next() % 8) as u32 + 1)).collect();
            let probes: Vec<IpAddr> = (0..65_536).map(|_| random.address(v4)).collect();
            let began = Instant::now();
            let runs = Runs::nested(rules.iter().copied(), 0);
            let map = PrefixMap::of(&runs, 0);
            let built = began.elapsed();
            let each = |find: &dyn Fn(IpAddr) -> u32| {
                let began = Instant::now();
                let sum: u64 = (0..LOOKUPS).map(|i| u64::from(find(black_box(probes[i % probes.len()])))).sum();
                black_box(sum);
                began.elapsed().as_nanos() as f64 / LOOKUPS as f64
            };
            let lookup = each(&|address| map.find(address).value);
            let search = each(&|address| runs.at(address).unwrap_or(0));
            let family = if v4 { "IPv4" } else { "IPv6" };
            let (runs, bytes, built) = (runs.count(), map.bytes(), built.as_secs_f64() * 1e3);
            println!("{family}  {count:>10} {runs:>8} {bytes:>8}  {built:>8.1}  {lookup:>9.1}  {search:>16.1}");
        }
    }
}
