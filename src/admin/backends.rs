//! `/v1/services/.../backends` and `/v1/route`: backends that announce themselves and are gone when their heartbeats are, what
//! callers tell of them, and one of them for who calls without an edge in between.
//!
//! What is believed of all that is for discovery to say; here is only what may be asked, and by which name a mistake goes.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::api::Site;
use super::refusal::Refusal;
use super::report::{self, seconds};
use super::{Shared, evidence};
use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::ids::{BackendId, ServiceId};
use crate::base::units;
use crate::control::discover::{Announcement, Hearsay, SourceReport, VisitError};
use crate::decide::balance::{self, NoChoice, Turn, Wanted, user};
use crate::decide::tried::Tried;
use crate::snapshot::Snapshot;
use crate::snapshot::health::BackendState;
use crate::snapshot::load::Outcome;

/// How long a route may be used before it is asked for again (ours: what a probe takes to find a silent backend, twice).
const LEASE: Duration = Duration::from_secs(5);
/// The usage of announcements, for who got it wrong.
const USAGE: &str = "PUT /v1/services/SERVICE/backends/ADDRESS:PORT?datacenter=NAME&weight=1&ttl=10s&name=NAME";

/// What routes are drawn with.
#[derive(Debug)]
pub(super) struct Draw(Mutex<(Turn, Rng)>);

impl Default for Draw {
    fn default() -> Self {
        Self(Mutex::new((Turn::new(), Rng::from_os())))
    }
}

/// The backends of a service, found and written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backends {
    /// Whose.
    pub service: String,
    /// The generation that they are of.
    pub generation: u64,
    /// Where the service's backends are found.
    pub sources: Vec<SourceReport>,
    /// All of them.
    pub backends: Vec<BackendRow>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendRow {
    /// Where it stands.
    pub datacenter: String,
    /// Where it listens.
    pub address: String,
    /// What it is called where it was found.
    pub name: Option<String>,
    /// Where it was found; `None` where the configuration names it.
    pub source: Option<String>,
    /// How it is.
    pub state: BackendState,
    /// Why.
    pub why: String,
    /// Its weight as it was written or found.
    pub configured: u32,
    /// What the balancer uses.
    pub weight: f64,
    /// Requests of this node under way.
    pub in_flight: u32,
    /// How long its registration still holds, in seconds; `None` where it is none.
    pub lease_s: Option<f64>,
}

/// What a backend says of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    datacenter: Option<String>,
    weight: Option<u32>,
    name: Option<String>,
    ttl: Option<String>,
}

/// A backend is registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// Where it stands.
    pub datacenter: String,
    /// Its weight.
    pub weight: u32,
    /// How long that is good for, in seconds: another heartbeat should come after a third of it.
    pub ttl_s: f64,
    /// Whether it was not there before, or otherwise.
    pub changed: bool,
    /// The generation in force.
    pub generation: u64,
}

/// Which of several datacenters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    datacenter: Option<String>,
}

/// How a call that somebody else made has ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallReport {
    /// How.
    pub outcome: CallOutcome,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub latency_ms: f64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// With an answer.
    Ok,
    /// The connection was refused.
    Refused,
    /// The connection broke.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// With an error of the backend.
    Error,
    /// Too many at a time.
    Pressure,
}

/// A backend for a caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Of this service.
    pub service: String,
    /// There.
    pub address: String,
    /// In this datacenter.
    pub datacenter: String,
    /// By this name, where it has one.
    pub name: Option<String>,
    /// Why that datacenter.
    pub placed: String,
    /// Why that backend.
    pub pick: String,
    /// How long it may be used before it is asked for again, in seconds.
    pub lease_s: f64,
    /// The generation that says so.
    pub generation: u64,
}

