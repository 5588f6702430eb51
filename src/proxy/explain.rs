//! Why a request would go where it goes: the same decisions as on the data path, with everything that they saw.
//!
//! Reads one snapshot and changes nothing. Where the data path draws lots, it draws a thousand times and says who got how
//! many, because one draw explains nothing. Called by the admin API.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::session;
use super::view::{RouteView, View};
use crate::base::entropy::Rng;
use crate::base::hash;
use crate::base::ids::{BackendId, ListenerId, RouteId, ServiceId};
use crate::base::units::show_duration;
use crate::config::{Action, Balance, Files, HomeDown, Requirement, Route, Scheme, UserKey};
use crate::decide::balance::{self, NoChoice, Turn, Wanted, user};
use crate::decide::deadline::deadline;
use crate::decide::retry;
use crate::decide::route::change::{Detour, NewPath, Place};
use crate::decide::route::{Ask, Considered};
use crate::decide::split::Sides;
use crate::decide::tried::Tried;
use crate::decide::{place, route};
use crate::snapshot::Snapshot;
use crate::snapshot::health::BackendState;
use crate::snapshot::topology::Backend;
use crate::wire::{host, path};

/// How many times lots are drawn.
const DRAWS: u32 = 1_000;

/// A request that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path, with or without its query.
    pub path: String,
    /// Headers; what cannot be a header is left out and said so.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub client: IpAddr,
    /// The user, where it is not to be taken from the request as the route says.
    pub user: Option<String>,
    /// Whether it comes over TLS.
    pub tls: bool,
}

/// Explains where `question` would go now.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Value {
    let mut answer = json!({ "generation": snapshot.generation });
    let asked = match read(question) {
        Ok(asked) => asked,
        Err((what, why)) => {
            answer["refused"] = json!({ "status": 400, "because": format!("{what}: {why}") });
            return answer;
        }
    };
    answer["request"] = json!({
        "method": asked.method.as_str(), "host": asked.host, "path": asked.path,
        "scheme": if question.tls { "https" } else { "http" }, "client": question.client,
    });
    let view = View::of(snapshot);
    let config = &snapshot.topology.config;
    let (host, path, query) = (&asked.host, &asked.path, &asked.query);
    let ask = Ask { host, path, query, method: &asked.method, headers: &asked.headers };
    let (found, considered) = view.routes.trace(&ask);
    let said = host::parse(&question.host).ok();
    let place = Place {
        scheme: if question.tls { Scheme::Https } else { Scheme::Http },
        host,
        port: said.and_then(|host| host.port),
        path,
        query: Some(query.as_str()).filter(|query| !query.is_empty()),
    };
    answer["listeners"] = detours(snapshot, &view, &place);
    answer["routes"] = config.routes.iter().zip(&considered).map(|(route, fate)| candidate(route, fate)).collect();
    let Some(found) = found else {
        answer["refused"] = refused(&view, &ask);
        return answer;
    };
    let Some(route) = config.routes.get(found.route.index()) else { return answer };
    answer["route"] = json!({ "name": route.name, "matched": matched(&found, route) });
    if let Some(requires) = &route.requires {
        answer["requires"] = required(requires);
    }
    becomes(snapshot, question, &asked, &view, &place, found.route, &mut answer);
    answer
}

/// What becomes of a request that the route takes.
fn becomes(
    snapshot: &Snapshot,
    question: &Question,
    asked: &Asked,
    view: &View,
    place: &Place<'_>,
    id: RouteId,
    answer: &mut Value,
) {
    let Some(route) = snapshot.topology.config.routes.get(id.index()) else { return };
    match &route.action {
        Action::Respond { status, content_type, .. } => {
            answer["answers"] = json!({ "status": status, "content_type": content_type });
        }
        Action::Files(files) => {
            answer["files"] = shown(files, view.way(id), &asked.path);
        }
        Action::Redirect(_) => {
            let detour = view.way(id).and_then(|way| way.detour.as_ref());
            answer["redirects"] = detour.map_or(Value::Null, |detour| sent(detour, place));
        }
        Action::Forward(service) => {
            changed(snapshot, route, asked, answer);
            forward(snapshot, question, asked, route, *service, answer);
        }
        Action::Split(_) => {
            changed(snapshot, route, asked, answer);
            let sides = view.way(id).and_then(|way| way.sides.as_ref());
            let chosen = sides.and_then(|sides| share(snapshot, question, asked, route, sides, answer));
            if let Some(service) = chosen {
                forward(snapshot, question, asked, route, service, answer);
            }
        }
    }
}

