//! Who is near: classes of addresses, each with the candidates of a steered name that are near to it.
//!
//! Made once for a topology and a set of candidates, from prefixes, lists and databases alike; a query does one lookup and
//! never learns where a class came from. Classes follow the configuration alone, never health, so scopes stand still while
//! datacenters come and go.
//!
//! The most exact that is said of a client counts: the longest prefix that is near to anybody, else its autonomous system,
//! city, subdivision, country, continent, else nothing. Clients within IPv6 that stand for IPv4 are looked up by that.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::base::prefix::runs::Runs;
use crate::base::prefix::{EMBEDDINGS, PrefixMap};
use crate::config::Locality;
use crate::snapshot::atlas::{Atlas, Mark, Origin, Rank, Source};

/// The class of what stands for IPv4 within IPv6: nobody is looked up there, but leaves end where it begins.
const EMBEDDED: u32 = u32::MAX;

/// Who is near: classes of addresses, each with the candidates that are near to it.
#[derive(Clone, Debug)]
pub struct Near {
    map: PrefixMap<u32>,
    /// By class: whether each candidate is near. Class 0 is near to nobody.
    classes: Vec<Box<[bool]>>,
}

/// What moves of the IPv4 addresses when one map takes the place of another.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Shift {
    /// The share for which other candidates are near than before.
    pub moved: f64,
    /// By candidate: the share to which it was near, and now is.
    pub near: Vec<(f64, f64)>,
}

/// One thing that is said of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What.
    pub locality: Locality,
    /// By which file; `None`: the configuration.
    pub file: Option<PathBuf>,
    /// To whom it makes the client near, by place.
    pub candidates: Vec<usize>,
    /// Whether it is this that counts.
    pub counts: bool,
}

impl Near {
    /// Builds the classes from what each candidate says is near to it, in their order. Who says the same shares it.
    pub fn build(candidates: &[&[Locality]], atlas: &Atlas) -> Self {
        let (nets, layer) = Layer::nets(candidates);
        let sources = atlas.sources.iter();
        let layers: Vec<Layer> = [layer].into_iter().chain(sources.map(|s| Layer::source(s, candidates))).collect();
        let walls = Runs::nested(EMBEDDINGS.iter().map(|net| (IpNet::V6(*net), 1)), 0);
        let runs: Vec<&Runs<u32>> =
            [&nets].into_iter().chain(atlas.sources.iter().map(|s| &s.runs)).chain([&walls]).collect();
        let mut classes = Classes::new(candidates.len());
        let mut met: HashMap<Box<[u32]>, u32> = HashMap::new();
        let runs = Runs::overlay(&runs, |values| {
            let Some((&wall, marks)) = values.split_last() else { return 0 };
            if wall == 1 {
                return EMBEDDED;
            }
            if let Some(class) = met.get(marks) {
                return *class;
            }
            let class = classes.number(decide(&layers, marks));
            met.insert(marks.into(), class);
            class
        });
        Self { map: PrefixMap::of(&runs, 0), classes: classes.list }
    }

    /// The candidates that are near to `address`, by their place, with the depth of the leaf that holds it. `None`: nobody is.
    pub fn find(&self, address: IpAddr) -> (Option<&[bool]>, u8) {
        let leaf = self.map.find(address);
        (self.classes.get(leaf.value as usize).map(AsRef::as_ref).filter(|_| leaf.value > 0), leaf.depth)
    }

    /// How much memory the map takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.map.bytes()
    }

    /// What moves when `after`, of as many candidates, takes the place of this map.
    pub fn shift(&self, after: &Self) -> Shift {
        let count = self.classes.first().map_or(0, |c| c.len());
        let (mut moved, mut near) = (0u64, vec![(0u64, 0u64); count]);
        let mut at = 0u64;
        while let Ok(first) = u32::try_from(at) {
            let address = IpAddr::V4(Ipv4Addr::from(first));
            let ((old, a), (new, b)) = (self.find(address), after.find(address));
            let size = 1u64 << (32 - u32::from(a.max(b).min(32)));
            let is = |near: Option<&[bool]>, i: usize| near.is_some_and(|near| near.get(i) == Some(&true));
            let mut differs = false;
            for (i, (before, now)) in near.iter_mut().enumerate() {
                let (was, is) = (is(old, i), is(new, i));
                *before += if was { size } else { 0 };
                *now += if is { size } else { 0 };
                differs |= was != is;
            }
            moved += if differs { size } else { 0 };
            at += size;
        }
        let share = |addresses: u64| addresses as f64 / (1u64 << 32) as f64;
        Shift { moved: share(moved), near: near.into_iter().map(|(a, b)| (share(a), share(b))).collect() }
    }
}

