//! Who and what is busiest, in bounded memory: names, networks, types, and networks that are limited.
//!
//! Each thread looks at one query of every batch, which stands for the whole batch: at low load that is every query, at high
//! load one in 128. It counts what it sees with space-saving (Metwally, Agrawal, El Abbadi, ICDT 2005) in sets of eight,
//! lets old counts fade, and shows a copy once a second. Whoever asks gets the copies of all threads in one, each count with
//! its bounds: what a summary cannot know, it says. A thread counts for one transport, so telling them apart costs nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::answer::Transport;
use super::guard::{Class, Fate};
use crate::base::hash;
use crate::wire::{name, rdata};

/// Counters in a set: a new key takes the least of eight.
const WAYS: usize = 8;
/// What is left of a count after a second: a count remembers some fifteen seconds.
const FADE: f64 = 15.0 / 16.0;
/// Most rows of each kind that a report has.
const MAX_ROWS: usize = 100;

/// Counts of the keys seen most often.
#[derive(Clone, Debug)]
struct Summary<K> {
    sets: Vec<[Slot<K>; WAYS]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    /// Of the key, 64 bits under the process's own seed: equal hashes are the same key.
    hash: u64,
    key: K,
    count: f64,
    /// How much of `count` may belong to keys that had the slot before.
    error: f64,
}

impl<K: Copy> Summary<K> {
    fn new(sets: usize, blank: K) -> Self {
        Self { sets: vec![[Slot { hash: 0, key: blank, count: 0.0, error: 0.0 }; WAYS]; sets] }
    }

    fn set(&self, hash: u64) -> Option<&[Slot<K>; WAYS]> {
        self.sets.get((hash >> 32) as usize % self.sets.len().max(1))
    }

    fn add(&mut self, hash: u64, weight: f64, key: impl FnOnce() -> K) {
        let sets = self.sets.len().max(1);
        let Some(set) = self.sets.get_mut((hash >> 32) as usize % sets) else { return };
        if let Some(slot) = set.iter_mut().find(|s| s.hash == hash && s.count > 0.0) {
            slot.count += weight;
        } else if let Some(least) = set.iter_mut().min_by(|a, b| a.count.total_cmp(&b.count)) {
            *least = Slot { hash, key: key(), count: least.count + weight, error: least.count };
        }
    }

    fn fade(&mut self, factor: f64) {
        for slot in self.sets.iter_mut().flatten() {
            slot.count *= factor;
            slot.error *= factor;
        }
    }

    fn copy_from(&mut self, other: &Self) {
        self.sets.clone_from_slice(&other.sets);
    }

