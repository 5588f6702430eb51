//! The campaign as data: activities with their windows, gifts with their stock. Built in, or from a JSON file.
//!
//! Checked as a whole when it is read: every finding at once, with the name of what is wrong. Afterwards it does not
//! change; a new catalogue is a new version and a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::model::{ActivityId, Code, GameId, GiftId, Moment, PacketId, ZoneId};
use crate::base::clock::Wall;
use crate::base::hash;

/// The most gifts in a catalogue: a list must stay small enough for a phone.
const GIFTS: usize = 256;

/// The most languages of a gift's title.
const LANGUAGES: usize = 8;

/// Whether `tag` looks like that of a language (RFC 5646 section 2.1): letters, then parts of letters and digits.
fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let first = parts.next().unwrap_or_default();
    (2..=8).contains(&first.len())
        && first.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// A campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activity {
    /// Its name.
    pub activity_id: ActivityId,
    /// When it begins, as `2027-02-05T20:00:00+08:00`; without it, it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Moment>,
    /// When it ends; without it, it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Moment>,
    /// The packets that there are; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<BTreeSet<PacketId>>,
}

/// A gift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gift {
    /// Its name.
    pub gift_id: GiftId,
    /// The game that it is for.
    pub game_id: GameId,
    /// What people call it.
    pub title: String,
    /// The same in other languages, by their tags (`zh`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub titles: BTreeMap<String, String>,
    /// How many there are in all, everywhere.
    pub stock: u64,
}

/// A game's servers, for those whose roles cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The server.
    pub zone_id: ZoneId,
    /// The game.
    pub game_id: GameId,
    /// What people call it.
    pub name: String,
}

/// All of it. The order of the gifts is the order of the default list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The first is the one meant where a claim names none.
    pub activities: Vec<Activity>,
    /// What can be claimed.
    pub gifts: Vec<Gift>,
    /// Servers to choose from by hand.
    #[serde(default)]
    pub zones: Vec<Zone>,
}

/// Something wrong in a catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A list that must have entries has none.
    Empty(&'static str),
    /// Too many gifts.
    TooMany(usize),
    /// A name stands twice.
    Twice(&'static str, String),
    /// An activity ends before it begins.
    Backwards(ActivityId),
    /// A title that is empty or longer than 120 bytes.
    Title(GiftId),
    /// Titles in too many languages, or under what is no tag of one.
    Language(GiftId),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(list) => write!(f, "`{list}` is empty; at least one is needed"),
            Self::TooMany(n) => write!(f, "{n} gifts; at most {GIFTS} fit in a list"),
            Self::Twice(what, name) => write!(f, "{what} `{name}` stands twice"),
            Self::Backwards(id) => write!(f, "activity `{id}` ends before it begins"),
            Self::Title(id) => write!(f, "gift `{id}` needs a title of 1 to 120 bytes, in each language"),
            Self::Language(id) => {
                write!(
                    f,
                    "`titles` of gift `{id}` are for up to {LANGUAGES} languages by their tags, such as `zh` or `pt-BR`"
                )
            }
        }
    }
}

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not JSON of the right shape; the source has line and column.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// It reads, and makes no sense.
    #[error("{}: {}", path.display(), findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        findings: Vec<Finding>,
    },
}

impl Catalogue {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, has another shape, or makes no sense.
    pub fn load(path: &Path) -> Result<Self, CatalogueError> {
        let text = std::fs::read(path).map_err(|source| CatalogueError::Read { path: path.into(), source })?;
        let catalogue: Self =
            serde_json::from_slice(&text).map_err(|source| CatalogueError::Parse { path: path.into(), source })?;
        let findings = catalogue.check();
        if findings.is_empty() { Ok(catalogue) } else { Err(CatalogueError::Wrong { path: path.into(), findings }) }
    }

    /// The catalogue of the demonstration: one activity without end, eight gifts of three games.
    pub fn built_in() -> Self {
        // Part of the program, and read by a test: an empty catalogue cannot come of it.
        serde_json::from_str(include_str!("catalogue.json")).unwrap_or(Self {
            activities: Vec::new(),
            gifts: Vec::new(),
            zones: Vec::new(),
        })
    }

