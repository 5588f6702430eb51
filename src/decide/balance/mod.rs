//! Which backend serves a request, within the datacenter that `place` chose; and [`choose`], which asks both.
//!
//! Candidates come in tiers: what is well and untried; what is well; whatever no operator took out (panic, or all of it
//! has failed); what is drained. The first tier that has anybody decides, by the service's policy. Taken down by an
//! operator is never a candidate. Homes of users (`user-home`) follow no tier: see [`user`].

pub mod least;
pub mod maglev;
pub mod p2c;
mod session;
pub mod user;
pub mod wrr;

use std::time::Duration;

use smallvec::SmallVec;

pub use self::wrr::Turn;
use super::place::{self, place};
use super::tried::Tried;
use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::ids::{BackendId, DatacenterId, ServiceId};
use crate::config::{Balance, HomeDown};
use crate::snapshot::health::{BackendHealth, BackendState, ProbeFailure, ProbeOutcome};
use crate::snapshot::topology::Backend;
use crate::snapshot::{DcState, Snapshot};

/// Every so many picks one may try a half-open backend, while it is idle (V3: at most 1 in 10).
const TRIAL: f64 = 0.1;
/// How long a failure is fresh (EDGE 3b: 2 s): long enough for probes to come to a verdict of their own.
const JUST: Duration = Duration::from_secs(2);

/// Why a backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The only candidate.
    Only,
    /// The cheapest of all candidates.
    Cheapest,
    /// The cheaper of two.
    CheaperOfTwo,
    /// The least loaded of all candidates.
    LeastLoaded,
    /// The less loaded of two.
    LessLoadedOfTwo,
    /// It was its turn.
    Turn,
    /// The user's hash points there.
    UserHash,
    /// The user's hash points to one that is out or full, and from there to this one.
    UserJump,
    /// The user's data is there.
    Home,
    /// The user's home is down, and this one takes a note for it.
    Elsewhere,
    /// The client stays with it.
    Session,
    /// Half-open: a trial.
    Trial,
}

impl Reason {
    /// The word for it in logs, metrics and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Cheapest => "cheapest",
            Self::CheaperOfTwo => "cheaper-of-two",
            Self::LeastLoaded => "least-loaded",
            Self::LessLoadedOfTwo => "less-loaded-of-two",
            Self::Turn => "turn",
            Self::UserHash => "user-hash",
            Self::UserJump => "user-jump",
            Self::Home => "home",
            Self::Elsewhere => "elsewhere",
            Self::Session => "session",
            Self::Trial => "trial",
        }
    }
}

/// Which tier the candidates were of, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Well and not tried yet.
    Fresh,
    /// Panic: health is ignored; not tried yet.
    Panic,
    /// Well, tried before.
    Again,
    /// Nobody is well: whatever no operator took out.
    FailOpen,
    /// Nothing but drained ones.
    Drained,
}

impl Tier {
    /// The word for it in logs, metrics and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Panic => "panic",
            Self::Again => "again",
            Self::FailOpen => "fail-open",
            Self::Drained => "drained",
        }
    }
}

/// A backend, and why it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// Which.
    pub backend: BackendId,
    /// Why.
    pub reason: Reason,
    /// Among whom.
    pub tier: Tier,
    /// How long a response is likely to take, in nanoseconds: see [`Choice::expected_ns`].
    pub expected_ns: f64,
}

/// What is to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The service.
    pub service: ServiceId,
    /// Where this node stands.
    pub local: Option<DatacenterId>,
    /// The user's hash ([`user::hash_of`]), where there is a user.
    pub user: Option<u64>,
    /// The seat of the backend that answered this client before, where the client says so.
    pub seat: Option<u64>,
}

/// Where a try goes, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// To this backend.
    pub backend: BackendId,
    /// Of this datacenter.
    pub datacenter: DatacenterId,
    /// Why there.
    pub placed: place::Reason,
    /// Why it.
    pub reason: Reason,
    /// Among whom.
    pub tier: Tier,
    /// How long a response is likely to take, in nanoseconds: what `retry::per_try_timeout` goes by. The backend's own
    /// average, but where that is the memory of a failure, its peers' instead: a silent backend must not earn patience
    /// by being silent. Where all of them fail, the service itself has become slow, and the average is right again.
    pub expected_ns: f64,
}

