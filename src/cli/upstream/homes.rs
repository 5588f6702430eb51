//! `springtide upstream claim --homes`: one of several homes of users, and the store held for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Failure, Keep};
use crate::config::homes::Homes;
use crate::redpacket::intents::{Bounds, Intents};
use crate::redpacket::ledger::{Fenced, Hold, Store};
use crate::redpacket::service::Relay;
use crate::redpacket::store::intents::{MemoryIntents, RedbIntents};

#[derive(Debug, Args)]
pub(super) struct HomesArgs {
    /// The file that says which claim process owns which users; without it, this one owns all that come to it.
    #[arg(long, value_name = "FILE", requires = "home")]
    homes: Option<PathBuf>,
    /// Which of these homes this process is.
    #[arg(long, value_name = "NAME", requires = "homes")]
    home: Option<String>,
    /// Claims of users whose home cannot be reached that are kept until it is, at most.
    #[arg(long, default_value_t = Bounds::default().open, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    intents: u64,
    /// Take users over that another home had: only where its store can never decide again, and its orders are in `--data`.
    #[arg(long, requires = "homes")]
    take_over: bool,
}

impl HomesArgs {
    /// The way to the other homes, once the store is held for this one.
    pub(super) async fn relay(
        &self,
        keep: Keep,
        data: Option<&Path>,
        store: &dyn Store,
        token: Option<&str>,
    ) -> Result<Option<Relay>, Failure> {
        let (Some(path), Some(name)) = (&self.homes, &self.home) else { return Ok(None) };
        let homes = Homes::load(path)?;
        let bounds = Bounds { open: self.intents, settled: self.intents.saturating_mul(4) };
        let intents: Arc<dyn Intents> = match (keep, data) {
            (_, Some(dir)) => Arc::new(RedbIntents::open(&dir.join("intents.redb"), bounds)?),
            (Keep::Memory, None) => Arc::new(MemoryIntents::new(bounds)),
            (_, None) => return Err("--data says where intents are kept".into()),
        };
        let relay = Relay::new(homes, name, intents, token)?;
        let Hold { epoch, .. } = relay.hold();
        let path = path.display();
        match store.fence(relay.hold(), self.take_over).await? {
            Fenced::Held => Ok(Some(relay)),
            Fenced::Older { epoch: newer } => Err(format!(
                "{path} is of epoch {epoch}, and the store is held under epoch {newer}: start with the newest file"
            )
            .into()),
            Fenced::Differs => Err(format!(
                "the store is held under epoch {epoch} for other users: a changed file needs a greater epoch"
            )
            .into()),
            Fenced::Gains { sets } => Err(format!(
                "{path} gives {name} {sets} sets of users that were another home's: read `Moving a home` in the runbook, \
                 then start it with --take-over"
            )
            .into()),
        }
    }
}
