//! `springtide keys`: makes, lists and rolls the keys of a signed zone. Works on files alone; a server takes them up with
//! its next reload, and from there on follows their times by itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::table::{Paint, Table, Tone, cell};
use super::ticket_keys::{TicketKeysFailure, TicketsArgs};
use super::{duration, finish};
use crate::base::clock::{Clock as _, SystemClock};
use crate::dns::sign::keys::{self, Finding, KeysError, State, when};
use crate::dns::sign::roll::{self, Holds, Role, RollError, Then};
use crate::dns::sign::{ds_of, generate};
use crate::wire::dnssec::keyfile::{Key, Public, Times};
use crate::wire::dnssec::{Algorithm, SEP, ZONE_KEY};
use crate::wire::rdata::type_name;
use crate::wire::{dns::rtype, name, text};

/// Makes, lists and rolls the keys of a signed zone (DNSSEC), and those of session tickets.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes a key that is in use at once: by default one that signs everything (CSK).
    Make(MakeArgs),
    /// Lists the keys: what each does now, and what it will do next.
    List(OfArgs),
    /// Prints the DS records for the parent: of every key that it should point to now.
    Ds(OfArgs),
    /// Does the next step of rolling a key, and says what follows when. Safe to repeat: what is under way is told.
    Roll(RollArgs),
    /// Makes or rotates the keys of TLS session tickets that a fleet shares. Not DNSSEC: a file of its own.
    Tickets(TicketsArgs),
}

/// A zone and its keys.
#[derive(Debug, Args)]
struct OfArgs {
    /// The zone.
    zone: String,
    /// The folder of its key files.
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
}

/// What a new key is to be.
#[derive(Debug, Args)]
struct MakeArgs {
    /// The zone.
    zone: String,
    /// The folder of its key files.
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
    /// How it signs.
    #[arg(long, value_enum, default_value_t = Word::EcdsaP256)]
    algorithm: Word,
    /// One for the DNSKEY set, beside a ZSK.
    #[arg(long, conflicts_with = "zsk")]
    ksk: bool,
    /// One for the records, beside a KSK.
    #[arg(long)]
    zsk: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// ECDSA on P-256 with SHA-256: algorithm 13.
    #[value(alias = "13")]
    EcdsaP256,
    /// Ed25519: algorithm 15.
    #[value(alias = "15")]
    Ed25519,
}