/// Why a try goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// The service has no backend that may be used.
    NoBackend,
    /// The user's home is down, by an operator's word, or by any where others may take a note and none can.
    HomeDown(BackendId),
    /// The service keeps users' data at their homes, and the request names no user.
    NoUser,
    /// Whoever may be asked has as much as the service's limits allow.
    Full,
}

impl NoChoice {
    /// The word for it in logs, metrics and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "no-backend",
            Self::HomeDown(_) => "home-down",
            Self::NoUser => "no-user",
            Self::Full => "full",
        }
    }
}

/// One backend that may be picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) id: BackendId,
    /// In thousandths; above zero.
    pub(crate) weight: u32,
    pub(crate) backend: &'a Backend,
    /// Since when its latency counts: a backend that came back is not what it was.
    pub(crate) since: Mono,
    /// Whether it failed a moment ago.
    pub(crate) failing: bool,
}

/// Candidates; on the stack up to sixteen of them.
pub(crate) type Candidates<'a> = SmallVec<[Candidate<'a>; 16]>;

/// Where the next try of a request goes: datacenter and backend. `tried` learns which datacenters have nobody to offer.
pub fn choose(
    snapshot: &Snapshot,
    wanted: &Wanted,
    tried: &mut Tried,
    turn: &mut Turn,
    now: Mono,
    rng: &mut Rng,
) -> Result<Choice, NoChoice> {
    if snapshot.topology.service(wanted.service).balance == Balance::UserHome {
        let home = match go_home(snapshot, wanted, tried, now)? {
            Way::There(choice) => return Ok(choice),
            Way::Elsewhere(home) => home,
        };
        if !tried.is_passed(home) {
            tried.pass(home);
        }
        let near = choose_near(snapshot, wanted, tried, turn, now, rng);
        return near.map(|choice| Choice { reason: Reason::Elsewhere, ..choice }).map_err(|_| NoChoice::HomeDown(home));
    }
    if let Some(kept) = session::keep(snapshot, wanted, tried, now) {
        return Ok(kept);
    }
    choose_near(snapshot, wanted, tried, turn, now, rng)
}

/// As [`choose`], where nobody has a place that is theirs.
fn choose_near(
    snapshot: &Snapshot,
    wanted: &Wanted,
    tried: &mut Tried,
    turn: &mut Turn,
    now: Mono,
    rng: &mut Rng,
) -> Result<Choice, NoChoice> {
    for _ in 0..=snapshot.topology.config.datacenters.len() {
        let Some((datacenter, placed)) = place(snapshot, wanted.service, wanted.local, rng.unit(), tried, now) else {
            break;
        };
        match pick(snapshot, wanted.service, datacenter, tried, wanted.user, turn, now, rng) {
            Some(Picked { backend, reason, tier, expected_ns }) => {
                return Ok(Choice { backend, datacenter, placed, reason, tier, expected_ns });
            }
            None => tried.exhaust(datacenter),
        }
    }
    let somebody = snapshot.topology.members_anywhere(wanted.service).any(|id| is_closed(snapshot, id, tried));
    Err(if somebody { NoChoice::Full } else { NoChoice::NoBackend })
}

/// Whether as many requests are under way at a backend as its service's limits allow.
fn is_full(snapshot: &Snapshot, id: BackendId) -> bool {
    let backend = snapshot.topology.backend(id);
    backend.load.in_flight() >= snapshot.topology.service(backend.service).limits.requests
}

/// Whether a limit keeps a request from a backend: that of requests, or one that it has met there before.
fn is_closed(snapshot: &Snapshot, id: BackendId, tried: &Tried) -> bool {
    is_full(snapshot, id) || tried.is_passed(id)
}

/// Where a request goes whose user has a home.
enum Way {
    /// Home.
    There(Choice),
    /// To somebody who can take a note for this home.
    Elsewhere(BackendId),
}