    /// The most that a key may have had that has no slot here.
    fn unseen(&self, hash: u64) -> f64 {
        self.set(hash).map_or(0.0, |set| set.iter().map(|s| s.count).fold(f64::INFINITY, f64::min))
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<K>> {
        self.sets.iter().flatten().filter(|s| s.count > 0.0)
    }
}

/// A name in wire format, in lower case.
#[derive(Clone, Copy, Debug)]
struct Name {
    octets: [u8; name::MAX],
    length: u8,
}

/// What one thread has seen.
#[derive(Clone, Debug)]
pub(super) struct Top {
    seed: u64,
    names: Summary<Name>,
    clients: Summary<IpAddr>,
    types: Summary<u16>,
    limited: Summary<(IpAddr, Class, Fate)>,
    /// All queries, fading like the counts.
    queries: f64,
    /// The seconds in which all of this was counted, fading too: a count by it is a rate.
    seconds: f64,
}

impl Top {
    fn new(seed: u64) -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            seed,
            names: Summary::new(32, Name { octets: [0; name::MAX], length: 0 }),
            clients: Summary::new(64, nobody),
            types: Summary::new(8, 0),
            limited: Summary::new(64, (nobody, Class::All, Fate::Counted)),
            queries: 0.0,
            seconds: 0.0,
        }
    }

    /// Counts a query for `qname` (as it stands in the question) from `network`, which stands for `weight` of them.
    pub(super) fn count(&mut self, qname: &[u8], rtype: u16, network: IpAddr, weight: f64) {
        self.queries += weight;
        let mut lower = Name { octets: [0; name::MAX], length: 0 };
        if let Some(octets) = lower.octets.get_mut(..qname.len()) {
            octets.copy_from_slice(qname);
            octets.make_ascii_lowercase();
            lower.length = qname.len() as u8;
            let hash = hash::bytes(self.seed, octets);
            self.names.add(hash, weight, || lower);
        }
        self.types.add(hash::join(self.seed, rtype.into()), weight, || rtype);
        self.clients.add(self.of_network(network), weight, || network);
    }

    /// Counts an answer to `network` that was over a limit.
    pub(super) fn limit(&mut self, network: IpAddr, class: Class, fate: Fate) {
        let hash = hash::join(self.of_network(network), class as u64 * 16 + fate as u64);
        self.limited.add(hash, 1.0, || (network, class, fate));
    }

    fn of_network(&self, network: IpAddr) -> u64 {
        match network {
            IpAddr::V4(a) => hash::join(self.seed, u64::from(u32::from(a)) | 4 << 32),
            IpAddr::V6(a) => {
                let bits = u128::from(a);
                hash::join(hash::join(self.seed, (bits >> 64) as u64), bits as u64)
            }
        }
    }

    /// Lets what was counted fade after `seconds` more.
    pub(super) fn fade(&mut self, seconds: f64) {
        let factor = FADE.powf(seconds);
        self.seconds = (self.seconds + seconds) * factor;
        self.queries *= factor;
        self.names.fade(factor);
        self.clients.fade(factor);
        self.types.fade(factor);
        self.limited.fade(factor);
    }

    /// Queries a second.
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.queries / self.seconds } else { 0.0 }
    }

    fn copy_from(&mut self, other: &Self) {
        self.names.copy_from(&other.names);
        self.clients.copy_from(&other.clients);
        self.types.copy_from(&other.types);
        self.limited.copy_from(&other.limited);
        (self.queries, self.seconds) = (other.queries, other.seconds);
    }
}

/// Where every thread shows what it has seen.
#[derive(Debug)]
pub(super) struct Board {
    seed: u64,
    shown: Mutex<Vec<(Transport, Arc<Mutex<Top>>)>>,
}

/// What a thread has shown last.
struct Shown {
    transport: Transport,
    top: Top,
}

/// A thread's place at the board.
#[derive(Debug)]
pub(super) struct Place(Arc<Mutex<Top>>);

impl Place {
    /// Shows a copy of `top`, unless somebody looks at the one before just now.
    pub(super) fn show(&self, top: &Top) {
        if let Ok(mut shown) = self.0.try_lock() {
            shown.copy_from(top);
        }
    }
}

impl Board {
    /// Nobody shows anything yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, shown: Mutex::default() }
    }

    /// A thread begins to count what comes by `transport`: its counts, and its place.
    pub(super) fn join(&self, transport: Transport) -> (Top, Place) {
        let top = Top::new(self.seed);
        let shown = Arc::new(Mutex::new(top.clone()));
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).push((transport, Arc::clone(&shown)));
        (top, Place(shown))
    }

    /// The `rows` busiest of each kind, over all threads, or over those of one transport.
    pub(super) fn report(&self, rows: usize, only: Option<Transport>) -> Value {
        let places = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let copy = |(transport, place): &(Transport, Arc<Mutex<Top>>)| Shown {
            transport: *transport,
            top: place.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let mut tops: Vec<Shown> = places.iter().map(copy).collect();
        let by = Transport::ALL.map(|t| tops.iter().filter(|s| s.transport == t).map(|s| s.top.rate()).sum::<f64>());
        let transports = Transport::ALL.iter().zip(by).filter(|(t, rate)| *rate > 0.0 || only == Some(**t));
        let transports: Map<String, Value> = transports.map(|(t, r)| (t.as_str().into(), round(r).into())).collect();
        tops.retain(|shown| only.is_none_or(|only| only == shown.transport));
        let queries: f64 = tops.iter().map(|s| s.top.rate()).sum();
        let rows = rows.min(MAX_ROWS);
        let show_name = |n: &Name| name::show(n.octets.get(..n.length.into()).unwrap_or_default());
        let named = merge(&tops, |t| &t.names, rows);
        let clients = merge(&tops, |t| &t.clients, rows);
        let types = merge(&tops, |t| &t.types, rows);
        let limited = merge(&tops, |t| &t.limited, rows);
        json!({
            "transport": only.map(Transport::as_str),
            "transports": transports,
            "queries_per_second": round(queries),
            "remembers_seconds": 16,
            "sampling": "one query of a batch or of several stands for all of them; limited answers are all counted",
            "names": named.iter().map(|r| r.json(json!({ "name": show_name(&r.key) }))).collect::<Vec<_>>(),
            "clients": clients.iter().map(|r| r.json(json!({ "network": r.key }))).collect::<Vec<_>>(),
            "types": types.iter().map(|r| r.json(json!({ "type": rdata::type_name(r.key) }))).collect::<Vec<_>>(),
            "limited": limited
                .iter()
                .map(|r| r.json(json!({ "network": r.key.0, "class": r.key.1.as_str(), "fate": r.key.2.as_str() })))
                .collect::<Vec<_>>(),
        })
    }
}

