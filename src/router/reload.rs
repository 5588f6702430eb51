//! A configuration takes the place of another: read and checked off the runtime, then swapped whole, or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::load::{LoadError, load, prepare, refresh, rehome};
use crate::admin;
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::config::{Config, SecureWay};
use crate::control::event::Event;
use crate::control::{self, discover};
use crate::dns::{self, Shifted};
use crate::observe::names::control::REFUSED;
use crate::snapshot::{Discovered, Topology};

/// How long the health core may take to put a new topology in force before the reload is reported as failed.
const APPLY_WITHIN: Duration = Duration::from_secs(5);

/// Why a reload did not happen. What was in force before still is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration, or a file that it names, is wrong. Displays every finding.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The router was not started from a file.
    #[error("this router was not started from a file: use `replace`")]
    NoFile,
    /// The files could not be judged: a fault of ours, which the log has.
    #[error(
        "a fault of the router's own broke off the reading of the new configuration: please report what the log says"
    )]
    Fault,
    /// The health core did not answer.
    #[error("the health core did not take the new configuration within {} s", APPLY_WITHIN.as_secs())]
    Stuck,
}

/// A reload that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reloaded {
    /// The generation that has the new configuration.
    pub generation: u64,
    /// What was changed in the file but needs a restart to take effect.
    pub restart_for: Vec<String>,
    /// Whose clients are near to other datacenters than before.
    pub shifts: Vec<Shifted>,
}

/// What was refused, and has not been made good since.
#[derive(Debug)]
struct Refused {
    at: Mono,
    what: Files,
    findings: String,
}

/// What is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// The configuration with everything that it names.
    All,
    /// The files of `[geo]` alone.
    Geo,
    /// The files of users' homes alone.
    Homes,
}

/// Reloads, one at a time.
#[derive(Clone)]
pub(super) struct Reloader {
    handle: control::Handle,
    file: Option<PathBuf>,
    turn: Arc<Mutex<()>>,
    refused: Arc<ArcSwapOption<Refused>>,
}

impl Reloader {
    pub(super) fn new(handle: control::Handle, file: Option<PathBuf>) -> Self {
        REFUSED.gauge(&[]).set(0.0);
        Self { handle, file, turn: Arc::new(Mutex::new(())), refused: Arc::default() }
    }

    /// What the admin API tells of a refused reload.
    pub(super) fn refusal(&self) -> admin::LastRefusal {
        let refused = Arc::clone(&self.refused);
        Box::new(move || {
            let last = refused.load_full()?;
            let for_s = SystemClock.mono().since(last.at).as_secs_f64();
            Some(admin::RefusalReport { for_s, findings: last.findings.clone() })
        })
    }

    /// The admin API's way to reload: the new generation, or everything that is wrong as text.
    pub(super) fn hook(&self) -> admin::Reload {
        let reloader = self.clone();
        Arc::new(move || {
            let reloader = reloader.clone();
            Box::pin(async move { reloader.reload().await.map(|r| json!(r)).map_err(|e| e.to_string()) })
        })
    }

