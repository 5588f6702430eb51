//! Loads a zone: reads its master file, and checks that the records make a zone that can be served.
//!
//! Gives a whole zone or every finding, each with file and line; a zone with a finding is never served in part. Reads
//! files and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::table::{apexes, cut_above, dname_above, is_cut, zone_of};
use crate::base::file;
use crate::config::{Dns, ZoneFile};
use crate::wire::dns::rtype;
use crate::wire::master::{self, MAX_FINDINGS, Place, Record};
use crate::wire::name::{self, NameError};
use crate::wire::rdata::type_name;
use crate::wire::zone::{RrSet, WireName, Zone};

/// The largest master file, with each one that it includes: some ten million records.
const MAX_FILE: u64 = 1 << 30;

/// A zone that cannot be served, with all reasons.
#[derive(Debug, thiserror::Error)]
pub struct ZoneError {
    /// The zone's apex.
    pub origin: String,
    /// What is wrong, in the order of the file; at least one, and of each kind the first fifty.
    pub findings: Vec<Finding>,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {} cannot be served:", self.origin)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where; line 0 is the file as a whole.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line } = &self.place;
        match line {
            0 => write!(f, "{}: {}", file.display(), self.problem),
            line => write!(f, "{}:{line}: {}", file.display(), self.problem),
        }
    }
}

/// What is wrong with a zone, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file can't be read.
    #[error("{0}")]
    Read(String),
    /// The zone's name is none.
    #[error("the zone's name: {0}")]
    Origin(NameError),
    /// A line that is no record.
    #[error("{0}")]
    Syntax(#[from] master::Problem),
    /// A record outside the zone.
    #[error(
        "{owner} lies outside the zone {origin}: end the name without a dot to mean one inside, or put it into its own zone's file"
    )]
    OutOfZone {
        /// The record's owner.
        owner: String,
        /// The zone's apex.
        origin: String,
    },
    /// The apex has no SOA, or more than one record.
    #[error(
        "the apex has {found} SOA records: a zone has exactly one, such as `@ 3600 IN SOA ns1 hostmaster 1 3600 900 604800 60`"
    )]
    Soa {
        /// How many it has.
        found: usize,
    },
    /// A SOA beneath the apex.
    #[error("{owner} has a SOA record, which belongs to the apex alone")]
    StraySoa {
        /// Its owner.
        owner: String,
    },
    /// The apex has no NS.
    #[error("the apex has no NS record: name the servers of the zone, such as `@ 3600 IN NS ns1`")]
    NoNs,
    /// A CNAME beside other records.
    #[error("{owner} has a CNAME and also {other}: a CNAME stands alone (RFC 1034 section 3.6.2)")]
    CnameBeside {
        /// Its owner.
        owner: String,
        /// A type that it has too.
        other: String,
    },
    /// More than one CNAME, or DNAME.
    #[error("{owner} has {found} {rtype} records: there can be one")]
    Several {
        /// Its owner.
        owner: String,
        /// The type.
        rtype: String,
        /// How many it has.
        found: usize,
    },
    /// Data beneath a DNAME.
    #[error(
        "{owner} lies beneath the DNAME of {dname}, which takes its place: delete the record, or the DNAME (RFC 6672 section 2.4)"
    )]
    BelowDname {
        /// The record's owner.
        owner: String,
        /// The owner of the DNAME.
        dname: String,
    },
    /// A DNAME at a wildcard or a zone cut.
    #[error("{owner} has a DNAME, but {why}")]
    StrayDname {
        /// Its owner.
        owner: String,
        /// What stands in its way.
        why: &'static str,
    },
    /// An ALIAS beside the records that it stands for.
    #[error(
        "{owner} has an ALIAS and also {other}: the addresses are those of the ALIAS's target; delete the one or the other"
    )]
    AliasBeside {
        /// Its owner.
        owner: String,
        /// A type that it has too.
        other: String,
    },
    /// A record that only a server at work makes, or that is not served yet.
    #[error("{owner} has a {rtype} record, which cannot be served from a file here: {remedy}")]
    Unserved {
        /// Its owner.
        owner: String,
        /// The type.
        rtype: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A steered name has records that the steering makes.
    #[error(
        "{owner} is steered, and its {rtype} record here would contradict that: delete the record, or do not steer the name"
    )]
    Steered {
        /// The name.
        owner: String,
        /// The type.
        rtype: String,
    },
    /// A steered name beneath a DNAME.
    #[error(
        "{owner} is steered, but the DNAME of {dname} stands for all names beneath it: steer the name that it leads to"
    )]
    Redirected {
        /// The name.
        owner: String,
        /// The owner of the DNAME.
        dname: String,
    },
    /// A steered name beneath a zone cut.
    #[error("{owner} is steered, but {cut} is delegated to other servers: nobody would ask here")]
    Delegated {
        /// The name.
        owner: String,
        /// The zone cut.
        cut: String,
    },
}

