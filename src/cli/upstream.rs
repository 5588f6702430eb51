//! `springtide upstream NAME`: one red-packet service as a process of its own.
//!
//! Prints one line of JSON to stdout when it serves, `{"ready":true,"upstream":...,"listen":...,"pid":...}`, logs to stderr,
//! and stops in good order on SIGTERM or Ctrl-C: no new connections, running requests end, then workers, then the store.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use self::pace::{At, PaceArgs};
use self::packet::PacketArgs;
#[cfg(feature = "postgres")]
use super::database::PostgresArgs;
use super::run::closed;
use crate::base::task::{Task, spawn};
use crate::net::listen::{Share, tcp};
use crate::net::stage::Stage;
use crate::observe::recorder;
use crate::observe::trace::{self, Format};
use crate::redpacket::catalogue::{Catalogue, CatalogueError};
use crate::redpacket::ledger::Store;
use crate::redpacket::peer::{Origin, Peer};
use crate::redpacket::serve;
use crate::redpacket::service::{
    ClaimService, Front, GameService, GiftListService, Idle, RecommendService, Source, Worker, ZonesService,
};
use crate::redpacket::store::deliveries::Deliveries;
use crate::redpacket::store::memory::MemoryStore;
#[cfg(feature = "postgres")]
use crate::redpacket::store::postgres::PostgresStore;
use crate::redpacket::store::redb::RedbStore;

mod homes;
mod pace;
mod packet;

/// Runs a red-packet service as a process of its own.
#[derive(Debug, Args)]
pub(super) struct UpstreamArgs {
    #[command(subcommand)]
    upstream: Upstream,
}

#[derive(Debug, Subcommand)]
enum Upstream {
    /// Takes claims: 202 after the order is durable, the same order for the same claim.
    Claim(ClaimArgs),
    /// Delivers the orders of claim processes to the game.
    Delivery(DeliveryArgs),
    /// The mock game: gives what an order stands for, once.
    Game(GameArgs),
    /// Lists gifts, in the order that recommend says or the default one.
    GiftList(GiftListArgs),
    /// Keeps cash packets: made out of a prepaid account, opened share by share, booked to the wallet.
    Packet(PacketArgs),
    /// Scores gifts for a user; can be told to fail.
    Recommend(RecommendArgs),
    /// Finds a user's servers and roles: fresh, stale, or by hand.
    Zones(ZonesArgs),
}

impl Upstream {
    fn common(&self) -> &Common {
        match self {
            Self::Claim(a) => &a.common,
            Self::Delivery(a) => &a.common,
            Self::Game(a) => &a.common,
            Self::GiftList(a) => &a.common,
            Self::Packet(a) => &a.common,
            Self::Recommend(a) => &a.common,
            Self::Zones(a) => &a.common,
        }
    }
}

#[derive(Debug, Args)]
struct Common {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// Requests in work at the same time; more are answered OVERLOADED.
    #[arg(long, default_value_t = 512, value_name = "N")]
    limit: usize,
    /// This process's name, for the header `x-upstream` of every answer.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// End when standard input closes: for a parent that must not leave children behind.
    #[arg(long)]
    while_stdin_open: bool,
    /// Threads that serve.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// What is logged: a level, or levels by part, such as `info,springtide::redpacket=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How it is logged: `json` or `text`.
    #[arg(long, default_value = "json", value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Debug, Args)]
struct CatalogueArgs {
    /// The campaign as JSON; the built-in one where there is none.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
}

impl CatalogueArgs {
    fn load(&self) -> Result<Arc<Catalogue>, CatalogueError> {
        self.catalogue.as_deref().map_or_else(|| Ok(Catalogue::built_in()), Catalogue::load).map(Arc::new)
    }
}

#[derive(Debug, Args)]
struct GiftListArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// Recommend processes, asked in turn.
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    recommend: Vec<Origin>,
}

#[derive(Debug, Args)]
struct RecommendArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    catalogue: CatalogueArgs,
}

#[derive(Debug, Args)]
struct ZonesArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// The game whose roles are looked up; without it, everybody chooses by hand.
    #[arg(long, value_name = "URL")]
    game: Option<Origin>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Keep {
    /// On disk, in `--data`, for this process alone.
    Redb,
    /// In the database of `--postgres`, which several processes may share.
    #[cfg(feature = "postgres")]
    Postgres,
    /// Nowhere: everything is gone with the process.
    Memory,
}

/// A process's part of the stock: `PART/OF`.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    part: u32,
    of: u32,
}

impl FromStr for Bucket {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        let sane = numbers.filter(|(part, of)| part < of);
        sane.map(|(part, of)| Self { part, of }).ok_or("expected PART/OF, such as 0/6 to 5/6 for six claim processes")
    }
}

