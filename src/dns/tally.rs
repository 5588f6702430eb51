//! What one thread counts: plain numbers on the hot path, given to the metrics now and then; and its part in the report of
//! the busiest and in the query log.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use metrics::Counter;

use super::answer::{Dropped, Meta, Outcome, Sent, Standing, Transport};
use super::guard::{Class, Fate, Guard};
use super::log::Line;
use super::sign::Signatures;
use super::table::Fixed;
use super::top::{Place, Top};
use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::prefix::truncate;
use crate::config::Datacenter;
use crate::decide::steer::{Nearness, Reason};
use crate::observe::names::Metric;
use crate::observe::names::dns as metric;
use crate::snapshot::Topology;
use crate::wire::dns::{Rcode, rtype};

/// Types that are counted by name; all others are `other`.
const TYPES: [(u16, &str); 16] = [
    (rtype::A, "A"),
    (rtype::AAAA, "AAAA"),
    (rtype::HTTPS, "HTTPS"),
    (rtype::NS, "NS"),
    (rtype::SOA, "SOA"),
    (rtype::TXT, "TXT"),
    (rtype::MX, "MX"),
    (rtype::CNAME, "CNAME"),
    (rtype::SRV, "SRV"),
    (rtype::PTR, "PTR"),
    (rtype::DS, "DS"),
    (rtype::DNSKEY, "DNSKEY"),
    (rtype::CAA, "CAA"),
    (rtype::SVCB, "SVCB"),
    (rtype::ANY, "ANY"),
    (0, "other"),
];
/// A batch of so many queries is a full one: where they follow each other, the closer look is taken at one query of
/// [`STRIDE`], for it costs as much as a whole answer. In the calm it is taken at one of every batch.
const FULL: usize = 8;
/// How many queries one look stands for at the most, but for the size of a batch.
const STRIDE: usize = 128;

/// What one thread has counted since it last told.
pub(super) struct Tally {
    queries: Count,
    responses: [Count; Rcode::ALL.len()],
    dropped: [Count; Dropped::ALL.len()],
    /// Answers that a limit kept from being sent.
    withheld: Count,
    unsent: Count,
    truncated: Count,
    /// Kept, made, refused, shared.
    signatures: [Count; 4],
    standings: [Count; Standing::ALL.len()],
    types: [Count; TYPES.len()],
    limited: [[Count; Fate::ALL.len()]; Class::ALL.len()],
    /// By reason, and by what the map of who is near said.
    reasons: [[u64; Nearness::ALL.len()]; Reason::ALL.len()],
    reasons_told: [Why; Reason::ALL.len()],
    /// By zone, in the order of the table. Places are good for one topology only, like ids.
    zones: Vec<[Late; Rcode::ALL.len()]>,
    fixed: Arc<Fixed>,
    /// By steered name: by candidate.
    steered: Vec<Vec<Count>>,
    serial: u64,
    watch: Watch,
}

struct Count(u64, Counter);

impl Count {
    fn new(counter: Counter) -> Self {
        Self(0, counter)
    }

    fn of<const N: usize>(metric: &Metric, labels: [&str; N]) -> [Self; N] {
        labels.map(|label| Self::new(metric.counter(&[label])))
    }

    fn flush(&mut self) {
        if self.0 > 0 {
            self.1.increment(std::mem::take(&mut self.0));
        }
    }
}

/// What is told of a reason: all answers, and by [`Nearness`] those where the map was asked, made when there are any.
struct Why(Counter, [Option<Counter>; Nearness::ALL.len()]);

impl Why {
    fn new(reason: Reason) -> Self {
        Self(metric::REASONS.counter(&[reason.as_str()]), Default::default())
    }

    fn tell(&mut self, reason: Reason, counts: &mut [u64; Nearness::ALL.len()]) {
        let Self(all, asked) = self;
        for ((count, nearness), counter) in
            counts.iter_mut().zip(Nearness::ALL).zip(asked).filter(|((c, _), _)| **c > 0)
        {
            let count = std::mem::take(count);
            all.increment(count);
            if let Some(near) = nearness.as_str() {
                let made = || metric::GEO_ANSWERS.counter(&[reason.as_str(), near]);
                counter.get_or_insert_with(made).increment(count);
            }
        }
    }
}

