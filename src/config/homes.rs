//! Whose home is where: the file that says which claim process owns which of the 256 sets of users, read by these
//! processes and by the edges in front of them.
//!
//! ```toml
//! epoch = 3                       # grows with every change of this file
//! [[home]]
//! name = "shenzhen-1"
//! url = "http://127.0.1.1:7041"
//! sets = ["00-2a", "ff"]          # left out: its share, by `weight`, of the sets that nobody names
//! ```
//!
//! A home whose processes share one database names all of them: `url = ["http://...", "http://..."]`.
//!
//! Every set has exactly one home, or the file is refused with all that is wrong with it. Pure but for [`Homes::load`].

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::base::hash;

/// How many sets there are: a set is the first byte of an order's number.
pub const SETS: usize = 256;
/// Most homes in one file (ours: more than there are sets make no sense).
const HOMES: usize = SETS;
/// Most processes of one home (ours).
const DOORS: usize = 64;
/// Seed of the hash that says to which set a user belongs. Orders' numbers begin with it: it never changes.
const SEED: u64 = 0x0073_6574;

/// The hash whose first byte is the set of the user by that name.
pub const fn hash_of(user: &[u8]) -> u64 {
    hash::bytes(SEED, user)
}

/// The set of the user with that [`hash_of`].
pub const fn set_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Some of the 256 sets.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sets([u64; 4]);

impl Sets {
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// These and `set`.
    #[must_use]
    pub const fn with(mut self, set: u8) -> Self {
        self.0[set as usize / 64] |= 1 << (set % 64);
        self
    }

    /// Whether `set` is among them.
    pub const fn has(self, set: u8) -> bool {
        self.0[set as usize / 64] & (1 << (set % 64)) != 0
    }

    /// Whether all of `others` are among them.
    pub fn covers(self, others: Self) -> bool {
        self.0.iter().zip(others.0).all(|(mine, other)| other & !mine == 0)
    }

    /// Each of them, from 0.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |set| self.has(*set))
    }

    /// How many they are.
    pub fn count(self) -> usize {
        self.0.iter().map(|part| part.count_ones() as usize).sum()
    }

    /// As four words, for a store's records.
    pub const fn words(self) -> [u64; 4] {
        self.0
    }

    /// Out of four words.
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }
}

impl fmt::Debug for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Who owns users' claims: a store, and the processes that decide by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its name, which stays with its store wherever that moves.
    pub name: String,
    /// Its processes: one, or several that share the store.
    pub doors: Vec<Door>,
}

impl Home {
    /// Whether one of its processes is at `address`.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.doors.iter().any(|door| door.address == Some(address))
    }
}

/// A process of a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Where it is: `http://host:port`.
    pub url: String,
    /// That as an address, where it is one: by this an edge knows it among its backends.
    pub address: Option<SocketAddr>,
}

/// Which home has which set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homes {
    epoch: u64,
    all: Vec<Home>,
    owners: Vec<u8>,
}

/// What may be wrong with such a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No TOML, or none of this shape.
    #[error("it cannot be read: {reason}")]
    Syntax {
        /// What the parser said.
        reason: String,
    },
    /// The epoch is 0.
    #[error("`epoch` begins at 1 and grows with every change")]
    Epoch,
    /// None, or too many.
    #[error("{found} homes: write 1 to {HOMES}")]
    Count {
        /// How many.
        found: usize,
    },
    /// A home has no URL, or too many.
    #[error("{home}: {found} URLs: write 1 to {DOORS}")]
    Doors {
        /// Whose.
        home: String,
        /// How many.
        found: usize,
    },
    /// The name is empty, or longer than 64 bytes.
    #[error("a home's name has 1 to 64 characters")]
    Name,
    /// Two homes have one name or one URL.
    #[error("`{what}` stands there twice")]
    Twice {
        /// What.
        what: String,
    },
    /// The URL is none.
    #[error("{home}: `{url}` is no origin such as \"http://127.0.0.1:7000\", without a path")]
    Url {
        /// Whose.
        home: String,
        /// What stands there.
        url: String,
    },
    /// The sets are none.
    #[error("{home}: `{text}` is no set and no range of sets, such as \"1f\" or \"00-7f\"")]
    Range {
        /// Whose.
        home: String,
        /// What stands there.
        text: String,
    },
    /// Two homes have one set.
    #[error("set {set:02x} has two homes: {first} and {second}")]
    TwoHomes {
        /// Which set.
        set: u8,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Some sets have no home.
    #[error("{count} sets have no home, {first:02x} the first: name them, or leave `sets` out at a home with a weight")]
    NoHome {
        /// How many.
        count: usize,
        /// The lowest.
        first: u8,
    },
}

