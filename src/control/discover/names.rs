//! Asks for the backends behind a name: its addresses, or its SRV records and the addresses of their targets.
//!
//! An answer is whole or none: where a part of it cannot be had, nothing is said. It holds as long as the shortest TTL in it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;

use super::list::is_callable;
use crate::decide::discover::{Srv, lowest};
use crate::net::stub;
use crate::snapshot::discovered::Found;
use crate::wire::dns::rtype;
use crate::wire::lookup;
use crate::wire::name;

/// Most targets of one set of SRV records that are looked up (ours).
const MOST_TARGETS: usize = 256;
/// Targets that are looked up at a time.
const AT_ONCE: usize = 8;

/// What a name says, and for how long; `None`: no answer could be had, or not all of it.
pub(super) type Told = Option<(Vec<Found>, Duration)>;

/// All addresses of `name`, at `port`.
pub(super) async fn addresses(configured: &[SocketAddr], name: &str, port: u16, weight: u32) -> Told {
    let resolvers = stub::resolvers(configured).await;
    let (ips, ttl) = ips(&resolvers, &name::parse(name, None).ok()?).await?;
    let found = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).filter(|address| is_callable(*address));
    Some((found.map(|address| Found { address, weight, name: None }).collect(), seconds(ttl)))
}

/// The targets of the SRV records of `name`, each address at the port and with the weight that its record says.
pub(super) async fn services(configured: &[SocketAddr], name: &str, plain: u32) -> Told {
    let resolvers = stub::resolvers(configured).await;
    let (records, mut least) = records(&resolvers, &name::parse(name, None).ok()?, rtype::SRV).await?;
    let records: Vec<Srv> = records.iter().map(|data| Srv::read(data)).collect::<Option<_>>()?;
    let mut targets = lowest(&records, plain);
    targets.truncate(MOST_TARGETS);
    let mut asking = JoinSet::new();
    let mut told: Vec<Option<(Vec<IpAddr>, u32)>> = vec![None; targets.len()];
    for (index, (srv, _)) in targets.iter().enumerate() {
        if asking.len() >= AT_ONCE {
            heard(&mut asking, &mut told).await?;
        }
        let (resolvers, target) = (resolvers.clone(), srv.target.clone());
        asking.spawn(async move { (index, ips(&resolvers, &target).await) });
    }
    while !asking.is_empty() {
        heard(&mut asking, &mut told).await?;
    }
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for ((srv, weight), told) in targets.iter().zip(told) {
        let (ips, ttl) = told?;
        least = least.min(ttl);
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, srv.port)).filter(|a| is_callable(*a));
        let fresh: Vec<SocketAddr> = addresses.filter(|address| seen.insert(*address)).collect();
        let shown = name::show(&srv.target);
        let named = super::list::named(shown.trim_end_matches('.')).ok();
        found.extend(fresh.into_iter().map(|address| Found { address, weight: *weight, name: named.clone() }));
    }
    Some((found, seconds(least)))
}

type Asked = (usize, Option<(Vec<IpAddr>, u32)>);

/// Takes the next answer; `None` where there is none to it, which makes the whole none.
async fn heard(asking: &mut JoinSet<Asked>, told: &mut [Option<(Vec<IpAddr>, u32)>]) -> Option<()> {
    let (index, answer) = asking.join_next().await?.ok()?;
    *told.get_mut(index)? = Some(answer?);
    Some(())
}

/// The addresses of `name` by both families, and the seconds that they hold.
async fn ips(resolvers: &[SocketAddr], name: &[u8]) -> Option<(Vec<IpAddr>, u32)> {
    let (four, six) = tokio::join!(records(resolvers, name, rtype::A), records(resolvers, name, rtype::AAAA));
    let ((four, ttl4), (six, ttl6)) = (four?, six?);
    let four = four.iter().filter_map(|data| Some(IpAddr::V4(Ipv4Addr::from(*data.first_chunk::<4>()?))));
    let six = six.iter().filter_map(|data| Some(IpAddr::V6(Ipv6Addr::from(*data.first_chunk::<16>()?))));
    Some((four.chain(six).collect(), ttl4.min(ttl6)))
}

async fn records(resolvers: &[SocketAddr], name: &[u8], rtype: u16) -> Option<(Vec<Box<[u8]>>, u32)> {
    match stub::ask(resolvers, name, rtype).await? {
        lookup::Found::Records { ttl, rdatas } => Some((rdatas, ttl)),
        lookup::Found::Nothing { ttl } => Some((Vec::new(), ttl)),
        lookup::Found::Truncated | lookup::Found::Failed => None,
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}