/// A counter that is made when there is something to count: ten thousand zones have many codes that never occur.
#[derive(Clone, Default)]
struct Late(u64, Option<Counter>);

/// The closer look at some of the queries.
struct Watch {
    top: Top,
    place: Place,
    rng: Rng,
    /// How many queries until the one of this batch that is looked at, if any is, and how many it stands for.
    until: usize,
    weight: usize,
    /// What `until` is after a look: 1 for whoever does not know of batches and looks at every query, else 0.
    again: usize,
    /// Queries since the last batch of which one was looked at.
    passed: usize,
    /// Bits of a client's address that the report shows.
    prefix: (u8, u8),
    lines: SyncSender<Line>,
    /// One of so many queries goes to the log; 0: none.
    sample: u32,
    until_line: u32,
    lost: Count,
}

impl Tally {
    /// Nothing yet, of queries by `transport`.
    pub(super) fn new(transport: Transport, guard: &Guard) -> Self {
        let (top, place) = guard.board.join(transport);
        let watch = Watch {
            top,
            place,
            rng: Rng::from_os(),
            until: 1,
            weight: 1,
            again: 1,
            passed: 0,
            prefix: (24, 56),
            lines: guard.lines.clone(),
            sample: 0,
            until_line: 0,
            lost: Count::new(metric::LOG_LINES.counter(&["lost"])),
        };
        Self {
            queries: Count::new(metric::QUERIES.counter(&[transport.as_str()])),
            responses: Count::of(&metric::RESPONSES, Rcode::ALL.map(Rcode::as_str)),
            dropped: Count::of(&metric::DROPPED, Dropped::ALL.map(Dropped::as_str)),
            withheld: Count::new(metric::DROPPED.counter(&["limited"])),
            unsent: Count::new(metric::DROPPED.counter(&["unsent"])),
            truncated: Count::new(metric::TRUNCATED.counter(&[])),
            signatures: Count::of(&metric::SIGNATURES, ["kept", "made", "refused", "shared"]),
            standings: Count::of(&metric::STANDINGS, Standing::ALL.map(Standing::as_str)),
            types: Count::of(&metric::TYPES, TYPES.map(|(_, name)| name)),
            limited: Class::ALL
                .map(|class| Fate::ALL.map(|f| Count::new(metric::LIMITED.counter(&[class.as_str(), f.as_str()])))),
            reasons: Default::default(),
            reasons_told: Reason::ALL.map(Why::new),
            zones: Vec::new(),
            fixed: Arc::default(),
            steered: Vec::new(),
            serial: 0,
            watch,
        }
    }

    /// Makes sure that what is counted next is of this topology.
    pub(super) fn follow(&mut self, topology: &Arc<Topology>) {
        if self.serial == topology.serial {
            return;
        }
        self.flush();
        self.serial = topology.serial;
        self.fixed = Fixed::of(topology);
        self.zones = vec![<[Late; Rcode::ALL.len()]>::default(); self.fixed.zones()];
        let config = &topology.config;
        let steers = config.dns.as_ref().map(|d| d.steers.as_slice()).unwrap_or_default();
        self.steered = steers
            .iter()
            .map(|steer| {
                let count = |dc: &Datacenter| Count::new(metric::STEERED.counter(&[&steer.name, &dc.name]));
                config.candidates(steer).map(count).collect()
            })
            .collect();
        if let Some(dns) = &config.dns {
            self.watch.prefix = dns.guard.rate_limit.prefix;
            self.watch.sample = dns.guard.log.as_ref().map_or(0, |log| log.sample);
            self.watch.draw_line();
        }
    }

    /// Says that `queries` come next: one of them may be looked at closely, and stands for all since the last look.
    pub(super) fn batch(&mut self, queries: usize) {
        let watch = &mut self.watch;
        watch.again = 0;
        watch.passed += queries;
        if queries >= FULL && watch.passed < STRIDE {
            watch.until = 0;
        } else {
            watch.until = 1 + watch.rng.below(queries as u64) as usize;
            watch.weight = std::mem::take(&mut watch.passed);
        }
    }

