//! What a zone's keys do at each time: which stand in the DNSKEY set, which sign it, which sign the records.
//!
//! Pure. The set changes only at times that the keys name, so it is judged once for each of those, ahead; a change needs
//! no reload and no timer. Two rules keep a zone from going bogus whatever an operator forgot: a zone that is signed
//! stays signed, by the last key that could where none may any more; and a key that signs stands in the DNSKEY set.

use crate::wire::dnssec::Algorithm;
use crate::wire::dnssec::keyfile::{Key, Times};

/// When a key does what: `Times` with what they mean where they are not written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// It stands in the DNSKEY set from here on; a SEP key signs that set as long as it stands in it.
    pub(crate) publish: u32,
    /// It signs records from here on.
    pub(crate) activate: u32,
    /// It does so until here.
    pub(crate) inactive: u32,
    /// It leaves the DNSKEY set.
    pub(crate) delete: u32,
    /// CDS and CDNSKEY name it from here on.
    pub(crate) sync_publish: u32,
    /// They do so until here.
    pub(crate) sync_delete: u32,
}

impl Life {
    /// What `times` mean. A key with no times at all has always been in use; one that is only published waits.
    pub(crate) fn of(times: &Times) -> Self {
        let activate = times.activate.unwrap_or(if times.publish.is_some() { u32::MAX } else { 0 });
        let delete = times.delete.unwrap_or(u32::MAX);
        let inactive = times.inactive.unwrap_or(delete).min(delete);
        Self {
            publish: times.publish.unwrap_or(activate).min(activate),
            activate,
            inactive,
            delete,
            sync_publish: times.sync_publish.unwrap_or(activate),
            sync_delete: times.sync_delete.unwrap_or(inactive),
        }
    }

    const fn events(&self) -> [u32; 6] {
        [self.publish, self.activate, self.inactive, self.delete, self.sync_publish, self.sync_delete]
    }

    pub(crate) const fn is_listed(&self, at: u32) -> bool {
        self.publish <= at && at < self.delete
    }

    pub(crate) const fn is_active(&self, at: u32) -> bool {
        self.activate <= at && at < self.inactive
    }

    /// Whether it signed records, and does so no more.
    const fn has_ended(&self, at: u32) -> bool {
        self.activate < self.inactive && self.inactive <= at
    }

    pub(crate) const fn is_asked_for(&self, at: u32) -> bool {
        self.sync_publish <= at && at < self.sync_delete
    }
}

/// What the keys do from one time to the next. Keys by their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// From when on, in seconds since 1970.
    pub(crate) from: u32,
    /// The DNSKEY set.
    pub(crate) listed: Vec<usize>,
    /// Who signs DNSKEY, CDS and CDNSKEY.
    pub(crate) entries: Vec<usize>,
    /// Who signs everything else.
    pub(crate) signers: Vec<usize>,
    /// Whom CDS and CDNSKEY name.
    pub(crate) asked: Vec<usize>,
    /// No key may do what one does: its time is over, or has not come.
    pub(crate) overdue: bool,
    /// The time of the zone-signing keys is over, and a key of the parent's signs the records in their place.
    pub(crate) alone: bool,
}

/// What is not as it should be with a zone's keys, though its answers are valid: somebody forgot a roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// No key at all may do what one does.
    Any,
    /// No zone-signing key may sign, in a zone that has had one.
    Zsk,
}

impl Lapse {
    /// All of them, the graver one first.
    pub const ALL: [Self; 2] = [Self::Any, Self::Zsk];

    /// Which keys run out.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Zsk => "zsk",
        }
    }

    /// What happens, or has happened, at `at`.
    pub fn says(self, at: u32, now: u32) -> String {
        match (self, at > now) {
            (Self::Any, false) => "no key may sign this zone any more: the last one goes on".into(),
            (Self::Any, true) => format!("the keys of this zone run out at {}", super::keys::when(at)),
            (Self::Zsk, false) => {
                "no zone-signing key may sign any more: the key-signing key signs the records alone".into()
            }
            (Self::Zsk, true) => {
                format!("the zone-signing keys of this zone run out at {}", super::keys::when(at))
            }
        }
    }

    /// The first time from `now` on when it is so; `now` where it is.
    pub(crate) fn from<'m>(self, moments: impl Iterator<Item = &'m Moment> + Clone, now: u32) -> Option<u32> {
        let holds = |moment: &&Moment| match self {
            Self::Any => moment.overdue,
            Self::Zsk => moment.alone,
        };
        let begun = moments.clone().take_while(|m| m.from <= now).last().or_else(|| moments.clone().next());
        if begun.as_ref().is_some_and(holds) {
            return Some(now);
        }
        moments.filter(|m| m.from > now).find(holds).map(|m| m.from)
    }
}

