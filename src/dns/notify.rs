//! Tells secondaries that a zone has a new version (NOTIFY, RFC 1996): at the start, and whenever a serial has moved.
//!
//! Over UDP, signed with the key of the zone's transfer where it has one; again with growing pauses until the secondary
//! answers or the tries are used up. So many at once, no more. A secondary that heard nothing finds out by its refresh.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock as _, SystemClock};
use crate::observe::names::dns as metric;
use crate::snapshot::{Published, Topology};
use crate::wire::notify;
use crate::wire::tsig::{self, Key, Signer, Tsig};
use crate::wire::zone::{Entry, WireName};

/// How many secondaries are spoken to at once.
const AT_ONCE: usize = 64;
/// How often one is told. With the pauses it has half a minute (RFC 1996 section 3.6 leaves both to us).
const TRIES: u32 = 5;
/// How long the first answer is waited for; twice as long each time after it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Packets that are not the answer, before a try is given up.
const MAX_STRAYS: usize = 16;

/// One secondary to be told of one version.
#[derive(Clone, Debug)]
struct Errand {
    to: SocketAddr,
    soa: Entry,
    origin: String,
    key: Option<Arc<Key>>,
}

/// Tells of every version that is published, until `shutdown`.
pub(super) async fn tell(published: Arc<Published>, shutdown: CancellationToken) {
    let mut generations = published.subscribe();
    let mut told: HashMap<(WireName, SocketAddr), u32> = HashMap::new();
    let mut waiting = VecDeque::new();
    let mut running = JoinSet::new();
    let mut serial = 0;
    loop {
        let topology = Arc::clone(&published.load().topology);
        if serial != topology.serial {
            serial = topology.serial;
            let errands = errands(&topology, &mut told);
            // Of a zone that has moved again, only the latest version is told.
            let latest: HashSet<_> = errands.iter().map(|e| (e.to, e.soa.owner.clone())).collect();
            waiting.retain(|w: &Errand| !latest.contains(&(w.to, w.soa.owner.clone())));
            waiting.extend(errands);
        }
        drop(topology);
        while running.len() < AT_ONCE
            && let Some(errand) = waiting.pop_front()
        {
            running.spawn(run(errand));
        }
        tokio::select! {
            Some(_) = running.join_next(), if !running.is_empty() => {}
            changed = generations.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Who is to be told of what `topology` has and they have not been told of; remembers it as told.
fn errands(topology: &Topology, told: &mut HashMap<(WireName, SocketAddr), u32>) -> Vec<Errand> {
    let zones = topology.config.dns.as_ref().map(|dns| dns.zones.as_slice()).unwrap_or_default();
    let mut errands = Vec::new();
    let mut now = HashMap::new();
    for (said, zone) in zones.iter().zip(&topology.assets.zones) {
        let Some(soa) = zone.soa().filter(|_| !said.notify.is_empty()) else { continue };
        let Some(serial) = soa.serial() else { continue };
        let key = said.transfer.as_ref().and_then(|t| t.key).and_then(|k| topology.assets.keys.get(k));
        for to in &said.notify {
            let place = (zone.origin.clone(), *to);
            if told.get(&place) != Some(&serial) {
                let (soa, origin) = (soa.clone(), zone.origin_text.clone());
                errands.push(Errand { to: *to, soa, origin, key: key.cloned() });
            }
            now.insert(place, serial);
        }
    }
    *told = now;
    errands
}

async fn run(errand: Errand) {
    let mut wait = FIRST_WAIT;
    for _ in 0..TRIES {
        match timeout(wait, attempt(&errand)).await {
            Ok(Ok(true)) => {
                metric::NOTIFIES.counter(&["heard"]).increment(1);
                return;
            }
            // It has answered, and does not want it: telling it again changes nothing.
            Ok(Ok(false)) => break,
            // Nobody there, and the system says so at once.
            Ok(Err(_)) => sleep(wait).await,
            Err(_) => {}
        }
        wait *= 2;
    }
    metric::NOTIFIES.counter(&["lost"]).increment(1);
    let (zone, secondary) = (errand.origin.as_str(), errand.to.to_string());
    tracing::warn!(target: "dns", zone, secondary, "a secondary did not take the news of a new version: it finds out by its refresh time");
}

/// Tells once. Whether it was taken.
async fn attempt(errand: &Errand) -> io::Result<bool> {
    let any: IpAddr = if errand.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(errand.to).await?;
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::ErrorKind::Other)?;
    let mut message = notify::message(u16::from_be_bytes(id), &errand.soa);
    let mut signer = errand.key.as_deref().map(Signer::asking);
    if let Some(signer) = &mut signer {
        let length = message.len();
        message.resize(length + signer.octets(), 0);
        let signed = signer.sign(&mut message, length, seconds(), None).ok_or(io::ErrorKind::InvalidInput)?;
        message.truncate(signed);
    }
    socket.send(&message).await?;
    let mut packet = [0; 1_232];
    for _ in 0..MAX_STRAYS {
        let length = socket.recv(&mut packet).await?;
        let answer = packet.get(..length).unwrap_or_default();
        let genuine = match (&signer, &errand.key) {
            (Some(signer), Some(key)) => is_signed(answer, key, signer.mac()),
            _ => true,
        };
        if let Some(heard) = notify::heard(&message, answer).filter(|heard| genuine || !heard) {
            return Ok(heard);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn is_signed(answer: &[u8], key: &Key, request: &[u8]) -> bool {
    let Ok(Some(start)) = tsig::find(answer) else { return false };
    Tsig::read(answer, start).is_some_and(|t| t.verify(answer, key, request, seconds()).is_ok())
}

fn seconds() -> u64 {
    SystemClock.wall().0 / 1_000
}
