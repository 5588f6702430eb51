//! The only place that reads a clock.
//!
//! Decisions take time as an argument ([`Mono`], [`Wall`]), so a simulator can replay a day in a second. The edges
//! and the control loop hold a [`Clock`] and read it once for each thing they do.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point on the monotonic clock: nanoseconds since an arbitrary start. Never compare across processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mono(u64);

impl Mono {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);
    /// Later than every point that a clock gives.
    pub const NEVER: Self = Self(u64::MAX);

    /// A point `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A point `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock time in milliseconds since the Unix epoch: for people, files and expiry dates, never for intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wall(pub u64);

impl Wall {
    /// The time from `earlier` to `self`, zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Wall {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Where time comes from: the system in production, a hand-turned clock in tests and simulations.
pub trait Clock: Send + Sync {
    /// Now, on the monotonic clock.
    fn mono(&self) -> Mono;
    /// Now, on the wall clock.
    fn wall(&self) -> Wall;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn mono(&self) -> Mono {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        // One second ahead of zero, so that "an interval ago" never falls off the beginning.
        Mono(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1_000_000_000))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that moves only when told to; for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    nanos: AtomicU64,
    wall_offset_ms: u64,
}

impl ManualClock {
    /// A clock that stands at `start`, with a wall clock that reads `wall` at that moment.
    pub fn new(start: Mono, wall: Wall) -> Self {
        Self { nanos: AtomicU64::new(start.0), wall_offset_ms: wall.0.saturating_sub(start.0 / 1_000_000) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn mono(&self) -> Mono {
        Mono(self.nanos.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Wall {
        Wall(self.wall_offset_ms + self.nanos.load(Ordering::SeqCst) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Mono::ZERO - Duration::from_secs(1), Mono::ZERO);
        assert_eq!(Mono::NEVER + Duration::from_secs(1), Mono::NEVER);
        assert_eq!(Mono::ZERO.since(Mono::from_millis(5)), Duration::ZERO);
    }

    #[test]
    fn a_manual_clock_moves_both_of_its_hands() {
        let clock = ManualClock::new(Mono::from_millis(1_000), Wall(50_000));
        clock.advance(Duration::from_millis(250));
        assert_eq!(clock.mono(), Mono::from_millis(1_250));
        assert_eq!(clock.wall(), Wall(50_250));
    }
}
