//! The bell between the data path and the control loop: "look at the counters now, don't wait for the next tick".
//!
//! The proxy rings at a local-origin failure; the loop samples within milliseconds. Ringing costs one atomic swap, and
//! however often it is rung before the loop looks, the loop looks once: a storm of failures can't become a storm of work.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The bell.
#[derive(Debug, Default)]
pub struct Alarm {
    pending: AtomicBool,
    bell: Notify,
}

impl Alarm {
    /// Asks for a look at the hot counters. Never waits; call it after the counter was written.
    pub fn ring(&self) {
        // A swap, not a load: whoever finds it rung has a look ahead of it that sees the counters it wrote.
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Waits until somebody has rung since the last [`Alarm::hush`].
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Arms the bell again; true where it had been rung. To be called before the counters are read, not after.
    pub fn hush(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_is_one_look_and_the_next_failure_is_another() {
        let alarm = Alarm::default();
        (0..1_000).for_each(|_| alarm.ring());
        alarm.rung().await;
        assert!(alarm.hush() && !alarm.hush());
        alarm.ring();
        alarm.rung().await;
        assert!(alarm.hush());
    }
}
