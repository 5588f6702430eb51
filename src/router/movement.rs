//! `plan`: what a configuration would do to steering, before it is put in force; from two files, or against a running node.
//!
//! Against a node the change is tried on a copy of its world, with its health, its intents and its load: what remains of
//! its evidence is what a reload would keep. The node's maps are read again where they are asked for something else than
//! they were read for; no other file is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::clock::{Mono, Wall};
use crate::config::{Config, Locality, check};
use crate::control::event::Event;
use crate::control::step;
use crate::decide::movement::{self, Movement, Population, Side};
use crate::decide::steer::Plan;
use crate::snapshot::atlas::Atlas;
use crate::snapshot::topology::Assets;
use crate::snapshot::{Snapshot, Topology};

/// Answers computed for one question at most (ours: some seconds' work): with many names, fewer clients stand for all.
const MOST_ANSWERS: usize = 20_000_000;

/// What a node is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The configuration that would be put in force.
    pub config: String,
    /// Who asks, as [`Population::parse`] reads it. By default every IPv4 /16.
    pub population: Option<String>,
    /// This name alone.
    pub name: Option<String>,
    /// Requests a second in all. By default what the node itself sees.
    pub rate_rps: Option<f64>,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// By steered name, in the order of the new configuration, those that go last.
    pub names: Vec<Movement>,
    /// How many clients stand for the population.
    pub clients: usize,
    /// The largest share of the population that any name moves.
    pub moved: f64,
    /// Where more would go than can be carried. All names count alike.
    pub breaches: Vec<Breach>,
}

/// More would go to a datacenter than it can carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Which.
    pub datacenter: String,
    /// What would go there, in requests a second.
    pub expected_rps: f64,
    /// What it can carry.
    pub capacity_rps: f64,
}

/// What `question` asks of the world in `before`; all that is wrong with it as text.
pub fn foresee(before: &Snapshot, question: &Question, now: Mono, wall: Wall) -> Result<Outlook, String> {
    let path = before.topology.config.path.clone();
    let config = check::parse(&question.config, &path).map_err(|findings| findings.to_string())?;
    let assets = Assets { atlas: atlas(&config, &before.topology)?, ..before.topology.assets.clone() };
    let topology = Topology::build(Arc::new(config), assets, Some(&before.topology));
    let after = step::step(before, Event::Reload(Box::new(topology)), now, wall);
    let population = population(question.population.as_deref())?;
    let seen: f64 = before.spill.iter().filter_map(|s| s.rate_rps).sum();
    let rate = question.rate_rps.or((seen > 0.0).then_some(seen));
    Ok(outlook(before, &after, population, question.name.as_deref(), rate))
}

/// The maps for `config` on the node of `before`. Those in force hold nothing but what its configuration asks them for: of
/// anybody else they would say that nobody is there.
///
/// # Errors
/// Other files are named than the node's own, which are all that is read for a question; or what they say is wrong.
fn atlas(config: &Config, before: &Topology) -> Result<Arc<Atlas>, String> {
    if config.geo.cidr != before.config.geo.cidr || config.geo.databases != before.config.geo.databases {
        return Err(
            "the files of `[geo]` are others than this node's, which has not read them: compare with --old FILE"
                .to_owned(),
        );
    }
    if mapped(config) == mapped(&before.config) {
        return Ok(Arc::clone(&before.assets.atlas));
    }
    let lines = |wrong: Vec<_>| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    crate::dns::atlas::load(config).map(|(atlas, _)| Arc::new(atlas)).map_err(lines)
}

/// What maps are asked for: prefixes need none.
fn mapped(config: &Config) -> HashSet<&Locality> {
    config.localities().filter(|locality| !matches!(locality, Locality::Net(_))).collect()
}

/// Reads a population; by default every IPv4 /16.
pub fn population(text: Option<&str>) -> Result<Population, String> {
    text.map_or_else(|| Ok(Population::sixteenths()), |text| Population::parse(text).map_err(|e| e.to_string()))
}

/// What changes between `before` and `after` for `population`.
pub fn outlook(
    before: &Snapshot,
    after: &Snapshot,
    population: Population,
    only: Option<&str>,
    rate_rps: Option<f64>,
) -> Outlook {
    let wanted = |name: &str| only.is_none_or(|only| only.trim_end_matches('.') == name.trim_end_matches('.'));
    let (old, new) = (Sides::of(before), Sides::of(after));
    let kept = new.names.iter().map(|(name, _)| *name);
    let gone = old.names.iter().map(|(name, _)| *name).filter(|name| new.place(name).is_none());
    let names: Vec<&str> = kept.chain(gone).filter(|name| wanted(name)).collect();
    let population = population.thinned(MOST_ANSWERS / names.len().max(1) / 2);
    let movements: Vec<Movement> =
        names.iter().map(|name| movement::movement(name, old.side(name), new.side(name), &population)).collect();
    Outlook {
        clients: population.len(),
        moved: movements.iter().map(|m| m.moved).fold(0.0, f64::max),
        breaches: rate_rps.map_or_else(Vec::new, |rate| breaches(after, &movements, rate)),
        names: movements,
    }
}

/// The steered names of one side.
struct Sides<'a> {
    /// How each is decided.
    plans: Vec<Option<Plan>>,
    /// Names, each with the names of its candidates.
    names: Vec<(&'a str, Vec<&'a str>)>,
    /// Where each stands among them.
    places: HashMap<&'a str, usize>,
    prefix: (u8, u8),
}

impl<'a> Sides<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let config = &snapshot.topology.config;
        let steers = config.dns.iter().flat_map(|d| &d.steers);
        let names = steers.map(|s| (s.name.as_str(), config.candidates(s).map(|dc| dc.name.as_str()).collect()));
        let names: Vec<(&str, Vec<&str>)> = names.collect();
        let places = names.iter().enumerate().map(|(place, (name, _))| (*name, place)).collect();
        let prefix = config.dns.as_ref().map_or((24, 56), |d| d.client_prefix);
        Self { plans: crate::dns::plans(snapshot), names, places, prefix }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    fn side(&self, name: &str) -> Option<Side<'_>> {
        let place = self.place(name)?;
        let plan = self.plans.get(place)?.as_ref()?;
        Some(Side { plan, datacenters: &self.names.get(place)?.1, prefix: self.prefix })
    }
}

/// Where more would go than can be carried; all names count alike, for nobody says how often each is asked for.
fn breaches(after: &Snapshot, movements: &[Movement], rate_rps: f64) -> Vec<Breach> {
    let asked: Vec<&Movement> = movements.iter().filter(|m| !m.after.is_empty()).collect();
    let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, share) in asked.iter().flat_map(|m| &m.after) {
        *shares.entry(name).or_insert(0.0) += share / asked.len() as f64;
    }
    let one = |dc: &crate::config::Datacenter| {
        let (capacity, share) = (dc.capacity_rps?, shares.get(dc.name.as_str())?);
        let expected = share * rate_rps;
        (expected > capacity).then(|| Breach {
            datacenter: dc.name.clone(),
            expected_rps: expected,
            capacity_rps: capacity,
        })
    };
    after.topology.config.datacenters.iter().filter_map(one).collect()
}