/// `GET /v1/services/{service}/backends`
pub(super) async fn list(
    State(shared): Site,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Backends>, Refusal> {
    let Path(service) = path.map_err(|e| unreadable(&e.body_text()))?;
    let snapshot = shared.context.published.full();
    let id = service_of(&snapshot, &service)?;
    let (now, wall) = (shared.context.clock.mono(), shared.context.clock.wall());
    let discovery = &shared.context.discovery;
    let row = |id: BackendId| {
        let it = evidence::backend(&snapshot, id, now, wall);
        let lease = discovery.lease(&service, snapshot.topology.backend(id).spec.address);
        BackendRow {
            datacenter: it.datacenter,
            address: it.address,
            name: it.name,
            source: it.source,
            state: it.state,
            why: it.why,
            configured: it.configured,
            weight: it.weight,
            in_flight: it.in_flight,
            lease_s: lease.map(|lease| seconds(lease.left)),
        }
    };
    let backends = snapshot.topology.members_anywhere(id).map(row).collect();
    let sources = discovery.sources().into_iter().filter(|s| s.service == service).collect();
    Ok(Json(Backends { generation: snapshot.generation, sources, backends, service }))
}

/// `PUT /v1/services/{service}/backends/{address}`
pub(super) async fn announce(
    State(shared): Site,
    path: Result<Path<(String, String)>, PathRejection>,
    said: Result<Query<Said>, QueryRejection>,
) -> Result<Json<Registered>, Refusal> {
    let (service, address) = place(path)?;
    let Query(said) = said.map_err(|e| unreadable(&e.body_text()))?;
    if said.weight.is_some_and(|weight| weight > 1_000_000) {
        return Err(unreadable("a weight is a whole number from 0 to 1000000"));
    }
    let ttl = said.ttl.as_deref().map(units::duration).transpose().map_err(|e| unreadable(&e.to_string()))?;
    let Said { datacenter, weight, name, .. } = said;
    let announcement = Announcement { service, datacenter, address, weight, name, ttl };
    let announced = shared.context.discovery.announce(announcement).await.map_err(|e| refused(&e))?;
    Ok(Json(Registered {
        datacenter: announced.datacenter,
        weight: announced.weight,
        ttl_s: seconds(announced.ttl),
        changed: announced.changed,
        generation: shared.context.published.load().generation,
    }))
}

/// `DELETE /v1/services/{service}/backends/{address}`
pub(super) async fn withdraw(
    State(shared): Site,
    path: Result<Path<(String, String)>, PathRejection>,
    from: Result<Query<Place>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let (service, address) = place(path)?;
    let Query(from) = from.map_err(|e| unreadable(&e.body_text()))?;
    let datacenter = shared.context.discovery.withdraw(&service, from.datacenter.as_deref(), address).await;
    let datacenter = datacenter.map_err(|e| refused(&e))?;
    let generation = shared.context.published.load().generation;
    Ok(Json(serde_json::json!({ "datacenter": datacenter, "generation": generation })))
}

/// `POST /v1/services/{service}/backends/{address}/report`
pub(super) async fn hear(
    State(shared): Site,
    path: Result<Path<(String, String)>, PathRejection>,
    told: Result<Json<CallReport>, JsonRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let (service, address) = place(path)?;
    let usage = "{\"outcome\": \"ok\" | \"refused\" | \"reset\" | \"timeout\" | \"error\" | \"pressure\", \"latency_ms\": 12.5}";
    let Json(told) = told.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.body_text(), usage))?;
    let took = Duration::try_from_secs_f64(told.latency_ms.clamp(0.0, 3.6e6) / 1e3).unwrap_or_default();
    let outcome = match told.outcome {
        CallOutcome::Ok => Outcome::Ok,
        CallOutcome::Refused => Outcome::Refused,
        CallOutcome::Reset => Outcome::Reset,
        CallOutcome::Timeout => Outcome::Timeout,
        CallOutcome::Error => Outcome::GatewayError,
        CallOutcome::Pressure => Outcome::Pressure,
    };
    shared.context.discovery.hear(&service, address, Hearsay { outcome, took }).map_err(|e| refused(&e))?;
    Ok(Json(serde_json::json!({ "heard": true })))
}

/// `POST /v1/services/{service}/sources/confirm`
pub(super) async fn confirm(
    State(shared): Site,
    path: Result<Path<String>, PathRejection>,
    at: Result<Query<Place>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let Path(service) = path.map_err(|e| unreadable(&e.body_text()))?;
    let Query(at) = at.map_err(|e| unreadable(&e.body_text()))?;
    let confirmed =
        shared.context.discovery.confirm(&service, at.datacenter.as_deref()).await.map_err(|e| refused(&e))?;
    let confirmed: Vec<String> =
        confirmed.into_iter().map(|key| format!("{}@{}", key.origin, key.datacenter)).collect();
    let generation = shared.context.published.load().generation;
    Ok(Json(serde_json::json!({ "confirmed": confirmed, "generation": generation })))
}

