//! `zones`: the servers and roles of a user in a game, whatever the game's own slow interface is doing.
//!
//! `GET /v1/zones?game_id=G` -> `{roles, freshness: fresh|stale|manual, zones}`. The game has 300 ms to answer; a look-up
//! that takes longer goes on and fills the cache for the next time. Without an answer an old one serves, up to a day;
//! without that the user chooses a server by hand. Never an error for the game's sake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use metrics::Counter;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::base::clock::{Clock, Mono, SystemClock};
use crate::base::task::spawn;
use crate::net::stage::{Body, Next, Reply, Stage};
use crate::observe::names::redpacket as names;
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::model::{Code, GameId, RoleId, UserId, ZoneId};
use crate::redpacket::pace::Breaker;
use crate::redpacket::peer::Peer;
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{deadline, nowhere, query, trace_id, user};

/// How long an answer waits for the game.
const BUDGET: Duration = Duration::from_millis(300);
/// How long the look-up itself may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer of the game counts as fresh.
const FRESH: Duration = Duration::from_secs(30);
/// How long it is better than nothing.
const STALE: Duration = Duration::from_hours(24);
/// Look-ups at the same time.
const LOOKUPS: usize = 64;
/// Users kept in the cache, at most.
const KEPT: usize = 65_536;
/// Roles of one user that are read out of a reply.
const ROLES: usize = 64;

/// A user's character.
#[expect(clippy::struct_field_names, reason = "the names of the API")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// On which server.
    pub(super) zone_id: ZoneId,
    /// Its name for machines.
    pub(super) role_id: RoleId,
    /// Its name for people.
    pub(super) name: String,
    /// How far it has come.
    pub(super) level: u32,
}

/// What the game says.
#[derive(Serialize, Deserialize)]
pub(super) struct Roles {
    /// All roles of the user.
    pub(super) roles: Vec<Role>,
}

type Known = Arc<[Role]>;

/// A bounded cache in two generations: when the young one is full it becomes the old one, and what was not asked for
/// since then is forgotten. Constant time, at most [`KEPT`] entries.
#[derive(Default)]
struct Cache {
    young: HashMap<(UserId, GameId), (Known, Mono)>,
    old: HashMap<(UserId, GameId), (Known, Mono)>,
}

impl Cache {
    fn find(&mut self, key: &(UserId, GameId)) -> Option<(Known, Mono)> {
        if let Some(entry) = self.young.get(key) {
            return Some(entry.clone());
        }
        let (key, entry) = self.old.remove_entry(key)?;
        self.keep(key, entry.clone());
        Some(entry)
    }

    fn keep(&mut self, key: (UserId, GameId), entry: (Known, Mono)) {
        if self.young.len() >= KEPT / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

struct Game {
    peer: Peer,
    breaker: Mutex<Breaker>,
    room: Arc<Semaphore>,
    cache: Mutex<Cache>,
}

/// The service.
pub struct ZonesService {
    catalogue: Arc<Catalogue>,
    game: Option<Arc<Game>>,
    clock: Arc<dyn Clock>,
    stale: Counter,
    manual: Counter,
}

impl ZonesService {
    /// Looks roles up at `game`; without one, everybody chooses by hand.
    pub fn new(catalogue: Arc<Catalogue>, game: Option<Peer>) -> Self {
        let game = game.map(|peer| {
            Arc::new(Game {
                peer,
                breaker: Mutex::default(),
                room: Arc::new(Semaphore::new(LOOKUPS)),
                cache: Mutex::default(),
            })
        });
        let degraded = |reason| names::DEGRADED_TOTAL.counter(&["zones", reason]);
        Self { catalogue, game, clock: Arc::new(SystemClock), stale: degraded("stale"), manual: degraded("manual") }
    }

    /// On another clock.
    #[must_use]
    pub fn on(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, _) = request.into_parts();
        let trace = trace_id(&head.headers);
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/healthz") => Envelope::new(Code::Ok, &trace).respond(),
            (&Method::GET, "/v1/zones") => match self.zones(&head, &trace).await {
                Ok(answer) => answer.respond(),
                Err(refused) => refused.respond(),
            },
            _ => nowhere(&trace),
        }
    }

