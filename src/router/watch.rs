//! Notices when a file of `[geo]` or of users' homes has changed, and has it read: databases come from outside, by a timer that
//! knows no reload, and homes move for claim processes and edges at once.
//!
//! Looks at the time and the length of each file every `poll`, or every second. A change that cannot be used is tried once
//! and said loudly; it is tried again when the file changes again, so half a file that is being written ends well.

use std::path::PathBuf;
use std::time::Duration;

use tracing::info;

use super::reload::Reloader;
use crate::config::homes::Homes;
use crate::snapshot::atlas::Stamp;

/// When the configuration is looked at again where it asks for no polling.
const IDLE: Duration = Duration::from_secs(30);

/// How often files of homes are looked at: as claim processes do.
const HOMES: Duration = Duration::from_secs(1);

/// Follows the files of users' homes for as long as it is polled.
pub(super) async fn follow_homes(reloader: Reloader) {
    let (mut tried, mut seen) = (Vec::new(), Vec::new());
    loop {
        tokio::time::sleep(HOMES).await;
        let now = homes_files(&reloader).await;
        // What is being written is let alone until it has been the same for a second: half of it may look like a whole.
        if now == tried || now != seen {
            seen = now;
            continue;
        }
        tried = now;
        if homes_differ(&reloader).await {
            info!(target: "reload", "users' homes changed: read again");
            // Where it fails, the log has said why.
            let _ = reloader.rehome().await;
        }
    }
}

async fn homes_files(reloader: &Reloader) -> Vec<(PathBuf, Option<Stamp>)> {
    let mut files = Vec::new();
    for file in reloader.topology().config.services.iter().filter_map(|service| service.homing.file.clone()) {
        let stamp = tokio::fs::metadata(&file).await.ok().map(|metadata| Stamp::of(&metadata));
        files.push((file, stamp));
    }
    files
}

/// Whether a file says anything else than what is in force, or nothing that can be read.
async fn homes_differ(reloader: &Reloader) -> bool {
    let topology = reloader.topology();
    let look = move || {
        let mut homings = topology.config.services.iter().map(|service| &service.homing);
        homings.any(|homing| {
            let said = homing.file.as_ref().map(|file| Homes::load(file));
            said.is_some_and(|said| said.ok().as_ref() != homing.homes.as_deref())
        })
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(false)
}

/// Watches for as long as it is polled.
pub(super) async fn watch(reloader: Reloader) {
    let mut tried = Vec::new();
    loop {
        let poll = reloader.topology().config.geo.poll;
        tokio::time::sleep(poll.unwrap_or(IDLE)).await;
        if poll.is_none() {
            continue;
        }
        let changed = changed(&reloader).await;
        if changed.is_empty() || changed == tried {
            continue;
        }
        let files: Vec<String> = changed.iter().map(|(file, _)| file.display().to_string()).collect();
        info!(target: "reload", files = files.join(" "), "changed: read again");
        // Where it fails, the log has said why.
        tried = if reloader.refresh().await.is_ok() { Vec::new() } else { changed };
    }
}

/// Files that are not what was read, each with what is there now. One that has gone keeps what it said.
async fn changed(reloader: &Reloader) -> Vec<(PathBuf, Stamp)> {
    let mut changed = Vec::new();
    for source in &reloader.topology().assets.atlas.sources {
        if let Ok(metadata) = tokio::fs::metadata(&source.file).await {
            let now = Stamp::of(&metadata);
            if now != source.stamp {
                changed.push((source.file.clone(), now));
            }
        }
    }
    changed
}