fn go_home(snapshot: &Snapshot, wanted: &Wanted, tried: &Tried, now: Mono) -> Result<Way, NoChoice> {
    let user = wanted.user.ok_or(NoChoice::NoUser)?;
    let backend = user::door(snapshot, wanted.service, user, tried).ok_or(NoChoice::NoBackend)?;
    let down = snapshot.topology.service(wanted.service).homing.down;
    if down == HomeDown::Elsewhere && !user::is_reachable(snapshot, backend, tried) {
        return Ok(Way::Elsewhere(backend));
    }
    if user::is_home_down(snapshot, backend) {
        return Err(NoChoice::HomeDown(backend));
    }
    if is_closed(snapshot, backend, tried) {
        return Err(NoChoice::Full);
    }
    let datacenter = snapshot.topology.backend(backend).spec.datacenter;
    let placed = if Some(datacenter) == wanted.local { place::Reason::Local } else { place::Reason::Home };
    let expected_ns = snapshot.topology.backend(backend).load.latency_ns(now);
    Ok(Way::There(Choice { backend, datacenter, placed, reason: Reason::Home, tier: Tier::Fresh, expected_ns }))
}

/// A backend of `service` in `datacenter`, by the service's policy. `None`: there is nobody whom operators left in.
#[expect(clippy::too_many_arguments, reason = "what a pick depends on, nothing hidden")]
pub fn pick(
    snapshot: &Snapshot,
    service: ServiceId,
    datacenter: DatacenterId,
    tried: &Tried,
    user: Option<u64>,
    turn: &mut Turn,
    now: Mono,
    rng: &mut Rng,
) -> Option<Picked> {
    let Gathered { tier, mut candidates, trials } = gather(snapshot, service, datacenter, tried, now)?;
    let policy = snapshot.topology.service(service).balance;
    let picked = |candidates: &Candidates<'_>, (backend, reason): (BackendId, Reason)| {
        let expected_ns = p2c::expected_ns(candidates, backend, now);
        Some(Picked { backend, reason, tier, expected_ns })
    };
    if matches!(policy, Balance::UserHash | Balance::Maglev) && user.is_some() {
        // A trial is part of the hashing: the users who live there try it, nobody else.
        candidates.extend(trials);
    } else if !trials.is_empty() && (candidates.is_empty() || rng.chance(TRIAL)) {
        let trial = trials.get(rng.below(trials.len() as u64) as usize)?.id;
        candidates.extend(trials);
        return picked(&candidates, (trial, Reason::Trial));
    }
    if let [only] = candidates.as_slice() {
        return picked(&candidates, (only.id, Reason::Only));
    }
    let choice = match (policy, user) {
        (Balance::WeightedRoundRobin, _) => (turn.next(snapshot.topology.serial, &candidates)?, Reason::Turn),
        (Balance::UserHash, Some(user)) => (user::owner(&candidates, user)?, Reason::UserHash),
        (Balance::Maglev, Some(user)) => {
            let topology = &snapshot.topology;
            let (table, members) = (topology.table(service, datacenter), topology.members(service, datacenter));
            maglev::owner(table, members, &candidates, user)?
        }
        (Balance::LeastRequest, _) => least::loaded(&candidates, rng)?,
        _ if candidates.len() <= p2c::FEW => (p2c::cheapest(&candidates, now, rng)?, Reason::Cheapest),
        _ => (p2c::cheaper_of_two(&candidates, now, rng)?, Reason::CheaperOfTwo),
    };
    picked(&candidates, choice)
}

/// Why a backend is no candidate right now; `None` where it is one. For `explain`.
pub fn excluded(snapshot: &Snapshot, id: BackendId) -> Option<&'static str> {
    let (health, backend) = (snapshot.backend(id), snapshot.topology.backend(id));
    let ignores_health = snapshot.weight(backend.service, backend.spec.datacenter).panic;
    match health.state {
        BackendState::AdminDown | BackendState::Drained => Some(health.state.as_str()),
        _ if ignores_health => None,
        state if !state.usable() => Some(state.as_str()),
        BackendState::HalfOpen if backend.load.in_flight() > 0 => Some("half-open and busy with its trial"),
        _ if is_full(snapshot, id) => Some("as many requests as `limits` allow"),
        _ if health.weight == 0 => Some("weight 0"),
        _ => None,
    }
}

struct Gathered<'a> {
    tier: Tier,
    candidates: Candidates<'a>,
    /// Half-open ones that are idle.
    trials: SmallVec<[Candidate<'a>; 4]>,
}

