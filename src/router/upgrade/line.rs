//! What two processes say to each other while the one takes the other's place: a JSON value a line, over a socket pair.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::control::memory::Memory;

/// Longest line: what is known of some 100,000 backends.
const MOST: u64 = 64 << 20;
/// How long the predecessor may take to say what it knows; and to let go, once we serve: it ends its admin requests and
/// writes its state first, for seconds at the most.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
const YOURS_WITHIN: Duration = Duration::from_mins(1);

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// By the predecessor, first: what it holds to be true.
    Known(Box<Memory>),
    /// By the successor: it serves.
    Ready,
    /// By the successor: why it cannot.
    Failed(String),
    /// By the predecessor, last: it keeps nothing any more.
    Yours(Box<Memory>),
}

/// One end of the line.
pub(super) struct Line(BufReader<UnixStream>);

impl Line {
    pub(super) fn new(stream: StdStream) -> io::Result<Self> {
        UnixStream::from_std(stream).map(BufReader::new).map(Self)
    }

    pub(super) async fn tell(&mut self, word: &Word) -> io::Result<()> {
        let mut text = serde_json::to_vec(word)?;
        text.push(b'\n');
        self.0.get_mut().write_all(&text).await
    }

    /// The next word; `None`: the other end has hung up.
    pub(super) async fn hear(&mut self) -> io::Result<Option<Word>> {
        let mut text = Vec::new();
        (&mut self.0).take(MOST).read_until(b'\n', &mut text).await?;
        if text.last() != Some(&b'\n') {
            return Ok(None);
        }
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from)
    }
}

/// The process that served before this one, and serves still.
pub struct Predecessor {
    line: Line,
    known: Option<Memory>,
}

impl Predecessor {
    /// Hears what it knows.
    ///
    /// # Errors
    /// The line is none.
    pub async fn meet(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut line = Line::new(stream)?;
        let known = match timeout(KNOWN_WITHIN, line.hear()).await {
            Ok(Ok(Some(Word::Known(memory)))) => Some(*memory),
            Ok(_) | Err(_) => None,
        };
        if known.is_none() {
            warn!(target: "upgrade", "the predecessor does not say what it knows: starting from the disk");
        }
        Ok(Self { line, known })
    }

    /// What it knew when it started this process.
    pub fn known(&mut self) -> Option<Memory> {
        self.known.take()
    }

    /// Tells it why this process cannot serve.
    pub async fn failed(mut self, why: &str) {
        // It may have gone; then nobody is to be told.
        let _ = self.line.tell(&Word::Failed(why.to_owned())).await;
    }

    /// Tells it that this process serves, and waits until it has let go; gives what it knew last.
    pub async fn relieve(mut self) -> Option<Memory> {
        if self.line.tell(&Word::Ready).await.is_err() {
            warn!(target: "upgrade", "the predecessor is gone: going on alone");
            return None;
        }
        let Ok(Ok(Some(Word::Yours(memory)))) = timeout(YOURS_WITHIN, self.line.hear()).await else {
            warn!(target: "upgrade", "the predecessor has not handed over as it should: going on without its last word");
            return None;
        };
        info!(target: "upgrade", "the predecessor has handed over");
        Some(*memory)
    }
}
