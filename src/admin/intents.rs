//! `/v1/intents`: an operator's wish is checked, handed to the control loop, and answered once it is in force.
//!
//! What is in force, and what follows from it, is for the control loop to say; here is only what a person may write.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Shared;
use super::api::Site;
use super::refusal::Refusal;
use super::report::{self, IntentReport};
use crate::base::units;
use crate::control::event::Event;
use crate::control::intent::{self, IntentError};
use crate::snapshot::intent::{Intent, Subject, SubjectError, Wish};

/// How long the control loop may take to put an intent in force. It does so in microseconds; this is for when it is gone.
const APPLY_WITHIN: Duration = Duration::from_secs(5);
/// Longest name of an author, longest reason, in characters: both end up in logs and tables.
const LONGEST: (usize, usize) = (64, 256);
/// Longest that an intent with an end may last.
const LASTS_AT_MOST: Duration = Duration::from_hours(24 * 365);

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Of what: see [`Subject`].
    pub subject: String,
    /// What: `"drain"`, `"down"` or `{"weight": N}`.
    pub wish: Wish,
    /// For how long, with its unit; without it, until somebody takes it back.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Even where it leaves too little to serve.
    #[serde(default)]
    pub force: bool,
}

/// What an operator takes back: every intent for the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recall {
    /// Of what: see [`Subject`].
    pub subject: String,
    /// Who asks.
    #[serde(default)]
    pub by: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that has it in force.
    pub generation: u64,
    /// Whether anything has changed by it.
    pub changed: bool,
    /// What is in force for the subject now.
    pub intents: Vec<IntentReport>,
    /// Services that lose something by it, with what is left in per cent of what served before.
    pub left: Vec<(String, f64)>,
}

/// `POST /v1/intents`
pub(super) async fn wish(State(shared): Site, body: Result<Bytes, BytesRejection>) -> Result<Json<Applied>, Refusal> {
    let order: Order = read(body, r#"{"subject": "shanghai", "wish": "drain", "for": "10m", "reason": "new kernel"}"#)?;
    let intent = mean(&shared, &order)?;
    let left = match intent::check(&shared.context.published.full(), &intent, shared.now(), intent.since) {
        Ok(effect) => effect.left,
        Err(IntentError::NothingLeft { .. }) if order.force => Vec::new(),
        Err(error) => return Err(objection(&error)),
    };
    tracing::info!(
        target: "springtide::audit",
        subject = %intent.subject, wish = %intent.wish, by = intent.by, reason = intent.reason,
        until_ms = intent.until.map(|u| u.0), forced = order.force, "an operator's intent"
    );
    let subject = intent.subject.clone();
    apply(&shared, Event::Wish(intent)).await?;
    Ok(Json(Applied { left, ..applied(&shared, &subject, true) }))
}

/// `DELETE /v1/intents`
pub(super) async fn revoke(State(shared): Site, body: Result<Bytes, BytesRejection>) -> Result<Json<Applied>, Refusal> {
    let recall: Recall = read(body, r#"{"subject": "shanghai"}"#)?;
    let by = line("by", &recall.by, LONGEST.0)?;
    let subject = subject(&recall.subject)?;
    if !shared.context.published.load().intents.entries.iter().any(|i| i.subject == subject) {
        return Ok(Json(applied(&shared, &subject, false)));
    }
    tracing::info!(target: "springtide::audit", %subject, by, "an operator's intent is taken back");
    apply(&shared, Event::Revoke { subject: subject.clone(), by }).await?;
    Ok(Json(applied(&shared, &subject, true)))
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, example: &str) -> Result<T, Refusal> {
    let hint = format!("send JSON like {example}");
    let body = body.map_err(|e| Refusal::new(e.status(), e.body_text(), hint.as_str()))?;
    serde_json::from_slice(&body).map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.to_string(), hint))
}

fn refused(error: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error, hint)
}

fn subject(text: &str) -> Result<Subject, Refusal> {
    text.parse().map_err(|e: SubjectError| {
        refused(e.to_string(), "springtide status lists datacenters and services, GET /v1/health every backend")
    })
}

fn mean(shared: &Shared, order: &Order) -> Result<Intent, Refusal> {
    let since = shared.context.clock.wall();
    let lasting = match order.lasting.as_deref().map(units::duration) {
        None => None,
        Some(Ok(lasting)) if lasting >= Duration::from_secs(1) && lasting <= LASTS_AT_MOST => Some(lasting),
        Some(Ok(_)) => {
            return Err(refused("an intent lasts from 1s to 365d", "without `for` it lasts until taken back"));
        }
        Some(Err(e)) => return Err(refused(format!("`for`: {e}"), "without `for` it lasts until taken back")),
    };
    Ok(Intent {
        subject: subject(&order.subject)?,
        wish: order.wish,
        since,
        until: lasting.map(|lasting| since + lasting),
        by: line("by", if order.by.is_empty() { "unknown" } else { &order.by }, LONGEST.0)?,
        reason: line("reason", &order.reason, LONGEST.1)?,
    })
}

/// Text that fits a line of a log or a table.
fn line(field: &str, text: &str, longest: usize) -> Result<String, Refusal> {
    let text = text.trim();
    if text.chars().count() > longest || text.chars().any(char::is_control) {
        let error = format!("`{field}` must be one line of at most {longest} characters");
        return Err(refused(error, "say it shorter"));
    }
    Ok(text.to_owned())
}

/// What the health core objects to, as a status and what to do about it.
fn objection(error: &IntentError) -> Refusal {
    let (status, hint) = match error {
        IntentError::UnknownDatacenter { .. }
        | IntentError::UnknownService { .. }
        | IntentError::UnknownBackend { .. } => {
            (StatusCode::NOT_FOUND, "springtide status lists datacenters and services, GET /v1/health every backend")
        }
        IntentError::NothingLeft { .. } => {
            (StatusCode::CONFLICT, "if that is what you want, say so: \"force\": true, or --force")
        }
        IntentError::TooMany => (StatusCode::CONFLICT, "take back what is no longer wanted: springtide undrain"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "say something else"),
    };
    Refusal::new(status, error.to_string(), hint)
}

/// Hands `event` to the control loop and waits until what follows from it is published.
async fn apply(shared: &Arc<Shared>, event: Event) -> Result<(), Refusal> {
    let (tell, told) = oneshot::channel();
    let events = &shared.context.events;
    let applied = async {
        events.send(event).await.ok()?;
        events.send(Event::Flush(tell)).await.ok()?;
        told.await.ok()
    };
    match tokio::time::timeout(APPLY_WITHIN, applied).await {
        Ok(Some(_)) => Ok(()),
        _ => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the control loop does not answer",
            "the intent may or may not come into force: look at /v1/state, then say it again",
        )),
    }
}

fn applied(shared: &Shared, subject: &Subject, changed: bool) -> Applied {
    let (snapshot, wall) = (shared.context.published.load(), shared.context.clock.wall());
    let of_it = snapshot.intents.entries.iter().filter(|i| i.subject == *subject);
    let intents = of_it.map(|i| report::intent(&snapshot, i, wall)).collect();
    Applied { generation: snapshot.generation, changed, intents, left: Vec::new() }
}
