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
use crate::snapshot::intent::{Intent, Subject, Wish};
use crate::snapshot::{Snapshot, Topology};

/// How long the control loop may take to put an intent in force. It does so in microseconds; this is for when it is gone.
const APPLY_WITHIN: Duration = Duration::from_secs(5);
/// Intents in force at a time.
const AT_MOST: usize = 1_024;
/// Longest name of an author, longest reason, in characters: both end up in logs and tables.
const LONGEST: (usize, usize) = (64, 256);
/// Longest that an intent with an end may last.
const LASTS_AT_MOST: Duration = Duration::from_hours(24 * 365);
const MAX_WEIGHT: u32 = 1_000_000;
/// Names that are offered to who asked for one that is not.
const OFFERED: usize = 12;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that has it in force.
    pub generation: u64,
    /// Whether anything has changed by it.
    pub changed: bool,
    /// What is in force for the subject now.
    pub intents: Vec<IntentReport>,
}

/// `POST /v1/intents`
pub(super) async fn wish(State(shared): Site, body: Result<Bytes, BytesRejection>) -> Result<Json<Applied>, Refusal> {
    let order: Order = read(body, r#"{"subject": "shanghai", "wish": "drain", "for": "10m", "reason": "new kernel"}"#)?;
    let before = shared.context.published.full();
    let subject = subject(&order.subject)?;
    let intent = accept(&shared, subject, order.wish, &order)?;
    known(&before.topology, &intent.subject)?;
    if before.intents.entries.len() >= AT_MOST {
        return Err(refused("1024 intents are in force", "take back what is no longer wanted: springtide undrain"));
    }
    (shared.context.check_intent)(&before, &intent, order.force).map_err(|why| {
        Refusal::new(StatusCode::CONFLICT, why, "if that is what you want, say so: \"force\": true, or --force")
    })?;
    tracing::info!(
        target: "springtide::audit",
        subject = %intent.subject, wish = %intent.wish, by = intent.by, reason = intent.reason,
        until_ms = intent.until.map(|u| u.0), forced = order.force, "an operator's intent"
    );
    let subject = intent.subject.clone();
    apply(&shared, Event::Wish(intent)).await?;
    Ok(Json(applied(&shared, &subject, true)))
}

/// `DELETE /v1/intents`
pub(super) async fn revoke(State(shared): Site, body: Result<Bytes, BytesRejection>) -> Result<Json<Applied>, Refusal> {
    let recall: Recall = read(body, r#"{"subject": "shanghai"}"#)?;
    let by = line("by", &recall.by, LONGEST.0)?;
    let subject = subject(&recall.subject)?;
    let before = shared.context.published.full();
    if in_force(&before, &subject).next().is_none() {
        // An intent outlives the reload that took its subject away, so only what is in no intent must exist.
        known(&before.topology, &subject)?;
        return Ok(Json(applied(&shared, &subject, false)));
    }
    tracing::info!(target: "springtide::audit", %subject, by, "an operator's intent is taken back");
    apply(&shared, Event::Revoke(subject.clone())).await?;
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
    text.parse().map_err(|e: crate::snapshot::intent::SubjectError| {
        refused(e.to_string(), "GET /v1/state lists datacenters and services, /v1/health lists backends")
    })
}

fn accept(shared: &Shared, subject: Subject, wish: Wish, order: &Order) -> Result<Intent, Refusal> {
    if matches!(wish, Wish::Weight(weight) if weight > MAX_WEIGHT) {
        return Err(refused("a weight is at most 1000000", "weights are shares beside each other: 0 to 1000000"));
    }
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
        subject,
        wish,
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

/// Whether what `subject` names exists.
fn known(topology: &Topology, subject: &Subject) -> Result<(), Refusal> {
    let config = &topology.config;
    let datacenter = |name: &str| exists("datacenter", name, config.datacenters.iter().map(|dc| dc.name.as_str()));
    let service = |name: &str| exists("service", name, config.services.iter().map(|s| s.name.as_str()));
    match subject {
        Subject::Datacenter(name) => datacenter(name),
        Subject::Service { service: s, datacenter: d } => service(s).and_then(|()| datacenter(d)),
        Subject::Backend { address, service: None } => {
            let all: Vec<String> = topology.backends.iter().map(|b| b.spec.address.to_string()).collect();
            exists("backend", address, all.iter().map(String::as_str))
        }
        Subject::Backend { address, service: Some(of) } => {
            service(of)?;
            let members = topology.backends.iter().filter(|b| topology.service(b.service).name == *of);
            let all: Vec<String> = members.map(|b| b.spec.address.to_string()).collect();
            exists(&format!("{of} backend"), address, all.iter().map(String::as_str))
        }
    }
}

/// Whether `name` is among `all`; says what is, where it is not.
fn exists<'a>(what: &str, name: &str, all: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut all: Vec<&str> = all.collect();
    if all.contains(&name) {
        return Ok(());
    }
    all.sort_unstable();
    all.dedup();
    let more = if all.len() > OFFERED { ", ..." } else { "" };
    all.truncate(OFFERED);
    let hint = format!("there are: {}{more}", all.join(", "));
    Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {what} `{name}`"), hint))
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

fn in_force<'a>(snapshot: &'a Snapshot, subject: &'a Subject) -> impl Iterator<Item = &'a Intent> {
    snapshot.intents.entries.iter().filter(move |i| i.subject == *subject)
}

fn applied(shared: &Shared, subject: &Subject, changed: bool) -> Applied {
    let (snapshot, wall) = (shared.context.published.load(), shared.context.clock.wall());
    let intents = in_force(&snapshot, subject).map(|i| report::intent(i, wall)).collect();
    Applied { generation: snapshot.generation, changed, intents }
}