/// Reads and checks the zone that `zone` says.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(zone: &ZoneFile) -> Result<Zone, ZoneError> {
    let whole = || Place { file: Arc::from(zone.file.as_path()), line: 0 };
    let fail = |findings| ZoneError { origin: zone.origin.clone(), findings };
    let origin = name::parse(&zone.origin, None)
        .map_err(|error| fail(vec![Finding { place: whole(), problem: Problem::Origin(error) }]))?;
    let text = read(&zone.file).map_err(|reason| {
        fail(vec![Finding { place: whole(), problem: Problem::Read(format!("cannot be read: {reason}")) }])
    })?;
    let loaded = parse(&text, &zone.file, &origin, &mut read).map_err(fail)?;
    let findings = if zone.dnssec.is_some() { keys_told_twice(&loaded, &text, &zone.file) } else { Vec::new() };
    if findings.is_empty() { Ok(loaded) } else { Err(fail(findings)) }
}

/// What the master file of a zone that is signed here says of its keys: they are published from their own files.
fn keys_told_twice(zone: &Zone, text: &str, file: &Path) -> Vec<Finding> {
    let is_key = |t| matches!(t, rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY);
    if !zone.names.get(&zone.origin).is_some_and(|sets| sets.iter().any(|s| is_key(s.rtype))) {
        return Vec::new();
    }
    let said = master::parse(text, file, &zone.origin, &mut read).records;
    said.into_iter()
        .filter(|r| r.owner == zone.origin && is_key(r.rtype))
        .take(MAX_FINDINGS)
        .map(|r| Finding {
            place: r.place,
            problem: Problem::Unserved {
                owner: name::show(&r.owner),
                rtype: type_name(r.rtype).into_owned(),
                remedy: "the zone is signed here, and its keys are published from their own files; delete the record",
            },
        })
        .collect()
}

/// As [`load`], from a text that has been read already.
pub fn parse(
    text: &str,
    file: &Path,
    origin: &[u8],
    read: &mut dyn FnMut(&Path) -> Result<String, String>,
) -> Result<Zone, Vec<Finding>> {
    let origin = name::lower(origin);
    let contents = master::parse(text, file, &origin, read);
    let mut findings: Vec<Finding> =
        contents.findings.into_iter().map(|f| Finding { place: f.place, problem: f.problem.into() }).collect();
    let origin_text = name::show(&origin);
    let mut zone = Zone { origin, origin_text, names: BTreeMap::new() };
    for record in contents.records {
        if !name::is_within(&record.owner, &zone.origin) {
            if findings.len() >= MAX_FINDINGS {
                continue;
            }
            let problem = Problem::OutOfZone { owner: name::show(&record.owner), origin: zone.origin_text.clone() };
            findings.push(Finding { place: record.place, problem });
            continue;
        }
        add(&mut zone, record);
    }
    let whole = || Place { file: Arc::from(file), line: 0 };
    let judged: Vec<(&WireName, u16, Problem)> = zone
        .names
        .iter()
        .flat_map(|(owner, sets)| {
            judge(owner, sets, &zone).into_iter().map(move |(rtype, problem)| (owner, rtype, problem))
        })
        .take(MAX_FINDINGS)
        .collect();
    // Where a record stood is not kept, for a million of them are right; where one is wrong the file is read again.
    let again = if judged.is_empty() { Vec::new() } else { master::parse(text, file, &zone.origin, read).records };
    for (owner, rtype, problem) in judged {
        let place = again.iter().find(|r| r.owner == *owner && r.rtype == rtype).map(|r| r.place.clone());
        findings.push(Finding { place: place.unwrap_or_else(whole), problem });
    }
    if !zone.names.contains_key(&zone.origin) {
        findings.push(Finding { place: whole(), problem: Problem::Soa { found: 0 } });
    }
    findings.sort_by_key(|f| f.place.line);
    if findings.is_empty() { Ok(zone) } else { Err(findings) }
}

