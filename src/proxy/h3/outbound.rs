//! A response on its way to the client's stream: small things gathered, large ones sent from where they are.

use std::future::Future;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use quinn::{SendStream, StoppedError, VarInt};
use tokio::time::timeout;

use super::exchange::NOTHING;
use super::session::number;
use crate::wire::h3::frame::{self, kind};
use crate::wire::h3::{Code, head};

/// How long a client may take nothing of what we have for it (ours).
const STALL: Duration = Duration::from_secs(10);
/// From here on octets of a body are sent from where they are, not copied behind the head.
const BULK: usize = 4 * 1024;
/// So much is gathered before it is sent.
const GATHER: usize = 16 * 1024;

/// Why a response ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The client wants no more of it, or takes none.
    Client,
    /// The rest of it will not come.
    Backend,
}

/// Our direction of a request's stream. Dropped before its end it is reset: nobody may take half a response for a whole one.
pub(super) struct Outbound {
    stream: SendStream,
    small: Vec<u8>,
    bulk: Bytes,
    is_over: bool,
}

impl Outbound {
    /// Over `stream`, on which nothing was sent.
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, small: Vec::new(), bulk: NOTHING, is_over: false }
    }

    /// Ready once the client wants no more, or has all of it: `Ok(None)`.
    pub(super) fn stopped(&self) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + use<> {
        self.stream.stopped()
    }

    /// What `wanted` gives, unless the client stops before.
    pub(super) async fn unless_stopped<T>(&self, wanted: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::select! {
            biased;
            got = wanted => Ok(got),
            _ = self.stream.stopped() => Err(Gone::Client),
        }
    }

    /// The head; a body of `length` octets follows, where that is known.
    pub(super) fn put_head(&mut self, status: StatusCode, headers: &HeaderMap, length: Option<u64>, date: &[u8]) {
        frame::put_framed(&mut self.small, kind::HEADERS, |out| head::put_response(out, status, headers, length, date));
    }

    /// A head before the head, which goes out at once.
    pub(super) async fn put_interim(&mut self, status: StatusCode) -> Result<(), Gone> {
        frame::put_framed(&mut self.small, kind::HEADERS, |out| head::put_interim(out, status));
        self.flush().await
    }

    /// Octets of the body. Nothing may be added while it [is full](Self::is_full).
    pub(super) fn put_data(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        frame::put_header(&mut self.small, kind::DATA, data.len());
        if data.len() < BULK {
            self.small.extend_from_slice(&data);
        } else {
            self.bulk = data;
        }
    }

    /// Fields behind the body.
    pub(super) fn put_trailers(&mut self, trailers: &HeaderMap) {
        frame::put_framed(&mut self.small, kind::HEADERS, |out| head::put_trailers(out, trailers));
    }

    /// Whether something waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.small.is_empty() || !self.bulk.is_empty()
    }

    /// Whether no more should be added before [`Self::flush`].
    pub(super) fn is_full(&self) -> bool {
        !self.bulk.is_empty() || self.small.len() >= GATHER
    }

    /// Sends what there is to be sent, as fast as the client takes it.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        let mut parts = [Bytes::from(std::mem::take(&mut self.small)), std::mem::take(&mut self.bulk)];
        while parts.iter().any(Bytes::has_remaining) {
            let sent = timeout(STALL, self.stream.write_chunks(&mut parts)).await;
            // Chunks that were sent are empty by now, and the one that was begun is shorter.
            sent.map_err(|_| Gone::Client)?.map_err(|_| Gone::Client)?;
        }
        Ok(())
    }

    /// Sends the rest, and that it was all.
    pub(super) async fn end(&mut self) -> Result<(), Gone> {
        self.flush().await?;
        self.is_over = true;
        self.stream.finish().map_err(|_| Gone::Client)
    }

    /// Ends it without an end.
    pub(super) fn reset(&mut self, code: Code) {
        self.is_over = true;
        // Of a stream that is over there is nothing to reset.
        let _ = self.stream.reset(number(code));
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if !self.is_over {
            self.reset(Code::InternalError);
        }
    }
}
