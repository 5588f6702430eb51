//! Every open connection of a worker, watched once a second: who dawdles is closed, and on shutdown all are told.
//!
//! A connection has no timer of its own. It notes in [`Pulse`] what it is doing (plain stores, no clock), and the sweep
//! counts for how many of its rounds that has not changed. So limits are kept to a second, and a request pays nothing.
//!
//! ```text
//!   idle --first byte--> head --whole head--> busy --response written--> idle
//!   60 s: closed         10 s: closed         30 s without a byte that the client should take: closed
//!                                             15 KiB behind 1 KiB/s with the body that it owes: closed
//! ```

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

/// Time between two rounds of the sweep.
pub(super) const ROUND: Duration = Duration::from_secs(1);
/// Rounds that a connection may be idle between requests (EDGE 4, gap 9), and fewer where places are scarce (ours, after
/// Envoy's scaled timers): who has nothing to ask makes room for who has.
const IDLE_ROUNDS: [u32; 3] = [60, 10, 2];
/// Rounds from the first byte of a head to its last (EDGE 4, gap 9), and fewer where places are scarce.
const HEAD_ROUNDS: [u32; 3] = [10, 5, 3];
/// Rounds that a client may refuse to take what we have for it (ours).
const BLOCKED_ROUNDS: u32 = 30;
/// Octets of a body that a client owes a round (EDGE 4, gap 9: 1 KiB/s).
const BODY_OCTETS: u32 = 1024;
/// So far it may fall behind with taking a response that it leaves no room for (ours; as with what it does not take at all).
const TAKING_DEBT: u32 = BLOCKED_ROUNDS * BODY_OCTETS;
/// So far it may fall behind: nothing for 5 s (EDGE 4, gap 9), and then for as long as it takes to be told that it stalls
/// ([`super::upload::STALL`]).
const BODY_DEBT: u32 = 15 * BODY_OCTETS;

/// How many connections there are too many: more than seven of ten places, and more than nine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crowd {
    dense: usize,
    full: usize,
}

impl Crowd {
    /// Where `taken` of `all` places are.
    pub(super) const fn of(taken: usize, all: usize) -> Self {
        Self { dense: taken.saturating_sub(all * 7 / 10), full: taken.saturating_sub(all * 9 / 10) }
    }

    /// One worker's part of it.
    const fn part(self, workers: usize) -> Self {
        Self { dense: self.dense.div_ceil(workers), full: self.full.div_ceil(workers) }
    }
}

/// What one connection is doing.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    running: AtomicU32,
    is_in_head: AtomicBool,
    is_blocked: AtomicBool,
    owes_body: AtomicBool,
    /// Octets of bodies that have come; it goes round.
    body: AtomicU32,
    /// Over HTTP/2: there is a response that the client leaves no room for, and octets of bodies that it took.
    is_shut: AtomicBool,
    taken: AtomicU32,
    turn: AtomicU32,
    order: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Go on.
    None = 0,
    /// Finish what runs; where nothing runs, one more request if it comes soon: a successor serves already, and a client
    /// that is just writing must not find the connection closed.
    Last = 1,
    /// Finish what runs, begin nothing new.
    Drain = 2,
    /// Close now.
    Close = 3,
}

