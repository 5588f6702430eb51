//! `springtide upstream claim --homes`: one of several homes of users, the store held for it, and the file followed.
//!
//! The file is looked at every second. What has changed and then stayed the same for a second is taken, whole or not at all:
//! first the store is held by it, then the process goes by it. Users who have moved away are passed on from then on. Users
//! who would move here are not taken without a person's word, which is a start with `--take-over`; a file that says so, or
//! that is wrong or old, changes nothing, and is complained of until it does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{ClaimArgs, Failure, Keep};
use crate::base::file;
use crate::base::task::{Task, spawn};
use crate::config::homes::Homes;
use crate::observe::names::redpacket::HOMES_REFUSED;
use crate::redpacket::intents::{Bounds, Intents};
use crate::redpacket::ledger::{Fenced, Hold, Store};
use crate::redpacket::service::Relay;
use crate::redpacket::store::intents::{MemoryIntents, RedbIntents};
#[cfg(feature = "postgres")]
use crate::redpacket::store::postgres::PostgresIntents;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file of homes (ours: 256 homes with all they may say are far below).
const MOST_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct HomesArgs {
    /// The file that says which home owns which users; without it, this process owns all that come to it. It is followed: a
    /// newer one takes effect within seconds.
    #[arg(long, value_name = "FILE", requires = "home")]
    homes: Option<PathBuf>,
    /// Which of these homes this process is. Several that share a database are one home.
    #[arg(long, value_name = "NAME", requires = "homes")]
    home: Option<String>,
    /// Claims of users whose home cannot be reached that are kept until it is, at most.
    #[arg(long, default_value_t = Bounds::default().open, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    intents: u64,
    /// Take users over that another home had: only where its store can never decide again, and its orders are in this one.
    #[arg(long, requires = "homes")]
    take_over: bool,
}

/// The way to the other homes, once the store is held for this one.
pub(super) async fn relay(args: &ClaimArgs, store: &dyn Store, token: Option<&str>) -> Result<Option<Relay>, Failure> {
    let (Some(path), Some(name)) = (&args.homes.homes, &args.homes.home) else { return Ok(None) };
    let homes = Homes::load(path)?;
    let relay = Relay::new(homes, name, intents(args).await?, token)?;
    let fenced = store.fence(relay.hold(), args.homes.take_over).await?;
    held(fenced, relay.hold(), path, name)?;
    Ok(Some(relay))
}

/// Where intents are kept: beside the orders.
async fn intents(args: &ClaimArgs) -> Result<Arc<dyn Intents>, Failure> {
    let open = args.homes.intents;
    let bounds = Bounds { open, settled: open.saturating_mul(4) };
    Ok(match (args.store, &args.data) {
        (_, Some(dir)) => Arc::new(RedbIntents::open(&dir.join("intents.redb"), bounds)?),
        #[cfg(feature = "postgres")]
        (Keep::Postgres, None) => {
            let options = args.database.options().ok_or("--postgres says where intents are kept")?;
            Arc::new(PostgresIntents::open(&options, bounds).await?)
        }
        (Keep::Memory, None) => Arc::new(MemoryIntents::new(bounds)),
        (Keep::Redb, None) => return Err("--data says where intents are kept".into()),
    })
}

/// What it means that the store is not held.
fn held(fenced: Fenced, hold: Hold, path: &Path, name: &str) -> Result<(), String> {
    let (Hold { epoch, .. }, path) = (hold, path.display());
    match fenced {
        Fenced::Held => Ok(()),
        Fenced::Older { epoch: newer } => Err(format!(
            "{path} is of epoch {epoch}, and the store is held under epoch {newer}: start with the newest file"
        )),
        Fenced::Differs => Err(format!(
            "{path}: the store is held under epoch {epoch} for other users: a changed file needs a greater epoch"
        )),
        Fenced::Gains { sets } => Err(format!(
            "{path} gives {name} {sets} sets of users that were another home's: read `Moving a home` in the runbook, \
             then start it with --take-over"
        )),
    }
}

impl HomesArgs {
    /// Follows the file, where there is one.
    pub(super) fn follow(&self, relay: &Arc<Relay>, store: &Arc<dyn Store>, stop: &CancellationToken) -> Option<Task> {
        let (path, name) = (self.homes.clone()?, self.home.clone()?);
        let follower = Follower { path, name, relay: relay.clone(), store: store.clone(), seen: None, refused: None };
        let stop = stop.clone();
        Some(spawn("homes", async move {
            tokio::select! {
                () = follower.run() => {}
                () = stop.cancelled() => {}
            }
        }))
    }
}

/// Follows a file of homes.
struct Follower {
    path: PathBuf,
    name: String,
    relay: Arc<Relay>,
    store: Arc<dyn Store>,
    /// What stood there at the last look.
    seen: Option<String>,
    /// What was complained of last.
    refused: Option<String>,
}

impl Follower {
    async fn run(mut self) {
        HOMES_REFUSED.gauge(&[]).set(0.0);
        loop {
            sleep(LOOK).await;
            let refusal = match file::text(&self.path, MOST_BYTES) {
                // Half a file that is being written may look like a whole one.
                Ok((text, _)) if self.seen.as_ref() != Some(&text) => {
                    self.seen = Some(text);
                    continue;
                }
                Ok((text, _)) => self.take(&text).await.err(),
                Err(error) => Some(format!("{}: {error}", self.path.display())),
            };
            self.complain(refusal);
        }
    }

    /// Goes by `text`, where it says anything new; or says why not.
    async fn take(&self, text: &str) -> Result<(), String> {
        let homes = Homes::parse(text).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            format!("{}: {}", self.path.display(), faults.join("; "))
        })?;
        if self.relay.goes_by(&homes) {
            return Ok(());
        }
        let chart = self.relay.draw(homes).map_err(|error| error.to_string())?;
        let (before, hold) = (self.relay.hold(), chart.hold());
        let fenced = self.store.fence(hold, false).await;
        let fenced = fenced.map_err(|error| format!("the store cannot be held by it yet: {error}"))?;
        held(fenced, hold, &self.path, &self.name)?;
        self.relay.adopt(chart);
        let (sets, had) = (hold.sets.count(), before.sets.count());
        tracing::warn!(epoch = hold.epoch, before = before.epoch, sets, had, "the homes are those of the new file");
        Ok(())
    }

    /// Says what is wrong, once; and when nothing is any more.
    fn complain(&mut self, words: Option<String>) {
        HOMES_REFUSED.gauge(&[]).set(if words.is_some() { 1.0 } else { 0.0 });
        if words == self.refused {
            return;
        }
        let epoch = self.relay.hold().epoch;
        if let Some(words) = &words {
            tracing::error!(epoch, "the file of homes is not taken, the old one stays in force: {words}");
        } else {
            tracing::info!(epoch, "the file of homes is in force");
        }
        self.refused = words;
    }
}