    pub(super) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let file = self.file.clone().ok_or(ReloadError::NoFile)?;
        self.apply(Files::All, move |before| load(&file, Some(before))).await
    }

    pub(super) async fn replace(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.apply(Files::All, move |before| prepare(config, Some(before))).await
    }

    /// Reads the files of `[geo]` anew, and nothing else.
    pub(super) async fn refresh(&self) -> Result<Reloaded, ReloadError> {
        self.apply(Files::Geo, refresh).await
    }

    /// Reads the files of users' homes anew, and nothing else.
    pub(super) async fn rehome(&self) -> Result<Reloaded, ReloadError> {
        self.apply(Files::Homes, rehome).await
    }

    /// Puts other backends that were found in force, and nothing else: in its turn, so that no reload is undone by it.
    pub(super) async fn rediscover(&self, discovered: Discovered) -> Result<u64, ReloadError> {
        let _turn = self.turn.lock().await;
        self.put(Topology::rediscovered(&self.topology(), discovered)).await
    }

    /// Discovery's way to put what it has found in force.
    pub(super) fn publisher(&self) -> discover::Publish {
        let reloader = self.clone();
        Box::new(move |discovered| {
            let reloader = reloader.clone();
            Box::pin(async move {
                let put = reloader.rediscover(discovered).await;
                put.inspect_err(|error| error!(target: "discovery", %error, "what was found is not in force")).is_ok()
            })
        })
    }

    /// What is in force.
    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.handle.published.load().topology)
    }

    async fn apply<F>(&self, what: Files, make: F) -> Result<Reloaded, ReloadError>
    where
        F: FnOnce(&Topology) -> Result<Topology, LoadError> + Send + 'static,
    {
        let _turn = self.turn.lock().await;
        let before = self.topology();
        let old = Arc::clone(&before);
        let made = tokio::task::spawn_blocking(move || {
            let topology = make(&old)?;
            let shifts = dns::shifts(&old, &topology);
            Ok((topology, shifts))
        });
        let made: Result<_, LoadError> = made.await.map_err(|_| ReloadError::Fault)?;
        let (topology, shifts) = made.inspect_err(|e| {
            error!(target: "reload", "the new configuration is refused, the old one stays in force:\n{e}");
            self.refuse(Refused { at: SystemClock.mono(), what, findings: e.to_string() });
        })?;
        let restart_for = needs_restart(&before.config, &topology.config);
        for what in &restart_for {
            warn!(target: "reload", what, "changed, but takes effect only with an upgrade or a restart");
        }
        let generation = self.put(topology).await?;
        self.settle(what);
        info!(target: "reload", generation, "the new configuration is in force");
        for shifted in &shifts {
            let shares = shifted.datacenters.iter();
            let shares: Vec<String> =
                shares.map(|s| format!("{} {} -> {}", s.name, percent(s.before), percent(s.after))).collect();
            let (moved, names) = (percent(shifted.moved), shifted.names.join(" "));
            warn!(target: "reload", names, moved, near = shares.join(", "), "IPv4 clients are near to other datacenters");
        }
        Ok(Reloaded { generation, restart_for, shifts })
    }

    fn refuse(&self, refused: Refused) {
        REFUSED.gauge(&[]).set(1.0);
        self.refused.store(Some(Arc::new(refused)));
    }

    /// What was refused is in force now, mended. Files of `[geo]` or of homes that are good make good no configuration that
    /// is not.
    fn settle(&self, what: Files) {
        if self.refused.load().as_ref().is_some_and(|refused| what == Files::All || refused.what == what) {
            REFUSED.gauge(&[]).set(0.0);
            self.refused.store(None);
        }
    }

    async fn put(&self, topology: Topology) -> Result<u64, ReloadError> {
        let (done, published) = oneshot::channel();
        let sent = async {
            self.handle.events.send(Event::Reload(Box::new(topology))).await.ok()?;
            self.handle.events.send(Event::Flush(done)).await.ok()?;
            published.await.ok()
        };
        timeout(APPLY_WITHIN, sent).await.ok().flatten().ok_or(ReloadError::Stuck)
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// What cannot change while the process runs: sockets and threads.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let listeners = |c: &Config| -> Vec<_> {
        let http3 = |l: &crate::config::Listener| l.http3.as_ref().map(|h| h.streams);
        c.listeners.iter().map(|l| (l.name.clone(), l.listen.clone(), http3(l))).collect()
    };
    let dns = |c: &Config| c.dns.as_ref().map(|d| (d.listen.clone(), d.threads));
    let secure = |c: &Config| {
        let listen = |way| c.dns.as_ref().and_then(|d| d.secure(way)).map(|s| s.listen.clone());
        SecureWay::ALL.map(listen)
    };
    let admin = |c: &Config| c.admin.as_ref().map(|a| (a.listen, a.token_file.clone()));
    let checks = [
        ("[[listener]] addresses, http3", listeners(old) != listeners(new)),
        ("[dns] listen, threads", dns(old) != dns(new)),
        ("[dns] tls, https, quic: listen", secure(old) != secure(new)),
        ("[admin]", admin(old) != admin(new)),
        (
            "[node] workers, state_dir",
            (old.node.workers, &old.node.state_dir) != (new.node.workers, &new.node.state_dir),
        ),
    ];
    checks.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| what.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::base::clock::{Mono, Wall};
    use crate::control::step;
    use crate::snapshot::Published;
    use crate::snapshot::topology::Assets;

    #[tokio::test]
    async fn a_panic_while_files_are_read_is_not_put_down_to_the_health_core() {
        let topology = Topology::build(Arc::default(), Assets::default(), None);
        let published = Published::new(step::first(topology, None, Mono::from_millis(1_000), Wall(1_000)));
        let (events, _inbox) = mpsc::channel(1);
        let reloader = Reloader::new(control::Handle { published: Arc::new(published), events }, None);
        let failed = reloader.apply(Files::All, |_| panic!("as a fault of ours would")).await;
        assert!(matches!(failed, Err(ReloadError::Fault)), "{failed:?}");
    }
}
