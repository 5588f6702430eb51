//! Reads the files of `[geo]`: lists of prefixes and databases, each reduced to what is asked of it by the `near` of any
//! datacenter and by any fence.
//!
//! All of them or none: where anything is wrong, everything that is wrong is told, and what was in force stays. Runs at
//! start and at a reload, on a thread that serves nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::clock::{Clock as _, SystemClock};
use crate::base::prefix::runs::Runs;
use crate::config::{Config, Datacenter, Locality, Steer};
use crate::snapshot::atlas::{Atlas, Mark, Origin, Rank, Source, Stamp};
use crate::wire::cidr;
use crate::wire::mmdb::{Mmdb, MmdbError, Place, Record};

/// The largest file that is read: ten times the largest database there is today.
const MAX_FILE: u64 = 1 << 30;

/// Why a file of `[geo]` cannot be used, or why they do not say what is asked of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeoError {
    /// The file can't be read.
    #[error("{}: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A line of a list.
    #[error("{}:{line}: {problem}", file.display())]
    Line {
        /// The list.
        file: PathBuf,
        /// Which line, from 1.
        line: u32,
        /// What is wrong with it.
        problem: cidr::Problem,
    },
    /// A database that cannot be read.
    #[error("{}: {source}", file.display())]
    Database {
        /// The database.
        file: PathBuf,
        /// Why not.
        source: MmdbError,
    },
    /// A database of other things.
    #[error(
        "{}: this database (`{kind}`) knows neither places nor autonomous systems: expected one such as GeoLite2-Country, GeoLite2-City or GeoLite2-ASN",
        file.display()
    )]
    WrongKind {
        /// The database.
        file: PathBuf,
        /// What it calls itself.
        kind: String,
    },
    /// No file says anything of this kind.
    #[error("{what} `{locality}`, but {missing}")]
    Unknown {
        /// Whose `near`, or whose fence, in words.
        what: String,
        /// What it says.
        locality: Locality,
        /// What is missing.
        missing: &'static str,
    },
}

/// What is no error, and hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Classes of a list that no datacenter is near to.
    Unused {
        /// The list.
        file: PathBuf,
        /// Some of them.
        classes: Vec<String>,
    },
    /// Nobody is there.
    Nobody {
        /// Whose `near`, or whose fence, in words.
        what: String,
        /// What it says.
        locality: Locality,
    },
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unused { file, classes } => {
                write!(f, "{}: no datacenter is near to `class:{}`", file.display(), classes.join("`, `class:"))
            }
            Self::Nobody { what, locality } => {
                write!(f, "{what} `{locality}`, but no network is there")
            }
        }
    }
}

/// Makes of a file's bytes what is asked of them.
type Reduce<'r> = &'r mut dyn FnMut(&[u8]) -> Result<Source, Vec<GeoError>>;

/// Reads everything that `config` names in `[geo]`.
///
/// # Errors
/// Everything that is wrong, in the order of the configuration.
pub fn load(config: &Config) -> Result<(Atlas, Vec<Doubt>), Vec<GeoError>> {
    let asked = Asked::of(config);
    let (mut atlas, mut doubts, mut errors) = (Atlas::default(), Vec::new(), Vec::new());
    let mut each = |file: &Path, reduce: Reduce<'_>| {
        let began = SystemClock.mono();
        let source = read(file).and_then(|(bytes, stamp)| Ok(Source { stamp, ..reduce(&bytes)? }));
        told::reading(file, source.is_ok());
        match source {
            Ok(source) => atlas.sources.push(Source { took: SystemClock.mono().since(began), ..source }),
            Err(wrong) => errors.extend(wrong),
        }
    };
    for file in &config.geo.cidr {
        each(file, &mut |bytes| list(file, bytes, &asked, &mut doubts));
    }
    for file in &config.geo.databases {
        each(file, &mut |bytes| database(file, bytes, &asked));
    }
    if errors.is_empty() {
        unanswered(config, &atlas, &mut doubts, &mut errors);
    }
    if errors.is_empty() { Ok((atlas, doubts)) } else { Err(errors) }
}

