//! DNS in a stream, TCP or TLS (RFC 7766, RFC 7858): everything that is in the read buffer is answered with one write.
//!
//! Bounded everywhere: octets read and written ahead, time between queries, time to take an answer. A connection that
//! waits holds two small buffers at the most. A TLS stream gets a write as one record, and so the CPU that a record
//! costs is shared by all answers in it.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::guests::Guest;
use super::house::{End, House};
use super::transfer;
use crate::config::Connections;

/// What is gathered before it is written: as many answers, so that with the last of them it still is one TLS record of at
/// most 16 KiB (RFC 8446 section 5.1).
const WRITE_AHEAD: usize = 15 * 1_024;
/// What a connection keeps of its buffers, each, while it waits: enough for some twenty queries. The rest is given back.
const KEPT: usize = 2 * 1_024;

/// Answers what `client` asks in `stream` until one of the two has enough, and says goodbye in order.
pub(super) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    guest: &Guest,
    client: IpAddr,
    leave: &CancellationToken,
    limits: &Connections,
    house: &Arc<House>,
) -> End {
    let end = exchange(&mut stream, guest, client, leave, limits, house).await;
    let patience = match end {
        // It takes nothing.
        End::Slow => return end,
        // Somebody waits for its place: what can be said at once is said.
        End::Evicted => Duration::ZERO,
        _ => limits.write,
    };
    let _ = timeout(patience, stream.shutdown()).await;
    end
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    guest: &Guest,
    client: IpAddr,
    leave: &CancellationToken,
    limits: &Connections,
    house: &Arc<House>,
) -> End {
    let mut input = Input::default();
    let mut output = Vec::new();
    loop {
        // A query that never becomes whole is idleness too: the timer runs until one does.
        let mut idle = pin!(sleep(limits.idle));
        while !input.has_query() {
            let read = tokio::select! {
                biased;
                read = input.read(stream, house) => read,
                () = leave.cancelled() => return house.why_leave(),
                () = &mut idle => return End::Idle,
            };
            match read {
                Ok(0) | Err(_) => return End::Client,
                Ok(_) => {}
            }
        }
        guest.active();
        while input.has_query() {
            if let Some(query) = input.next_transfer() {
                let sent = tokio::select! {
                    sent = transfer::send(stream, query, client, house, limits.write) => sent,
                    () = leave.cancelled() => return house.why_leave(),
                };
                match sent {
                    Ok(()) => continue,
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => return End::Slow,
                    Err(_) => return End::Client,
                }
            }
            output.clear();
            answer_all(&mut input, &mut output, client, house);
            if let Err(end) = give(stream, &output, leave, limits, house).await {
                return end;
            }
        }
        output.clear();
        output.shrink_to(KEPT);
        tokio::task::consume_budget().await;
    }
}

/// Writes `output`, for as long as that may take and nobody else needs the place.
async fn give(
    stream: &mut (impl AsyncWrite + Unpin),
    output: &[u8],
    leave: &CancellationToken,
    limits: &Connections,
    house: &House,
) -> Result<(), End> {
    let written = async {
        stream.write_all(output).await?;
        // TLS may hold back what the socket did not take.
        stream.flush().await
    };
    let mut written = pin!(timeout(limits.write, written));
    let written = tokio::select! {
        biased;
        written = &mut written => written,
        () = leave.cancelled() => match house.why_leave() {
            End::Shutdown => written.await,
            end => return Err(end),
        },
    };
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Client),
        Err(_) => Err(End::Slow),
    }
}

/// Answers the whole queries in `input`, until `output` has grown enough for one write.
fn answer_all(input: &mut Input, output: &mut Vec<u8>, client: IpAddr, house: &House) {
    let answered = house.at_desk(|desk, table| {
        while output.len() < WRITE_AHEAD
            && !input.is_transfer()
            && let Some(query) = input.next_query()
        {
            if let Some((message, _)) = desk.answer(table, query, client) {
                output.extend((message.len() as u16).to_be_bytes());
                output.extend_from_slice(message);
            }
        }
    });
    if answered.is_none() {
        // Nobody is there to answer: what was asked is passed over.
        input.forget();
    }
}

/// What has been read and not been answered yet.
#[derive(Default)]
struct Input {
    octets: Vec<u8>,
    at: usize,
}

impl Input {
    fn pending(&self) -> &[u8] {
        self.octets.get(self.at..).unwrap_or_default()
    }

    /// The first query and what it takes with its length before it; `None` while it is not whole.
    fn first(&self) -> Option<(&[u8], usize)> {
        let (length, rest) = self.pending().split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        Some((rest.get(..length)?, 2 + length))
    }

    fn has_query(&self) -> bool {
        self.first().is_some()
    }

    /// Whether the first query asks for many messages.
    fn is_transfer(&self) -> bool {
        self.first().is_some_and(|(query, _)| transfer::is_asked(query))
    }

    fn next_transfer(&mut self) -> Option<&[u8]> {
        if self.is_transfer() { self.next_query() } else { None }
    }

    fn next_query(&mut self) -> Option<&[u8]> {
        let taken = self.first()?.1;
        let start = self.at + 2;
        self.at += taken;
        self.octets.get(start..self.at)
    }

    /// Passes over everything.
    fn forget(&mut self) {
        self.at = self.octets.len();
    }

    /// Reads more behind what is pending, through a page that all connections share: who waits holds hardly any memory.
    /// Never holds more than one query of the largest size and a page.
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), house: &House) -> io::Result<usize> {
        self.octets.drain(..self.at);
        self.at = 0;
        let octets = &mut self.octets;
        poll_fn(|cx| {
            house.at_page(|page| {
                let mut page = ReadBuf::new(page);
                let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, &mut page) else {
                    if octets.is_empty() {
                        octets.shrink_to(KEPT);
                    }
                    return Poll::Pending;
                };
                octets.extend_from_slice(page.filled());
                Poll::Ready(read.map(|()| page.filled().len()))
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests;