impl Pulse {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Relaxed);
        self.is_in_head.store(false, Relaxed);
        self.turn.fetch_add(1, Relaxed);
    }

    /// A request has ended.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Relaxed);
        self.owes_body.store(false, Relaxed);
        self.turn.fetch_add(1, Relaxed);
    }

    /// Octets of a request's body have come.
    pub(super) fn brought(&self, octets: usize) {
        self.owes_body.store(false, Relaxed);
        // One thread writes; who reads it a moment later sees it next time.
        self.body.store(self.body.load(Relaxed).wrapping_add(octets as u32), Relaxed);
    }

    /// The client has taken octets of responses, and leaves no room for the rest of one or does.
    pub(super) fn took(&self, octets: u32, is_shut: bool) {
        self.is_shut.store(is_shut, Relaxed);
        self.taken.store(self.taken.load(Relaxed).wrapping_add(octets), Relaxed);
    }

    /// Somebody waits for more of a request's body.
    pub(super) fn owes(&self) {
        self.owes_body.store(true, Relaxed);
    }

    /// What it was told.
    pub(super) fn order(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::None,
            1 => Order::Last,
            2 => Order::Drain,
            _ => Order::Close,
        }
    }

    /// Tells it; an order is never taken back.
    pub(super) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Relaxed);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// The task to wake when there is an order. A task keeps its waker for life, so once is enough.
    pub(super) fn listen(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// Rounds without a change after which it is closed, by what it is doing: in any case, and where places are scarce.
    fn patience(&self) -> Option<[u32; 3]> {
        if self.is_blocked.load(Relaxed) {
            Some([BLOCKED_ROUNDS; 3])
        } else if self.running.load(Relaxed) > 0 {
            None
        } else if self.is_in_head.load(Relaxed) {
            Some(HEAD_ROUNDS)
        } else {
            Some(IDLE_ROUNDS)
        }
    }

    /// Octets of a head have come.
    pub(super) fn heard(&self) {
        if self.running.load(Relaxed) == 0 && !self.is_in_head.load(Relaxed) {
            self.is_in_head.store(true, Relaxed);
            self.turn.fetch_add(1, Relaxed);
        }
    }

    /// Something was written, or the client takes nothing.
    pub(super) fn wrote(&self, is_pending: bool) {
        if self.is_blocked.load(Relaxed) || is_pending {
            self.is_blocked.store(is_pending, Relaxed);
            if !is_pending {
                self.turn.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The open connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Open {
    watched: Mutex<Vec<Watched>>,
    told: AtomicU8,
}

#[derive(Debug)]
struct Watched {
    pulse: Weak<Pulse>,
    turn: u32,
    rounds: u32,
    /// Of requests' bodies, and of responses'.
    sending: Debt,
    taking: Debt,
}

/// Octets that a client is behind with.
#[derive(Debug, Default)]
struct Debt {
    /// Octets that had passed when it was last looked at.
    passed: u32,
    octets: u32,
}

impl Debt {
    /// Another round, in which more was owed or was not. How far behind the client is.
    fn dun(&mut self, passed: u32, is_owed: bool) -> u32 {
        let fresh = passed.wrapping_sub(std::mem::replace(&mut self.passed, passed));
        let owed = if is_owed { self.octets.saturating_add(BODY_OCTETS) } else { 0 };
        self.octets = owed.saturating_sub(fresh);
        self.octets
    }
}

impl Watched {
    /// Another round. True: the client is too far behind with something.
    fn dun(&mut self, pulse: &Pulse) -> bool {
        let sending = self.sending.dun(pulse.body.load(Relaxed), pulse.owes_body.load(Relaxed));
        let taking = self.taking.dun(pulse.taken.load(Relaxed), pulse.is_shut.load(Relaxed));
        sending >= BODY_DEBT || taking >= TAKING_DEBT
    }
}

impl Open {
    /// Whether all connections were told to close: their time is over.
    pub(super) fn is_over(&self) -> bool {
        self.told.load(Relaxed) >= Order::Close as u8
    }

    /// A connection has been opened.
    pub(super) fn watch(&self, pulse: &Arc<Pulse>) {
        let (sending, taking) = (Debt::default(), Debt::default());
        let watched = Watched { pulse: Arc::downgrade(pulse), turn: 0, rounds: 0, sending, taking };
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
        match self.told.load(Relaxed) {
            0 => {}
            1 => pulse.tell(Order::Last),
            _ => pulse.tell(Order::Drain),
        }
    }

    /// One round of one of `workers`: closes who has dawdled too long. Where there is a crowd, also who makes room for others,
    /// the idlest first, and no more of them than there are too many. Returns how many are open.
    pub(super) fn sweep(&self, crowd: Crowd, workers: usize) -> usize {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (crowd, mut closed, mut idlers) = (crowd.part(workers.max(1)), 0, Vec::new());
        watched.retain_mut(|w| {
            let Some(pulse) = w.pulse.upgrade() else { return false };
            let turn = pulse.turn.load(Relaxed);
            w.rounds = if w.turn == turn { w.rounds + 1 } else { 0 };
            w.turn = turn;
            let is_behind = w.dun(&pulse);
            let [calm, dense, full] = pulse.patience().unwrap_or([u32::MAX; 3]);
            if is_behind || w.rounds >= calm {
                pulse.tell(Order::Close);
                closed += 1;
            } else if crowd.dense > 0 && w.rounds >= full {
                let too_many = if w.rounds >= dense { crowd.dense } else { crowd.full };
                idlers.push((w.rounds, too_many, pulse));
            }
            true
        });
        idlers.sort_unstable_by_key(|(rounds, ..)| std::cmp::Reverse(*rounds));
        for (_, too_many, pulse) in idlers {
            if closed < too_many {
                pulse.tell(Order::Close);
                closed += 1;
            }
        }
        watched.len()
    }

    /// Tells all that are open, and all that will be.
    pub(super) fn tell(&self, order: Order) {
        self.told.fetch_max(order as u8, Relaxed);
        for watched in &*self.watched.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(pulse) = watched.pulse.upgrade() {
                pulse.tell(order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds until `pulse` is told to close, at most a hundred.
    fn rounds_left(open: &Open, pulse: &Pulse) -> u32 {
        (1..=100)
            .find(|_| {
                open.sweep(Crowd::default(), 1);
                pulse.order() == Order::Close
            })
            .unwrap_or(u32::MAX)
    }

    #[test]
    fn each_phase_has_its_own_patience() {
        type Step = fn(&Pulse);
        let table: [(&str, Step, u32); 5] = [
            ("idle", |_| {}, IDLE_ROUNDS[0]),
            ("in a head", Pulse::heard, HEAD_ROUNDS[0]),
            ("busy", Pulse::begin, u32::MAX),
            (
                "done",
                |p| {
                    p.heard();
                    p.begin();
                    p.end();
                },
                IDLE_ROUNDS[0],
            ),
            (
                "blocked",
                |p| {
                    p.begin();
                    p.wrote(true);
                },
                BLOCKED_ROUNDS,
            ),
        ];
        for (name, step, rounds) in table {
            let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
            open.watch(&pulse);
            open.sweep(Crowd::default(), 1);
            step(&pulse);
            open.sweep(Crowd::default(), 1);
            let expected = if name == "idle" { rounds - 2 } else { rounds };
            assert_eq!(rounds_left(&open, &pulse), expected, "{name}");
        }
    }

    #[test]
    fn who_idles_makes_room_where_places_are_scarce() {
        for (crowd, idle, head) in
            [(Crowd::of(69, 100), 60, 10), (Crowd::of(80, 100), 10, 5), (Crowd::of(95, 100), 2, 3)]
        {
            for (step, rounds) in [((|_| {}) as fn(&Pulse), idle), (Pulse::heard, head + 2), (Pulse::begin, u32::MAX)] {
                let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
                open.watch(&pulse);
                open.sweep(crowd, 1);
                step(&pulse);
                let left = (1..=100).find(|_| {
                    let is_told = pulse.order() == Order::Close;
                    open.sweep(crowd, 1);
                    is_told
                });
                assert_eq!(left.unwrap_or(u32::MAX), rounds, "{crowd:?}");
            }
        }
    }

    #[test]
    fn no_more_make_room_than_are_needed_and_the_idlest_first() {
        let (open, mut all) = (Open::default(), Vec::new());
        // One more a round: the first is the idlest.
        for _ in 0..20 {
            let pulse = Arc::new(Pulse::default());
            open.watch(&pulse);
            all.push(pulse);
            open.sweep(Crowd::default(), 1);
        }
        let closed = || all.iter().take_while(|pulse| pulse.order() == Order::Close).count();
        let told = || all.iter().filter(|pulse| pulse.order() == Order::Close).count();
        for (crowd, workers, expected) in [
            (Crowd::of(70, 100), 1, 0),
            (Crowd::of(73, 100), 1, 3),
            // Half of them are another worker's to find.
            (Crowd::of(79, 100), 2, 5),
            // Of the rest only so many have idled for ten rounds; who idles for two goes only where nine in ten are taken.
            (Crowd::of(90, 100), 1, 15),
            (Crowd::of(96, 100), 1, 16),
        ] {
            open.sweep(crowd, workers);
            assert_eq!((closed(), told()), (expected, expected), "{crowd:?}");
        }
    }

    #[test]
    fn progress_starts_the_count_anew() {
        let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
        open.watch(&pulse);
        pulse.begin();
        pulse.wrote(true);
        (0..BLOCKED_ROUNDS - 1).for_each(|_| {
            open.sweep(Crowd::default(), 1);
        });
        pulse.wrote(false);
        pulse.wrote(true);
        open.sweep(Crowd::default(), 1);
        assert_eq!(rounds_left(&open, &pulse), BLOCKED_ROUNDS);
    }

    #[test]
    fn a_body_comes_at_a_pace_or_not_at_all() {
        // Octets that come in each round, and after how many rounds that is too slow.
        for (octets, rounds) in [(0, 15), (1, 16), (512, 30), (1_023, u32::MAX), (1_024, u32::MAX), (1 << 20, u32::MAX)]
        {
            let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
            open.watch(&pulse);
            pulse.begin();
            let last = (1..=100).find(|_| {
                pulse.brought(octets);
                pulse.owes();
                open.sweep(Crowd::default(), 1);
                pulse.order() == Order::Close
            });
            assert_eq!(last.unwrap_or(u32::MAX), rounds, "{octets} octets a second");
        }
    }

    #[test]
    fn what_is_not_waited_for_is_not_owed() {
        let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
        open.watch(&pulse);
        pulse.begin();
        pulse.owes();
        (0..10).for_each(|_| {
            open.sweep(Crowd::default(), 1);
        });
        // The backend takes no more of it: that is not the client's fault.
        pulse.brought(1);
        assert_eq!(rounds_left(&open, &pulse), u32::MAX);
        pulse.owes();
        assert_eq!(rounds_left(&open, &pulse), 15);
    }

    #[test]
    fn who_leaves_no_room_and_takes_next_to_nothing_is_cut() {
        for (octets, rounds) in [(0, 30), (1, 31), (1_023, u32::MAX), (1_024, u32::MAX)] {
            let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
            open.watch(&pulse);
            pulse.begin();
            let last = (1..=100).find(|_| {
                pulse.took(octets, true);
                open.sweep(Crowd::default(), 1);
                pulse.order() == Order::Close
            });
            assert_eq!(last.unwrap_or(u32::MAX), rounds, "{octets} octets a second");
        }
        let (open, pulse) = (Open::default(), Arc::new(Pulse::default()));
        open.watch(&pulse);
        pulse.begin();
        pulse.took(0, true);
        (0..20).for_each(|_| {
            open.sweep(Crowd::default(), 1);
        });
        pulse.took(0, false);
        assert_eq!(rounds_left(&open, &pulse), u32::MAX, "there is room, and nothing to send");
    }

    #[test]
    fn who_comes_while_draining_is_told_and_who_left_is_forgotten() {
        let open = Open::default();
        let early = Arc::new(Pulse::default());
        open.watch(&early);
        open.tell(Order::Drain);
        let late = Arc::new(Pulse::default());
        open.watch(&late);
        assert_eq!((early.order(), late.order(), open.sweep(Crowd::default(), 1)), (Order::Drain, Order::Drain, 2));
        drop(early);
        assert_eq!(open.sweep(Crowd::default(), 1), 1);
    }
}
