//! What is believed of a source of backends: an answer that would take most of them away is doubted, one that adds is not.
//!
//! ```text
//!                  half of them stay, at the least
//!   in force ---------------------------------------------> taken
//!      |      none, or fewer than half as many                ^  ^
//!      +----> doubted: nothing is taken away, what is new is  |  |  it stays so for `keep`, or an operator confirms it
//!      |      added -----------------------------------------+  |
//!      |      as many others                                     |
//!      +----> doubted, as above --------------------------------+  most of the others have proven that they work
//! ```
//!
//! A source that cannot be asked says nothing, so it changes nothing; for that nobody has to decide. Ours; the fear is
//! Eureka's, whose registry keeps what it has when too much of it goes at once.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::MOST_FOUND;
use crate::snapshot::discovered::Found;

/// Why an answer is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// It has no backends at all.
    Empty,
    /// It has fewer than half as many.
    Shrunk,
    /// Most of them are others, which have not been seen to work.
    Replaced,
}

impl Doubt {
    /// The word for it in logs, metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Shrunk => "shrunk",
            Self::Replaced => "replaced",
        }
    }
}

/// What is to be in force after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The list.
    pub list: Vec<Found>,
    /// Why the answer is not believed, where it is not.
    pub doubt: Option<Doubt>,
}

/// Rules on an answer. `known`: what is in force, `None` where the source was never heard; `proven`: whether a backend has
/// been seen to work; `believed`: what is doubtful has been so for long enough, or was confirmed.
pub fn rule(known: Option<&[Found]>, said: &[Found], proven: impl Fn(SocketAddr) -> bool, believed: bool) -> Ruling {
    let known = known.unwrap_or_default();
    let doubt = if believed { None } else { doubt(known, said, proven) };
    let list = match doubt {
        None => merged(known, said, false),
        Some(_) => merged(known, said, true),
    };
    Ruling { list, doubt }
}

fn doubt(known: &[Found], said: &[Found], proven: impl Fn(SocketAddr) -> bool) -> Option<Doubt> {
    let there: HashSet<SocketAddr> = said.iter().map(|f| f.address).collect();
    let gone = known.iter().filter(|f| !there.contains(&f.address)).count();
    if gone * 2 <= known.len() {
        return None;
    }
    if there.is_empty() {
        return Some(Doubt::Empty);
    }
    if there.len() * 2 < known.len() {
        return Some(Doubt::Shrunk);
    }
    let works = there.iter().filter(|address| proven(**address)).count();
    (works * 2 <= there.len()).then_some(Doubt::Replaced)
}

/// `said` in the order of `known`, each address once, new ones last; with `keep`, those that are not said any more, too.
fn merged(known: &[Found], said: &[Found], keep: bool) -> Vec<Found> {
    let mut fresh: HashMap<SocketAddr, &Found> = HashMap::new();
    for found in said {
        fresh.entry(found.address).or_insert(found);
    }
    let stay = known.iter().filter_map(|old| match fresh.remove(&old.address) {
        Some(new) => Some(new.clone()),
        None => keep.then(|| old.clone()),
    });
    let mut list: Vec<Found> = stay.collect();
    list.extend(said.iter().filter(|new| fresh.remove(&new.address).is_some()).cloned());
    list.truncate(MOST_FOUND);
    list
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// The lowest is used.
    pub priority: u16,
    /// Its share beside others of the same priority.
    pub weight: u16,
    /// Where the target listens.
    pub port: u16,
    /// The target, in wire format.
    pub target: Box<[u8]>,
}

impl Srv {
    /// Reads the data of a record, names expanded.
    pub fn read(data: &[u8]) -> Option<Self> {
        let ([p0, p1, w0, w1, o0, o1], target) = data.split_first_chunk()?;
        let [priority, weight, port] = [[*p0, *p1], [*w0, *w1], [*o0, *o1]].map(u16::from_be_bytes);
        Some(Self { priority, weight, port, target: target.into() })
    }
}

