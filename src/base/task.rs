//! Tasks with a name and an owner.
//!
//! A bare `tokio::spawn` is banned: a task that nobody owns outlives its purpose and dies without a word. Here a task
//! has a name for the log, and is aborted when its owner lets go of the handle.

use std::future::Future;

use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument;

/// Owns a task: dropping it aborts the task.
#[derive(Debug)]
#[must_use = "dropping the handle aborts the task"]
pub struct Task {
    abort: Option<AbortHandle>,
    join: Option<JoinHandle<()>>,
}

impl Task {
    /// Waits until the task has ended by itself.
    pub async fn ended(mut self) {
        if let Some(join) = self.join.take() {
            // An aborted task is an ended task; a panic was reported by the hook.
            let _ = join.await;
        }
    }

    /// Lets the task run on without an owner, to its own end. For work that bounds itself (a connection, a flush).
    pub fn detach(mut self) {
        self.abort = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(abort) = self.abort.take() {
            abort.abort();
        }
    }
}

/// Starts `future` on the current runtime as a task called `name`.
pub fn spawn<F>(name: &'static str, future: F) -> Task
where
    F: Future<Output = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    let join = tokio::spawn(future.instrument(tracing::trace_span!("task", name)));
    Task { abort: Some(join.abort_handle()), join: Some(join) }
}
