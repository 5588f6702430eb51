//! Routes and handlers. Every answer is JSON but `/metrics`, the health checks and the page; every error says what to do.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use super::report::{self, Asked};
use super::{HttpQuestion, Shared, assets, backends, evidence, guard, intents, live};
use crate::observe::{backends as series, names, recorder};
use crate::snapshot::health::BackendState;

/// Longest request body: an intent with its reason is a few hundred bytes.
const MAX_BODY: usize = 16 * 1024;
/// Longest question of what a configuration would do: the largest configuration, and a population beside it.
const MAX_PLAN: usize = 32 << 20;
/// How long any request may take; a reload of a large configuration takes longest.
const WITHIN: Duration = Duration::from_secs(30);

/// How much longer an upgrade may take: until a process that does not serve in time is killed and gone.
const UPGRADE_MORE: Duration = Duration::from_secs(8);

pub(super) type Site = State<Arc<Shared>>;

/// All routes, behind the guard, the limits and the count.
pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(assets::page))
        .route("/assets/dashboard.css", get(assets::style))
        .route("/assets/dashboard.js", get(assets::script))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/state", get(state))
        .route("/v1/health", get(health))
        .route("/v1/changes", get(live::changes))
        .route("/v1/events", get(live::events))
        .route("/v1/dns/top", get(dns_top))
        .route("/v1/dns/keys", get(dns_keys))
        .route("/v1/explain/dns", get(explain_dns))
        .route("/v1/explain/http", get(explain_http))
        .route("/v1/intents", post(intents::wish).delete(intents::revoke))
        .route("/v1/route", get(backends::route))
        .route("/v1/services/{service}/backends", get(backends::list))
        .route("/v1/services/{service}/backends/{address}", put(backends::announce).delete(backends::withdraw))
        .route("/v1/services/{service}/backends/{address}/report", post(backends::hear))
        .route("/v1/services/{service}/sources/confirm", post(backends::confirm))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/plan", post(plan).layer(DefaultBodyLimit::max(MAX_PLAN)))
        .fallback(nowhere)
        .method_not_allowed_fallback(otherwise)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), watch))
        .with_state(shared)
}

/// What every request passes: the guard, a limit of time, the count.
async fn watch(State(shared): Site, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |p| p.as_str().to_owned());
    let token = shared.context.token.as_deref();
    let response = match guard::admit(token, request.method(), request.uri().path(), request.headers()) {
        Err(refusal) => {
            let mut response = refusal.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
        Ok(()) => {
            tokio::time::timeout(within(&path), next.run(request)).await.unwrap_or_else(|_| late().into_response())
        }
    };
    names::admin::REQUESTS.counter(&[&path, response.status().as_str()]).increment(1);
    response
}

/// How long a request to `path` may take. A new process has 30 s to serve; who asked is to hear how that ended.
fn within(path: &str) -> Duration {
    if path == "/v1/upgrade" { WITHIN + UPGRADE_MORE } else { WITHIN }
}

fn late() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not done in 30 s", "ask again; /v1/state tells what is in force")
}

async fn nowhere() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing here", "the API lives under /v1: start with /v1/state")
}

async fn otherwise(method: Method) -> Refusal {
    let error = format!("{method} does nothing here");
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        error,
        "read with GET; intents take POST and DELETE; backends PUT and DELETE; reload, upgrade and plan take POST",
    )
}

/// Whether the node takes traffic: every edge that it has is serving.
async fn ready(State(shared): Site) -> Response {
    let waiting: Vec<String> = (shared.context.edges)()
        .into_iter()
        .filter(|e| !e.serving)
        .map(|e| format!("{}: not serving\n", e.name))
        .collect();
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waiting.concat()).into_response()
    }
}

async fn metrics(State(shared): Site) -> impl IntoResponse {
    let mut text = recorder::render();
    text.push_str(&series::render(&shared.context.published.full(), shared.context.clock.mono()));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn state(State(shared): Site) -> Json<report::State> {
    let snapshot = shared.context.published.full();
    let clock = &shared.context.clock;
    let asked = Asked {
        now: clock.mono(),
        wall: clock.wall(),
        started: shared.started,
        edges: (shared.context.edges)(),
        refused: (shared.context.refused)(),
        upgraded: (shared.context.upgraded)(),
        sources: shared.context.discovery.sources(),
        fleet: shared.fleet(),
    };
    Json(report::state(&snapshot, asked))
}

/// `?only=unhealthy` leaves out what is healthy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    only: Option<Only>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Only {
    Unhealthy,
}

async fn health(
    State(shared): Site,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<evidence::Health>, Refusal> {
    let Query(which) = which.map_err(|e| unreadable(&e.body_text(), "/v1/health, or /v1/health?only=unhealthy"))?;
    let snapshot = shared.context.published.full();
    let mut health = evidence::health(&snapshot, shared.context.clock.mono(), shared.context.clock.wall());
    if matches!(which.only, Some(Only::Unhealthy)) {
        health.backends.retain(|b| b.state != BackendState::Healthy);
        // Indices into the whole list mean nothing beside a part of it.
        health.targets.clear();
        health.backends.iter_mut().for_each(|b| b.target = None);
    }
    Ok(Json(health))
}

fn unreadable(error: &str, usage: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error, format!("usage: {usage}"))
}