    /// Counts a query and what became of it; an answer stands in `packet`. `limited` is what a limit made of it.
    pub(super) fn count(&mut self, meta: &Meta, packet: &[u8], outcome: &Outcome, limited: Option<(Class, Fate)>) {
        self.queries.0 += 1;
        if let Some((class, fate)) = limited {
            self.limited[class as usize][fate as usize].0 += 1;
            self.watch.limit(meta.client, class, fate);
        }
        match outcome {
            Outcome::Drop(why) => self.dropped[*why as usize].0 += 1,
            Outcome::Send(sent) => {
                match limited {
                    Some((_, Fate::Dropped)) => self.withheld.0 += 1,
                    _ => self.answer(sent),
                }
                self.watch.look(meta, packet, sent, limited.map(|(_, fate)| fate));
            }
        }
    }

    fn answer(&mut self, sent: &Sent) {
        let rank = rank(sent.rcode);
        self.responses[rank].0 += 1;
        self.truncated.0 += u64::from(sent.truncated);
        if sent.signatures != Signatures::default() {
            let Signatures { kept, made, refused, shared } = sent.signatures;
            for (count, more) in self.signatures.iter_mut().zip([kept, made, refused, shared]) {
                count.0 += u64::from(more);
            }
        }
        self.standings[sent.standing as usize].0 += 1;
        self.types[kind(sent.rtype)].0 += 1;
        if let Some(zone) = sent.zone.and_then(|z| self.zones.get_mut(z as usize)) {
            zone[rank].0 += 1;
        }
        if let Some((why, nearness)) = sent.reason {
            self.reasons[why as usize][nearness as usize] += 1;
        }
        if let Some((id, choice)) = &sent.steered
            && let Some(first) = choice.picks().first()
            && let Some(count) = self.steered.get_mut(id.index()).and_then(|s| s.get_mut(usize::from(*first)))
        {
            count.0 += 1;
        }
    }

    /// Counts answers that the socket did not take.
    pub(super) const fn unsent(&mut self, answers: usize) {
        self.unsent.0 += answers as u64;
    }

    /// Shows what was seen in the `seconds` since the last time.
    pub(super) fn show(&mut self, seconds: f64) {
        self.watch.top.fade(seconds);
        self.watch.place.show(&self.watch.top);
    }

    /// Gives everything to the metrics.
    pub(super) fn flush(&mut self) {
        let plain =
            [&mut self.queries, &mut self.withheld, &mut self.unsent, &mut self.truncated, &mut self.watch.lost];
        let few = self.responses.iter_mut().chain(&mut self.dropped).chain(&mut self.standings).chain(&mut self.types);
        let few = few.chain(&mut self.signatures);
        let many = self.limited.iter_mut().flatten().chain(self.steered.iter_mut().flatten());
        plain.into_iter().chain(few).chain(many).for_each(Count::flush);
        for ((why, reason), counts) in self.reasons_told.iter_mut().zip(Reason::ALL).zip(&mut self.reasons) {
            why.tell(reason, counts);
        }
        for (place, zone) in self.zones.iter_mut().enumerate() {
            for (Late(count, counter), rcode) in zone.iter_mut().zip(Rcode::ALL).filter(|(l, _)| l.0 > 0) {
                let made = || metric::ZONES.counter(&[&self.fixed.zone_name(place), rcode.as_str()]);
                counter.get_or_insert_with(made).increment(std::mem::take(count));
            }
        }
    }
}

impl Watch {
    fn look(&mut self, meta: &Meta, packet: &[u8], sent: &Sent, limited: Option<Fate>) {
        if self.until > 1 {
            self.until -= 1;
        } else if self.until == 1 {
            let network = self.network(meta.client);
            self.top.count(sent.qname(packet), sent.rtype, network, self.weight as f64);
            (self.until, self.weight) = (self.again, 1);
        }
        if self.sample > 0 {
            self.until_line = self.until_line.saturating_sub(1);
            if self.until_line == 0 {
                self.draw_line();
                let line = Line::new(meta, packet, sent, limited.map(Fate::as_str));
                self.lost.0 += u64::from(self.lines.try_send(line).is_err());
            }
        }
    }