/// Every moment, in order; the first begins at 0. Empty only without keys.
pub(crate) fn timeline(keys: &[Key]) -> Vec<Moment> {
    let lives: Vec<(bool, Algorithm, Life)> =
        keys.iter().map(|k| (k.public.is_entry(), k.public.algorithm, Life::of(&k.private.times))).collect();
    let mut events: Vec<u32> = lives.iter().flat_map(|(.., life)| life.events()).chain([0]).collect();
    events.retain(|at| *at < u32::MAX);
    events.sort_unstable();
    events.dedup();
    let mut moments: Vec<Moment> = Vec::new();
    for at in events.into_iter().filter(|_| !keys.is_empty()) {
        let moment = judge(&lives, at);
        if moments.last().is_none_or(|last| Moment { from: at, ..last.clone() } != moment) {
            moments.push(moment);
        }
    }
    moments
}

fn judge(lives: &[(bool, Algorithm, Life)], at: u32) -> Moment {
    let those = |wanted: &dyn Fn(bool, &Life) -> bool| -> Vec<usize> {
        lives.iter().enumerate().filter(|(_, (sep, _, life))| wanted(*sep, life)).map(|(i, _)| i).collect()
    };
    // Whose time was over last, or else will come first.
    let nearest = |wanted: &dyn Fn(bool) -> bool, end: &dyn Fn(&Life) -> u32, begin: &dyn Fn(&Life) -> u32| {
        let begun = |life: &Life| begin(life) <= at;
        let candidates = || lives.iter().enumerate().filter(|(_, (sep, ..))| wanted(*sep));
        let last = candidates().filter(|(_, (.., l))| begun(l)).max_by_key(|(_, (.., l))| end(l));
        last.or_else(|| candidates().min_by_key(|(_, (.., l))| begin(l))).map(|(i, _)| i)
    };
    let mut moment = Moment { from: at, ..Moment::default() };
    moment.listed = those(&|_, life| life.is_listed(at));
    moment.entries = those(&|sep, life| sep && life.is_listed(at));
    if moment.entries.is_empty() {
        moment.overdue = true;
        moment.entries.extend(nearest(&|sep| sep, &|l| l.delete, &|l| l.publish));
    }
    // Each algorithm signs everything (RFC 4035 section 2.2): by its zone-signing keys, or by its combined ones.
    for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
        let of = |only_zone: bool| -> Vec<usize> {
            those(&|sep, life| life.is_active(at) && !(sep && only_zone))
                .into_iter()
                .filter(|i| lives.get(*i).is_some_and(|(_, a, _)| *a == algorithm))
                .collect()
        };
        let mut chosen = of(true);
        if chosen.is_empty() {
            chosen = of(false);
            let ended = lives.iter().any(|(sep, a, life)| !sep && *a == algorithm && life.has_ended(at));
            moment.alone |= ended && !chosen.is_empty();
        }
        moment.signers.extend(chosen);
    }
    if moment.signers.is_empty() {
        moment.overdue = true;
        moment.signers.extend(nearest(&|_| true, &|l| l.inactive, &|l| l.activate));
    }
    for key in moment.entries.iter().chain(&moment.signers) {
        if !moment.listed.contains(key) {
            moment.listed.push(*key);
        }
    }
    moment.asked = those(&|sep, life| sep && life.is_asked_for(at));
    moment
}

/// The moment that `now` lies in.
pub(crate) fn at<T>(moments: &[T], from: impl Fn(&T) -> u32, now: u32) -> Option<&T> {
    moments.iter().rev().find(|m| from(m) <= now).or(moments.first())
}

#[cfg(test)]
mod tests;