/// The parameters of a query in order: some may come several times.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(request: &Request, known: &[&str], usage: &str) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|e| unreadable(&e.body_text(), usage))?;
        match pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(unreadable(&format!("unknown parameter `{key}`"), usage)),
            None => Ok(Self(pairs)),
        }
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    fn client(&self, usage: &str) -> Result<IpAddr, Refusal> {
        let Some(text) = self.one("client") else { return Ok(NOBODY) };
        client_of(text).ok_or_else(|| unreadable(&format!("`{text}` is neither an address nor a subnet"), usage))
    }
}

/// Who asks where nobody is named.
pub const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The client that `text` names: an address, or a subnet, which stands for its first address, for that is all that a
/// resolver tells of a client.
pub fn client_of(text: &str) -> Option<IpAddr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}

async fn explain_dns(State(shared): Site, request: Request) -> Result<Json<Value>, Refusal> {
    const USAGE: &str = "/v1/explain/dns?name=www.example.&type=A&client=203.0.113.0/24";
    let asked = Parameters::read(&request, &["name", "type", "client"], USAGE)?;
    let name = asked.one("name").ok_or_else(|| unreadable("no name was asked for", USAGE))?;
    let client = asked.client(USAGE)?;
    let snapshot = shared.context.published.full();
    Ok(Json((shared.context.explain_dns)(&snapshot, name, asked.one("type").unwrap_or("A"), client)))
}

async fn dns_top(State(shared): Site, request: Request) -> Result<Json<Value>, Refusal> {
    const USAGE: &str = "/v1/dns/top?rows=20&transport=tcp";
    let asked = Parameters::read(&request, &["rows", "transport"], USAGE)?;
    let transport = asked.one("transport");
    let rows = asked.one("rows").unwrap_or("20");
    let rows = rows.parse().map_err(|_| unreadable(&format!("`{rows}` is no number"), USAGE))?;
    match &shared.context.dns_top {
        Some(top) => top(rows, transport).map(Json).ok_or_else(|| {
            let problem = format!("`{}` is no transport: udp, tcp, tls, https, quic", transport.unwrap_or_default());
            unreadable(&problem, USAGE)
        }),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "this node has no name server", "ask a node with `[dns]`")),
    }
}

async fn dns_keys(State(shared): Site) -> Json<Value> {
    let context = &shared.context;
    Json((context.dns_keys)(&context.published.full(), context.clock.wall()))
}

async fn explain_http(State(shared): Site, request: Request) -> Result<Json<Value>, Refusal> {
    const USAGE: &str = "/v1/explain/http?host=www.example&path=/v1/gifts&method=GET&user=42&client=203.0.113.7\
                         &header=x-user-id:42&tls=true";
    let known = ["method", "host", "path", "user", "client", "header", "tls"];
    let asked = Parameters::read(&request, &known, USAGE)?;
    let headers = asked.0.iter().filter(|(key, _)| key == "header").map(|(_, text)| match text.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
        None => Err(unreadable(&format!("`{text}` is no header"), USAGE)),
    });
    let question = HttpQuestion {
        method: asked.one("method").unwrap_or("GET").to_ascii_uppercase(),
        host: asked.one("host").ok_or_else(|| unreadable("no host was asked for", USAGE))?.to_owned(),
        path: asked.one("path").unwrap_or("/").to_owned(),
        headers: headers.collect::<Result<_, _>>()?,
        client: asked.client(USAGE)?,
        user: asked.one("user").map(str::to_owned),
        tls: matches!(asked.one("tls"), Some("true" | "1")),
    };
    let snapshot = shared.context.published.full();
    Ok(Json((shared.context.explain_http)(&snapshot, question)))
}

/// What a configuration would do to steering; nothing changes. One at a time: it takes seconds of a core.
pub(super) async fn plan(State(shared): Site, Json(question): Json<Value>) -> Result<Json<Value>, Refusal> {
    let Ok(alone) = Arc::clone(&shared.foreseeing).try_lock_owned() else {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "another comparison is under way",
            "ask again when it has ended",
        ));
    };
    let (foresee, snapshot) = (Arc::clone(&shared.context.foresee), shared.context.published.full());
    let (now, wall) = (shared.context.clock.mono(), shared.context.clock.wall());
    // Until it has ended, whether or not somebody still waits for it.
    let work = move || {
        let _alone = alone;
        foresee(&snapshot, question, now, wall)
    };
    let told = tokio::task::spawn_blocking(work).await;
    match told {
        Ok(Ok(outlook)) => Ok(Json(outlook)),
        Ok(Err(findings)) => Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, findings, "nothing has changed")),
        Err(_) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the comparison broke", "look at the log")),
    }
}

/// Has a new process take this one's place.
async fn upgrade(State(shared): Site) -> Result<Json<Value>, Refusal> {
    (shared.context.upgrade)().await.map(Json).map_err(|why| {
        Refusal::new(StatusCode::CONFLICT, why, "nothing has changed, the process that you speak with serves on")
    })
}

/// One reload at a time: a second one would read the same file, and the order of their ends would decide.
async fn reload(State(shared): Site) -> Result<Json<Value>, Refusal> {
    let Ok(_alone) = shared.reloading.try_lock() else {
        return Err(Refusal::new(StatusCode::CONFLICT, "a reload is under way", "wait for its end, then ask again"));
    };
    match (shared.context.reload)().await {
        Ok(reloaded) => Ok(Json(reloaded)),
        Err(findings) => Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            findings,
            "nothing has changed, the old configuration is in force: fix the file, then reload again",
        )),
    }
}