    /// All that is wrong with it.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (list, empty) in [("activities", self.activities.is_empty()), ("gifts", self.gifts.is_empty())] {
            findings.extend(empty.then_some(Finding::Empty(list)));
        }
        findings.extend((self.gifts.len() > GIFTS).then_some(Finding::TooMany(self.gifts.len())));
        let mut seen = BTreeSet::new();
        let activities = self.activities.iter().map(|a| ("activity", a.activity_id.to_string()));
        let gifts = self.gifts.iter().map(|g| ("gift", g.gift_id.to_string()));
        let zones = self.zones.iter().map(|z| ("zone", format!("{}/{}", z.game_id, z.zone_id)));
        for (what, name) in activities.chain(gifts).chain(zones) {
            if !seen.insert((what, name.clone())) {
                findings.push(Finding::Twice(what, name));
            }
        }
        for activity in &self.activities {
            if let (Some(starts), Some(ends)) = (activity.starts, activity.ends)
                && ends <= starts
            {
                findings.push(Finding::Backwards(activity.activity_id.clone()));
            }
        }
        let fits = |title: &String| (1..=120).contains(&title.len());
        for gift in &self.gifts {
            if !fits(&gift.title) || !gift.titles.values().all(fits) {
                findings.push(Finding::Title(gift.gift_id.clone()));
            }
            if gift.titles.len() > LANGUAGES || !gift.titles.keys().all(|tag| is_language(tag)) {
                findings.push(Finding::Language(gift.gift_id.clone()));
            }
        }
        findings
    }

    /// A name for exactly this content: it changes when anything in it does.
    pub fn version(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        format!("{:016x}", hash::bytes(0x6c69_7374, &text))
    }

    /// Whether `gift` of `activity` may be claimed out of `packet` at `now`.
    ///
    /// # Errors
    /// The code that says why not.
    pub fn admit(&self, activity: &ActivityId, packet: &PacketId, gift: &GiftId, now: Wall) -> Result<(), Refusal> {
        let refuse = |code| Refusal { code, opens: None };
        let activity = self.activities.iter().find(|a| a.activity_id == *activity);
        let activity = activity.ok_or(refuse(Code::NotEligible))?;
        if activity.ends.is_some_and(|ends| ends.wall() <= now) {
            return Err(refuse(Code::Expired));
        }
        if let Some(starts) = activity.starts.filter(|starts| starts.wall() > now) {
            return Err(Refusal { code: Code::NotStarted, opens: Some(starts.wall()) });
        }
        let known = activity.packets.as_ref().is_none_or(|packets| packets.contains(packet));
        if known && self.gifts.iter().any(|g| g.gift_id == *gift) { Ok(()) } else { Err(refuse(Code::NotEligible)) }
    }

    /// Gifts by name, with their place in the default list.
    pub fn ranks(&self) -> HashMap<&GiftId, usize> {
        self.gifts.iter().enumerate().map(|(i, g)| (&g.gift_id, i)).collect()
    }
}

/// Why a claim is not even looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// When it opens, where it will.
    pub opens: Option<Wall>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_in_order() {
        let catalogue = Catalogue::built_in();
        assert_eq!(catalogue.check(), []);
        assert_eq!(catalogue.gifts.len(), 8);
        assert!(serde_json::to_vec(&catalogue.gifts).unwrap().len() < 8 << 10);
    }

    #[test]
    fn all_findings_come_at_once() {
        let text = r#"{"activities": [{"activity_id": "a", "starts": "2027-01-02T00:00:00Z", "ends": "2027-01-01T00:00:00Z"}],
            "gifts": [{"gift_id": "g", "game_id": "x", "title": "", "stock": 1}, {"gift_id": "g", "game_id": "x", "title": "t", "titles": {"what is this": "t"}, "stock": 1}]}"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.json");
        std::fs::write(&path, text).unwrap();
        let error = Catalogue::load(&path).unwrap_err();
        assert!(matches!(&error, CatalogueError::Wrong { findings, .. } if findings.len() == 4), "{error}");
        std::fs::write(&path, text.replace("stock", "stok")).unwrap();
        assert!(Catalogue::load(&path).unwrap_err().to_string().contains("line 2"));
        assert!(matches!(Catalogue::load(dir.path()), Err(CatalogueError::Read { .. })));
    }

    #[test]
    fn a_window_has_two_ends() {
        let mut catalogue = Catalogue::built_in();
        let moment = |text: &str| Some(Moment::try_from(text.to_owned()).unwrap());
        catalogue.activities[0].starts = moment("2027-02-05T20:00:00+08:00");
        catalogue.activities[0].ends = moment("2027-02-06T20:00:00+08:00");
        let (starts, ends) = (1_801_828_800_000, 1_801_915_200_000);
        let (activity, gift) = (catalogue.activities[0].activity_id.clone(), catalogue.gifts[0].gift_id.clone());
        let packet = PacketId::parse("p").unwrap();
        let ask = |now| catalogue.admit(&activity, &packet, &gift, Wall(now)).map_err(|r| (r.code, r.opens));
        assert_eq!(ask(starts - 1), Err((Code::NotStarted, Some(Wall(starts)))));
        assert_eq!(ask(starts), Ok(()));
        assert_eq!(ask(ends - 1), Ok(()));
        assert_eq!(ask(ends), Err((Code::Expired, None)));
        let nothing = GiftId::parse("nothing").unwrap();
        let refused = catalogue.admit(&activity, &packet, &nothing, Wall(starts)).unwrap_err();
        assert_eq!(refused.code, Code::NotEligible);
    }
}
