//! A line that breaks at the worst moment: the server has committed, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use springtide::base::task::{Task, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Stands before a server, and loses its answer to some COMMITs together with the connection.
pub(crate) struct Lossy {
    port: u16,
    left: Arc<AtomicUsize>,
    _carrier: Task,
}

impl Lossy {
    /// Before the server at `port` of this machine; loses nothing yet.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (own, left) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let lose = left.clone();
        let carrier = spawn("test-lossy", async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                spawn("test-line", carry(client, server, lose.clone())).detach();
            }
        });
        Self { port: own, left, _carrier: carrier }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Loses the answers to the next so many.
    pub(crate) fn lose(&self, commits: usize) {
        self.left.store(commits, Ordering::SeqCst);
    }

    /// How many of these are still to come.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

/// Passes words on, both ways, until one side ends or an answer is to be lost.
async fn carry(mut client: TcpStream, mut server: TcpStream, left: Arc<AtomicUsize>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(n @ 1..) = read else { return };
                if server.write_all(&up[..n]).await.is_err() {
                    return;
                }
                // A COMMIT is short and goes out alone, so it is in one piece.
                let commits = up[..n].windows(7).any(|w| w == b"COMMIT\0");
                let lose = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                if commits && lose() {
                    // The answer has come, so it was done.
                    let _ = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(n @ 1..) = read else { return };
                if client.write_all(&down[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