/// The candidates of the best tier that has any.
fn gather<'a>(
    snapshot: &'a Snapshot,
    service: ServiceId,
    dc: DatacenterId,
    tried: &Tried,
    now: Mono,
) -> Option<Gathered<'a>> {
    let (topology, row) = (&*snapshot.topology, snapshot.weight(service, dc));
    if row.state == DcState::AdminDown {
        return None;
    }
    let (mut trials, mut fresh, mut again) = (SmallVec::new(), Candidates::new(), Candidates::new());
    let (mut somebody_is_full, most) = (false, topology.service(service).limits.requests);
    if !row.panic {
        for &id in topology.members(service, dc) {
            let (health, backend) = (snapshot.backend(id), topology.backend(id));
            if !health.state.usable() || health.weight == 0 {
                continue;
            }
            if backend.load.in_flight() >= most || tried.is_passed(id) {
                somebody_is_full = true;
                continue;
            }
            let candidate = as_it_stands(id, health, backend, now);
            match (health.state, tried.contains(id)) {
                (BackendState::HalfOpen, false) if backend.load.in_flight() == 0 => trials.push(candidate),
                (BackendState::HalfOpen, _) => {}
                (_, false) => fresh.push(candidate),
                (_, true) => again.push(candidate),
            }
        }
        if !fresh.is_empty() || !trials.is_empty() {
            return Some(Gathered { tier: Tier::Fresh, candidates: fresh, trials });
        }
        // That the well ones are full is no reason to ask the sick.
        if somebody_is_full {
            return None;
        }
    }
    let whatever = |may: &dyn Fn(BackendId, BackendState) -> bool| {
        whatever(snapshot, service, dc, now, &|id, state| may(id, state) && !is_closed(snapshot, id, tried))
    };
    let is_left_in = |state| !matches!(state, BackendState::AdminDown | BackendState::Drained);
    let found = |tier, candidates: Candidates<'a>| {
        (!candidates.is_empty()).then_some(Gathered { tier, candidates, trials: SmallVec::new() })
    };
    let untried = || {
        let able = whatever(&|id, state| is_left_in(state) && !tried.contains(id) && !just_failed(snapshot, id, now));
        if able.is_empty() { whatever(&|id, state| is_left_in(state) && !tried.contains(id)) } else { able }
    };
    if row.panic
        && let Some(panic) = found(Tier::Panic, untried())
    {
        return Some(panic);
    }
    found(Tier::Again, again)
        .or_else(|| found(Tier::FailOpen, untried()))
        .or_else(|| found(Tier::FailOpen, whatever(&|_, state| is_left_in(state))))
        .or_else(|| found(Tier::Drained, whatever(&|_, state| state == BackendState::Drained)))
}

/// A member at the weight that its health leaves it.
fn as_it_stands<'a>(id: BackendId, health: &BackendHealth, backend: &'a Backend, now: Mono) -> Candidate<'a> {
    let is_back = matches!(health.state, BackendState::HalfOpen | BackendState::SlowStart);
    let since = if is_back { health.since } else { Mono::ZERO };
    Candidate { id, weight: health.weight, backend, since, failing: is_failing(backend, now) }
}

/// The members that `may` be asked whatever their health; so their weights are the configured ones.
fn whatever<'a>(
    snapshot: &'a Snapshot,
    service: ServiceId,
    dc: DatacenterId,
    now: Mono,
    may: &dyn Fn(BackendId, BackendState) -> bool,
) -> Candidates<'a> {
    let topology = &*snapshot.topology;
    let members = topology.members(service, dc).iter().filter(|&&id| may(id, snapshot.backend(id).state));
    let candidates = members.map(|&id| {
        let backend = topology.backend(id);
        let (weight, failing) = (backend.spec.weight.saturating_mul(1_000).max(1), is_failing(backend, now));
        Candidate { id, weight, backend, since: Mono::ZERO, failing }
    });
    candidates.collect()
}

/// Whether `backend` failed a moment ago, by the counters of this node.
pub(super) fn is_failing(backend: &Backend, now: Mono) -> bool {
    backend.load.is_failing(JUST, now)
}

/// Whether nobody answered there a moment ago, by live traffic or by a probe. Where health is ignored, this is not: a port
/// that refuses connections cannot serve, whatever share of its peers is healthy.
fn just_failed(snapshot: &Snapshot, id: BackendId, now: Mono) -> bool {
    let backend = snapshot.topology.backend(id);
    let probe = backend.target.and_then(|target| snapshot.targets.get(target.index())?.last);
    is_failing(backend, now)
        || matches!(probe, Some((at, ProbeOutcome::Failed(ProbeFailure::Refused), _)) if now.since(at) < JUST)
}

#[cfg(test)]
mod tests;
