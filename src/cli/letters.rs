//! `springtide letters`: orders and shares that were given up, and what a person has done with them.
//!
//! Talks with claim and packet processes on this machine, or anywhere with their token. A replay tells the game, or the
//! wallet, the same order number again, so what it applied after all it does not apply twice.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::{Cell, Paint, Table, Tone, cell};
use super::upstream::token;
use crate::base::clock::Wall;
use crate::redpacket::model::cash::{Booking, Share};
use crate::redpacket::model::{Moment, Order, OrderNo, Resolution, Settled, UserId};
use crate::redpacket::peer::{Origin, Peer};

/// How long a process may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Orders that one call resolves: what fits in its body.
const BATCH: usize = 256;

/// Orders of gifts, and shares of cash packets, that were given up: lists them, has them tried again, or notes that they were made good in another way.
#[derive(Debug, Args)]
pub(super) struct LettersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows them, the longest dead first.
    List {
        #[command(flatten)]
        whom: Whom,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Has them delivered again, with as many tries as a new order.
    Replay {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        which: Which,
    },
    /// Closes them: their users were made whole in another way.
    Compensate {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct Whom {
    /// The claim processes.
    #[arg(long, value_delimiter = ',', required_unless_present = "packets", value_name = "URL")]
    claims: Vec<Origin>,
    /// The packet processes: shares that the wallet did not book.
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    packets: Vec<Origin>,
    /// A file with the token that they ask for, where they are on another machine.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The orders.
    #[arg(value_name = "ORDER", value_parser = OrderNo::parse)]
    orders: Vec<OrderNo>,
    /// All that are dead now.
    #[arg(long)]
    all: bool,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
enum LettersFailure {
    #[error("{process}: {reason}")]
    Unanswered { process: String, reason: String },
    #[error("{0}")]
    Token(super::upstream::Failure),
}

#[derive(Deserialize)]
struct Dead {
    #[serde(default)]
    orders: Vec<Order>,
    #[serde(default)]
    shares: Vec<Share>,
}

impl Dead {
    fn numbers(&self) -> Vec<OrderNo> {
        let orders = self.orders.iter().map(|order| order.order_no);
        orders.chain(self.shares.iter().map(|share| share.order_no)).collect()
    }
}

#[derive(Deserialize)]
struct Resolved {
    settled: Vec<Settled>,
}

impl LettersArgs {
    pub(super) fn run(self) -> ExitCode {
        super::finish(self.act())
    }

    fn act(self) -> Result<ExitCode, LettersFailure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| LettersFailure::Token(e.into()))?;
        runtime.block_on(async {
            match self.what {
                What::List { whom, json } => list(&whom, json).await,
                What::Replay { whom, which } => resolve(&whom, which, Resolution::Replay).await,
                What::Compensate { whom, which } => resolve(&whom, which, Resolution::Compensate).await,
            }
        })
    }
}

impl Whom {
    fn peers(&self) -> Result<Vec<Peer>, LettersFailure> {
        let token = token(self.token_file.as_deref()).map_err(LettersFailure::Token)?;
        let peer = |origin: &Origin| match &token {
            Some(token) => Peer::new(origin.clone()).bearing(token),
            None => Peer::new(origin.clone()),
        };
        Ok(self.claims.iter().chain(&self.packets).map(peer).collect())
    }
}

async fn call<T: for<'de> Deserialize<'de>>(
    peer: &Peer,
    method: Method,
    path: &str,
    body: Value,
) -> Result<T, LettersFailure> {
    let failed = |reason: String| LettersFailure::Unanswered { process: peer.origin().to_string(), reason };
    let body = if method == Method::GET { bytes::Bytes::new() } else { body.to_string().into() };
    let reply = peer.call(method, path, body, &[], PATIENCE).await.map_err(|e| failed(e.to_string()))?;
    match reply.status {
        StatusCode::OK => serde_json::from_slice(&reply.body).map_err(|e| failed(e.to_string())),
        StatusCode::NOT_FOUND => {
            Err(failed("no claim or packet process, or its token is missing: --token-file".into()))
        }
        status => Err(failed(format!("{path} answered {status}"))),
    }
}

async fn dead(peer: &Peer) -> Result<Dead, LettersFailure> {
    call(peer, Method::GET, "/internal/dead", Value::Null).await
}

#[expect(clippy::print_stdout, reason = "the list is the output")]
async fn list(whom: &Whom, as_json: bool) -> Result<ExitCode, LettersFailure> {
    let mut table = Table::new(&["ORDER", "USER", "WHAT", "FOR", "TRIES", "WHY", "ACCEPTED", "GIVEN UP"]);
    let (mut orders, mut shares) = (Vec::new(), Vec::new());
    for peer in whom.peers()? {
        let dead = dead(&peer).await?;
        for order in &dead.orders {
            let claim = &order.claim;
            let (gift, role) = (claim.gift_id.to_string(), format!("{}/{}", claim.zone_id, claim.role_id));
            table.row(row(order.order_no, &claim.user_id, gift, role, &order.booking(), order.created));
        }
        for share in &dead.shares {
            let money = format!("{} fen of {}", share.amount_fen, share.packet_id);
            table.row(row(share.order_no, &share.user_id, money, "wallet".into(), &share.booking, share.opened));
        }
        orders.extend(dead.orders);
        shares.extend(dead.shares);
    }
    if as_json {
        println!("{}", json!({ "orders": orders, "shares": shares }));
    } else if table.is_empty() {
        println!("No dead letters.");
    } else {
        table.lines(Paint::for_stdout()).iter().for_each(|line| println!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(order_no: OrderNo, user: &UserId, what: String, whom: String, booking: &Booking, created: Wall) -> [Cell; 8] {
    [
        cell(Tone::Strong, order_no.to_string()),
        user.as_str().into(),
        what.into(),
        whom.into(),
        booking.tries().to_string().into(),
        cell(Tone::Bad, booking.failure.map_or("", |why| why.as_str())),
        Moment::from(created).to_string().into(),
        Moment::from(booking.updated).to_string().into(),
    ]
}

#[expect(clippy::print_stdout, reason = "what was done is the output")]
async fn resolve(whom: &Whom, which: Which, resolution: Resolution) -> Result<ExitCode, LettersFailure> {
    let mut moved = 0;
    for peer in whom.peers()? {
        let mut orders = which.orders.clone();
        if which.all {
            orders = dead(&peer).await?.numbers();
        }
        while !orders.is_empty() {
            let before = moved;
            for batch in orders.chunks(BATCH) {
                let body = json!({ "order_nos": batch, "resolution": resolution });
                let Resolved { settled } = call(&peer, Method::POST, "/internal/resolve", body).await?;
                moved += settled.iter().filter(|s| matches!(s, Settled::Moved(_))).count();
            }
            // A list is bounded, and there may be more; where nothing moved somebody else was faster.
            let is_more = which.all && moved > before;
            orders = if is_more { dead(&peer).await?.numbers() } else { Vec::new() };
        }
    }
    let done = if resolution == Resolution::Replay { "to be tried again" } else { "closed" };
    println!("{moved} orders {done}.");
    let left = which.orders.len().saturating_sub(moved);
    if left > 0 {
        println!("{left} were not dead, or nobody knows them: nothing was done about these.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