/// A key over all threads: between how many a second it is.
#[derive(Clone, Copy, Debug)]
struct Row<K> {
    key: K,
    least: f64,
    most: f64,
    /// How many a second were counted, by transport: of these, shares can be told.
    counted: [f64; Transport::ALL.len()],
}

impl<K> Row<K> {
    fn json(&self, mut key: Value) -> Value {
        if let Some(object) = key.as_object_mut() {
            object.insert("per_second".into(), json!(round(self.most)));
            object.insert("at_least".into(), json!(round(self.least)));
            object.insert("transports".into(), Value::Object(self.shares()));
        }
        key
    }

    /// What share each transport has, in hundredths.
    fn shares(&self) -> Map<String, Value> {
        let all: f64 = self.counted.iter().sum();
        let some = Transport::ALL.iter().zip(self.counted).filter(|(_, rate)| *rate > 0.0);
        some.map(|(t, rate)| (t.as_str().into(), json!((rate / all * 100.0).round() / 100.0))).collect()
    }
}

/// The busiest keys of all threads. A thread that has no slot for a key may have passed it over: that widens its bounds.
fn merge<K: Copy>(tops: &[Shown], of: impl Fn(&Top) -> &Summary<K>, rows: usize) -> Vec<Row<K>> {
    let mut found: HashMap<u64, Row<K>> = HashMap::new();
    for slot in tops.iter().flat_map(|s| of(&s.top).slots()) {
        let blank = Row { key: slot.key, least: 0.0, most: 0.0, counted: [0.0; Transport::ALL.len()] };
        found.entry(slot.hash).or_insert(blank);
    }
    for (hash, row) in &mut found {
        for Shown { transport, top } in tops.iter().filter(|s| s.top.seconds > 0.0) {
            let summary = of(top);
            let slot = summary.set(*hash).and_then(|s| s.iter().find(|s| s.hash == *hash && s.count > 0.0));
            let (count, error) =
                slot.map_or_else(|| (summary.unseen(*hash), summary.unseen(*hash)), |s| (s.count, s.error));
            row.most += count / top.seconds;
            row.least += (count - error) / top.seconds;
            if let (Some(slot), Some(counted)) = (slot, row.counted.get_mut(*transport as usize)) {
                *counted += slot.count / top.seconds;
            }
        }
    }
    let mut sorted: Vec<Row<K>> = found.into_values().filter(|r| r.most > 0.0).collect();
    sorted.sort_by(|a, b| b.least.total_cmp(&a.least).then(b.most.total_cmp(&a.most)));
    sorted.truncate(rows);
    sorted
}