/// A file of homes that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomesError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It says what cannot be.
    #[error("{}: {}", path.display(), list(faults))]
    Wrong {
        /// Which.
        path: PathBuf,
        /// All that is wrong.
        faults: Vec<Fault>,
    },
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    epoch: u64,
    #[serde(default)]
    home: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    url: Urls,
    #[serde(default)]
    sets: Option<Vec<String>>,
    #[serde(default = "one")]
    weight: u32,
}

/// `"http://..."`, or a list of such.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a URL, or a list of the URLs of processes that share a store")]
enum Urls {
    One(String),
    Several(Vec<String>),
}

impl Urls {
    fn all(&self) -> &[String] {
        match self {
            Self::One(url) => std::slice::from_ref(url),
            Self::Several(urls) => urls,
        }
    }
}

const fn one() -> u32 {
    1
}

impl Homes {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The system refuses, or the file says what cannot be.
    pub fn load(path: &Path) -> Result<Self, HomesError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| HomesError::Io { path: path.to_path_buf(), source })?;
        Self::parse(&text).map_err(|faults| HomesError::Wrong { path: path.to_path_buf(), faults })
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let file: File = toml::from_str(text).map_err(|e| vec![Fault::Syntax { reason: e.message().to_owned() }])?;
        let mut faults = Vec::new();
        if file.epoch == 0 {
            faults.push(Fault::Epoch);
        }
        if file.home.is_empty() || file.home.len() > HOMES {
            faults.push(Fault::Count { found: file.home.len() });
            return Err(faults);
        }
        let mut seen = HashSet::new();
        let mut homes = Vec::with_capacity(file.home.len());
        for entry in &file.home {
            if !(1..=64).contains(&entry.name.len()) {
                faults.push(Fault::Name);
            }
            let urls = entry.url.all();
            if urls.is_empty() || urls.len() > DOORS {
                faults.push(Fault::Doors { home: entry.name.clone(), found: urls.len() });
            }
            let doors: Vec<Door> = urls.iter().take(DOORS).map(|url| door(&entry.name, url, &mut faults)).collect();
            for what in std::iter::once(&entry.name).chain(doors.iter().map(|door| &door.url)) {
                if !seen.insert(what.clone()) {
                    faults.push(Fault::Twice { what: what.clone() });
                }
            }
            homes.push(Home { name: entry.name.clone(), doors });
        }
        let owners = assign(&file.home, &mut faults);
        if faults.is_empty() { Ok(Self { epoch: file.epoch, all: homes, owners }) } else { Err(faults) }
    }

    /// Which version of the truth this is.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether this may take the place of `before`: it is of a greater epoch, or of the same one with every set where it was.
    pub fn follows(&self, before: &Self) -> bool {
        let home_of = |homes: &Self, set| homes.home_of(set).map(|home| home.name.clone());
        self.epoch > before.epoch
            || (self.epoch == before.epoch && (0..=u8::MAX).all(|set| home_of(self, set) == home_of(before, set)))
    }

    /// All homes, in the order of the file.
    pub fn all(&self) -> &[Home] {
        &self.all
    }

    /// The place of the home of `set` in [`Homes::all`].
    pub fn owner(&self, set: u8) -> usize {
        self.owners.get(usize::from(set)).copied().map_or(0, usize::from)
    }

    /// The home of `set`.
    pub fn home_of(&self, set: u8) -> Option<&Home> {
        self.all.get(self.owner(set))
    }

    /// The place of the home by that name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|home| home.name == name)
    }

    /// The sets of the home at `place`.
    pub fn sets_of(&self, place: usize) -> Sets {
        (0..=u8::MAX).filter(|set| self.owner(*set) == place).fold(Sets::default(), Sets::with)
    }
}

