//! The tree of policies: groups of datacenters and of further groups, each narrowing and ranking what it holds.
//!
//! A tree holds what can be answered in one generation and nothing else: what is down, of no weight, fenced off, or standing
//! by while others serve has no branch. What fails in a group lowers the group's weight in the one above; a group of which
//! too little is left is used like one that stands by. A walk ranks the branches of a group, goes down into the best, and
//! stops when the answer is full; every branch that it enters gives at least one pick, so it enters no more than it needs.

use super::{MAX_ANSWERS, MAX_CANDIDATES, Seat};
use crate::base::hash;
use crate::config::{Member, Policy, Who};

/// Where one candidate stands for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Which candidate.
    pub index: u16,
    /// Within its group of the tree. 0: near, or nearness does not count; 1: the rest; 2: near, but this client is shed.
    pub near: u8,
    /// This client belongs to the share that goes elsewhere for want of capacity: it comes after all others.
    pub spilled: bool,
}

/// What decides within a group, after nearness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Weighted,
    /// Weighted, and all weights are equal: hashes compare as they are.
    Even,
    Spread,
    Listed,
}

/// A group: the datacenters and groups that stand side by side.
#[derive(Clone, Debug)]
struct Group {
    near: bool,
    order: Order,
    salt: u64,
    /// How many members are configured: what turns.
    places: u16,
    first: u16,
    branches: u16,
    /// What nearness weighs against its losses; empty where there is no loss.
    stakes: Vec<Stake>,
}

/// A member of a group that can be answered with.
#[derive(Clone, Copy, Debug)]
struct Branch {
    /// The candidates in it, as bits.
    set: u64,
    hash: u64,
    /// 1 / (64 x weight in thousandths): times any -ln(u), which is at most 53 ln(2), below 1.
    inverse: f64,
    /// Where it stands among the members of its group.
    place: u16,
    way: Way,
}

/// Where a branch leads: to a candidate, or from [`MAX_CANDIDATES`] on to a group.
#[derive(Clone, Copy, Debug, Default)]
struct Way(u16);

impl Way {
    fn group(self) -> Option<usize> {
        usize::from(self.0).checked_sub(MAX_CANDIDATES)
    }
}

/// What a member weighs by configuration, and what is left of it.
#[derive(Clone, Copy, Debug)]
struct Stake {
    /// All candidates in it, as bits.
    set: u64,
    hash: u64,
    whole: u64,
    left: u64,
}

/// What one client brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// The candidates that are near to it, as bits; none: nearness does not count.
    pub(super) near: u64,
    /// Those among all that it leaves for want of capacity.
    pub(super) spilled: u64,
    pub(super) key: u64,
}

/// The answer so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picks {
    pub(super) list: [u16; MAX_ANSWERS],
    pub(super) len: usize,
    room: usize,
}

impl Picks {
    pub(super) const fn new(answers: usize) -> Self {
        Self { list: [0; MAX_ANSWERS], len: 0, room: answers }
    }

    fn push(&mut self, index: u16) {
        if let Some(place) = self.list.get_mut(self.len).filter(|_| self.room > 0) {
            *place = index;
            self.len += 1;
            self.room -= 1;
        }
    }
}

/// What can be answered, as a tree. The root is the last group.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    groups: Vec<Group>,
    branches: Vec<Branch>,
}

/// What grows: who may be answered with, and what everything has its hashes from.
pub(super) struct Soil<'a> {
    pub(super) seats: &'a [Seat],
    /// What each candidate weighs now, in thousandths; 0 is not answered with.
    pub(super) weights: &'a [u64],
    /// Whom the client's fence lets in, as bits.
    pub(super) allowed: u64,
    /// Standing by and being short of health count for nothing: everything has failed.
    pub(super) all: bool,
}

/// A member, grown.
struct Grown {
    stake: Stake,
    /// What can be answered of it; `None`: nothing.
    to: Option<(Way, u64)>,
    standby: bool,
    failed: bool,
}

impl Tree {
    /// The tree of `members` under `policy`; empty where nothing can be answered.
    pub(super) fn grow(soil: &Soil<'_>, salt: u64, policy: &[Policy], members: &[Member]) -> Self {
        let mut tree = Self::default();
        let single = |who| Member { who: Who::Datacenter(who), weight: 0, standby: false };
        let each: Vec<Member> =
            if members.is_empty() { (0..soil.seats.len()).map(single).collect() } else { Vec::new() };
        let members = if members.is_empty() { &each } else { members };
        if tree.group(soil, salt, policy, members).is_none() {
            tree = Self::default();
        }
        tree
    }