/// What a request must bring beside, and what becomes of one that does not.
fn required(requires: &Requirement) -> Value {
    let names: Vec<String> = match requires {
        Requirement::ClientCertificate => Vec::new(),
        Requirement::ClientNamed(names) => names.iter().map(ToString::to_string).collect(),
    };
    let names = if names.is_empty() { Value::Null } else { json!(names) };
    json!({ "client_certificate": true, "san": names, "otherwise": { "status": 403, "because": "certificate_required" } })
}

/// Which of `files` is looked for; `name` null: none that is ever shown.
fn shown(files: &Files, way: Option<&RouteView>, path: &str) -> Value {
    let name = way.and_then(|way| way.shelf.as_ref()).and_then(|shelf| shelf.name(path));
    json!({
        "root": files.root, "preload": files.preload,
        "name": name.as_ref().map(|name| String::from_utf8_lossy(&name.path)),
        "is_folder": name.as_ref().map(|name| name.is_folder),
        "fallback": files.fallback, "not_found": files.not_found,
    })
}

/// How a request is refused that no route takes.
fn refused(view: &View, ask: &Ask<'_>) -> Value {
    let allowed = view.routes.methods_allowed(ask);
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    if allowed.is_empty() {
        json!({ "status": 404, "because": "no route matches" })
    } else {
        json!({ "status": 405, "because": "no route takes this method", "allow": allowed })
    }
}

/// Which listeners send such a request elsewhere before any route is looked for; null where none has a redirect.
fn detours(snapshot: &Snapshot, view: &View, place: &Place<'_>) -> Value {
    let listeners = snapshot.topology.config.listeners.iter().enumerate();
    let rows = listeners.filter_map(|(i, listener)| {
        let detour = view.detour(ListenerId::new(i))?;
        Some(json!({ "name": listener.name, "redirects": sent(detour, place) }))
    });
    let rows: Vec<Value> = rows.collect();
    if rows.is_empty() { Value::Null } else { json!(rows) }
}

fn sent(detour: &Detour, place: &Place<'_>) -> Value {
    match detour.location(place) {
        Some(location) => json!({ "status": detour.status(), "location": location }),
        None => json!({ "status": null, "because": "it is there already" }),
    }
}

/// What a route changes of a request before backends see it.
fn changed(snapshot: &Snapshot, route: &Route, asked: &Asked, answer: &mut Value) {
    let path = route.rewrite.path.as_ref().and_then(|change| NewPath::of(change, &route.matches).apply(&asked.path));
    if path.is_some() || route.rewrite.host.is_some() {
        answer["rewritten"] = json!({ "path": path, "host": route.rewrite.host });
    }
    if let Some(mirror) = &route.mirror {
        let service = snapshot.topology.service(mirror.service);
        answer["mirror"] = json!({ "service": service.name, "share": mirror.share });
    }
}

/// Which service has the request, and why.
fn share(
    snapshot: &Snapshot,
    question: &Question,
    asked: &Asked,
    route: &Route,
    sides: &Sides,
    answer: &mut Value,
) -> Option<ServiceId> {
    let user = whose(route, question, asked);
    let choice = sides.choose(&asked.headers, question.client, user, &mut lots());
    let name = |service: ServiceId| snapshot.topology.service(service).name.as_str();
    let rows = sides.shares().map(|(service, share)| json!({ "service": name(service), "share": share }));
    answer["split"] = json!({
        "sides": rows.collect::<Vec<_>>(),
        "side": choice.map(|choice| name(choice.service)), "because": choice.map(|choice| choice.why.as_str()),
    });
    choice.map(|choice| choice.service)
}

/// The hash of the user that a question is about.
fn whose(route: &Route, question: &Question, asked: &Asked) -> Option<u64> {
    match &question.user {
        Some(name) => Some(user::hash_of(name.as_bytes())),
        None => user::identify(&route.user, &asked.path, &asked.headers, question.client),
    }
}

/// A question with its parts parsed.
struct Asked {
    method: Method,
    host: String,
    path: String,
    query: String,
    headers: HeaderMap,
}