fn door(home: &str, url: &str, faults: &mut Vec<Fault>) -> Door {
    let authority = authority(url);
    if authority.is_none() {
        faults.push(Fault::Url { home: home.to_owned(), url: url.to_owned() });
    }
    let url = authority.as_ref().map_or_else(|| url.to_owned(), |a| format!("http://{a}"));
    Door { url, address: authority.and_then(|a| a.parse().ok()) }
}

/// `host:port` of an origin.
fn authority(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().filter(|a| plain && !a.as_str().contains('@'))?;
    Some(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

/// Who has each set: whoever names it; of the rest, each goes by rendezvous on the name, so that another home takes only
/// its share from the others.
fn assign(homes: &[Entry], faults: &mut Vec<Fault>) -> Vec<u8> {
    let mut owners: Vec<Option<usize>> = vec![None; SETS];
    for (place, home) in homes.iter().enumerate() {
        for text in home.sets.iter().flatten() {
            let Some((first, last)) = range(text) else {
                faults.push(Fault::Range { home: home.name.clone(), text: text.clone() });
                continue;
            };
            for set in first..=last {
                let Some(owner) = owners.get_mut(usize::from(set)) else { continue };
                match owner.and_then(|other| homes.get(other)) {
                    Some(other) => {
                        faults.push(Fault::TwoHomes { set, first: other.name.clone(), second: home.name.clone() });
                    }
                    None => *owner = Some(place),
                }
            }
        }
    }
    let seats: Vec<(usize, u64, u32)> = homes
        .iter()
        .enumerate()
        .filter(|(_, home)| home.sets.is_none() && home.weight > 0)
        .map(|(place, home)| (place, hash::bytes(SEED, home.name.as_bytes()), home.weight))
        .collect();
    let best = |set: usize| {
        let scores = seats.iter().map(|(place, seat, weight)| {
            let key = hash::mix(set as u64 ^ SEED);
            (*place, hash::rendezvous(*seat, key, f64::from(*weight)))
        });
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
    };
    let owners: Vec<Option<usize>> =
        owners.into_iter().enumerate().map(|(set, owner)| owner.or_else(|| best(set))).collect();
    let orphans = owners.iter().filter(|owner| owner.is_none()).count();
    if let Some(first) = owners.iter().position(Option::is_none) {
        faults.push(Fault::NoHome { count: orphans, first: first as u8 });
    }
    owners.into_iter().map(|owner| owner.unwrap_or_default() as u8).collect()
}

fn range(text: &str) -> Option<(u8, u8)> {
    let one = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (one(first)?, one(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn file(epoch: u64, homes: &[(&str, &str, u32)]) -> String {
        let mut text = format!("epoch = {epoch}\n");
        for (at, (name, sets, weight)) in homes.iter().enumerate() {
            let sets = if *sets == "*" { String::new() } else { format!("sets = [{sets}]\n") };
            let _ = write!(
                text,
                "[[home]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{}\"\nweight = {weight}\n{sets}",
                7_000 + at
            );
        }
        text
    }

    #[test]
    fn sets_are_named_or_shared() {
        let homes = Homes::parse(&file(3, &[("a", "\"00-7f\", \"ff\"", 1), ("b", "*", 1), ("c", "*", 3)])).unwrap();
        assert_eq!((homes.epoch(), homes.all().len()), (3, 3));
        assert_eq!((homes.owner(0), homes.owner(0x7f), homes.owner(0xff)), (0, 0, 0));
        let counts = [0, 1, 2].map(|place| homes.sets_of(place).count());
        assert_eq!((counts[0], counts.iter().sum::<usize>()), (129, SETS));
        assert!(counts[1] > 10 && counts[2] > counts[1], "{counts:?}");
        assert_eq!(homes.home_of(0xff).map(|h| h.doors[0].url.as_str()), Some("http://127.0.0.1:7000"));
        assert_eq!(homes.place("c"), Some(2));
    }

    #[test]
    fn what_cannot_be_is_said_all_at_once() {
        let text = "epoch = 0\n[[home]]\nname = \"a\"\nurl = \"ftp://x\"\nsets = [\"00-10\", \"g0\", \"20-1f\"]\n\
                    [[home]]\nname = \"a\"\nurl = \"http://b:1\"\nsets = [\"10\"]\n";
        let faults = Homes::parse(text).unwrap_err();
        assert!(faults.contains(&Fault::Epoch) && faults.contains(&Fault::Twice { what: "a".into() }), "{faults:?}");
        assert_eq!(faults.iter().filter(|f| matches!(f, Fault::Range { .. })).count(), 2, "{faults:?}");
        assert!(faults.iter().any(|f| matches!(f, Fault::TwoHomes { set: 0x10, .. })), "{faults:?}");
        assert!(faults.contains(&Fault::NoHome { count: 239, first: 0x11 }), "{faults:?}");
        assert!(faults.iter().any(|f| matches!(f, Fault::Url { .. })), "{faults:?}");
        assert_eq!(Homes::parse("epoch = 1").unwrap_err(), [Fault::Count { found: 0 }]);
        assert!(matches!(Homes::parse("epoch = ").unwrap_err()[..], [Fault::Syntax { .. }]));
        assert!(matches!(Homes::parse("epoch = 1\nhoem = 1").unwrap_err()[..], [Fault::Syntax { .. }]));
    }

    #[test]
    fn a_home_may_have_several_doors_and_never_somebody_elses() {
        let home = |name: &str, urls: &str| format!("[[home]]\nname = \"{name}\"\nurl = {urls}\n");
        let text = |a: &str, b: &str| format!("epoch = 1\n{}{}", home("a", a), home("b", b));
        let homes = Homes::parse(&text("[\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]", "\"http://b:3\"")).unwrap();
        let a = &homes.all()[0];
        assert!(a.is_at("127.0.0.1:1".parse().unwrap()) && a.is_at("127.0.0.1:2".parse().unwrap()));
        assert!(!a.is_at("127.0.0.1:3".parse().unwrap()));
        let twice = Homes::parse(&text("[\"http://b:3\"]", "\"http://b:3\"")).unwrap_err();
        assert_eq!(twice, [Fault::Twice { what: "http://b:3".into() }]);
        let none = Homes::parse(&text("[]", "\"http://b:3\"")).unwrap_err();
        assert_eq!(none, [Fault::Doors { home: "a".into(), found: 0 }]);
    }

    #[test]
    fn shares_never_change_between_releases() {
        let homes = Homes::parse(&file(1, &[("a", "*", 1), ("b", "*", 1), ("c", "*", 1)])).unwrap();
        let counts = [0, 1, 2].map(|place| homes.sets_of(place).count());
        assert_eq!(counts.iter().sum::<usize>(), SETS);
        assert!(counts.iter().all(|n| (60..=110).contains(n)), "{counts:?}");
    }

    proptest! {
        /// Every set has exactly one home, whatever is named; one home more takes from the others and moves nothing else.
        #[test]
        fn every_set_has_one_home(n in 1usize..12, first: u8, len in 0u8..40) {
            let names: Vec<String> = (0..=n).map(|i| format!("home-{i}")).collect();
            let named = format!("\"{first:02x}-{:02x}\"", first.saturating_add(len));
            let mut entries: Vec<(&str, &str, u32)> = names.iter().map(|name| (name.as_str(), "*", 1)).collect();
            entries[0].1 = &named;
            let more = Homes::parse(&file(2, &entries)).unwrap();
            let all: usize = (0..=n).map(|place| more.sets_of(place).count()).sum();
            prop_assert_eq!(all, SETS);
            for set in 0..=u8::MAX {
                prop_assert!(more.sets_of(more.owner(set)).has(set));
                prop_assert_eq!(more.owner(set) == 0, (first..=first.saturating_add(len)).contains(&set));
            }
            entries.pop();
            if n > 1 {
                let fewer = Homes::parse(&file(1, &entries)).unwrap();
                for set in 0..=u8::MAX {
                    prop_assert!(more.owner(set) == n || more.owner(set) == fewer.owner(set));
                }
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            let _ = Homes::parse(&text);
        }
    }
}
