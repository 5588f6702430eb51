//! What files say about where clients are, reduced to what `near` asks for. Built by `dns::atlas`, read by `decide::near`.
//!
//! A database knows five million networks; of them is kept where an asked-for country begins and ends. Nothing here is on
//! the way of a query: nearness is compiled from it once for a topology, and `explain` looks here for the reason.

use std::fs::Metadata;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::base::prefix::runs::Runs;
use crate::config::Locality;

/// All files, lists before databases, each in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Atlas {
    /// What each of them says.
    pub sources: Vec<Source>,
}

/// What one file says.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub origin: Origin,
    /// Where which of `marks` holds.
    pub runs: Runs<u32>,
    /// What is said of an address; the first says nothing.
    pub marks: Vec<Mark>,
    /// How many networks the file knows.
    pub networks: u64,
    /// By what a change of the file is noticed.
    pub stamp: Stamp,
    /// How long it took to read it and to reduce it to this.
    pub took: Duration,
}

/// By what a change of a file is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Stamp {
    /// That of a file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self { modified: metadata.modified().ok(), bytes: metadata.len() }
    }

    /// How long the file is, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A list of prefixes with their classes.
    List,
    /// A database.
    Database {
        /// What it calls itself, such as `GeoLite2-Country`.
        kind: String,
        /// When it was built, in seconds since 1970.
        built: u64,
    },
}

/// What a file says of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// What of all that is asked for holds.
    pub localities: Vec<Locality>,
    /// Which ranks it says something of at all, asked for or not: bit [`Rank`].
    pub said: u8,
    /// In a list: the length of the prefix.
    pub length: u8,
}

/// How exact a kind of place is; the first counts before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// A prefix, written in the configuration or in a list.
    Net,
    /// An autonomous system.
    Asn,
    /// A city.
    City,
    /// A subdivision.
    Subdivision,
    /// A country.
    Country,
    /// A continent.
    Continent,
}

impl Rank {
    /// What databases know, the most exact first.
    pub const KNOWN: [Self; 5] = [Self::Asn, Self::City, Self::Subdivision, Self::Country, Self::Continent];

    /// The rank of a locality.
    pub const fn of(locality: &Locality) -> Self {
        match locality {
            Locality::Net(_) | Locality::Class(_) => Self::Net,
            Locality::Asn(_) => Self::Asn,
            Locality::CityId(_) | Locality::City(_) => Self::City,
            Locality::Subdivision(_) => Self::Subdivision,
            Locality::Country(_) => Self::Country,
            Locality::Continent(_) => Self::Continent,
        }
    }
}

impl Mark {
    /// Whether anything of this rank is said.
    pub const fn says(&self, rank: Rank) -> bool {
        self.said & 1 << rank as u8 != 0
    }
}

impl Source {
    /// When what it says was made, in seconds since 1970: by its own word, or when it was written. `None`: nobody knows.
    pub fn made(&self) -> Option<u64> {
        match &self.origin {
            Origin::Database { built, .. } => Some(*built),
            Origin::List => Some(self.stamp.modified?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()),
        }
    }

    /// What is said of `address`.
    pub fn at(&self, address: IpAddr) -> Option<&Mark> {
        self.marks.get(self.runs.at(address)? as usize)
    }
}
