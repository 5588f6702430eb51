//! Floor 6: the admin API: state, evidence, `explain`, operators' intents, metrics, the dashboard.
//!
//! It reads snapshots and sends events; it decides nothing and changes nothing by itself. What it cannot know (how the
//! edges explain themselves, how a configuration is loaded) comes in as closures in the [`Context`], so that this area
//! imports no other edge. It belongs on the runtime of the control loop: no load on the data path delays it.

use std::collections::HashSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Mono, Wall};
use crate::base::task::{self, Task};
use crate::control::discover::Discovery;
use crate::control::event::Event;
use crate::snapshot::{Published, Snapshot};

mod api;
mod assets;
pub mod backends;
mod changes;
pub mod evidence;
mod guard;
mod intents;
mod live;
mod refusal;
pub mod report;
mod serve;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use api::{NOBODY, client_of};
pub use changes::{Change, Moment};
pub use intents::{Applied, Order, Recall};
pub use refusal::Problem;
pub use report::{Edge, RefusalReport};

/// Explains the answer to a DNS question: name, type, client.
pub type ExplainDns = Box<dyn Fn(&Snapshot, &str, &str, IpAddr) -> serde_json::Value + Send + Sync>;
/// The busiest of the name server: so many rows of each kind, of one transport where one is named; `None`: there is no such.
pub type DnsTop = Box<dyn Fn(usize, Option<&str>) -> Option<serde_json::Value> + Send + Sync>;
/// Tells of the keys of signed zones, and what lapses with them.
pub type DnsKeys = Box<dyn Fn(&Snapshot, Wall) -> serde_json::Value + Send + Sync>;
/// Explains where a request would go.
pub type ExplainHttp = Box<dyn Fn(&Snapshot, HttpQuestion) -> serde_json::Value + Send + Sync>;
/// What a reload comes to: an object with the new `generation` and what else there is to tell, or every finding, rendered.
pub type Reloaded = Pin<Box<dyn Future<Output = Result<serde_json::Value, String>> + Send>>;
/// Loads the configuration anew and puts it in force.
pub type Reload = Arc<dyn Fn() -> Reloaded + Send + Sync>;
/// Has a new process take this one's place: an object with its `pid`, or the reason why not.
pub type Upgrade = Arc<dyn Fn() -> Reloaded + Send + Sync>;
/// Tells of upgrades: old processes that still finish their work, and the last one where it failed.
pub type LastUpgrade = Box<dyn Fn() -> (Vec<u32>, Option<RefusalReport>) + Send + Sync>;
/// Tells what a configuration would do to steering: the world, the question, now.
pub type Foresee =
    Arc<dyn Fn(&Snapshot, serde_json::Value, Mono, Wall) -> Result<serde_json::Value, String> + Send + Sync>;
/// Tells of the edges of this node.
pub type Edges = Box<dyn Fn() -> Vec<Edge> + Send + Sync>;

/// Tells of the last reload, where it was refused.
pub type LastRefusal = Box<dyn Fn() -> Option<RefusalReport> + Send + Sync>;

/// A request that `explain` is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpQuestion {
    /// Method; default `GET`.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path, with its query.
    pub path: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub client: IpAddr,
    /// The user, where it is not to be taken from the request as the route says.
    pub user: Option<String>,
    /// Whether it comes over TLS.
    pub tls: bool,
}

/// What the admin API stands on.
pub struct Context {
    /// Where snapshots appear.
    pub published: Arc<Published>,
    /// Where events go.
    pub events: mpsc::Sender<Event>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How the name server explains itself.
    pub explain_dns: ExplainDns,
    /// What the name server is busy with; none where there is no name server.
    pub dns_top: Option<DnsTop>,
    /// How the name server's keys stand.
    pub dns_keys: DnsKeys,
    /// How the proxy explains itself.
    pub explain_http: ExplainHttp,
    /// How to load the configuration anew.
    pub reload: Reload,
    /// How the last one was refused, if it was.
    pub refused: LastRefusal,
    /// How to have a new process take this one's place.
    pub upgrade: Upgrade,
    /// How the last upgrade went.
    pub upgraded: LastUpgrade,
    /// How to tell what a configuration would do.
    pub foresee: Foresee,
    /// Where backends are found.
    pub discovery: Arc<Discovery>,
    /// What the edges are doing.
    pub edges: Edges,
    /// The bearer token that every request but health checks must carry, if there is one.
    pub token: Option<String>,
    /// Admin addresses of the whole fleet, this node's among them.
    pub fleet: Vec<SocketAddr>,
}

/// What the handlers share.
struct Shared {
    context: Context,
    address: SocketAddr,
    started: Mono,
    live: live::Live,
    reloading: Mutex<()>,
    foreseeing: Arc<Mutex<()>>,
    draw: backends::Draw,
    shutdown: CancellationToken,
}

/// A running admin API.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    serving: Task,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped: open requests have ended, or two seconds have passed since the shutdown.
    pub async fn stopped(self) {
        self.serving.ended().await;
    }
}

/// Serves on `listener` on the current runtime until `shutdown`.
///
/// # Errors
/// The system does not give the socket's address, or takes no interest in it.
pub fn start(
    listener: std::net::TcpListener,
    context: Context,
    shutdown: CancellationToken,
) -> std::io::Result<Server> {
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let shared = Arc::new(Shared::new(context, address, shutdown));
    let watching = live::watch(Arc::clone(&shared));
    let serving = task::spawn("admin", async move {
        serve::accept(listener, api::routes(Arc::clone(&shared)), &shared.shutdown).await;
        drop(watching);
    });
    Ok(Server { address, serving })
}

impl Shared {
    fn new(context: Context, address: SocketAddr, shutdown: CancellationToken) -> Self {
        let (started, live) = (context.clock.mono(), live::Live::new());
        Self {
            context,
            address,
            started,
            live,
            reloading: Mutex::new(()),
            foreseeing: Arc::default(),
            draw: backends::Draw::default(),
            shutdown,
        }
    }

    fn now(&self) -> Mono {
        self.context.clock.mono()
    }

    /// Admin addresses of the fleet without doubles; this node's own where none are configured.
    fn fleet(&self) -> Vec<SocketAddr> {
        let mut seen = HashSet::new();
        let all = self.context.fleet.iter().copied().filter(|a| seen.insert(*a)).collect::<Vec<_>>();
        if all.is_empty() { vec![self.address] } else { all }
    }
}
