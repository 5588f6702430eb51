//! Counters of one thread: plain numbers on the hot path, given to the metrics now and then.

use std::sync::Arc;

use metrics::Counter;

use super::answer::{Dropped, Outcome, Transport};
use super::sign::Signatures;
use crate::observe::names::dns as metric;
use crate::snapshot::Topology;
use crate::wire::dns::Rcode;

/// What one thread has counted since it last told.
pub(super) struct Tally {
    queries: Count,
    responses: [Count; Rcode::ALL.len()],
    short: Count,
    response: Count,
    unsent: Count,
    truncated: Count,
    /// Kept, made, refused.
    signatures: [Count; 3],
    /// By steered name: by candidate. Ids are good for one topology only.
    steered: Vec<Vec<Count>>,
    serial: u64,
}

struct Count(u64, Counter);

impl Count {
    fn new(counter: Counter) -> Self {
        Self(0, counter)
    }

    fn flush(&mut self) {
        if self.0 > 0 {
            self.1.increment(std::mem::take(&mut self.0));
        }
    }
}

impl Tally {
    /// Nothing yet, of queries by `transport`.
    pub(super) fn new(transport: Transport) -> Self {
        let dropped = |reason| Count::new(metric::DROPPED.counter(&[reason]));
        Self {
            queries: Count::new(metric::QUERIES.counter(&[transport.as_str()])),
            responses: Rcode::ALL.map(|r| Count::new(metric::RESPONSES.counter(&[r.as_str()]))),
            short: dropped("short"),
            response: dropped("response"),
            unsent: dropped("unsent"),
            truncated: Count::new(metric::TRUNCATED.counter(&[])),
            signatures: ["kept", "made", "refused"].map(|how| Count::new(metric::SIGNATURES.counter(&[how]))),
            steered: Vec::new(),
            serial: 0,
        }
    }

    /// Makes sure that what is counted next is of this topology.
    pub(super) fn follow(&mut self, topology: &Arc<Topology>) {
        if self.serial == topology.serial {
            return;
        }
        self.flush();
        self.serial = topology.serial;
        let config = &topology.config;
        let steers = config.dns.as_ref().map(|d| d.steers.as_slice()).unwrap_or_default();
        self.steered = steers
            .iter()
            .map(|steer| {
                let dcs = steer.datacenters.iter().filter_map(|(dc, _)| config.datacenters.get(dc.index()));
                dcs.map(|dc| Count::new(metric::STEERED.counter(&[&steer.name, &dc.name]))).collect()
            })
            .collect();
    }

    /// Counts one query and what became of it.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.queries.0 += 1;
        match outcome {
            Outcome::Drop(Dropped::Short) => self.short.0 += 1,
            Outcome::Drop(Dropped::Response) => self.response.0 += 1,
            Outcome::Send(sent) => {
                if let Some(count) = self.responses.get_mut(rank(sent.rcode)) {
                    count.0 += 1;
                }
                self.truncated.0 += u64::from(sent.truncated);
                let Signatures { kept, made, refused } = sent.signatures;
                for (count, more) in self.signatures.iter_mut().zip([kept, made, refused]) {
                    count.0 += u64::from(more);
                }
                if let Some((id, choice)) = &sent.steered
                    && let Some(first) = choice.picks().first()
                    && let Some(count) = self.steered.get_mut(id.index()).and_then(|s| s.get_mut(usize::from(*first)))
                {
                    count.0 += 1;
                }
            }
        }
    }

    /// Counts answers that the socket did not take.
    pub(super) const fn unsent(&mut self, answers: usize) {
        self.unsent.0 += answers as u64;
    }

    /// Gives everything to the metrics.
    pub(super) fn flush(&mut self) {
        let steered = self.steered.iter_mut().flatten();
        let plain = [&mut self.queries, &mut self.short, &mut self.response, &mut self.unsent, &mut self.truncated];
        plain.into_iter().chain(&mut self.signatures).chain(&mut self.responses).chain(steered).for_each(Count::flush);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Where a code stands in [`Rcode::ALL`].
const fn rank(rcode: Rcode) -> usize {
    match rcode {
        Rcode::BadVers => Rcode::ALL.len() - 1,
        Rcode::NotAuth => Rcode::ALL.len() - 2,
        other => other as usize,
    }
}