    /// Whether nothing can be answered.
    pub(super) const fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds a group with all beneath it: how much is left of it in thousandths, whom it leads to, and its place.
    fn group(&mut self, soil: &Soil<'_>, salt: u64, policy: &[Policy], members: &[Member]) -> Option<(u64, u64, u16)> {
        let grown: Vec<Grown> = members.iter().map(|m| self.member(soil, salt, m)).collect();
        // Those that serve, before those that stand by, before those of which too little is left.
        let tier = |g: &Grown| if soil.all { 0 } else { u8::from(g.standby) + 2 * u8::from(g.failed) };
        let usable = |g: &&Grown| g.to.is_some() && g.stake.left > 0;
        let best = grown.iter().filter(usable).map(tier).min()?;
        let first = self.branches.len();
        for (g, place) in grown.iter().zip(0..) {
            if let Some((way, set)) = g.to.filter(|_| g.stake.left > 0 && tier(g) == best) {
                let inverse = 1.0 / (64.0 * g.stake.left as f64);
                self.branches.push(Branch { set, hash: g.stake.hash, inverse, place, way });
            }
        }
        let branches = self.branches.get(first..).unwrap_or_default();
        let set = branches.iter().fold(0, |set, b| set | b.set);
        let even = branches.windows(2).all(|b| matches!(b, [x, y] if x.inverse.to_bits() == y.inverse.to_bits()));
        let order = match policy.iter().find(|p| **p != Policy::Near) {
            Some(Policy::Weighted) if even => Order::Even,
            Some(Policy::Weighted) => Order::Weighted,
            Some(Policy::Spread) => Order::Spread,
            Some(Policy::Failover | Policy::Near) | None => Order::Listed,
        };
        let counted = || grown.iter().filter(|g| if best == 0 { !g.standby } else { tier(g) == best });
        let left_of = |g: &Grown| match g.stake {
            _ if tier(g) != best => 0,
            Stake { whole: 0, left, .. } => left,
            // What somebody has in excess makes up for nobody's loss.
            Stake { whole, left, .. } => left.min(whole),
        };
        let health = match order {
            _ if soil.all => 1_000,
            // The first that serves carries all of it.
            Order::Listed => counted().map(|g| share(g.stake.whole, left_of(g))).max().unwrap_or(0),
            _ => share(counted().map(|g| g.stake.whole).sum(), counted().map(left_of).sum()),
        };
        // Who stands by takes the place of all that has failed.
        let lossy =
            best == 0 && !soil.all && order != Order::Listed && grown.iter().any(|g| g.stake.left < g.stake.whole);
        let stakes = grown.iter().filter(|g| lossy && !g.standby).map(|g| g.stake).collect();
        let group = Group {
            near: policy.contains(&Policy::Near),
            order,
            salt,
            places: members.len().max(1) as u16,
            first: first as u16,
            branches: branches.len() as u16,
            stakes,
        };
        self.groups.push(group);
        let place = self.groups.len() as u16 - 1;
        Some((health, set, place))
    }

    fn member(&mut self, soil: &Soil<'_>, salt: u64, member: &Member) -> Grown {
        let none = |hash, set| Stake { set, hash, whole: 0, left: 0 };
        match &member.who {
            Who::Datacenter(index) => {
                let known = soil.seats.get(*index).filter(|_| *index < MAX_CANDIDATES);
                let Some(seat) = known.filter(|_| soil.allowed >> index & 1 == 1) else {
                    return Grown { stake: none(0, 0), to: None, standby: member.standby, failed: false };
                };
                let left = soil.weights.get(*index).copied().unwrap_or(0);
                let stake = Stake { set: 1 << index, hash: seat.hash, whole: u64::from(seat.configured) * 1_000, left };
                let to = (left > 0).then_some((Way(*index as u16), 1 << index));
                Grown { stake, to, standby: member.standby, failed: false }
            }
            Who::Pool(pool) => {
                let own = hash::bytes(salt, pool.name.as_bytes());
                let all = reach(&pool.members) & soil.allowed;
                let Some((health, set, group)) = self.group(soil, own, &pool.policy, &pool.members) else {
                    let whole = if all == 0 { 0 } else { u64::from(member.weight) * 1_000 };
                    let stake = Stake { set: all, hash: own, whole, left: 0 };
                    return Grown { stake, to: None, standby: member.standby, failed: false };
                };
                let weight = u64::from(if soil.all { member.weight.max(1) } else { member.weight });
                let stake = Stake { set: all, hash: own, whole: weight * 1_000, left: weight * health };
                let failed = (health as f64) < pool.fail_below * 1_000.0;
                Grown { stake, to: Some((Way(group + MAX_CANDIDATES as u16), set)), standby: member.standby, failed }
            }
        }
    }

