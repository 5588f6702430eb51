//! Tells in time when a zone's keys run out: a gauge for each zone, a line in the log that nobody can miss, and a report for
//! the admin API.
//!
//! Signing itself needs no timer: what is due is made anew by whoever asks. This thread only looks, and changes nothing.

use std::collections::HashMap;
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

/// When a zone was last spoken of, by what is wrong.
type Said = HashMap<(String, &'static str), u32>;

/// Looks until `shutdown`.
pub(in crate::dns) async fn watch(published: Arc<Published>, shutdown: CancellationToken) {
    let mut said = Said::new();
    loop {
        look(&published.full(), &mut said, SystemClock.wall());
        tokio::select! {
            () = sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Looks once.
pub(super) fn look(snapshot: &Snapshot, said: &mut Said, now: Wall) {
    let Some(fixed) = snapshot.topology.views.peek::<Fixed>(Slot::Dns) else { return };
    let now = super::seconds(now);
    for signer in fixed.signing.signers() {
        let zone = name::show(&signer.apex);
        for lapse in Lapse::ALL {
            let begins = signer.lapse(lapse, now);
            let left = begins.map_or(f64::INFINITY, |at| f64::from(at.saturating_sub(now)));
            metric::KEYS_LEFT.gauge(&[&zone, lapse.as_str()]).set(left);
            let Some(at) = begins.filter(|at| at.saturating_sub(now) < ahead(signer)) else { continue };
            let last = said.entry((zone.clone(), lapse.as_str()));
            if matches!(&last, std::collections::hash_map::Entry::Occupied(e) if now.saturating_sub(*e.get()) < AGAIN) {
                continue;
            }
            last.insert_entry(now);
            let says = lapse.says(at, now);
            if at == now {
                error!(target: "dns", zone, "{says}: make or roll keys, then reload");
            } else {
                warn!(target: "dns", zone, hours = (at - now) / 3_600, "{says}: roll them");
            }
        }
    }
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