#[derive(Debug, Args)]
struct ClaimArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// What keeps the orders.
    #[arg(long, value_enum, default_value_t = Keep::Redb)]
    store: Keep,
    /// The directory of the orders and intents; one process each. Beside `--postgres`: of the intents, which are else kept in
    /// the database.
    #[arg(long, value_name = "DIR", required_if_eq("store", "redb"))]
    data: Option<PathBuf>,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    database: PostgresArgs,
    /// This store's part of every gift's stock; processes that share a store say the same.
    #[arg(long, default_value = "0/1", value_name = "PART/OF")]
    bucket: Bucket,
    /// Deliver from inside this process: to all games that are not named at URL, to one with GAME=URL (repeatable). Without
    /// it, `upstream delivery` must.
    #[arg(long, value_name = "[GAME=]URL")]
    game: Vec<At<Origin>>,
    #[command(flatten)]
    pace: PaceArgs,
    /// A file with the token that delivery workers and other homes on other machines must bear, and that this one bears.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    homes: homes::HomesArgs,
}

#[derive(Debug, Args)]
struct DeliveryArgs {
    #[command(flatten)]
    common: Common,
    /// Claim processes whose orders are delivered.
    #[arg(long, value_delimiter = ',', required = true, value_name = "URL")]
    claims: Vec<Origin>,
    /// Where games are told: all that are not named at URL, one at GAME=URL (repeatable).
    #[arg(long, required = true, value_name = "[GAME=]URL")]
    game: Vec<At<Origin>>,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    #[command(flatten)]
    pace: PaceArgs,
    /// A file with the token that the claim processes ask for.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct GameArgs {
    #[command(flatten)]
    common: Common,
    /// The directory of its ledger; without it, the ledger ends with the process.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Why it failed, in words.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// A service ready to be served, and what works beside it.
struct Cast {
    stage: Arc<dyn Stage>,
    tasks: Vec<Task>,
}

impl Cast {
    fn alone(stage: impl Stage + 'static) -> Self {
        Self { stage: Arc::new(stage), tasks: Vec::new() }
    }
}

impl UpstreamArgs {
    #[expect(clippy::print_stderr, reason = "this is the command line")]
    pub(super) fn run(self) -> ExitCode {
        recorder::install();
        match self.start() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("springtide upstream: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn start(self) -> Result<(), Failure> {
        let common = self.upstream.common();
        let _logs = trace::init(common.log_format, &common.log)?;
        let mut builder = match common.threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(usize::from(common.threads)).enable_all().build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> Result<(), Failure> {
        let (serving, working) = (CancellationToken::new(), CancellationToken::new());
        let _signals = signals(serving.clone(), self.upstream.common().while_stdin_open)?;
        let _upkeep = spawn("metrics-upkeep", upkeep());
        let (cast, common) = match self.upstream {
            Upstream::Claim(args) => (claim(&args, &working).await?, args.common),
            Upstream::Delivery(args) => (delivery(&args, &working)?, args.common),
            Upstream::Game(args) => {
                let ledger = match &args.data {
                    Some(dir) => Deliveries::open(&dir.join("game.redb"))?,
                    None => Deliveries::in_memory()?,
                };
                (Cast::alone(GameService::new(ledger)), args.common)
            }
            Upstream::GiftList(args) => {
                let recommend = args.recommend.into_iter().map(Peer::new).collect();
                (Cast::alone(GiftListService::new(args.catalogue.load()?, recommend)), args.common)
            }
            Upstream::Packet(args) => (args.cast(&working).await?, args.common),
            Upstream::Recommend(args) => (Cast::alone(RecommendService::new(args.catalogue.load()?)), args.common),
            Upstream::Zones(args) => {
                (Cast::alone(ZonesService::new(args.catalogue.load()?, args.game.map(Peer::new))), args.common)
            }
        };
        let name = cast.stage.name().to_owned();
        let mut front = Front::new(cast.stage, common.limit);
        if let Some(instance) = &common.name {
            front = front.named(instance);
        }
        let server = serve(tcp(common.listen, Share::Alone)?, Arc::new(front), serving.clone())?;
        ready(&name, server.address());
        server.stopped().await;
        working.cancel();
        for task in cast.tasks {
            task.ended().await;
        }
        tracing::info!(upstream = name, "stopped");
        Ok(())
    }
}

async fn store(args: &ClaimArgs) -> Result<Arc<dyn Store>, Failure> {
    Ok(match (args.store, &args.data) {
        (Keep::Redb, Some(dir)) => Arc::new(RedbStore::open(&dir.join("claims.redb"))?),
        (Keep::Redb, None) => return Err("--data says where the orders are kept".into()),
        #[cfg(feature = "postgres")]
        (Keep::Postgres, _) => {
            let options = args.database.options().ok_or("--postgres says where the orders are kept")?;
            Arc::new(PostgresStore::open(&options).await?)
        }
        (Keep::Memory, _) => Arc::new(MemoryStore::new()),
    })
}

async fn claim(args: &ClaimArgs, working: &CancellationToken) -> Result<Cast, Failure> {
    let store = store(args).await?;
    let catalogue = args.catalogue.load()?;
    let mut service = ClaimService::new(store.clone(), Arc::clone(&catalogue));
    let pace = args.pace.pace()?;
    if !args.game.is_empty() {
        service = service.delivering(pace.rate);
    }
    let token = token(args.token_file.as_deref())?;
    let relay = homes::relay(args, &*store, token.as_deref()).await?.map(Arc::new);
    if let Some(token) = token {
        service = service.guarded(token);
    }
    if let Some(relay) = &relay {
        service = service.among(relay.clone());
    }
    service.provision(args.bucket.part, args.bucket.of).await?;
    let wake = service.wake();
    let service = Arc::new(service);
    let mut tasks = vec![
        spawn("claim-measure", measure(service.clone(), working.clone())),
        spawn("claim-learn", learn(service.clone(), working.clone())),
    ];
    if let Some(relay) = relay {
        tasks.push(spawn("settle", relay.clone().settle(working.clone())));
        tasks.push(spawn("refill", service.clone().refill(working.clone())));
        tasks.extend(args.homes.follow(&relay, &store, working));
    }
    if !args.game.is_empty() {
        let games = args.pace.games(&catalogue, &args.game, &pace)?;
        let worker = Worker::new(Source::Store(store), games, pace).woken_by(wake);
        tasks.push(spawn("delivery", worker.run(working.clone())));
    }
    Ok(Cast { stage: service, tasks })
}

fn delivery(args: &DeliveryArgs, working: &CancellationToken) -> Result<Cast, Failure> {
    let (pace, catalogue) = (args.pace.pace()?, args.catalogue.load()?);
    let games = args.pace.games(&catalogue, &args.game, &pace)?;
    let token = token(args.token_file.as_deref())?;
    let mut tasks = Vec::new();
    for origin in &args.claims {
        let mut peer = Peer::new(origin.clone());
        if let Some(token) = &token {
            peer = peer.bearing(token);
        }
        let worker = Worker::new(Source::Claims(peer), Arc::clone(&games), pace);
        tasks.push(spawn("delivery", worker.run(working.clone())));
    }
    Ok(Cast { stage: Arc::new(Idle::new("delivery")), tasks })
}

/// Keeps the gauges up to date, once a second.
async fn measure(service: Arc<ClaimService>, working: CancellationToken) {
    loop {
        if let Err(error) = service.measure().await {
            tracing::warn!(%error, "the store's sums cannot be read");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = working.cancelled() => return,
        }
    }
}

/// Lets the service hear of all orders that were there before it, however often the store must be asked.
async fn learn(service: Arc<ClaimService>, working: CancellationToken) {
    while let Err(error) = service.learn().await {
        tracing::warn!(%error, "the store's orders cannot be looked through");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = working.cancelled() => return,
        }
    }
}

/// Folds what histograms have gathered, or they would grow while nobody scrapes.
async fn upkeep() {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        recorder::upkeep();
    }
}

/// The token in the file at `path`, where there is one.
///
/// # Errors
/// The file cannot be read, or its token is too short.
pub(super) fn token(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let token = text.trim();
    if token.len() < 16 {
        return Err(format!("{}: a token must have at least 16 characters", path.display()).into());
    }
    Ok(Some(token.to_owned()))
}

fn signals(stop: CancellationToken, while_stdin_open: bool) -> Result<Task, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(spawn("signals", async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = closed(while_stdin_open) => {}
        }
        stop.cancel();
    }))
}

fn ready(upstream: &str, listen: SocketAddr) {
    let line = serde_json::json!({ "ready": true, "upstream": upstream, "listen": listen, "pid": std::process::id() });
    // Whoever started this may have closed its end; that is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_part_of_a_whole() {
        assert!(matches!("0/1".parse(), Ok(Bucket { part: 0, of: 1 })));
        assert!(matches!("5/6".parse(), Ok(Bucket { part: 5, of: 6 })));
        for bad in ["", "1", "6/6", "a/b", "0/0", "-1/2"] {
            assert!(bad.parse::<Bucket>().is_err(), "{bad}");
        }
    }
}
