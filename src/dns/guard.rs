//! What stands between an answer and its sending over UDP: limits by client prefix, against forged queries (what BIND, NSD
//! and Knot call response rate limiting).
//!
//! Who has shown that it receives at its address is never limited. Of the answers over the limit one in `slip` goes out
//! without records, so that an honest client finds another way: over TCP, or with the cookie that it got. Decides and
//! shortens; counting is the tally's, sending the transport's.

mod limit;

use std::net::IpAddr;
use std::sync::mpsc::SyncSender;

use limit::{Limiter, Pace};

use super::answer::{Sent, Standing};
use super::log::Line;
use super::top::Board;
use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::hash;
use crate::base::prefix::PrefixMap;
use crate::config::RateLimit;
use crate::wire::dns::{HEADER, Rcode};

/// What is limited together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// NOERROR, with data or without, and referrals.
    Answers,
    /// NXDOMAIN.
    Nxdomains,
    /// Every other code.
    Errors,
    /// Everything.
    All,
}

impl Class {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Answers, Self::Nxdomains, Self::Errors, Self::All];

    /// The word for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Nxdomains => "nxdomains",
            Self::Errors => "errors",
            Self::All => "all",
        }
    }

    const fn of(rcode: Rcode) -> Self {
        match rcode {
            Rcode::NoError => Self::Answers,
            Rcode::NxDomain => Self::Nxdomains,
            _ => Self::Errors,
        }
    }
}

/// What becomes of an answer over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is not sent.
    Dropped,
    /// It is sent without records: cut.
    Truncated,
    /// It is sent without records: the client is to come again with its cookie.
    BadCookie,
    /// It is sent: this is a dry run.
    Counted,
}

impl Fate {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Dropped, Self::Truncated, Self::BadCookie, Self::Counted];

    /// The word for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Truncated => "truncated",
            Self::BadCookie => "badcookie",
            Self::Counted => "counted",
        }
    }
}

/// The limits of a configuration, ready to be asked.
#[derive(Debug)]
pub(super) struct Rules {
    /// By class; none: not limited.
    paces: [Option<Pace>; Class::ALL.len()],
    slip: u32,
    prefix: (u8, u8),
    exempt: PrefixMap<bool>,
    dry_run: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(&RateLimit::default())
    }
}

impl Rules {
    /// The limits that `limit` asks for.
    pub(super) fn new(limit: &RateLimit) -> Self {
        let pace = |rate| Some(Pace::new(rate, limit.window));
        Self {
            paces: [pace(limit.answers), pace(limit.nxdomains), pace(limit.errors), limit.all.and_then(pace)],
            slip: limit.slip,
            prefix: limit.prefix,
            exempt: PrefixMap::build(limit.exempt.iter().map(|net| (*net, true)), false),
            dry_run: limit.dry_run,
        }
    }
}

/// What all threads share: who has had how many answers, what they have seen, and the way to the query log.
#[derive(Debug)]
pub(super) struct Guard {
    limiter: Limiter,
    /// The busiest.
    pub(super) board: Board,
    /// Where lines of the query log go.
    pub(super) lines: SyncSender<Line>,
}

impl Guard {
    /// Nothing has happened yet.
    pub(super) fn new(lines: SyncSender<Line>) -> Self {
        let mut rng = Rng::from_os();
        let limiter = Limiter::new([rng.next_u64(), rng.next_u64()]);
        Self { limiter, board: Board::new(rng.next_u64()), lines }
    }

    /// Judges `sent`, an answer to `client` that stands in `packet`, and makes it what is sent in its stead where it is over
    /// a limit: what it was limited for, and what became of it. Nothing is sent of what is [`Fate::Dropped`].
    pub(super) fn pass(
        &self,
        rules: &Rules,
        client: IpAddr,
        sent: &mut Sent,
        packet: &mut [u8],
        now: Mono,
        rng: &mut Rng,
    ) -> Option<(Class, Fate)> {
        let class = self.over(rules, client, sent, now)?;
        let slips = rules.slip > 0 && rng.below(rules.slip.into()) == 0;
        let fate = match sent.standing {
            _ if rules.dry_run => Fate::Counted,
            _ if !slips => Fate::Dropped,
            Standing::Cookie => Fate::BadCookie,
            Standing::Unknown | Standing::Proven => Fate::Truncated,
        };
        // A refusal without a question is as short as it can be.
        if matches!(fate, Fate::BadCookie | Fate::Truncated) && sent.question_end > HEADER {
            sent.shorten(packet);
        }
        Some((class, fate))
    }

    /// Which limit of `client` an answer is over.
    fn over(&self, rules: &Rules, client: IpAddr, sent: &Sent, now: Mono) -> Option<Class> {
        if sent.standing == Standing::Proven {
            return None;
        }
        let class = Class::of(sent.rcode);
        let over = |class: Class| {
            let pace = rules.paces[class as usize]?;
            let who = key(client.to_canonical(), rules.prefix);
            let admitted = self.limiter.admit(who.wrapping_add(class as u64), pace, now);
            (!admitted).then_some(class)
        };
        // The exempt are few, and seldom over a limit: they are looked for last.
        over(class).or_else(|| over(Class::All)).filter(|_| !rules.exempt.find(client.to_canonical()).value)
    }
}

/// The number of the network that counts as one client; the lowest bits are free for the class.
fn key(client: IpAddr, prefix: (u8, u8)) -> u64 {
    match client {
        IpAddr::V4(a) => {
            let kept = u64::from(u32::from(a)) >> 32u8.saturating_sub(prefix.0).min(32);
            (kept | 1 << 40) << 3
        }
        IpAddr::V6(a) => {
            let kept = u128::from(a).checked_shr(u32::from(128u8.saturating_sub(prefix.1))).unwrap_or(0);
            hash::join((kept >> 64) as u64, kept as u64) << 3
        }
    }
}

#[cfg(test)]
mod tests;
