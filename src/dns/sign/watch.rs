//! Tells in time when a zone's keys run out: a gauge for each zone, a line in the log that nobody can miss, and a report for
//! the admin API.
//!
//! Signing itself needs no timer: what is due is made anew by whoever asks. This thread only looks, and changes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::super::table::Fixed;
use super::keys::{self, State};
use super::signer::ZoneSigner;
use super::timeline::Lapse;
use crate::base::clock::{Clock as _, SystemClock, Wall};
use crate::observe::names::dns as metric;
use crate::snapshot::views::Slot;
use crate::snapshot::{Published, Snapshot};
use crate::wire::dnssec::keyfile::Key;
use crate::wire::name;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);
/// How long ahead it warns, at the least: time for a roll with a TTL of a day at the parent. Where signatures are good for
/// longer, as long as they are: one that is made now should not outlast its key.
const AHEAD: u32 = 7 * 86_400;
/// How often it says the same again.
const AGAIN: u32 = 3_600;

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Last {
    /// The zones that were signed.
    zones: HashSet<String>,
    /// When one was last spoken of, by what is wrong.
    pub(super) said: HashMap<(String, &'static str), u32>,
}

/// Looks until `shutdown`.
pub(in crate::dns) async fn watch(published: Arc<Published>, shutdown: CancellationToken) {
    let mut last = Last::default();
    loop {
        look(&published.full(), &mut last, SystemClock.wall());
        tokio::select! {
            () = sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Looks once; `last` is what was seen before.
pub(super) fn look(snapshot: &Snapshot, last: &mut Last, now: Wall) {
    let Some(fixed) = snapshot.topology.views.peek::<Fixed>(Slot::Dns) else { return };
    let now = super::seconds(now);
    let mut zones = HashSet::new();
    for signer in fixed.signing.signers() {
        let zone = name::show(&signer.apex);
        for lapse in Lapse::ALL {
            let begins = signer.lapse(lapse, now);
            let left = begins.map_or(f64::INFINITY, |at| f64::from(at.saturating_sub(now)));
            metric::KEYS_LEFT.gauge(&[&zone, lapse.as_str()]).set(left);
            let Some(at) = begins.filter(|at| at.saturating_sub(now) < ahead(signer)) else { continue };
            let said = last.said.entry((zone.clone(), lapse.as_str()));
            if matches!(&said, std::collections::hash_map::Entry::Occupied(e) if now.saturating_sub(*e.get()) < AGAIN) {
                continue;
            }
            said.insert_entry(now);
            let says = lapse.says(at, now);
            if at == now {
                error!(target: "dns", zone, "{says}: make or roll keys, then reload");
            } else {
                warn!(target: "dns", zone, hours = (at - now) / 3_600, "{says}: roll them");
            }
        }
        zones.insert(zone);
    }
    // A zone that is signed here no more runs out of nothing: its last values would warn for ever.
    for zone in last.zones.difference(&zones) {
        for lapse in Lapse::ALL {
            metric::KEYS_LEFT.gauge(&[zone, lapse.as_str()]).set(f64::INFINITY);
        }
    }
    last.said.retain(|(zone, _), _| zones.contains(zone));
    last.zones = zones;
}

fn ahead(signer: &ZoneSigner) -> u32 {
    u32::try_from(signer.rules.validity.as_secs()).unwrap_or(u32::MAX).max(AHEAD)
}

/// The keys of every signed zone at `now`, what each does, and what lapses when.
pub fn report(snapshot: &Snapshot, now: Wall) -> Value {
    let now = super::seconds(now);
    let fixed = Fixed::of(&snapshot.topology);
    let zone = |signer: &ZoneSigner| {
        let files = snapshot.topology.assets.signing.get(&signer.apex);
        let files = files.map(AsRef::as_ref).unwrap_or_default();
        let key = |key: &Key| {
            let Key { public, private } = key;
            json!({
                "tag": public.tag(),
                "algorithm": public.algorithm.as_str(),
                "role": keys::role(key, files),
                "state": State::of(&private.times, now).as_str(),
            })
        };
        let lapse = |lapse: Lapse| {
            let at = signer.lapse(lapse, now)?;
            let left = at.saturating_sub(now);
            Some(json!({
                "keys": lapse.as_str(), "in_s": left, "alarm": left < ahead(signer), "says": lapse.says(at, now),
            }))
        };
        json!({
            "zone": name::show(&signer.apex),
            "keys": files.iter().map(key).collect::<Vec<_>>(),
            "lapses": Lapse::ALL.into_iter().filter_map(lapse).collect::<Vec<_>>(),
        })
    };
    json!({ "zones": fixed.signing.signers().map(zone).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::super::tests::{key, rules, sign_world};
    use super::*;
    use crate::dns::fixture::world;
    use crate::wire::dnssec::keyfile::Times;
    use crate::wire::dnssec::{Algorithm, SEP, ZONE_KEY};

    #[test]
    fn a_zone_that_is_signed_no_more_warns_of_nothing() {
        let now = super::super::seconds(SystemClock.wall());
        let (mut signed, plain) = (world(), world());
        let times = Times { inactive: Some(now + 3_600), ..Times::default() };
        sign_world(&mut signed, vec![key(ZONE_KEY | SEP, Algorithm::Ed25519, times)], &rules());
        for snapshot in [&signed, &plain] {
            crate::dns::prepare(&snapshot.topology, None);
        }
        let recorder = PrometheusBuilder::new().build_recorder();
        let least = || {
            let text = recorder.handle().render();
            let lines = text.lines().filter(|l| l.starts_with("springtide_dns_keys_left_seconds{"));
            lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).fold(f64::NAN, f64::min)
        };
        metrics::with_local_recorder(&recorder, || {
            let mut last = Last::default();
            look(&signed, &mut last, SystemClock.wall());
            assert!((3_000.0..=3_600.0).contains(&least()) && !last.said.is_empty(), "{}", least());
            look(&plain, &mut last, SystemClock.wall());
            assert!(least() == f64::INFINITY && last.said.is_empty() && last.zones.is_empty(), "{}", least());
        });
    }
}