    /// Ranks for one client: fills `picks` with the best, and gives how near the first is; 2: what is near sheds the client.
    pub(super) fn rank(&self, view: &View, picks: &mut Picks) -> u8 {
        let Some(root) = self.groups.last() else { return 0 };
        // A short list costs less to keep; two answers are what is asked for.
        let near = match picks.room {
            0..=2 => self.walk::<2>(root, view, !view.spilled, picks),
            _ => self.walk::<MAX_ANSWERS>(root, view, !view.spilled, picks),
        };
        if view.spilled != 0 && picks.room > 0 {
            self.walk::<MAX_ANSWERS>(root, view, view.spilled, picks);
        }
        near
    }

    /// Everything that can be answered, best first: what [`Tree::rank`] takes the head of.
    pub(super) fn ranking(&self, view: &View) -> Vec<Rank> {
        let mut all = Vec::new();
        if let Some(root) = self.groups.last() {
            self.list(root, view, !view.spilled, &mut all);
            if view.spilled != 0 {
                self.list(root, view, view.spilled, &mut all);
            }
        }
        all
    }

    /// What decides at the root.
    pub(super) fn order(&self) -> Order {
        self.groups.last().map_or(Order::Listed, |g| g.order)
    }

    fn branches(&self, group: &Group) -> &[Branch] {
        let first = usize::from(group.first);
        self.branches.get(first..first + usize::from(group.branches)).unwrap_or_default()
    }

    /// Where the rotation begins for this client: at the member that a hash of its network names. Where that one cannot be
    /// answered with, or others are nearer, its clients draw among those that can (rendezvous, so that a further loss moves
    /// nobody else): a neighbour that took them all would have two shares.
    fn turn(&self, group: &Group, view: &View, among: u64, shed: bool) -> u16 {
        if group.order != Order::Spread {
            return 0;
        }
        let usable = || self.branches(group).iter().filter(|b| b.set & among != 0);
        let Some(best) = usable().map(|b| group.tier(b, view, shed)).min() else { return 0 };
        let first = || usable().filter(|b| group.tier(b, view, shed) == best);
        let named = (hash::join(group.salt, view.key) % u64::from(group.places)) as u16;
        if first().any(|b| b.place == named) {
            return named;
        }
        first().min_by_key(|b| hash::join(b.hash, view.key)).map_or(named, |b| b.place)
    }

    fn walk<const N: usize>(&self, group: &Group, view: &View, among: u64, picks: &mut Picks) -> u8 {
        let shed = group.sheds(view);
        let turn = self.turn(group, view, among, shed);
        // Insertion into a short sorted list.
        let (mut keys, mut ways) = ([u64::MAX; N], [Way::default(); N]);
        let Some(last) = picks.room.min(N).checked_sub(1) else { return 0 };
        for branch in self.branches(group) {
            if branch.set & among == 0 {
                continue;
            }
            let Some(key) = group.key(branch, view, turn, shed, keys[last]) else { continue };
            let mut at = last;
            while at > 0 && key < keys[at - 1] {
                (keys[at], ways[at]) = (keys[at - 1], ways[at - 1]);
                at -= 1;
            }
            (keys[at], ways[at]) = (key, branch.way);
        }
        for (way, _) in ways.iter().zip(&keys).take_while(|(_, key)| **key != u64::MAX) {
            match way.group() {
                None => picks.push(way.0),
                Some(below) => {
                    if let Some(below) = self.groups.get(below) {
                        self.walk::<N>(below, view, among, picks);
                    }
                }
            }
            if picks.room == 0 {
                break;
            }
        }
        if shed { 2 } else { nearness(keys[0]) }
    }