/// What is rolled, and how long whoever keeps the old records keeps them.
#[derive(Debug, Args)]
struct RollArgs {
    /// The zone.
    zone: String,
    /// The folder of its key files.
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
    /// Roll the key that signs records beside a KSK; else the one that the parent's DS points to.
    #[arg(long)]
    zsk: bool,
    /// The parent's servers give out the DS of the new key: look with `dig DS ZONE` at each of them.
    #[arg(long, conflicts_with = "zsk")]
    parent_has_ds: bool,
    /// TTL of the DNSKEY set (`dnskey_ttl` of the configuration).
    #[arg(long, value_parser = duration, default_value = "1h")]
    dnskey_ttl: Duration,
    /// The longest TTL in the zone.
    #[arg(long, value_parser = duration, default_value = "1d")]
    max_ttl: Duration,
    /// TTL of the DS set at the parent.
    #[arg(long, value_parser = duration, default_value = "1d")]
    parent_ttl: Duration,
    /// Added to each: for reloads, slow secondaries and clocks.
    #[arg(long, value_parser = duration, default_value = "1h")]
    margin: Duration,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum KeysFailure {
    #[error("`{0}` is not a zone's name: {1}")]
    Zone(String, name::NameError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("{0}")]
    File(Finding),
    #[error(transparent)]
    Roll(#[from] RollError),
    #[error("{stem} does that already: roll it with `springtide keys roll`, and it is replaced without a gap")]
    There { stem: String },
    #[error("the folder {0} cannot be made: {1}")]
    Folder(PathBuf, std::io::Error),
    #[error("the system gives no random numbers")]
    Entropy,
    #[error(transparent)]
    Tickets(#[from] TicketKeysFailure),
}

impl KeysArgs {
    pub(super) fn run(self) -> ExitCode {
        let now = u32::try_from(SystemClock.wall().0 / 1_000).unwrap_or(u32::MAX);
        finish(match self.what {
            What::Make(args) => args.run(now),
            What::List(args) => args.list(now),
            What::Ds(args) => args.ds(now),
            What::Roll(args) => args.run(now),
            What::Tickets(args) => args.run().map_err(Into::into),
        })
    }
}

fn apex(zone: &str) -> Result<Box<[u8]>, KeysFailure> {
    let whole = if zone.ends_with('.') { zone.to_owned() } else { format!("{zone}.") };
    name::parse(&whole, None).map(|n| name::lower(&n)).map_err(|e| KeysFailure::Zone(zone.into(), e))
}

#[expect(clippy::print_stderr, reason = "warnings go to standard error")]
fn load(origin: &[u8], dir: &std::path::Path) -> Result<Vec<Key>, KeysFailure> {
    let (keys, warnings) = keys::load(origin, dir)?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(keys)
}

impl MakeArgs {
    #[expect(clippy::print_stdout, reason = "what was made is the output")]
    fn run(self, now: u32) -> Result<ExitCode, KeysFailure> {
        let origin = apex(&self.zone)?;
        std::fs::create_dir_all(&self.dir).map_err(|e| KeysFailure::Folder(self.dir.clone(), e))?;
        let algorithm = match self.algorithm {
            Word::EcdsaP256 => Algorithm::EcdsaP256,
            Word::Ed25519 => Algorithm::Ed25519,
        };
        let flags = if self.zsk { ZONE_KEY } else { ZONE_KEY | SEP };
        let (there, _) = keys::all(&origin, &self.dir)?;
        let same = |k: &&Key| k.public.flags == flags && State::of(&k.private.times, now) != State::Gone;
        if let Some(key) = there.iter().find(same) {
            return Err(KeysFailure::There { stem: key.public.stem() });
        }
        let times = Times { created: Some(now), publish: Some(now), activate: Some(now), ..Times::default() };
        let key = generate(origin, flags, algorithm, times).ok_or(KeysFailure::Entropy)?;
        let path = keys::store(&key, &self.dir).map_err(KeysFailure::File)?;
        println!("{}.key and .private are made.", path.display());
        if !self.zsk {
            println!("When the zone is signed and every server has reloaded, give its parent this record:\n");
            println!("{}", ds_line(&key.public));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn ds_line(public: &Public) -> String {
    let data = text::show(rtype::DS, &ds_of(public));
    format!("{} IN {} {data}", name::show(&public.owner), type_name(rtype::DS))
}

impl OfArgs {
    #[expect(clippy::print_stdout, reason = "the table is the output")]
    fn list(self, now: u32) -> Result<ExitCode, KeysFailure> {
        let keys = load(&apex(&self.zone)?, &self.dir)?;
        let paint = Paint::for_stdout();
        let mut table = Table::new(&["TAG", "ALGORITHM", "ROLE", "STATE", "THEN", "DS"]);
        for key in &keys {
            let Key { public, private } = key;
            let state = State::of(&private.times, now);
            let tone = match state {
                State::Active => Tone::Good,
                State::Published | State::Future => Tone::Watch,
                State::Retired | State::Gone => Tone::Soft,
            };
            let then =
                upcoming(&private.times, now).map_or_else(String::new, |(what, at)| format!("{what} {}", when(at)));
            let ds = if public.is_entry() { text::show(rtype::DS, &ds_of(public)) } else { String::new() };
            table.row([
                public.tag().to_string().into(),
                public.algorithm.to_string().into(),
                keys::role(key, &keys).into(),
                cell(tone, state.as_str()),
                then.into(),
                cell(Tone::Soft, ds),
            ]);
        }
        table.lines(paint).iter().for_each(|line| println!("{line}"));
        warn_of_lapses(&keys, now);
        Ok(ExitCode::SUCCESS)
    }

    #[expect(clippy::print_stdout, reason = "the records are the output")]
    fn ds(self, now: u32) -> Result<ExitCode, KeysFailure> {
        for key in keys::asked(&load(&apex(&self.zone)?, &self.dir)?, now) {
            println!("{}", ds_line(&key.public));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[expect(clippy::print_stderr, reason = "warnings go to standard error")]
fn warn_of_lapses(keys: &[Key], now: u32) {
    for (lapse, at) in keys::lapses(keys, now) {
        eprintln!("warning: {}: roll them with `springtide keys roll`", lapse.says(at, now));
    }
}

/// What happens to a key next.
fn upcoming(times: &Times, now: u32) -> Option<(&'static str, u32)> {
    let Times { publish, activate, inactive, delete, sync_publish, sync_delete, .. } = *times;
    let events = [
        ("published", publish),
        ("offered to the parent", sync_publish),
        ("active", activate),
        ("retired", inactive),
        ("withdrawn from the parent", sync_delete),
        ("gone", delete),
    ];
    let ahead = events.into_iter().filter_map(|(what, at)| Some((what, at.filter(|at| *at > now)?)));
    ahead.min_by_key(|(_, at)| *at)
}

impl RollArgs {
    #[expect(clippy::print_stdout, reason = "what was done and what follows is the output")]
    fn run(self, now: u32) -> Result<ExitCode, KeysFailure> {
        let origin = apex(&self.zone)?;
        let mut all = load(&origin, &self.dir)?;
        let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        let holds = Holds {
            dnskey: seconds(self.dnskey_ttl),
            longest: seconds(self.max_ttl),
            parent: seconds(self.parent_ttl),
            margin: seconds(self.margin),
        };
        let role = if self.zsk { Role::Zone } else { Role::Entry };
        let step = roll::step(&all, role, self.parent_has_ds, &holds, now)?;
        let mut offered = all.iter().find(|k| waits(k, now)).map(|k| k.public.clone());
        // The new key first: should a later write fail, nothing has been ended.
        if let Some((flags, algorithm, times)) = step.make {
            let key = generate(origin, flags, algorithm, times).ok_or(KeysFailure::Entropy)?;
            let path = keys::store(&key, &self.dir).map_err(KeysFailure::File)?;
            println!("{}.key and .private are made.", path.display());
            offered = Some(key.public);
        }
        let changed = !step.change.is_empty() || step.make.is_some();
        for (index, times) in step.change {
            let Some(key) = all.get_mut(index) else { continue };
            key.private.times = times;
            let path = keys::store(key, &self.dir).map_err(KeysFailure::File)?;
            println!("{}.private has new times.", path.display());
        }
        if changed {
            println!("Reload every server of the zone now.");
        }
        for (at, then) in step.then {
            let at = if at <= now { "now".to_owned() } else { format!("at {}", when(at)) };
            match then {
                Then::TakesOver => println!("{at}: the new key takes over by itself."),
                Then::Leaves => println!("{at}: the old key has left the zone; its files may be put away then."),
                Then::RemoveDs => println!("{at}: have the parent remove the old key's DS (CDS asks for it)."),
                Then::GiveDs => {
                    println!("{at}: give the parent the new key's DS beside the old one's (CDS offers it):");
                    if let Some(public) = &offered {
                        println!("  {}", ds_line(public));
                    }
                    println!(
                        "then, when every server of the parent has it: springtide keys roll {} --parent-has-ds",
                        self.zone
                    );
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether a key is published for the parent to learn of.
fn waits(key: &Key, now: u32) -> bool {
    key.public.is_entry() && State::of(&key.private.times, now) == State::Published
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        keys: KeysArgs,
    }

    fn make(dir: &std::path::Path, more: &[&str]) -> Result<ExitCode, KeysFailure> {
        let dir = dir.to_str().unwrap();
        let parsed = Alone::try_parse_from([&["keys", "make", "z.", "--dir", dir], more].concat()).ok().unwrap();
        let What::Make(args) = parsed.keys.what else { panic!("another command") };
        args.run(1_000_000)
    }

    #[test]
    fn a_key_that_is_there_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &["--zsk"]).unwrap();
        let again = make(dir.path(), &["--zsk"]).unwrap_err();
        assert!(matches!(again, KeysFailure::There { .. }), "a ZSK alone, before its KSK is made: {again}");
        make(dir.path(), &["--ksk"]).unwrap();
        assert!(matches!(make(dir.path(), &[]).unwrap_err(), KeysFailure::There { .. }));
    }

    #[test]
    fn nothing_is_made_beside_a_file_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[]).unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let private = files().into_iter().find(|f| f.extension().is_some_and(|e| e == "private")).unwrap();
        let whole = std::fs::read(&private).unwrap();
        std::fs::write(&private, &whole[..whole.len() / 2]).unwrap();
        let wrong = make(dir.path(), &[]).unwrap_err();
        assert!(matches!(wrong, KeysFailure::Keys(_)) && wrong.to_string().contains(".private: "), "{wrong}");
        assert_eq!(files().len(), 2);
    }

    #[test]
    fn every_command_says_what_it_does() {
        let about = |name: &str| {
            let command = Alone::command();
            command.find_subcommand(name).and_then(|c| c.get_about()).unwrap().to_string()
        };
        let told =
            ["make", "list", "ds", "roll", "tickets"].map(|name| about(name).split(' ').next().unwrap().to_owned());
        assert_eq!(told, ["Makes", "Lists", "Prints", "Does", "Makes"]);
    }
}