/// The targets of the lowest priority, each with its weight. What points to the root or to port 0 offers nothing. Where all
/// weigh nothing, each weighs `plain`; where some do, these have the small chance that the RFC wants: a tenth of 1.
pub fn lowest(records: &[Srv], plain: u32) -> Vec<(&Srv, u32)> {
    let offers = |srv: &&Srv| srv.port > 0 && *srv.target != [0];
    let Some(priority) = records.iter().filter(offers).map(|srv| srv.priority).min() else { return Vec::new() };
    let used: Vec<&Srv> = records.iter().filter(offers).filter(|srv| srv.priority == priority).collect();
    let weightless = used.iter().filter(|srv| srv.weight == 0).count();
    let weight = |srv: &Srv| match weightless {
        0 => u32::from(srv.weight),
        all if all == used.len() => plain,
        _ => (u32::from(srv.weight) * 10).max(1),
    };
    used.iter().map(|&srv| (srv, weight(srv))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(hosts: &[u8]) -> Vec<Found> {
        let found = |host: &u8| Found { address: ([10, 0, 0, *host], 80).into(), weight: 1, name: None };
        hosts.iter().map(found).collect()
    }

    fn hosts(list: &[Found]) -> Vec<u8> {
        let host = |f: &Found| match f.address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        list.iter().map(host).collect()
    }

    #[test]
    fn what_adds_is_taken_and_what_takes_most_away_is_doubted() {
        for (known, said, proven, doubt, after) in [
            (&[][..], &[][..], false, None, &[][..]),
            (&[], &[1, 2], false, None, &[1, 2]),
            (&[1, 2], &[2, 3, 1], false, None, &[1, 2, 3]),
            (&[1, 2], &[2], false, None, &[2]),
            (&[1, 2, 3, 4], &[4, 3], false, None, &[3, 4]),
            (&[1, 2], &[], true, Some(Doubt::Empty), &[1, 2]),
            (&[1], &[], true, Some(Doubt::Empty), &[1]),
            (&[1, 2, 3], &[1], true, Some(Doubt::Shrunk), &[1, 2, 3]),
            (&[1, 2, 3, 4, 5], &[6, 1], true, Some(Doubt::Shrunk), &[1, 2, 3, 4, 5, 6]),
            (&[1], &[2], false, Some(Doubt::Replaced), &[1, 2]),
            (&[1, 2], &[2], true, None, &[2]),
            (&[1, 2], &[3, 4], false, Some(Doubt::Replaced), &[1, 2, 3, 4]),
            (&[1, 2], &[3, 4], true, None, &[3, 4]),
        ] {
            let ruling = rule(Some(&list(known)), &list(said), |_| proven, false);
            assert_eq!((ruling.doubt, hosts(&ruling.list)), (doubt, after.to_vec()), "{known:?} {said:?}");
            let believed = rule(Some(&list(known)), &list(said), |_| false, true);
            assert_eq!(believed.doubt, None);
            assert_eq!(believed.list.len(), said.len());
        }
        assert_eq!(rule(None, &list(&[]), |_| false, false).doubt, None, "a source may begin with nothing");
    }

    #[test]
    fn of_srv_the_lowest_priority_counts_and_weights_as_the_rfc_has_them() {
        let srv = |priority, weight, port, target: &[u8]| Srv { priority, weight, port, target: target.into() };
        let told = |records: &[Srv]| -> Vec<(u16, u32)> {
            lowest(records, 7).iter().map(|(srv, weight)| (srv.port, *weight)).collect()
        };
        let (a, root) = (b"\x01a\0".as_slice(), b"\0".as_slice());
        assert_eq!(told(&[srv(10, 5, 80, a), srv(5, 3, 81, a), srv(5, 1, 82, a)]), [(81, 3), (82, 1)]);
        assert_eq!(told(&[srv(5, 0, 81, a), srv(5, 0, 82, a)]), [(81, 7), (82, 7)]);
        assert_eq!(told(&[srv(5, 0, 81, a), srv(5, 2, 82, a)]), [(81, 1), (82, 20)]);
        assert_eq!(told(&[srv(1, 0, 81, root), srv(1, 1, 0, a), srv(2, 4, 82, a)]), [(82, 4)]);
        assert_eq!(told(&[srv(0, 0, 0, root)]), []);
        assert_eq!(Srv::read(b"\0\x0a\0\x05\0\x50\x01a\0"), Some(srv(10, 5, 80, a)));
        assert_eq!(Srv::read(b"\0\x0a\0\x05\0"), None);
    }

    proptest! {
        #[test]
        fn an_answer_never_takes_most_away_at_once(
            known in prop::collection::hash_set(0u8..40, 0..30),
            said in prop::collection::vec(0u8..40, 0..40),
            proven in any::<bool>(),
        ) {
            let known = list(&known.into_iter().collect::<Vec<_>>());
            let ruling = rule(Some(&known), &list(&said), |_| proven, false);
            let stay = known.iter().filter(|old| ruling.list.iter().any(|new| new.address == old.address)).count();
            let works = said.iter().collect::<HashSet<_>>().len() * 2 >= known.len() && proven;
            prop_assert!(stay * 2 >= known.len() || works, "{:?}", ruling);
            let unique: HashSet<_> = ruling.list.iter().map(|f| f.address).collect();
            prop_assert_eq!(unique.len(), ruling.list.len());
            if ruling.doubt.is_some() {
                prop_assert_eq!(stay, known.len());
            }
            // Who stays stands in the same order.
            let order = |f: &&Found| known.iter().any(|old| old.address == f.address);
            let before: Vec<_> = known.iter().filter(|old| ruling.list.contains(old)).map(|f| f.address).collect();
            let after: Vec<_> = ruling.list.iter().filter(order).map(|f| f.address).collect();
            prop_assert_eq!(before, after);
            prop_assert!(said.iter().all(|s| ruling.list.contains(&list(&[*s])[0])));
        }
    }
}
