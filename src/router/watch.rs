//! Notices when a file of `[geo]` has changed, and has it read: databases come from outside, by a timer that knows no reload.
//!
//! Looks at the time and the length of each file every `poll`. A change that cannot be used is tried once and said loudly;
//! it is tried again when the file changes again, so half a file that is being written ends well.

use std::path::PathBuf;
use std::time::Duration;

use tracing::info;

use super::reload::Reloader;
use crate::snapshot::atlas::Stamp;

/// When the configuration is looked at again where it asks for no polling.
const IDLE: Duration = Duration::from_secs(30);

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