/// What steered names would contradict in the zones that they lie in; the router asks before it serves either.
pub fn conflicts(dns: &Dns, zones: &[Arc<Zone>]) -> Vec<Problem> {
    let mut found = Vec::new();
    let apexes = apexes(zones.iter().map(AsRef::as_ref));
    for steer in &dns.steers {
        let Ok(owner) = name::parse(&steer.name, None).map(|n| name::lower(&n)) else { continue };
        let Some(zone) = zone_of(&owner, &apexes).and_then(|i| zones.get(i as usize)) else { continue };
        let sets = zone.names.get(&owner).map(Vec::as_slice).unwrap_or_default();
        let cut = cut_above(&owner, zone).or_else(|| (owner != zone.origin && is_cut(sets)).then_some(&*owner));
        if let Some(cut) = cut {
            found.push(Problem::Delegated { owner: steer.name.clone(), cut: name::show(cut) });
            continue;
        }
        if let Some(dname) = dname_above(&owner, zone) {
            found.push(Problem::Redirected { owner: steer.name.clone(), dname: name::show(dname) });
            continue;
        }
        let made = |t| {
            matches!(t, rtype::A | rtype::AAAA | rtype::CNAME | rtype::ALIAS)
                || t == rtype::HTTPS && !steer.alpn.is_empty()
        };
        found.extend(
            sets.iter()
                .filter(|s| made(s.rtype))
                .map(|set| Problem::Steered { owner: steer.name.clone(), rtype: type_name(set.rtype).into_owned() }),
        );
    }
    found
}

fn add(zone: &mut Zone, record: Record) {
    let sets = zone.names.entry(record.owner).or_default();
    match sets.iter_mut().find(|s| s.rtype == record.rtype) {
        Some(set) => {
            // RFC 2181 section 5.2: one TTL for a set; the shortest is the one that promises least.
            set.ttl = set.ttl.min(record.ttl);
            if !set.rdatas.contains(&record.rdata) {
                set.rdatas.push(record.rdata);
            }
        }
        None => sets.push(RrSet { rtype: record.rtype, ttl: record.ttl, rdatas: vec![record.rdata] }),
    }
}

/// What is wrong with the sets of one name, each with the type to blame.
fn judge(owner: &[u8], sets: &[RrSet], zone: &Zone) -> Vec<(u16, Problem)> {
    let shown = || name::show(owner);
    let count = |rtype| sets.iter().find(|s| s.rtype == rtype).map_or(0, |s| s.rdatas.len());
    let mut found = Vec::new();
    if *owner == *zone.origin {
        if count(rtype::SOA) != 1 {
            found.push((rtype::SOA, Problem::Soa { found: count(rtype::SOA) }));
        }
        if count(rtype::NS) == 0 {
            found.push((rtype::NS, Problem::NoNs));
        }
    } else if count(rtype::SOA) > 0 {
        found.push((rtype::SOA, Problem::StraySoa { owner: shown() }));
    }
    if count(rtype::CNAME) > 0
        && let Some(other) = sets.iter().find(|s| s.rtype != rtype::CNAME)
    {
        found.push((rtype::CNAME, Problem::CnameBeside { owner: shown(), other: type_name(other.rtype).into_owned() }));
    }
    for single in [rtype::CNAME, rtype::DNAME, rtype::ALIAS] {
        if count(single) > 1 {
            let rtype = type_name(single).into_owned();
            found.push((single, Problem::Several { owner: shown(), rtype, found: count(single) }));
        }
    }
    if count(rtype::DNAME) > 0 {
        let why = match () {
            () if owner.starts_with(b"\x01*") => Some("a wildcard stands for names, not for what lies beneath them"),
            () if *owner != *zone.origin && is_cut(sets) => Some("its NS records delegate the names beneath it"),
            () => None,
        };
        found.extend(why.map(|why| (rtype::DNAME, Problem::StrayDname { owner: shown(), why })));
    }
    if let Some(dname) = dname_above(owner, zone)
        && let Some(first) = sets.first()
    {
        found.push((first.rtype, Problem::BelowDname { owner: shown(), dname: name::show(dname) }));
    }
    if count(rtype::ALIAS) > 0 {
        let beside = sets.iter().filter(|s| matches!(s.rtype, rtype::A | rtype::AAAA));
        found.extend(
            beside.map(|set| {
                (set.rtype, Problem::AliasBeside { owner: shown(), other: type_name(set.rtype).into_owned() })
            }),
        );
    }
    for set in sets {
        let remedy = match set.rtype {
            // RRSIG, NSEC, NSEC3, NSEC3PARAM: an unsigned server that gave them out would be taken for a broken signed one.
            46 | 47 | 50 | 51 => "load the unsigned zone",
            0 | rtype::OPT | 128..=255 => "it is no record",
            _ => continue,
        };
        // SPF (99) and types with no name are data like any other.
        found.push((set.rtype, Problem::Unserved { owner: shown(), rtype: type_name(set.rtype).into_owned(), remedy }));
    }
    found
}

fn read(path: &Path) -> Result<String, String> {
    file::text(path, MAX_FILE).map(|(text, _)| text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
