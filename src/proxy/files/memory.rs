//! Files that are kept in memory: all that fit, looked after every two seconds.
//!
//! The first look happens after the start, or after a reload, and until it is done files are read when they are asked for;
//! so are those that are too large, and what links lead to. A file is replaced as a whole, and one that changes while it
//! is read is left out until it has settled.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use metrics::Gauge;

use super::body;
use super::shelf::{Content, Library, Place, Shelf, Stamp, Volume};
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::base::hash;
use crate::base::task;
use crate::net::sys::beneath::Root;
use crate::observe::names::proxy as names;

/// Largest file that is kept.
const LARGEST: u64 = 1 << 20;
/// Most files and folders that are looked at.
const MOST: usize = 50_000;
/// Time between two looks, at the least.
const PAUSE: Duration = Duration::from_secs(2);
/// A look may take this share of the time, at the most: one in so many.
const SHARE: u32 = 50;

/// The files of one shelf, as far as they are kept.
#[derive(Debug)]
pub(super) struct Memory {
    tree: ArcSwap<Tree>,
    /// When they are looked at next, in nanoseconds, and whether somebody is at it.
    due: AtomicU64,
    is_busy: AtomicBool,
    held: Gauge,
}

/// One state of them.
#[derive(Debug, Default)]
struct Tree {
    files: HashMap<Vec<u8>, Kept>,
    folders: HashSet<Vec<u8>>,
    /// Names that are there and not kept: too large, led to by links, hidden, or not to be read.
    elsewhere: HashSet<Vec<u8>>,
    /// Whether what is nowhere in it is not there.
    is_complete: bool,
    octets: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    stamp: Stamp,
    etag: HeaderValue,
    octets: Bytes,
}

impl Library for Memory {
    fn open(&self, path: &[u8]) -> io::Result<Place<Volume>> {
        let tree = self.tree.load();
        if let Some(kept) = tree.files.get(path) {
            return Ok(Place::File(Volume {
                content: Content::Kept(kept.octets.clone()),
                length: kept.octets.len() as u64,
                etag: kept.etag.clone(),
                modified: kept.stamp.second(),
            }));
        }
        if tree.folders.contains(path) {
            return Ok(Place::Folder);
        }
        // Whoever asks goes to the disk then.
        if tree.is_complete && !tree.is_elsewhere(path) {
            Ok(Place::Nothing)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

impl Memory {
    /// Empty, of the files of `route`.
    pub(super) fn new(route: &str) -> Self {
        Self {
            tree: ArcSwap::default(),
            due: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            held: names::FILES_MEMORY.gauge(&[route]),
        }
    }

    /// Has another thread look at the files of `shelf` again, where that is due.
    pub(super) fn tend(&self, shelf: &Arc<Shelf>, now: Mono) {
        if now.nanos() < self.due.load(Relaxed) || self.is_busy.swap(true, Relaxed) {
            return;
        }
        let shelf = Arc::clone(shelf);
        let looking = tokio::task::spawn_blocking(move || {
            if let Some(memory) = shelf.memory() {
                memory.refresh(&shelf);
            }
        });
        task::spawn("files", async { drop(looking.await) }).detach();
    }

    fn refresh(&self, shelf: &Shelf) {
        let began = SystemClock.mono();
        let before = self.tree.load_full();
        match Tree::of(shelf, &before) {
            Ok((tree, true)) => {
                self.held.set(tree.octets as f64);
                self.tree.store(Arc::new(tree));
            }
            Ok((_, false)) => {}
            // What was kept may be older than what is there, but there is nothing better.
            Err(error) => shelf.complain(&error, began),
        }
        let ended = SystemClock.mono();
        self.due.store((ended + PAUSE.max(ended.since(began) * SHARE)).nanos(), Relaxed);
        self.is_busy.store(false, Relaxed);
    }
}

impl Tree {
    /// What is there now, and whether that is something else than `before`.
    fn of(shelf: &Shelf, before: &Self) -> io::Result<(Self, bool)> {
        let root = Root::open(&shelf.files.root)?;
        let mut tree = Self { is_complete: true, ..Self::default() };
        let mut is_new = false;
        let mut open: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(folder) = open.pop() {
            let path = shelf.files.root.join(Path::new(std::ffi::OsStr::from_bytes(&folder)));
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let name = entry.file_name().into_vec();
                let is_hidden = name.first() == Some(&b'.') && !shelf.files.hidden && name != b".well-known";
                let path = if folder.is_empty() { name } else { [&folder[..], b"/", &name].concat() };
                let kind = entry.file_type()?;
                if tree.files.len() + tree.folders.len() + tree.elsewhere.len() >= MOST {
                    tree.is_complete = false;
                } else if is_hidden {
                    tree.elsewhere.insert(path);
                } else if kind.is_dir() {
                    open.push(path);
                } else {
                    let room = shelf.files.memory - tree.octets;
                    let kept =
                        kind.is_file().then(|| Self::keep(&root, &path, before.files.get(&path), room)).flatten();
                    if let Some((kept, is_fresh)) = kept {
                        is_new |= is_fresh;
                        tree.octets += kept.octets.len() as u64;
                        tree.files.insert(path, kept);
                    } else {
                        tree.elsewhere.insert(path);
                    }
                }
            }
            tree.folders.insert(folder);
        }
        is_new |= tree.files.len() != before.files.len() || tree.folders != before.folders;
        is_new |= tree.elsewhere != before.elsewhere || tree.is_complete != before.is_complete;
        Ok((tree, is_new))
    }

    /// Whether `path`, or a folder above it, is not kept.
    fn is_elsewhere(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
        ends.filter_map(|end| path.get(..end)).any(|above| self.elsewhere.contains(above))
    }

    /// The file at `path`, as it was kept before where it has not changed. `None`: it is not kept.
    fn keep(root: &Root, path: &[u8], before: Option<&Kept>, room: u64) -> Option<(Kept, bool)> {
        let file = root.file(path).ok()?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let stamp = Stamp::of(&metadata);
        if stamp.length > LARGEST.min(room) {
            return None;
        }
        if let Some(before) = before.filter(|before| before.stamp == stamp) {
            return Some((before.clone(), false));
        }
        let octets = body::read(&file, &stamp, 0, stamp.length).ok()?;
        let tag = format!("\"{:016x}{:016x}\"", hash::bytes(0, &octets), hash::bytes(1, &octets));
        let etag = HeaderValue::try_from(tag).ok()?;
        Some((Kept { stamp, etag, octets }, true))
    }
}