    async fn zones(&self, head: &Parts, trace: &str) -> Result<Envelope, Box<Envelope>> {
        let user = user(&head.headers, trace)?;
        let game_id = GameId::parse(query(&head.uri, "game_id").unwrap_or_default())
            .map_err(|e| Box::new(Envelope::new(Code::BadRequest, trace).saying(format!("{e}."))))?;
        let zones: Vec<_> = self.catalogue.zones.iter().filter(|z| z.game_id == game_id).collect();
        if zones.is_empty() && !self.catalogue.gifts.iter().any(|g| g.game_id == game_id) {
            return Err(Box::new(Envelope::new(Code::NotFound, trace).saying("There is no such game.")));
        }
        let budget = deadline(&head.headers, BUDGET);
        let (roles, freshness) = self.roles((user, game_id), budget).await;
        let mut envelope = Envelope::new(Code::Ok, trace);
        if freshness != "fresh" {
            let counter = if freshness == "stale" { &self.stale } else { &self.manual };
            counter.increment(1);
            envelope.degraded.push("game");
        }
        Ok(envelope.with(serde_json::json!({ "roles": &*roles, "freshness": freshness, "zones": zones })))
    }

    async fn roles(&self, key: (UserId, GameId), budget: Duration) -> (Known, &'static str) {
        let nothing = (Known::from([]), "manual");
        let Some(game) = &self.game else { return nothing };
        let now = self.clock.mono();
        let held = game.cache.lock().unwrap_or_else(PoisonError::into_inner).find(&key);
        if let Some((roles, at)) = &held
            && now.since(*at) < FRESH
        {
            return (roles.clone(), "fresh");
        }
        if let Ok(Some(roles)) = timeout(budget, self.look_up(game, key)).await {
            return (roles, "fresh");
        }
        held.filter(|(_, at)| now.since(*at) < STALE).map_or(nothing, |(roles, _)| (roles, "stale"))
    }

    /// Asks the game, on a task of its own: it fills the cache even when nobody waits any more.
    async fn look_up(&self, game: &Arc<Game>, key: (UserId, GameId)) -> Option<Known> {
        let permit = game.room.clone().try_acquire_owned().ok()?;
        if !game.breaker.lock().unwrap_or_else(PoisonError::into_inner).allow(self.clock.mono()) {
            return None;
        }
        let (send, receive) = oneshot::channel();
        let (game, clock) = (game.clone(), self.clock.clone());
        spawn("zones-look-up", async move {
            let roles = ask(&game.peer, &key).await;
            let now = clock.mono();
            let mut breaker = game.breaker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(roles) = &roles {
                breaker.succeeded();
                game.cache.lock().unwrap_or_else(PoisonError::into_inner).keep(key, (roles.clone(), now));
            } else {
                breaker.failed(now);
            }
            drop((breaker, permit));
            // Who asked may have gone on without it.
            let _ = send.send(roles);
        })
        .detach();
        receive.await.ok().flatten()
    }
}

async fn ask(peer: &Peer, (user, game_id): &(UserId, GameId)) -> Option<Known> {
    let reply = peer.get(&format!("/roles?user={user}&game_id={game_id}"), PATIENCE).await;
    let body = reply.ok().filter(|r| r.status == StatusCode::OK)?.body;
    let Roles { roles } = serde_json::from_slice(&body).ok()?;
    let sane = roles.len() <= ROLES && roles.iter().all(|r| r.name.len() <= 120);
    sane.then(|| roles.into())
}

impl Stage for ZonesService {
    fn name(&self) -> &'static str {
        "zones"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests;
