//! Writes a transfer into a stream: so many at once, so long at most, and a peer that does not take it loses it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::house::House;
use super::{Begun, Transfer, begin};
use crate::base::clock::{Clock as _, SystemClock};
use crate::observe::names::dns as metric;
use crate::wire::dns::{HEADER, Rcode, refuse};

/// How many transfers run at once on one transport. Ours; BIND's `transfers-out` is 10.
const AT_ONCE: usize = 16;
/// How long one may take in all: a million names over a slow line.
const LONGEST: Duration = Duration::from_mins(30);

/// Who may transfer now.
#[derive(Debug)]
pub(in crate::dns) struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// Answers `query`, for which [`super::is_asked`] holds, in `stream`, which has `write` for each message.
///
/// # Errors
/// The stream is broken, or too slow.
pub(in crate::dns) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    query: &[u8],
    client: IpAddr,
    house: &House,
    write: Duration,
) -> io::Result<()> {
    let Ok(_turn) = house.transfers.0.try_acquire() else {
        metric::TRANSFERS.counter(&["busy"]).increment(1);
        let mut packet = query.get(..HEADER).unwrap_or_default().to_vec();
        let length = refuse(&mut packet, Rcode::ServFail);
        packet.truncate(length);
        return put(stream, &packet, write).await;
    };
    let snapshot = house.published.full();
    let begun = begin(&snapshot, query, client, SystemClock.wall());
    drop(snapshot);
    match begun {
        Begun::Answer(packet, rcode) => {
            metric::TRANSFERS.counter(&["refused"]).increment(1);
            let (client, rcode) = (client.to_string(), rcode.as_str());
            tracing::info!(target: "dns", client, rcode, "a zone transfer is refused");
            put(stream, &packet, write).await
        }
        Begun::Transfer(mut transfer) => {
            let done = timeout(LONGEST, run(stream, &mut transfer, write)).await;
            let done = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let (zone, records, client) = (transfer.origin(), transfer.records, client.to_string());
            let result = if done.is_ok() { transfer.kind } else { "broken" };
            metric::TRANSFERS.counter(&[result]).increment(1);
            tracing::info!(target: "dns", zone, client, records, result, "a zone was transferred");
            done
        }
    }
}

async fn run(stream: &mut (impl AsyncWrite + Unpin), transfer: &mut Transfer, write: Duration) -> io::Result<()> {
    let mut message = Vec::new();
    while transfer.next(&mut message, SystemClock.wall()) {
        within(write, stream.write_all(&message)).await?;
        message.clear();
        tokio::task::consume_budget().await;
    }
    // TLS may hold back what the socket did not take.
    within(write, stream.flush()).await?;
    if transfer.is_done() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn put(stream: &mut (impl AsyncWrite + Unpin), packet: &[u8], write: Duration) -> io::Result<()> {
    let mut framed = (packet.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    within(write, async {
        stream.write_all(&framed).await?;
        stream.flush().await
    })
    .await
}

async fn within(limit: Duration, done: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(limit, done).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