    fn list(&self, group: &Group, view: &View, among: u64, into: &mut Vec<Rank>) {
        let shed = group.sheds(view);
        let turn = self.turn(group, view, among, shed);
        let mut ranked: Vec<(u64, Way)> = self
            .branches(group)
            .iter()
            .filter(|b| b.set & among != 0)
            .filter_map(|b| Some((group.key(b, view, turn, shed, u64::MAX)?, b.way)))
            .collect();
        ranked.sort_by_key(|(key, _)| *key);
        for (key, way) in ranked {
            match way.group() {
                None => {
                    let spilled = view.spilled >> way.0 & 1 == 1;
                    into.push(Rank { index: way.0, near: nearness(key), spilled });
                }
                Some(below) => {
                    if let Some(below) = self.groups.get(below) {
                        self.list(below, view, among, into);
                    }
                }
            }
        }
    }
}

impl Group {
    /// Whether the client is among those that what is near can no longer carry. A share of clients by hash, so that each
    /// further loss moves further clients and none of them back. In a fixed order the first serves until it fails: a share
    /// of its clients would narrow every scope for little.
    fn sheds(&self, view: &View) -> bool {
        if !self.near || view.near == 0 || self.stakes.is_empty() {
            return false;
        }
        let (mut whole, mut left, mut seat) = (0, 0, self.salt);
        for stake in self.stakes.iter().filter(|s| s.set & view.near != 0) {
            // What health or an operator has left of it; more than configured brings nobody here from afar.
            whole += stake.whole;
            left += stake.left.min(stake.whole);
            seat = hash::join(seat, stake.hash);
        }
        left < whole && hash::unit(hash::join(view.key, seat)) > left as f64 / whole as f64
    }

    /// How near the branch is, in the two highest bits.
    #[inline]
    fn tier(&self, branch: &Branch, view: &View, shed: bool) -> u64 {
        match (self.near && view.near != 0, branch.set & view.near != 0) {
            (false, _) => 0,
            (true, false) => 1 << 62,
            (true, true) => u64::from(shed) << 63,
        }
    }

    /// What ranks the branch, the lowest first: how near it is in the two highest bits, the policy's cost in the others.
    /// `None`: not below `limit`, for sure.
    ///
    /// Weighted rendezvous takes the highest -w / ln(u), which is the lowest -ln(u) / w: positive numbers below 1, whose bits
    /// order as they do and leave the two highest free. And -ln(u) is at least 1 - u, so many of those that lose need no
    /// logarithm.
    #[inline]
    fn key(&self, branch: &Branch, view: &View, turn: u16, shed: bool, limit: u64) -> Option<u64> {
        let near = self.tier(branch, view, shed);
        let drawn = || hash::join(branch.hash, view.key);
        let cost = match self.order {
            Order::Weighted => {
                let u = hash::unit(drawn());
                if near | ((1.0 - u) * branch.inverse).to_bits() >= limit {
                    return None;
                }
                // ln(1) is 0, and -0.0 has its sign bit set.
                (-u.ln() * branch.inverse).to_bits() & (u64::MAX >> 2)
            }
            Order::Even => (1 << 53) - (drawn() >> 11),
            Order::Listed => branch.place.into(),
            Order::Spread if branch.place >= turn => (branch.place - turn).into(),
            Order::Spread => (branch.place + self.places - turn).into(),
        };
        Some(near | cost).filter(|key| *key < limit)
    }
}

/// How near a branch with this key is.
const fn nearness(key: u64) -> u8 {
    (key >> 62) as u8
}

/// All candidates beneath `members`, as bits.
fn reach(members: &[Member]) -> u64 {
    members.iter().fold(0, |set, member| {
        set | match &member.who {
            Who::Datacenter(index) if *index < MAX_CANDIDATES => 1 << index,
            Who::Datacenter(_) => 0,
            Who::Pool(pool) => reach(&pool.members),
        }
    })
}

/// What is left, in thousandths of the whole; at least one where anything is.
fn share(whole: u64, left: u64) -> u64 {
    match (whole, left) {
        (_, 0) => 0,
        (0, _) => 1_000,
        (whole, left) => (left.min(whole) * 1_000 / whole).max(1),
    }
}
