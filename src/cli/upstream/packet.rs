//! `springtide upstream packet`: cash packets, what keeps them, and who books their shares.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::pace::PaceArgs;
use super::{Cast, Common, Failure, Keep, token};
use crate::base::task::spawn;
#[cfg(feature = "postgres")]
use crate::cli::database::PostgresArgs;
use crate::redpacket::ledger::cash::{Deposit, Deposited, PacketStore};
use crate::redpacket::model::{IdempotencyKey, UserId};
use crate::redpacket::peer::{Origin, Peer};
use crate::redpacket::service::{Games, PacketService, Source, Tokens, Worker};
use crate::redpacket::store::cash::{MemoryPackets, RedbPackets};
#[cfg(feature = "postgres")]
use crate::redpacket::store::postgres::PostgresPackets;

/// Money that is in an account from the start: `PAYER=FEN`.
#[derive(Clone, Debug)]
struct Prepaid {
    payer: UserId,
    fen: u64,
}

impl FromStr for Prepaid {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(payer, fen)| Some((UserId::parse(payer).ok()?, fen.parse().ok()?)));
        parts.map(|(payer, fen)| Self { payer, fen }).ok_or("expected PAYER=FEN, such as campaign=10000000")
    }
}

#[derive(Debug, Args)]
pub(super) struct PacketArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// What keeps accounts, packets and shares.
    #[arg(long, value_enum, default_value_t = Keep::Redb)]
    store: Keep,
    /// The directory of the packets; one process each.
    #[arg(long, value_name = "DIR", required_if_eq("store", "redb"))]
    data: Option<PathBuf>,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    database: PostgresArgs,
    /// Money that is in an account from the start, in fen; counted once, however often the process starts. Several are
    /// separated by commas. Later payments come in at `POST /internal/deposits`.
    #[arg(long, value_delimiter = ',', value_name = "PAYER=FEN")]
    prepaid: Vec<Prepaid>,
    /// A present of so many fen for every payer without an account: for demonstrations.
    #[arg(long, default_value_t = 0, value_name = "FEN")]
    grant: u64,
    /// Book shares to this wallet; without it, they wait.
    #[arg(long, value_name = "URL")]
    wallet: Option<Origin>,
    #[command(flatten)]
    pace: PaceArgs,
    /// A file with the token that payments from other machines must bear.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl PacketArgs {
    /// The store, and what signs the leave to open.
    async fn open(&self) -> Result<(Arc<dyn PacketStore>, Tokens), Failure> {
        Ok(match (self.store, &self.data) {
            (Keep::Redb, Some(dir)) => {
                let store = Arc::new(RedbPackets::open(&dir.join("packets.redb"))?);
                let key = dir.join("grab.key");
                (store, Tokens::load(&key).map_err(|e| format!("{}: {e}", key.display()))?)
            }
            (Keep::Redb, None) => return Err("--data says where the packets are kept".into()),
            #[cfg(feature = "postgres")]
            (Keep::Postgres, _) => {
                let options = self.database.options().ok_or("--postgres says where the packets are kept")?;
                let store = Arc::new(PostgresPackets::open(&options).await?);
                let tokens = Tokens::with(&store.grab_key().await?);
                (store, tokens)
            }
            (Keep::Memory, _) => (Arc::new(MemoryPackets::new()), Tokens::random()?),
        })
    }

    /// The service, and what works beside it.
    pub(super) async fn cast(&self, working: &CancellationToken) -> Result<Cast, Failure> {
        let (store, tokens) = self.open().await?;
        let mut service = PacketService::new(store.clone(), tokens).granting(self.grant);
        if let Some(token) = token(self.token_file.as_deref())? {
            service = service.guarded(token);
        }
        for Prepaid { payer, fen } in &self.prepaid {
            let idempotency_key = IdempotencyKey::parse("prepaid")?;
            let deposit = Deposit { payer: payer.clone(), idempotency_key, amount_fen: *fen };
            if matches!(service.deposit(deposit).await?, Deposited::KeyConflict | Deposited::Refused) {
                let why =
                    "the account was prepaid with another amount, or this is nothing; POST /internal/deposits adds";
                return Err(format!("--prepaid {payer}={fen}: {why}").into());
            }
        }
        let (wake, service) = (service.wake(), Arc::new(service));
        let mut tasks = vec![spawn("packet-upkeep", keep(service.clone(), working.clone()))];
        if let Some(wallet) = &self.wallet {
            let pace = self.pace.pace()?;
            let wallet = Arc::new(Games::one(Peer::new(wallet.clone()), &pace));
            let worker = Worker::new(Source::Packets(store), wallet, pace).woken_by(wake);
            tasks.push(spawn("booking", worker.run(working.clone())));
        }
        Ok(Cast { stage: service, tasks })
    }
}

/// Gives back what is over and keeps the gauges up to date, once a second.
async fn keep(service: Arc<PacketService>, working: CancellationToken) {
    loop {
        match service.sweep().await {
            Ok(0) => {}
            Ok(packets) => tracing::info!(packets, "the rest of packets whose time is over went back"),
            Err(error) => tracing::warn!(%error, "packets whose time is over cannot be given back"),
        }
        if let Err(error) = service.measure().await {
            tracing::warn!(%error, "the store's sums cannot be read");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = working.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepaid_money_has_an_owner_and_an_amount() {
        assert!(matches!("campaign=500".parse(), Ok(Prepaid { fen: 500, payer }) if payer.as_str() == "campaign"));
        for bad in ["", "campaign", "campaign=", "=5", "a b=5", "campaign=-5", "campaign=5.5"] {
            assert!(bad.parse::<Prepaid>().is_err(), "{bad}");
        }
    }
}