/// What is asked of a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Errand {
    service: String,
    key: Option<String>,
}

/// `GET /v1/route`
pub(super) async fn route(
    State(shared): Site,
    errand: Result<Query<Errand>, QueryRejection>,
) -> Result<Json<RouteReport>, Refusal> {
    let usage = "usage: /v1/route?service=gift-list&key=user-42";
    let Query(errand) = errand.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.body_text(), usage))?;
    let snapshot = shared.context.published.full();
    let service = service_of(&snapshot, &errand.service)?;
    let now = shared.context.clock.mono();
    let choice = choose(&shared, &snapshot, service, errand.key.as_deref(), now).await;
    let choice = choice.map_err(|no| {
        let hint = match no {
            NoChoice::NoUser => usage,
            _ => "ask again in a second; `springtide status` tells how its backends are",
        };
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("`{}`: {}", errand.service, no.as_str()), hint)
    })?;
    let backend = snapshot.topology.backend(choice.backend);
    let left = shared.context.discovery.lease(&errand.service, backend.spec.address).map(|lease| lease.left);
    Ok(Json(RouteReport {
        service: errand.service,
        address: backend.spec.address.to_string(),
        datacenter: report::datacenter(&snapshot, choice.datacenter),
        name: backend.name.as_deref().map(str::to_owned),
        placed: choice.placed.as_str().to_owned(),
        pick: choice.reason.as_str().to_owned(),
        lease_s: seconds(left.map_or(LEASE, |left| left.clamp(Duration::from_secs(1), LEASE))),
        generation: snapshot.generation,
    }))
}

async fn choose(
    shared: &Shared,
    snapshot: &Snapshot,
    service: ServiceId,
    key: Option<&str>,
    now: Mono,
) -> Result<balance::Choice, NoChoice> {
    let policy = snapshot.topology.service(service);
    let user = key.filter(|key| !key.is_empty()).map(|key| user::hash_for(policy, key.as_bytes()));
    let local = snapshot.topology.config.node.datacenter;
    let wanted = Wanted { service, local, user, seat: None };
    let mut draw = shared.draw.0.lock().await;
    let (turn, rng) = &mut *draw;
    balance::choose(snapshot, &wanted, &mut Tried::new(), turn, now, rng)
}

fn service_of(snapshot: &Snapshot, name: &str) -> Result<ServiceId, Refusal> {
    let id = snapshot.topology.service_ids().find(|id| snapshot.topology.service(*id).name == name);
    id.ok_or_else(|| refused(&VisitError::NoService { service: name.to_owned() }))
}

fn place(path: Result<Path<(String, String)>, PathRejection>) -> Result<(String, SocketAddr), Refusal> {
    let Path((service, address)) = path.map_err(|e| unreadable(&e.body_text()))?;
    match address.parse() {
        Ok(address) => Ok((service, address)),
        Err(_) => Err(unreadable(&format!("`{address}` is not an address with a port"))),
    }
}

fn unreadable(error: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error, format!("usage: {USAGE}"))
}

/// The way that a mistake goes: its status, and what to do about it.
fn refused(error: &VisitError) -> Refusal {
    let (status, hint) = match error {
        VisitError::NoService { .. } => (StatusCode::NOT_FOUND, "`springtide status` lists the services"),
        VisitError::NoBackend { .. } => (StatusCode::NOT_FOUND, "`springtide backends list SERVICE` lists them"),
        VisitError::NothingHeld { .. } => (StatusCode::NOT_FOUND, "`springtide status` tells how sources stand"),
        VisitError::NotThere { .. } => {
            (StatusCode::FORBIDDEN, "add `{ register = true }` to the backends of the service in that datacenter")
        }
        VisitError::NotAllowed { .. } => {
            (StatusCode::FORBIDDEN, "`allow` beside `register` says which addresses may be registered")
        }
        VisitError::Ambiguous { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "add `datacenter=NAME`"),
        VisitError::Full => (StatusCode::CONFLICT, "take some out, or spread them over services"),
        VisitError::TooMany => (StatusCode::TOO_MANY_REQUESTS, "tell of fewer: a sample says as much"),
        VisitError::Late => (StatusCode::SERVICE_UNAVAILABLE, "say it again; /v1/state tells what is in force"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, USAGE),
    };
    Refusal::new(status, error.to_string(), hint)
}
