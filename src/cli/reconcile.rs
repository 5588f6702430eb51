//! `springtide reconcile`: orders, what was tried of them, and what the game gave, side by side; or packets of money, to the
//! fen, and what the wallet booked.
//!
//! Exit code 0 where everything fits, 2 where something does not, 1 where a side cannot be read.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Args};

#[cfg(feature = "postgres")]
use super::database::PostgresArgs;
use super::finish;
use super::table::{Paint, Table, Tone, cell};
use super::upstream::token;
use crate::redpacket::peer::{Origin, Peer};
use crate::redpacket::reconcile::{Game, Orders, Report, reconcile};
use crate::redpacket::store::cash::RedbPackets;
use crate::redpacket::store::deliveries::Deliveries;
#[cfg(feature = "postgres")]
use crate::redpacket::store::postgres::{PostgresPackets, PostgresStore};
use crate::redpacket::store::redb::RedbStore;

/// Compares the orders of red packets with what the game gave, or the shares of cash packets with what the wallet booked, and
/// names what does not fit.
///
/// Orders that move meanwhile are looked at twice; cash is counted, packet by packet, where nothing moves. Nothing is changed.
/// Exit code 2 where something does not fit.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("the other side").required(true).args(["game", "game_data", "wallet", "wallet_data"])))]
pub(super) struct ReconcileArgs {
    /// Directories of claim processes, or with a wallet of packet processes, that are stopped.
    #[arg(long, value_delimiter = ',', value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Claim processes at work, asked over HTTP.
    #[arg(long, value_delimiter = ',', value_name = "URL", conflicts_with_all = ["wallet", "wallet_data"])]
    claims: Vec<Origin>,
    /// Packet processes at work, asked over HTTP.
    #[arg(long, value_delimiter = ',', value_name = "URL", conflicts_with_all = ["game", "game_data"])]
    packets: Vec<Origin>,
    /// A file with the token that these processes ask for.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    database: PostgresArgs,
    /// The game, asked over HTTP.
    #[arg(long, value_name = "URL")]
    game: Option<Origin>,
    /// The directory of a game that is stopped.
    #[arg(long, value_name = "DIR")]
    game_data: Option<PathBuf>,
    /// The wallet, asked over HTTP: cash is compared.
    #[arg(long, value_name = "URL")]
    wallet: Option<Origin>,
    /// The directory of a wallet that is stopped: cash is compared.
    #[arg(long, value_name = "DIR")]
    wallet_data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl ReconcileArgs {
    pub(super) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return finish::<Failure>(Err(error.into())),
        };
        finish(runtime.block_on(self.compare()))
    }

    async fn compare(self) -> Result<ExitCode, Failure> {
        let orders = self.orders().await?;
        if orders.is_empty() {
            let processes = if self.is_cash() { "--packets" } else { "--claims" };
            return Err(format!("where are the orders? Give --data, {processes} or --postgres").into());
        }
        let ledger = self.game_data.as_ref().or(self.wallet_data.as_ref());
        let game = match (self.game.as_ref().or(self.wallet.as_ref()), ledger) {
            (Some(origin), _) => Game::Peer(Peer::new(origin.clone())),
            (None, Some(dir)) => Game::Ledger(Deliveries::open(&existing(dir.join("game.redb"))?)?),
            (None, None) => return Err("where is the game, or the wallet? Give --game or --wallet".into()),
        };
        let report = reconcile(&orders, &game).await?;
        show(&report, self.is_cash(), self.json)?;
        Ok(if report.clean() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }

    /// Whether it is about money.
    const fn is_cash(&self) -> bool {
        self.wallet.is_some() || self.wallet_data.is_some()
    }

    async fn orders(&self) -> Result<Vec<Orders>, Failure> {
        let mut orders = Vec::new();
        for dir in &self.data {
            orders.push(if self.is_cash() {
                Orders::Till(Arc::new(RedbPackets::open(&existing(dir.join("packets.redb"))?)?))
            } else {
                Orders::Store(Arc::new(RedbStore::open(&existing(dir.join("claims.redb"))?)?))
            });
        }
        let token = token(self.token_file.as_deref())?;
        let peer = |origin: &Origin| match &token {
            Some(token) => Peer::new(origin.clone()).bearing(token),
            None => Peer::new(origin.clone()),
        };
        orders.extend(self.claims.iter().map(|origin| Orders::Claims(peer(origin))));
        orders.extend(self.packets.iter().map(|origin| Orders::Packets(peer(origin))));
        #[cfg(feature = "postgres")]
        if let Some(options) = self.database.options() {
            orders.push(if self.is_cash() {
                Orders::Till(Arc::new(PostgresPackets::open(&options).await?))
            } else {
                Orders::Store(Arc::new(PostgresStore::open(&options).await?))
            });
        }
        Ok(orders)
    }
}

/// The path of a file that is there: a store that is not would be made, and everything be missing from it.
fn existing(path: PathBuf) -> Result<PathBuf, Failure> {
    if path.exists() { Ok(path) } else { Err(format!("{}: there is no such file", path.display()).into()) }
}

#[expect(clippy::print_stdout, reason = "this is the command line")]
fn show(report: &Report, is_cash: bool, as_json: bool) -> Result<(), Failure> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let paint = Paint::for_stdout();
    let (orders, delivered, applied) = (report.orders, report.delivered, report.applied);
    let (things, giver) = if is_cash { ("shares", "the wallet booked") } else { ("orders", "the game gave") };
    println!(
        "{orders} {things}, {delivered} delivered; {giver} {applied}, {} of them not settled yet",
        report.on_the_way
    );
    if let Some(cash) = &report.cash {
        println!("{} packets, of which {} fen were opened; every fen was counted", cash.packets, cash.shares_fen);
    }
    if report.moving {
        println!("{}", paint.paint(Tone::Watch, "sums moved meanwhile and were not compared"));
    }
    if report.clean() {
        println!("{}", paint.paint(Tone::Good, "0 differences"));
        return Ok(());
    }
    let mut table = Table::new(&["DIFFERENCE", "OF", "FOUND"]);
    for difference in &report.differences {
        let kind = cell(Tone::Bad, difference.kind.as_str());
        table.row([kind, difference.of.as_str().into(), difference.found.as_str().into()]);
    }
    println!();
    for line in table.lines(paint) {
        println!("{line}");
    }
    let all: u64 = report.counts.values().sum();
    println!("\n{}", paint.paint(Tone::Bad, &format!("{all} differences")));
    Ok(())
}