fn read(file: &Path) -> Result<(Vec<u8>, Stamp), Vec<GeoError>> {
    let (bytes, metadata) = crate::base::file::read(file, MAX_FILE).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::FileTooLarge => format!("is larger than {} MiB", MAX_FILE >> 20),
            _ => format!("cannot be read: {error}"),
        };
        vec![GeoError::Read { file: file.to_owned(), reason }]
    })?;
    Ok((bytes, Stamp::of(&metadata)))
}

/// All that any datacenter is near to and any fence is around, to be found by what a file has.
#[derive(Default)]
struct Asked {
    numbers: HashMap<(Rank, u64), Locality>,
    texts: HashMap<(Rank, String), Locality>,
}

impl Asked {
    fn of(config: &Config) -> Self {
        let mut asked = Self::default();
        for locality in config.localities() {
            let rank = Rank::of(locality);
            match locality {
                Locality::Net(_) => {}
                Locality::Asn(number) | Locality::CityId(number) => {
                    asked.numbers.insert((rank, u64::from(*number)), locality.clone());
                }
                Locality::Class(text)
                | Locality::City(text)
                | Locality::Subdivision(text)
                | Locality::Country(text)
                | Locality::Continent(text) => {
                    asked.texts.insert((rank, text.clone()), locality.clone());
                }
            }
        }
        asked
    }

    fn text(&self, rank: Rank, text: impl Into<String>) -> Option<Locality> {
        self.texts.get(&(rank, text.into())).cloned()
    }

    /// What of `place` is asked for, and what is said of at all.
    fn mark(&self, place: &Place<'_>) -> Mark {
        let mut mark = Mark::default();
        let mut note = |rank: Rank, said: bool, found: Option<Locality>| {
            mark.said |= u8::from(said) << rank as u8;
            mark.localities.extend(found);
        };
        let number = |rank, number: Option<u64>| number.and_then(|n| self.numbers.get(&(rank, n)).cloned());
        note(Rank::Asn, place.asn.is_some(), number(Rank::Asn, place.asn));
        note(Rank::City, place.city_id.is_some(), number(Rank::City, place.city_id));
        let city = place.city.and_then(|name| self.text(Rank::City, name.to_lowercase()));
        note(Rank::City, place.city.is_some(), city);
        for part in &place.subdivisions {
            let code = format!("{}-{part}", place.country.unwrap_or_default()).to_ascii_uppercase();
            note(Rank::Subdivision, true, self.text(Rank::Subdivision, code));
        }
        let country = place.country.and_then(|code| self.text(Rank::Country, code.to_ascii_uppercase()));
        note(Rank::Country, place.country.is_some(), country);
        let continent = place.continent.and_then(|code| self.text(Rank::Continent, code.to_ascii_uppercase()));
        note(Rank::Continent, place.continent.is_some(), continent);
        mark
    }
}

/// Marks, each once, with its number; the first says nothing.
struct Marks {
    list: Vec<Mark>,
    known: BTreeMap<Mark, u32>,
}

impl Marks {
    fn new() -> Self {
        Self { list: vec![Mark::default()], known: BTreeMap::from([(Mark::default(), 0)]) }
    }

    fn number(&mut self, mark: Mark) -> u32 {
        *self.known.entry(mark).or_insert_with_key(|mark| {
            self.list.push(mark.clone());
            self.list.len() as u32 - 1
        })
    }
}

fn list(file: &Path, bytes: &[u8], asked: &Asked, doubts: &mut Vec<Doubt>) -> Result<Source, Vec<GeoError>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes.get(..e.valid_up_to()).map_or(0, |good| good.split(|b| *b == b'\n').count());
        vec![GeoError::Read { file: file.to_owned(), reason: format!("line {line} is not UTF-8") }]
    })?;
    let entries = cidr::parse(text).map_err(|wrong| {
        let at = |(line, problem)| GeoError::Line { file: file.to_owned(), line, problem };
        wrong.into_iter().map(at).collect::<Vec<_>>()
    })?;
    let mut marks = Marks::new();
    let mut unused: BTreeSet<&str> = BTreeSet::new();
    let rules: Vec<_> = entries
        .iter()
        .map(|entry| {
            let mut mark = Mark::default();
            for class in entry.classes() {
                match asked.text(Rank::Net, class) {
                    Some(locality) => mark.localities.push(locality),
                    None => {
                        unused.insert(class);
                    }
                }
            }
            // A prefix of no class that is asked for ends those around it, and means nothing itself.
            if !mark.localities.is_empty() {
                mark.length = entry.net.prefix_len();
                mark.localities.sort();
                mark.localities.dedup();
            }
            (entry.net, marks.number(mark))
        })
        .collect();
    if !unused.is_empty() {
        let classes = unused.into_iter().take(5).map(str::to_owned).collect();
        doubts.push(Doubt::Unused { file: file.to_owned(), classes });
    }
    let (networks, runs) = (rules.len() as u64, Runs::nested(rules, 0));
    Ok(Source {
        file: file.to_owned(),
        origin: Origin::List,
        runs,
        marks: marks.list,
        networks,
        stamp: Stamp::default(),
        took: Duration::ZERO,
    })
}

