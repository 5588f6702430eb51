//! Writes a transfer into a stream: so many at once, so long at most, and a peer that does not take it loses it.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::house::House;
use super::{Begun, Transfer, begin};
use crate::base::clock::{Clock as _, SystemClock, Wall};
use crate::observe::names::dns as metric;
use crate::wire::dns::{HEADER, Rcode, refuse};

/// How many transfers run at once on one transport. Ours; BIND's `transfers-out` is 10.
const AT_ONCE: usize = 16;
/// How long one may take in all: a million names over a slow line.
const LONGEST: Duration = Duration::from_mins(30);

/// Who may transfer now.
#[derive(Debug)]
pub(in crate::dns) struct Gate {
    turns: Semaphore,
    /// The second in which a refusal was last told in the log.
    told: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), told: AtomicU64::new(0) }
    }
}

impl Gate {
    /// Whether a refusal at `now` goes to the log: strangers write no more than a line a second there.
    fn tells(&self, now: Wall) -> bool {
        let second = now.0 / 1_000;
        self.told.swap(second, Ordering::Relaxed) != second
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
    let now = SystemClock.wall();
    let snapshot = house.published.full();
    let begun = begin(&snapshot, query, client, now);
    drop(snapshot);
    let mut transfer = match begun {
        Begun::Transfer(transfer) => transfer,
        Begun::Answer(packet, rcode) => {
            metric::TRANSFERS.counter(&["refused"]).increment(1);
            if house.transfers.tells(now) {
                let (client, rcode) = (client.to_string(), rcode.as_str());
                tracing::info!(target: "dns", client, rcode, "a zone transfer is refused");
            }
            return put(stream, &packet, write).await;
        }
    };
    // Only who may have the zone takes a turn: nobody else can hold one.
    let Ok(_turn) = house.transfers.turns.try_acquire() else {
        metric::TRANSFERS.counter(&["busy"]).increment(1);
        let mut packet = query.get(..HEADER).unwrap_or_default().to_vec();
        let length = refuse(&mut packet, Rcode::ServFail);
        packet.truncate(length);
        return put(stream, &packet, write).await;
    };
    let done = timeout(LONGEST, run(stream, &mut transfer, write)).await;
    let done = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (zone, records, client) = (transfer.origin(), transfer.records, client.to_string());
    let result = if done.is_ok() { transfer.kind } else { "broken" };
    metric::TRANSFERS.counter(&[result]).increment(1);
    tracing::info!(target: "dns", zone, client, records, result, "a zone was transferred");
    done
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::super::tests::{ask, open, world};
    use super::*;
    use crate::dns::answer::Transport;
    use crate::dns::fixture::{ZONE, guard, published, zone};

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn who_may_not_transfer_holds_no_turn() {
        let snapshot = world(zone("example.test.", ZONE), Some(open()), None);
        let house = House::new(Transport::Tcp, published(snapshot), &guard(), CancellationToken::new());
        let house = Arc::new(house);
        let (mut answering, mut peers) = (JoinSet::new(), Vec::new());
        // As many strangers as there are turns, who take the first octet of their refusal and no more.
        for _ in 0..AT_ONCE {
            let ((mut ours, mut theirs), house) = (duplex(1), Arc::clone(&house));
            answering.spawn(async move {
                let stranger = IpAddr::from([198, 51, 100, 9]);
                send(&mut ours, &ask(252, None), stranger, &house, PATIENCE).await
            });
            theirs.read_u8().await.unwrap();
            peers.push(theirs);
        }
        let (mut ours, mut theirs) = duplex(1 << 16);
        send(&mut ours, &ask(252, None), IpAddr::from([192, 0, 2, 9]), &house, PATIENCE).await.unwrap();
        let mut message = vec![0; theirs.read_u16().await.unwrap().into()];
        theirs.read_exact(&mut message).await.unwrap();
        assert_eq!((message[3] & 15, message[7] > 1), (0, true), "the zone");
        assert_eq!(answering.len(), AT_ONCE);
    }

    #[test]
    fn refusals_are_told_once_a_second() {
        let gate = Gate::default();
        let told: Vec<bool> = [5_000, 5_001, 5_999, 6_000, 6_500].map(|ms| gate.tells(Wall(ms))).into();
        assert_eq!(told, [true, false, false, true, false]);
    }
}