/// To a tenth: more would promise too much.
fn round(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(text: &str) -> Vec<u8> {
        name::parse(text, None).unwrap()
    }

    #[test]
    fn the_busiest_come_first_with_their_bounds() {
        let board = Board::new(7);
        let (mut one, first) = board.join(Transport::Udp);
        let (mut two, second) = board.join(Transport::Tls);
        for i in 0..20_000u32 {
            let net = IpAddr::from([10, (i % 200) as u8, 0, 0]);
            one.count(&wire(&format!("n{i}.test.")), 28, net, 1.0);
            if i % 2 == 0 {
                one.count(&wire("BuSy.test."), 1, IpAddr::from([192, 0, 2, 0]), 1.0);
                two.count(&wire("busy.TEST."), 1, IpAddr::from([192, 0, 2, 0]), 1.0);
            }
        }
        two.limit(IpAddr::from([198, 51, 100, 0]), Class::Answers, Fate::Dropped);
        one.fade(1.0);
        two.fade(1.0);
        first.show(&one);
        second.show(&two);
        let report = board.report(3, None);
        let busy = &report["names"][0];
        assert_eq!(busy["name"], "busy.test.", "{report}");
        let (least, most) = (busy["at_least"].as_f64().unwrap(), busy["per_second"].as_f64().unwrap());
        assert!(least <= 20_000.0 && (20_000.0..21_000.0).contains(&most), "{busy}");
        assert_eq!(report["clients"][0]["network"], "192.0.2.0");
        assert_eq!(report["names"].as_array().map(Vec::len), Some(3));
        assert_eq!(report["queries_per_second"], 40_000.0);
        assert_eq!(report["types"].as_array().map(Vec::len), Some(2));
        let limited = json!({"network": "198.51.100.0", "class": "answers", "fate": "dropped", "per_second": 1.0, "at_least": 1.0, "transports": {"tls": 1.0}});
        assert_eq!(report["limited"], json!([limited]));
        assert_eq!(report["transports"], json!({"udp": 30_000.0, "tls": 10_000.0}));
        assert_eq!(busy["transports"], json!({"udp": 0.5, "tls": 0.5}));
        let tls = board.report(3, Some(Transport::Tls));
        assert_eq!((&tls["queries_per_second"], &tls["transport"]), (&json!(10_000.0), &json!("tls")));
        assert_eq!(
            tls["names"],
            json!([{"name": "busy.test.", "per_second": 10_000.0, "at_least": 10_000.0, "transports": {"tls": 1.0}}])
        );
        assert_eq!(tls["transports"], report["transports"], "how much comes by the others is told all the same");
        let quic = board.report(3, Some(Transport::Quic));
        assert_eq!((&quic["names"], &quic["transports"]["quic"]), (&json!([]), &json!(0.0)));
    }

    #[test]
    fn what_was_is_forgotten() {
        let board = Board::new(7);
        let (mut top, place) = board.join(Transport::Udp);
        top.count(&wire("old.test."), 1, IpAddr::from([192, 0, 2, 0]), 1_000.0);
        for _ in 0..300 {
            top.fade(1.0);
        }
        top.count(&wire("new.test."), 1, IpAddr::from([192, 0, 2, 0]), 10.0);
        place.show(&top);
        assert_eq!(board.report(1, None)["names"][0]["name"], "new.test.");
        assert!(top.seconds < 16.0 && top.queries < 11.0);
    }

    proptest! {
        /// What is reported bounds what was, for every key that is in the summary; and a key with more than its share of its
        /// set is in it.
        #[test]
        fn bounds_hold(keys in prop::collection::vec(0u64..200, 1..2_000)) {
            let mut summary = Summary::new(4, 0u64);
            let mut truth: HashMap<u64, f64> = HashMap::new();
            for key in &keys {
                summary.add(hash::mix(*key), 1.0, || *key);
                *truth.entry(*key).or_default() += 1.0;
            }
            for slot in summary.slots() {
                let was = truth[&slot.key];
                prop_assert!(slot.count - slot.error <= was && was <= slot.count);
            }
            for (key, was) in &truth {
                let hash = hash::mix(*key);
                let set = summary.set(hash).unwrap();
                let total: f64 = set.iter().map(|s| s.count).sum();
                let present = set.iter().any(|s| s.hash == hash);
                prop_assert!(present || *was <= summary.unseen(hash));
                prop_assert!(present || *was <= total / WAYS as f64);
            }
        }
    }
}