fn database(file: &Path, bytes: &[u8], asked: &Asked) -> Result<Source, Vec<GeoError>> {
    let wrong = |source| vec![GeoError::Database { file: file.to_owned(), source }];
    let opened = Mmdb::open(bytes).map_err(wrong)?;
    let mut marks = Marks::new();
    let mut known: HashMap<Record, u32> = HashMap::new();
    let (mut runs, mut networks, mut damaged) = (Runs::default(), 0u64, None);
    let walked = opened.walk(|first, record| {
        let number = record.map_or(0, |record| {
            networks += 1;
            *known.entry(record).or_insert_with(|| match opened.place(record) {
                Ok(place) => marks.number(asked.mark(&place)),
                Err(error) => {
                    damaged = damaged.or(Some(error));
                    0
                }
            })
        });
        runs.append(first, number);
    });
    walked.and(damaged.map_or(Ok(()), Err)).map_err(wrong)?;
    let kind = opened.kind.chars().take(100).collect::<String>();
    if marks.list.iter().all(|mark| mark.said == 0) {
        return Err(vec![GeoError::WrongKind { file: file.to_owned(), kind }]);
    }
    let origin = Origin::Database { kind, built: opened.built };
    let (stamp, took) = (Stamp::default(), Duration::ZERO);
    Ok(Source { file: file.to_owned(), origin, runs, marks: marks.list, networks, stamp, took })
}

/// What is asked for and answered by no file.
fn unanswered(config: &Config, atlas: &Atlas, doubts: &mut Vec<Doubt>, errors: &mut Vec<GeoError>) {
    fn near(dc: &Datacenter) -> String {
        format!("datacenter `{}` is near to", dc.name)
    }
    fn around(steer: &Steer) -> String {
        format!("a fence of `{}` stands around", steer.name)
    }
    let marks = || atlas.sources.iter().flat_map(|source| &source.marks);
    let found: BTreeSet<&Locality> = marks().flat_map(|mark| &mark.localities).collect();
    let nearby = config.datacenters.iter().flat_map(|dc| dc.near.iter().map(move |l| (near(dc), l)));
    let steers = config.dns.iter().flat_map(|d| &d.steers);
    let fences = steers.flat_map(|s| s.fences.iter().flat_map(|f| &f.clients).map(move |l| (around(s), l)));
    for (what, locality) in nearby.chain(fences) {
        let rank = Rank::of(locality);
        let missing = match locality {
            Locality::Net(_) => continue,
            _ if found.contains(locality) => continue,
            Locality::Class(_) => Some("no list of `[geo] cidr` has this class"),
            _ if marks().any(|mark| mark.says(rank)) => None,
            Locality::Asn(_) => Some("no database of `[geo]` knows autonomous systems: add one such as GeoLite2-ASN"),
            Locality::CityId(_) | Locality::City(_) | Locality::Subdivision(_) => {
                Some("no database of `[geo]` knows cities and subdivisions: add one such as GeoLite2-City")
            }
            _ => Some("no database of `[geo]` knows countries: add one such as GeoLite2-Country"),
        };
        let locality = locality.clone();
        match missing {
            Some(missing) => errors.push(GeoError::Unknown { what, locality, missing }),
            None => doubts.push(Doubt::Nobody { what, locality }),
        }
    }
}

pub(super) mod told;

#[cfg(test)]
mod tests;
