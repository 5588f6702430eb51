//! Who is to be probed next: a queue by due time, bounded flights, and no idea of sockets or clocks.
//!
//! The due times are `control::step`'s; this only follows them. The control loop takes what is due, launches it, and
//! tells when it has landed. A target whose due time moves while its probe is in the air is asked once more after the
//! landing: that probe may have been answered before the thing happened that made us look.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::base::clock::Mono;
use crate::base::ids::TargetId;
use crate::snapshot::health::TargetHealth;

/// How many probes may be in the air. Ours: at the default timeout, 2,000 silent targets a second delay nobody else, at
/// the price of as many descriptors.
pub const MAX_IN_FLIGHT: usize = 1_024;
/// When a target is tried again that could not be asked for want of our own means. Ours.
const UNASKED_AGAIN: Duration = Duration::from_millis(100);

/// The queue.
#[derive(Debug, Default)]
pub struct Schedule {
    seats: Vec<Seat>,
    queue: BinaryHeap<Reverse<(Mono, TargetId)>>,
    in_flight: usize,
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    /// The due time that the snapshot gave last.
    told: Mono,
    /// When it is taken; an entry of the queue with another time is stale.
    at: Mono,
    flight: Flight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    Waiting,
    InTheAir,
    /// In the air, and to be asked once more.
    AskAgain,
}

impl Schedule {
    /// Begins anew with the targets of another topology. What is in the air still counts, and lands in nobody's seat.
    pub fn rebuild(&mut self, serial: u64, targets: &[TargetHealth]) {
        self.serial = serial;
        let seat = |health: &TargetHealth| Seat { told: health.due, at: health.due, flight: Flight::Waiting };
        self.seats = targets.iter().map(seat).collect();
        self.requeue();
    }

    /// Takes note of the due time of `target`; costs nothing where it has not moved.
    pub fn follow(&mut self, target: TargetId, due: Mono) {
        let Some(seat) = self.seats.get_mut(target.index()) else { return };
        if seat.told == due {
            return;
        }
        seat.told = due;
        if seat.flight == Flight::Waiting {
            seat.at = due;
            self.push(target, due);
        } else {
            seat.flight = Flight::AskAgain;
        }
    }

    /// The next target that is due, if there is room in the air: it counts as launched.
    pub fn take(&mut self, now: Mono) -> Option<TargetId> {
        while self.in_flight < MAX_IN_FLIGHT {
            let &Reverse((at, target)) = self.queue.peek()?;
            if at > now {
                return None;
            }
            self.queue.pop();
            if let Some(seat) = self.seats.get_mut(target.index())
                && seat.flight == Flight::Waiting
                && seat.at == at
            {
                seat.flight = Flight::InTheAir;
                self.in_flight += 1;
                return Some(target);
            }
        }
        None
    }