    /// Draws how many queries pass until the next one that is logged: `sample` in the mean, so that no rhythm hides from it.
    fn draw_line(&mut self) {
        self.until_line = 1 + self.rng.below(u64::from(self.sample) * 2 - u64::from(self.sample > 0)) as u32;
    }

    fn limit(&mut self, client: IpAddr, class: Class, fate: Fate) {
        let network = self.network(client);
        self.top.limit(network, class, fate);
    }

    fn network(&self, client: IpAddr) -> IpAddr {
        let client = client.to_canonical();
        truncate(client, if client.is_ipv4() { self.prefix.0 } else { self.prefix.1 })
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How often a thread tells what it has counted.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

/// When a thread last told what it has counted.
pub(super) struct Told(pub(super) Mono);

impl Told {
    /// Tells again.
    pub(super) fn again(&mut self, tally: &mut Tally, now: Mono) {
        let since = now.since(self.0);
        self.0 = now;
        tally.flush();
        tally.show(since.as_secs_f64());
    }
}

/// Where a code stands in [`Rcode::ALL`].
const fn rank(rcode: Rcode) -> usize {
    match rcode {
        Rcode::NotAuth => 7,
        Rcode::BadVers => 8,
        Rcode::BadCookie => 9,
        other => other as usize,
    }
}

/// Where a type stands in [`TYPES`]: the three that nearly every query asks for stand first.
fn kind(rtype: u16) -> usize {
    TYPES.iter().position(|(t, _)| *t == rtype).unwrap_or(TYPES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_stand_for_every_query_once_whatever_the_batches() {
        let (lines, _kept) = std::sync::mpsc::sync_channel(1);
        let guard = Guard::new(lines);
        let mut tally = Tally::new(Transport::Udp, &guard);
        let sent = Sent::bare(12, Rcode::Refused);
        let meta = Meta { client: [192, 0, 2, 1].into(), transport: Transport::Udp, now: crate::base::clock::Wall(0) };
        let (mut looks, mut weight, mut asked) = (0, 0, 0);
        for queries in [1, 3, 16, 7, 16, 16, 16, 16, 16, 16, 16, 16, 2, 16] {
            tally.batch(queries);
            asked += queries;
            let mut here = 0;
            for _ in 0..queries {
                if tally.watch.until == 1 {
                    here += 1;
                    weight += tally.watch.weight;
                }
                // What a limit keeps from being sent was asked all the same.
                let limited = (asked % 3 == 0).then_some((Class::Errors, Fate::Dropped));
                tally.count(&meta, &[0; 12], &Outcome::Send(sent), limited);
            }
            assert!(here <= 1, "one of a batch at the most");
            looks += here;
        }
        assert_eq!(weight + tally.watch.passed, asked);
        assert_eq!(looks, 5, "the four small ones, and the one that makes 128 full");
        let seen = (tally.withheld.0, tally.responses[rank(Rcode::Refused)].0);
        assert!(seen.0 > 0 && seen.1 > 0 && seen.0 + seen.1 == asked as u64, "{seen:?}");
    }

    #[test]
    fn every_code_and_type_has_its_place() {
        for (place, rcode) in Rcode::ALL.into_iter().enumerate() {
            assert_eq!(rank(rcode), place, "{rcode:?}");
        }
        assert_eq!((TYPES[kind(65)].1, TYPES[kind(0)].1, TYPES[kind(65_280)].1), ("HTTPS", "other", "other"));
        assert!(Dropped::ALL.into_iter().enumerate().all(|(place, why)| why as usize == place));
        assert!(Standing::ALL.into_iter().enumerate().all(|(place, standing)| standing as usize == place));
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!((reason as usize, serde_json::json!(reason)), (place, reason.as_str().into()));
        }
        assert!(Nearness::ALL.into_iter().enumerate().all(|(place, nearness)| nearness as usize == place));
    }
}
