//! Static files as the answer of a route.
//!
//! What a path means, and what of it is sent, is decided in `decide::files`. Files are looked for and read by other threads than
//! the worker's, a few at a time, or are in memory already; what is read is passed on as the client takes it. A file that
//! changes or ends early under our hands breaks the response off, so that nobody takes a part for the whole.

use std::io;
use std::sync::Arc;

use http::header::{HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::sync::Semaphore;

use super::download::Out;
use super::reply::Reason;
use super::tally::Entry;
use crate::base::clock::{Clock as _, SystemClock};

mod answer;
mod body;
mod memory;
mod shelf;

use shelf::Found;
pub(super) use shelf::Shelf;

/// Files that one worker has others read at a time (ours: enough to keep a disk busy).
const READERS: usize = 32;

/// The other threads' places.
#[derive(Clone, Debug)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

impl Readers {
    /// Has another thread do `work`, once there is a place. The place is held until it is done, whoever waits for it.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        working.await.map_err(io::Error::other)?
    }
}

/// Answers with a file of `shelf`.
///
/// # Errors
/// A method that does not read; nothing there; or a disk that does not answer.
pub(super) async fn serve(shelf: &Arc<Shelf>, entry: &mut Entry, head: &Parts) -> Result<Response<Out>, Reason> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        entry.allow = Some(HeaderValue::from_static("GET, HEAD"));
        return Err(Reason::Method);
    }
    let worker = Arc::clone(&entry.client.worker);
    let wanted = shelf.wanted(head);
    let found = if let Some(found) = shelf.remember(&wanted) {
        Ok(found)
    } else {
        let shelf = Arc::clone(shelf);
        worker.readers.run(move || shelf.look(&wanted)).await
    };
    entry.seen = worker.now();
    match found {
        Ok(Found::File(copy)) => {
            let (now, boundary) = (SystemClock.wall(), worker.wits().rng.next_u64());
            Ok(answer::answer(shelf, head, &copy, now, boundary, &worker.readers))
        }
        Ok(Found::Folder) => {
            shelf.count(answer::How::Folder);
            folder(head)
        }
        Ok(Found::Nothing) => {
            shelf.count(answer::How::Missing);
            Err(Reason::NoFile)
        }
        Err(error) => {
            shelf.complain(&error, worker.now());
            Err(Reason::Internal)
        }
    }
}

/// Sends the client to the same path with a slash behind it. The path is normalised, so it cannot begin with two.
fn folder(head: &Parts) -> Result<Response<Out>, Reason> {
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("{}/{query}", head.uri.path())).map_err(|_| Reason::BadRequest)?;
    let mut response = Response::new(Out::full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