fn read(question: &Question) -> Result<Asked, (&'static str, String)> {
    let method = Method::from_bytes(question.method.as_bytes()).map_err(|e| ("method", e.to_string()))?;
    let host = host::parse(&question.host).map_err(|e| ("host", e.to_string()))?.name.to_ascii_lowercase();
    let whole = question.path.split('#').next().unwrap_or_default();
    let (bare, query) = whole.split_once('?').unwrap_or((whole, ""));
    let path = path::normalise(bare).map_err(|e| ("path", e.to_string()))?.into_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| ("header", format!("{name}: {e}")))?;
        let value = HeaderValue::from_str(value).map_err(|e| ("header", format!("{name}: {e}")))?;
        headers.append(name, value);
    }
    Ok(Asked { method, host, path, query: query.to_owned(), headers })
}

fn candidate(route: &Route, fate: &Considered) -> Value {
    let matches = &route.matches;
    let mut value = json!({
        "name": route.name, "host": matches.host, "path": matches.path.text(), "path_match": kind(route),
        "fate": fate.as_str(),
    });
    match fate {
        Considered::Header(name) => value["header"] = json!(name),
        Considered::Query(name) => value["query"] = json!(name),
        Considered::Cookie(name) => value["cookie"] = json!(name),
        _ => {}
    }
    value
}

/// How a route's path is matched.
fn kind(route: &Route) -> &'static str {
    let path = &route.matches.path;
    match path.variables().next() {
        Some(_) => "pattern",
        None if path.is_exact() => "exact",
        None => "prefix",
    }
}

fn matched(found: &route::Found, route: &Route) -> String {
    let host = match found.host {
        route::HostRank::Exact => "exact host",
        route::HostRank::Wildcard(_) => "wildcard host",
        route::HostRank::Any => "any host",
    };
    let path = match kind(route) {
        "prefix" => "longest prefix",
        "exact" => "exact path",
        pattern => pattern,
    };
    format!("{host}, {path}")
}

fn forward(
    snapshot: &Snapshot,
    question: &Question,
    asked: &Asked,
    route: &Route,
    service: ServiceId,
    answer: &mut Value,
) {
    let policy = snapshot.topology.service(service);
    let user = match &question.user {
        Some(name) => Some(user::hash_for(policy, name.as_bytes())),
        None => user::identify_for(policy, &route.user, &asked.path, &asked.headers, question.client),
    };
    let key = match &route.user {
        UserKey::Client => "client".to_owned(),
        UserKey::Header(name) => format!("header:{name}"),
        UserKey::Cookie(name) => format!("cookie:{name}"),
        UserKey::Path(name, _) => format!("path:{name}"),
    };
    answer["user"] = json!({ "key": key, "hash": user.map(|hash| format!("{hash:016x}")) });
    answer["service"] = json!({ "name": policy.name, "class": policy.class, "balance": policy.balance });
    if policy.balance == Balance::UserHome {
        let epoch = policy.homing.homes.as_ref().map(|homes| homes.epoch());
        let down = if policy.homing.down == HomeDown::Elsewhere { "elsewhere" } else { "refuse" };
        answer["service"]["homes"] = json!({ "epoch": epoch, "home_down": down });
    }
    let local = snapshot.topology.config.node.datacenter;
    let seat = policy.session.as_ref().and_then(|session| session::read(session, &asked.headers));
    let wanted = Wanted { service, local, user, seat };
    answer["datacenters"] = datacenters(snapshot, &wanted);
    let draws = draw(snapshot, &wanted);
    answer["backends"] = backends(snapshot, &wanted, &draws);
    answer["pick"] =
        match balance::choose(snapshot, &wanted, &mut Tried::new(), &mut Turn::new(), snapshot.at, &mut lots()) {
            Ok(choice) => json!({
                "backend": snapshot.topology.backend(choice.backend).spec.address,
                "datacenter": name_of(snapshot, choice.datacenter.index()),
                "placed": choice.placed.as_str(), "reason": choice.reason.as_str(), "tier": choice.tier.as_str(),
            }),
            Err(why) => {
                let home = if let NoChoice::HomeDown(home) = why { Some(home) } else { None };
                json!({ "none": why.as_str(), "home": home.map(|id| snapshot.topology.backend(id).spec.address) })
            }
        };
    answer["retry"] = json!({
        "repeatable": retry::is_repeatable(&asked.method, &asked.headers, route.retry_keyed),
        "tries": policy.retry.tries, "budget": policy.retry.budget,
        "per_try": policy.retry.per_try.map_or_else(|| "from observed latency".to_owned(), show_duration),
    });
    let limit = deadline(route.deadline, policy.deadline, &asked.headers);
    answer["deadline"] = json!({ "ms": millis(limit.budget), "by": limit.by.as_str() });
}