/// Everything that is said of `address` and asked for by one of `candidates`, the most exact first.
pub fn hits(candidates: &[&[Locality]], atlas: &Atlas, address: IpAddr) -> Vec<Hit> {
    let near_to = |wanted: &Locality| -> Vec<usize> {
        (0..candidates.len()).filter(|i| candidates.get(*i).is_some_and(|all| all.contains(wanted))).collect()
    };
    let mut found: Vec<((Rank, u8), Hit)> = Vec::new();
    let mut note = |locality: &Locality, length: u8, file: Option<&PathBuf>| {
        let candidates = near_to(locality);
        let known = found.iter().any(|(_, hit)| hit.locality == *locality && hit.file.as_ref() == file);
        if !candidates.is_empty() && !known {
            let hit = Hit { locality: locality.clone(), file: file.cloned(), candidates, counts: false };
            found.push(((Rank::of(locality), u8::MAX - length), hit));
        }
    };
    for locality in candidates.iter().copied().flatten() {
        if let Locality::Net(net) = locality
            && net.contains(&address)
        {
            note(locality, net.prefix_len(), None);
        }
    }
    let mut said = 0;
    for source in &atlas.sources {
        let Some(mark) = source.at(address) else { continue };
        for locality in &mark.localities {
            // Of databases, the first that says anything of a rank.
            if source.origin == Origin::List || said & 1 << Rank::of(locality) as u8 == 0 {
                note(locality, mark.length, Some(&source.file));
            }
        }
        said |= mark.said;
    }
    found.sort_by_key(|(rank, _)| *rank);
    let best = found.first().map(|(rank, _)| *rank);
    found.into_iter().map(|(rank, hit)| Hit { counts: Some(rank) == best, ..hit }).collect()
}

/// A set of candidates by place.
type Set = Box<[bool]>;

/// What the marks of one layer mean to these candidates.
struct Layer {
    /// Whether prefixes count here, and the longest of them.
    by_length: bool,
    /// By mark: the length of its prefix, what it says at all, and by rank who is near.
    marks: Vec<Meaning>,
}

#[derive(Default)]
struct Meaning {
    length: u8,
    said: u8,
    near: BTreeMap<Rank, Set>,
}

impl Layer {
    /// The prefixes that the candidates name themselves.
    fn nets(candidates: &[&[Locality]]) -> (Runs<u32>, Self) {
        let mut rules: BTreeMap<IpNet, Vec<bool>> = BTreeMap::new();
        for (i, localities) in candidates.iter().enumerate() {
            for net in localities.iter().filter_map(|l| if let Locality::Net(net) = l { Some(net) } else { None }) {
                let near = rules.entry(net.trunc()).or_insert_with(|| vec![false; candidates.len()]);
                near.iter_mut().skip(i).take(1).for_each(|near| *near = true);
            }
        }
        let mut marks = vec![Meaning::default()];
        let mut numbered: BTreeMap<(u8, Vec<bool>), u32> = BTreeMap::new();
        let rules: Vec<(IpNet, u32)> = rules
            .into_iter()
            .map(|(net, near)| {
                let number = *numbered.entry((net.prefix_len(), near)).or_insert_with_key(|(length, near)| {
                    let near = BTreeMap::from([(Rank::Net, near.clone().into())]);
                    marks.push(Meaning { length: *length, said: 0, near });
                    marks.len() as u32 - 1
                });
                (net, number)
            })
            .collect();
        (Runs::nested(rules, 0), Self { by_length: true, marks })
    }

    fn source(source: &Source, candidates: &[&[Locality]]) -> Self {
        let mut asked: HashMap<&Locality, Vec<usize>> = HashMap::new();
        for (i, localities) in candidates.iter().enumerate() {
            localities.iter().for_each(|locality| asked.entry(locality).or_default().push(i));
        }
        let meaning = |mark: &Mark| {
            let mut near: BTreeMap<Rank, Set> = BTreeMap::new();
            for locality in &mark.localities {
                for i in asked.get(locality).into_iter().flatten() {
                    let set = near.entry(Rank::of(locality)).or_insert_with(|| vec![false; candidates.len()].into());
                    set.iter_mut().skip(*i).take(1).for_each(|near| *near = true);
                }
            }
            Meaning { length: mark.length, said: mark.said, near }
        };
        let by_length = source.origin == Origin::List;
        Self { by_length, marks: source.marks.iter().map(meaning).collect() }
    }
}

/// Who is near where these marks meet, one of each layer.
fn decide(layers: &[Layer], marks: &[u32]) -> Option<Set> {
    let meanings =
        || layers.iter().zip(marks).filter_map(|(layer, mark)| Some((layer, layer.marks.get(*mark as usize)?)));
    let nets = || {
        let lists = meanings().filter(|(layer, _)| layer.by_length);
        lists.filter_map(|(_, meaning)| Some((meaning.length, meaning.near.get(&Rank::Net)?)))
    };
    if let Some(longest) = nets().map(|(length, _)| length).max() {
        let mut sets = nets().filter(|(length, _)| *length == longest).map(|(_, set)| set);
        let mut all = sets.next()?.clone();
        for set in sets {
            all.iter_mut().zip(set).for_each(|(near, also)| *near |= also);
        }
        return Some(all);
    }
    Rank::KNOWN.into_iter().find_map(|rank| {
        let mut databases = meanings().filter(|(layer, _)| !layer.by_length).map(|(_, meaning)| meaning);
        let first = databases.find(|meaning| meaning.said & 1 << rank as u8 != 0)?;
        first.near.get(&rank).cloned()
    })
}

/// Sets of candidates, each with its number.
struct Classes {
    list: Vec<Set>,
    known: HashMap<Set, u32>,
}

impl Classes {
    fn new(candidates: usize) -> Self {
        let nobody: Set = vec![false; candidates].into();
        Self { list: vec![nobody.clone()], known: HashMap::from([(nobody, 0)]) }
    }

    fn number(&mut self, set: Option<Set>) -> u32 {
        let Some(set) = set else { return 0 };
        *self.known.entry(set).or_insert_with_key(|set| {
            self.list.push(set.clone());
            self.list.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests;
