//! Answering a query allocates nothing, whatever the query: shown by counting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "counting allocations takes an allocator of one's own")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use springtide::base::clock::{Mono, Wall};
use springtide::config::check;
use springtide::control::step;
use springtide::dns::answer::{Meta, Outcome, Transport, answer_in_place};
use springtide::dns::sign;
use springtide::dns::table::Table;
use springtide::dns::zone;
use springtide::snapshot::Topology;
use springtide::snapshot::topology::Assets;
use springtide::wire::dnssec::Algorithm;
use springtide::wire::dnssec::keyfile::Times;
use springtide::wire::name;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything on to the system's allocator, unchanged; counting touches a cell of this thread only, which needs
// no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`, for it is all that `alloc` gives.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn table(signed: bool) -> Table {
    let zone_line = "file = \"world.zone\"\n";
    let rules =
        if signed { "dnssec = { keys = \"keys\", open_per_second = 100000, known_per_second = 100000 }\n" } else { "" };
    let text = include_str!("../fuzz/src/world.toml").replace(zone_line, &format!("{zone_line}{rules}"));
    let config = check::parse(&text, Path::new("world.toml")).unwrap();
    let origin = name::parse("t.", None).unwrap();
    let text = include_str!("../fuzz/src/world.zone");
    let zone = zone::parse(text, Path::new("world.zone"), &origin, &mut |_| Err(String::new())).unwrap();
    let key = sign::generate(origin.clone().into(), 257, Algorithm::EcdsaP256, Times::default()).unwrap();
    let signing = [(origin.into(), vec![key].into())].into();
    let assets = Assets { zones: vec![Arc::new(zone)], signing, ..Assets::default() };
    let topology = Topology::build(Arc::new(config), assets, None);
    Table::compile(&step::first(topology, None, Mono::from_millis(1_000), Wall(1_000)))
}

#[test]
fn no_query_costs_an_allocation() {
    let table = table(false);
    let mut queries: Vec<(String, Vec<u8>)> = Vec::new();
    for owner in ["h", "w", "n", "any.s", "c", "d", "r", "o", "p", "q.x", "b.e", "z.k", "f", "v", "nope", "a.b.nope"] {
        for rtype in [1u16, 28, 65, 16, 43, 255] {
            for edns in [false, true] {
                let mut query = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
                query.extend(name::parse(&format!("{owner}.t."), None).unwrap());
                query.extend(rtype.to_be_bytes());
                query.extend([0, 1]);
                if edns {
                    // A client subnet and NSID.
                    query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 15, 0, 8, 0, 7, 0, 1, 24, 0, 10, 1, 2, 0, 3, 0, 0]);
                }
                queries.push((format!("{owner} {rtype} {edns}"), query));
            }
        }
    }
    let mut packet = vec![0; 2_048];
    for (what, query) in &queries {
        for transport in Transport::ALL {
            packet[..query.len()].copy_from_slice(query);
            let meta = Meta { client: [10, 1, 130, 7].into(), transport, now: Wall(1_000) };
            let before = COUNT.with(Cell::get);
            let outcome = black_box(answer_in_place(&table, black_box(&mut packet), query.len(), &meta));
            let allocations = COUNT.with(Cell::get) - before;
            assert!(matches!(outcome, Outcome::Send(_)), "{what}");
            assert_eq!(allocations, 0, "{what}");
        }
    }
    signed_answers_cost_none_once_their_signatures_are_there(&queries);
    let before = COUNT.with(Cell::get);
    drop(black_box(vec![1]));
    assert_eq!(COUNT.with(Cell::get) - before, 1, "the counter counts");
}

fn signed_answers_cost_none_once_their_signatures_are_there(queries: &[(String, Vec<u8>)]) {
    let table = table(true);
    let mut packet = vec![0; 2_048];
    for (what, query) in queries.iter().filter(|(what, _)| what.ends_with("true")) {
        let mut query = query.clone();
        // DO, in the OPT record that ends with eleven octets of subnet and four of NSID.
        let flags = query.len() - 15 - 4;
        assert_eq!(query[flags - 6..flags - 4], [0, 41], "the OPT's type");
        query[flags] = 0x80;
        let now = Wall(1_800_000_000_000);
        let meta = Meta { client: [10, 1, 130, 7].into(), transport: Transport::Udp, now };
        for round in 0..2 {
            packet[..query.len()].copy_from_slice(&query);
            let before = COUNT.with(Cell::get);
            let outcome = black_box(answer_in_place(&table, black_box(&mut packet), query.len(), &meta));
            let allocations = COUNT.with(Cell::get) - before;
            let Outcome::Send(sent) = outcome else { panic!("{what}") };
            if round == 1 {
                assert_eq!((allocations, sent.signatures.made), (0, 0), "{what}");
                // A chain that does not fit has signed nothing that anybody sees.
                assert!(sent.truncated || sent.signatures.kept > 0, "{what}");
            }
        }
    }
}
