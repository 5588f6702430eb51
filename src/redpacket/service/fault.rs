//! Faults on demand, for drills: a service that can be told to be slow, to fail, or to talk nonsense.
//!
//! Only from this machine, and only where nothing was forwarded: `POST /fault`, and `{}` makes it well again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::base::entropy::Rng;
use crate::net::stage::{Body, full};
use crate::redpacket::model::Code;
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{is_local, json, nowhere, trace_id};

/// The longest delay that can be dialled.
const LONGEST_MS: u64 = 60_000;

/// What to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dial {
    /// Wait before the answer, at most a minute.
    pub delay_ms: u64,
    /// Answer with this status and nothing else done.
    pub status: Option<u16>,
    /// Answer 200 with bytes that make no sense.
    pub garbage: bool,
    /// Do the work, then answer 500 as if it had failed.
    pub lose_reply: bool,
    /// Share of requests that this happens to, in per cent; all where it is not said.
    pub percent: Option<u8>,
}

/// A dial and its handle.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Dial>);

impl Faults {
    fn dial(&self) -> Dial {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers `/fault`.
    pub(super) async fn turn(&self, head: &Parts, body: Body) -> Response<Body> {
        let trace = trace_id(&head.headers);
        if !is_local(head) {
            return nowhere(&trace);
        }
        if head.method == Method::POST {
            match json::<Dial>(body, &trace).await {
                Ok(dial) if dial.status.is_none_or(|s| StatusCode::from_u16(s).is_ok()) => {
                    tracing::warn!(?dial, "a fault was dialled");
                    let dial = Dial { delay_ms: dial.delay_ms.min(LONGEST_MS), ..dial };
                    *self.0.lock().unwrap_or_else(PoisonError::into_inner) = dial;
                }
                Ok(_) => return Envelope::new(Code::BadRequest, &trace).saying("There is no such status.").respond(),
                Err(refused) => return refused.respond(),
            }
        }
        Envelope::new(Code::Ok, &trace).with(self.dial()).respond()
    }

    /// What the dial says to this request: wait, and then an answer in the place of the real one, or whether the real
    /// one gets lost.
    pub(super) async fn suffer(&self) -> Result<bool, Response<Body>> {
        let dial = self.dial();
        if dial.percent.is_some_and(|p| Rng::from_os().below(100) >= u64::from(p)) {
            return Ok(false);
        }
        if dial.delay_ms > 0 {
            sleep(Duration::from_millis(dial.delay_ms)).await;
        }
        if let Some(status) = dial.status.and_then(|s| StatusCode::from_u16(s).ok()) {
            let mut response = Response::new(full("dialled"));
            *response.status_mut() = status;
            return Err(response);
        }
        if dial.garbage {
            return Err(Response::new(full("\u{0}<<{\"not\": [what you want")));
        }
        Ok(dial.lose_reply)
    }
}