fn datacenters(snapshot: &Snapshot, wanted: &Wanted) -> Value {
    let shares = place::shares(snapshot, wanted.service, wanted.local, &Tried::new(), snapshot.at);
    let ids = snapshot.topology.datacenter_ids();
    let rows = ids.map(|dc| {
        let weight = snapshot.weight(wanted.service, dc);
        let share = shares.iter().find(|part| part.datacenter == dc);
        json!({
            "datacenter": name_of(snapshot, dc.index()), "local": Some(dc) == wanted.local,
            "state": weight.state.as_str(), "health": weight.health, "factor": f64::from(weight.factor) / 1_000.0,
            "effective": weight.effective as f64 / 1_000.0, "panic": weight.panic,
            "share": share.map_or(0.0, |part| part.share), "because": share.map(|part| part.reason.as_str()),
        })
    });
    rows.collect()
}

fn backends(snapshot: &Snapshot, wanted: &Wanted, draws: &[u32]) -> Value {
    let home = wanted.user.and_then(|user| user::home(snapshot, wanted.service, user));
    let rows = snapshot.topology.members_anywhere(wanted.service).map(|id| {
        let (backend, health) = (snapshot.topology.backend(id), snapshot.backend(id));
        let drawn = draws.get(id.index()).copied().unwrap_or_default();
        json!({
            "backend": backend.spec.address, "datacenter": name_of(snapshot, backend.spec.datacenter.index()),
            "state": health.state.as_str(), "weight": f64::from(health.weight) / 1_000.0,
            "configured_weight": backend.spec.weight, "source": source(snapshot, backend), "name": backend.name,
            "latency_ms": backend.load.seen_at().map(|_| backend.load.latency_ns(snapshot.at) / 1e6),
            "in_flight": backend.load.in_flight(), "excluded": excluded(snapshot, id),
            "home": home == Some(id), "share": f64::from(drawn) / f64::from(DRAWS),
        })
    });
    rows.collect()
}

/// Where a backend was found; nothing where the configuration names it.
fn source(snapshot: &Snapshot, backend: &Backend) -> Option<String> {
    let sources = &snapshot.topology.config.discovery.sources;
    Some(sources.get(usize::try_from(backend.source?).ok()?)?.origin.to_string())
}

/// Why a backend is no candidate, and why live traffic shut it out where it did.
fn excluded(snapshot: &Snapshot, id: BackendId) -> Option<String> {
    let why = balance::excluded(snapshot, id)?;
    let health = snapshot.backend(id);
    let reason = health.ejected.filter(|_| health.state == BackendState::Ejected).map(|(reason, _)| reason.as_str());
    Some(reason.map_or_else(|| why.to_owned(), |reason| format!("{why}: {reason}")))
}

/// Who gets how many of [`DRAWS`] first tries, by backend.
fn draw(snapshot: &Snapshot, wanted: &Wanted) -> Vec<u32> {
    let mut drawn = vec![0; snapshot.topology.backends.len()];
    let (mut turn, mut rng) = (Turn::new(), lots());
    for _ in 0..DRAWS {
        let choice = balance::choose(snapshot, wanted, &mut Tried::new(), &mut turn, snapshot.at, &mut rng);
        if let Some(count) = choice.ok().and_then(|c| drawn.get_mut(BackendId::index(c.backend))) {
            *count += 1;
        }
    }
    drawn
}

/// The same lots for every question, so that two explanations differ only where the world does.
const fn lots() -> Rng {
    Rng::seeded(hash::bytes(0, b"explain"))
}

fn name_of(snapshot: &Snapshot, datacenter: usize) -> &str {
    snapshot.topology.config.datacenters.get(datacenter).map_or("", |dc| dc.name.as_str())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
