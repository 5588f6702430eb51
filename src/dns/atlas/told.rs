//! What is told of the files of `[geo]`: how each reading ended, and of what is in force how old and how large it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::dns::table::Fixed;
use crate::observe::names::Metric;
use crate::observe::names::dns as metric;
use crate::snapshot::Topology;
use crate::snapshot::atlas::Source;

/// A file was read; `usable` says whether what it says could be put in force.
pub(super) fn reading(file: &Path, usable: bool) {
    let file = file.display().to_string();
    let outcome = if usable { "usable" } else { "refused" };
    metric::GEO_READINGS.counter(&[&file, outcome]).increment(1);
    metric::GEO_ACCEPTED.gauge(&[&file]).set(f64::from(u8::from(usable)));
}

/// What a gauge has of a source.
type Of = fn(&Source) -> f64;

/// The gauges that each file has.
const EACH: [(&Metric, Of); 4] = [
    (&metric::GEO_MADE, |s| s.made().map_or(f64::NAN, |at| at as f64)),
    (&metric::GEO_NETWORKS, |s| s.networks as f64),
    (&metric::GEO_BYTES, |s| s.stamp.bytes() as f64),
    (&metric::GEO_READ_SECONDS, |s| s.took.as_secs_f64()),
];

/// `after` comes in force in the place of `before`: says what its files are, and that those of `before` that it does not
/// have are gone.
pub(in crate::dns) fn in_force(before: Option<&Topology>, after: &Topology) {
    if before.is_some_and(|b| Arc::ptr_eq(&b.assets.atlas, &after.assets.atlas)) {
        return;
    }
    let sources = &after.assets.atlas.sources;
    let here: BTreeSet<&Path> = sources.iter().map(|s| &*s.file).collect();
    for source in sources {
        let file = source.file.display().to_string();
        for (metric, of) in EACH {
            metric.gauge(&[&file]).set(of(source));
        }
    }
    let gone = before.iter().flat_map(|b| &b.assets.atlas.sources).filter(|s| !here.contains(&*s.file));
    for source in gone {
        let file = source.file.display().to_string();
        EACH.iter()
            .map(|(metric, _)| *metric)
            .chain([&metric::GEO_ACCEPTED])
            .for_each(|m| m.gauge(&[&file]).set(f64::NAN));
    }
    metric::GEO_MAP_BYTES.gauge(&[]).set(Fixed::of(after).near_bytes() as f64);
    let (was, is) = (before.map(classes).unwrap_or_default(), classes(after));
    for name in was.keys().filter(|name| !is.contains_key(*name)) {
        metric::ECS_CLASSES.gauge(&[name]).set(f64::NAN);
    }
    for (name, classes) in is {
        metric::ECS_CLASSES.gauge(&[name]).set(classes as f64);
    }
}

/// The steered names that maps divide, each with its classes.
fn classes(topology: &Topology) -> BTreeMap<&str, u64> {
    let fixed = Fixed::of(topology);
    let steers = topology.config.dns.iter().flat_map(|dns| dns.steers.iter().enumerate());
    steers.filter_map(|(i, steer)| Some((steer.name.as_str(), fixed.classes(i)?))).collect()
}