    /// The probe of `target`, launched under `serial`, has landed; it is `due` again by the snapshot that took its answer
    /// into account, or has to be tried again because it could not be asked.
    pub fn landed(&mut self, serial: u64, target: TargetId, due: Option<Mono>, now: Mono) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if serial != self.serial {
            return;
        }
        let Some(seat) = self.seats.get_mut(target.index()) else { return };
        let at = match (due, seat.flight) {
            (None, _) => now + UNASKED_AGAIN,
            (Some(due), Flight::AskAgain) => due.min(now),
            (Some(due), _) => due,
        };
        *seat = Seat { told: due.unwrap_or(seat.told), at, flight: Flight::Waiting };
        self.push(target, at);
    }

    /// When somebody is due next. `None`: nobody waits, or the air is full and a landing comes first.
    pub fn next(&self) -> Option<Mono> {
        if self.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        self.queue.peek().map(|&Reverse((at, _))| at)
    }

    /// The serial of the topology whose targets it knows.
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Probes in the air.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn push(&mut self, target: TargetId, at: Mono) {
        // Stale entries go when their time comes; where they pile up all the same, sweep.
        if self.queue.len() > 2 * self.seats.len() + 64 {
            self.requeue();
        } else {
            self.queue.push(Reverse((at, target)));
        }
    }

    fn requeue(&mut self) {
        let waiting = self.seats.iter().enumerate().filter(|(_, seat)| seat.flight == Flight::Waiting);
        self.queue = waiting.map(|(i, seat)| Reverse((seat.at, TargetId::new(i)))).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::health::Verdict;

    fn health(due: Mono) -> TargetHealth {
        TargetHealth {
            verdict: Verdict::Unknown,
            since: Mono::ZERO,
            streak_ok: 0,
            streak_failed: 0,
            leaky: 0,
            flaps: 0,
            flap_at: Mono::ZERO,
            last: None,
            due,
            round: 0,
        }
    }

    fn schedule(dues: &[u64]) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.rebuild(1, &dues.iter().map(|&ms| health(Mono::from_millis(ms))).collect::<Vec<_>>());
        schedule
    }

    const A: TargetId = TargetId::new(0);
    const B: TargetId = TargetId::new(1);

    #[test]
    fn the_earliest_is_first_and_nobody_flies_twice_at_once() {
        let mut s = schedule(&[200, 100]);
        assert_eq!(s.next(), Some(Mono::from_millis(100)));
        assert_eq!(s.take(Mono::from_millis(99)), None);
        let now = Mono::from_millis(300);
        assert_eq!((s.take(now), s.take(now), s.take(now)), (Some(B), Some(A), None));
        s.landed(1, B, Some(Mono::from_millis(1_100)), now);
        assert_eq!((s.take(Mono::from_millis(1_099)), s.take(Mono::from_millis(1_100))), (None, Some(B)));
    }

    #[test]
    fn a_due_time_that_moves_is_followed_both_ways() {
        let mut s = schedule(&[1_000, 1_000]);
        s.follow(A, Mono::from_millis(10));
        s.follow(B, Mono::from_millis(2_000));
        assert_eq!(s.take(Mono::from_millis(10)), Some(A));
        assert_eq!(s.take(Mono::from_millis(1_999)), None, "the old entry is stale");
        assert_eq!(s.take(Mono::from_millis(2_000)), Some(B));
    }

    #[test]
    fn a_target_that_becomes_suspect_in_the_air_is_asked_again_at_its_landing() {
        let mut s = schedule(&[0]);
        let now = Mono::from_millis(5);
        assert_eq!(s.take(now), Some(A));
        s.follow(A, now);
        s.landed(1, A, Some(Mono::from_millis(1_000)), now);
        assert_eq!(s.take(now), Some(A));
        s.landed(1, A, Some(Mono::from_millis(1_000)), now);
        assert_eq!(s.take(now), None, "once");
    }

    #[test]
    fn one_that_could_not_be_asked_is_tried_again_without_spinning() {
        let mut s = schedule(&[0]);
        let now = Mono::from_millis(5);
        assert_eq!(s.take(now), Some(A));
        s.landed(1, A, None, now);
        s.follow(A, Mono::ZERO);
        assert_eq!((s.take(now), s.take(now + UNASKED_AGAIN)), (None, Some(A)));
    }

    #[test]
    fn what_lands_after_a_reload_lands_in_nobodys_seat() {
        let mut s = schedule(&[0, 0]);
        let now = Mono::from_millis(5);
        assert_eq!((s.take(now), s.take(now)), (Some(A), Some(B)));
        s.rebuild(2, &[health(Mono::from_millis(50))]);
        assert_eq!((s.take(now), s.in_flight()), (None, 2));
        s.landed(1, A, Some(Mono::from_millis(6)), now);
        s.landed(1, B, Some(Mono::from_millis(6)), now);
        assert_eq!((s.in_flight(), s.next()), (0, Some(Mono::from_millis(50))));
    }

    #[test]
    fn the_air_is_bounded_and_the_queue_fair() {
        let mut s = schedule(&vec![0; MAX_IN_FLIGHT + 10]);
        let first: Vec<_> = std::iter::from_fn(|| s.take(Mono::ZERO)).collect();
        assert_eq!((first.len(), s.next()), (MAX_IN_FLIGHT, None));
        for &target in &first {
            s.landed(1, target, Some(Mono::ZERO), Mono::from_millis(1));
        }
        let left: Vec<_> = (0..10).filter_map(|_| s.take(Mono::ZERO)).collect();
        assert!(s.in_flight() == 10 && left.len() == 10);
    }

    #[test]
    fn ten_thousand_targets_cost_what_they_are_asked_for() {
        const N: usize = 10_000;
        let second = Duration::from_secs(1);
        let mut s = schedule(&(0..N as u64).map(|i| i / 10).collect::<Vec<_>>());
        let (mut asked, mut turns, mut longest) = (vec![0u32; N], 0u32, 0);
        let end = Mono::from_millis(10_000);
        while let Some(now) = s.next().filter(|&at| at < end) {
            turns += 1;
            while let Some(target) = s.take(now) {
                asked[target.index()] += 1;
                s.landed(1, target, Some(now + second), now);
            }
            longest = longest.max(s.queue.len());
        }
        assert!(asked.iter().all(|&n| n == 10), "each once a second, for ten seconds");
        assert_eq!(
            (turns, longest),
            (10_000, N),
            "a turn for each millisecond in which somebody is due; an entry each"
        );
    }

    proptest! {
        /// Whatever is told in whatever order: bounded, never twice in the air, never before its time, nobody forgotten.
        #[test]
        fn nobody_is_forgotten(script in proptest::collection::vec((0usize..8, 0u8..4, 0u64..50), 1..400)) {
            let mut s = schedule(&[0; 8]);
            let mut air: Vec<TargetId> = Vec::new();
            let mut now = Mono::ZERO;
            for (who, what, ms) in script {
                match what {
                    0 => s.follow(TargetId::new(who), Mono::from_millis(ms)),
                    1 => now = now + Duration::from_millis(ms),
                    2 => while let Some(target) = s.take(now) {
                        prop_assert!(!air.contains(&target));
                        prop_assert!(s.seats[target.index()].at <= now);
                        air.push(target);
                    },
                    _ if !air.is_empty() => {
                        let target = air.swap_remove(who % air.len());
                        s.landed(1, target, (ms > 5).then(|| now + Duration::from_millis(ms)), now);
                    }
                    _ => {}
                }
                prop_assert_eq!(s.in_flight(), air.len());
                prop_assert!(s.queue.len() <= 2 * 8 + 65);
            }
            for target in std::mem::take(&mut air) {
                s.landed(1, target, Some(now), now);
            }
            let rest: Vec<_> = std::iter::from_fn(|| s.take(now + Duration::from_secs(1))).collect();
            prop_assert_eq!(rest.len(), 8);
        }
    }
}
