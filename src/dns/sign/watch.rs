//! Tells in time when a zone's keys run out: a gauge for each zone, and a line in the log that nobody can miss.
//!
//! Signing itself needs no timer: what is due is made anew by whoever asks. This thread only looks, and changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::super::table::Fixed;
use crate::base::clock::{Clock as _, SystemClock};
use crate::observe::names::dns as metric;
use crate::snapshot::Published;
use crate::snapshot::views::Slot;
use crate::wire::name;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);
/// How long ahead it warns: time for a roll with a TTL of a day at the parent.
const AHEAD: u32 = 7 * 86_400;
/// How often it says the same again.
const AGAIN: u32 = 3_600;

/// Looks until `shutdown`.
pub(in crate::dns) async fn watch(published: Arc<Published>, shutdown: CancellationToken) {
    let mut said = HashMap::new();
    loop {
        look(&published, &mut said);
        tokio::select! {
            () = sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Looks once; `said` holds when a zone was last spoken of.
fn look(published: &Published, said: &mut HashMap<String, u32>) {
    let snapshot = published.full();
    let Some(fixed) = snapshot.topology.views.peek::<Fixed>(Slot::Dns) else { return };
    let now = super::seconds(SystemClock.wall());
    for signer in fixed.signing.signers() {
        let zone = name::show(&signer.apex);
        let ends = signer.overdue_from(now);
        let left = ends.map_or(f64::INFINITY, |at| f64::from(at.saturating_sub(now)));
        metric::KEYS_LEFT.gauge(&[&zone]).set(left);
        let Some(left) = ends.map(|at| at.saturating_sub(now)).filter(|left| *left < AHEAD) else { continue };
        if said.get(&zone).is_some_and(|at| now.saturating_sub(*at) < AGAIN) {
            continue;
        }
        said.insert(zone.clone(), now);
        if left == 0 {
            error!(target: "dns", zone, "no key may sign this zone any more: the last one goes on; make or roll keys, then reload");
        } else {
            warn!(target: "dns", zone, hours = left / 3_600, "the keys of this zone run out: roll them");
        }
    }
}
