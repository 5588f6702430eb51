//! A folder of files: what of it a request means.
//!
//! ```text
//!   a file              -> it, in the coding that the client prefers of those that lie beside it
//!   a folder            -> asked for with a slash: the first index that is there; without: sent to where it has one
//!   anything else       -> the fallback, or the page for what is missing, or nothing
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;
use http::request::Parts;
use metrics::Counter;

use super::answer::How;
use super::body;
use super::memory::Memory;
use crate::base::clock::{Mono, Wall};
use crate::config::{Coding, Files, Route};
use crate::decide::files::coding::{self, Codings};
use crate::decide::files::kinds;
use crate::decide::files::name::{self, Name};
use crate::decide::route::pattern::Pattern;
use crate::net::sys::beneath::Root;
use crate::observe::names::proxy as names;

/// Files of up to so many octets are read in one go with being found (ours).
const SMALL: u64 = 64 * 1024;
/// At most one line of the log in so long about a disk that does not answer.
const QUIET: Duration = Duration::from_secs(1);

/// A folder of files, as one route shows it.
#[derive(Debug)]
pub(in crate::proxy) struct Shelf {
    pub(super) files: Files,
    /// Its route's name.
    pub(super) route: String,
    /// The path that stands for the root; `None`: the whole path is looked for.
    prefix: Option<Pattern>,
    memory: Option<Memory>,
    counts: [Counter; How::ALL.len()],
    quiet_until: AtomicU64,
}

/// What is looked for.
pub(super) struct Wanted {
    /// `None`: nothing that could be there.
    name: Option<Name>,
    codings: Codings,
}

/// What was found.
pub(super) enum Found {
    /// A file.
    File(Copy),
    /// A folder, asked for like a file.
    Folder,
    /// Nothing.
    Nothing,
}

/// A file, ready to be sent.
pub(super) struct Copy {
    pub(super) volume: Volume,
    pub(super) coding: Option<Coding>,
    /// Its media type.
    pub(super) kind: &'static str,
    /// 200, or 404 where it tells of what is missing.
    pub(super) status: StatusCode,
}

/// What lies at one name.
#[derive(Clone)]
pub(super) struct Volume {
    pub(super) content: Content,
    pub(super) length: u64,
    pub(super) etag: HeaderValue,
    pub(super) modified: Wall,
}

/// Where its octets are.
#[derive(Clone)]
pub(super) enum Content {
    /// In memory.
    Kept(Bytes),
    /// On disk, as it was when it was found.
    File(Arc<File>, Stamp),
}

/// What a file is known by: if this has changed, so may have its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) length: u64,
    /// When it was written, in nanoseconds.
    pub(super) modified: i128,
    inode: u64,
}

impl Stamp {
    /// Of what `metadata` tells.
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { length: metadata.len(), modified, inode: metadata.ino() }
    }

    /// When the file was written, to the second, as HTTP has it.
    pub(super) fn second(&self) -> Wall {
        Wall(u64::try_from(self.modified / 1_000_000_000).unwrap_or(0).saturating_mul(1_000))
    }

    fn etag(&self) -> HeaderValue {
        let tag = format!("\"{:x}-{:x}-{:x}\"", self.modified, self.length, self.inode);
        HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
    }
}

/// What a name stands for.
pub(super) enum Place<V> {
    File(V),
    Folder,
    Nothing,
}

/// Somewhere to look for names.
pub(super) trait Library {
    /// What stands at `path`, which is empty for the root.
    ///
    /// # Errors
    /// It cannot be told.
    fn open(&self, path: &[u8]) -> io::Result<Place<Volume>>;
}

impl Library for Root {
    fn open(&self, path: &[u8]) -> io::Result<Place<Volume>> {
        let file = match self.file(path) {
            Ok(file) => file,
            Err(error) if is_nothing(&error) => return Ok(Place::Nothing),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Place::Folder);
        }
        // Pipes, sockets and devices are no files to us.
        if !metadata.is_file() {
            return Ok(Place::Nothing);
        }
        let stamp = Stamp::of(&metadata);
        let (length, etag, modified) = (stamp.length, stamp.etag(), stamp.second());
        Ok(Place::File(Volume { content: Content::File(Arc::new(file), stamp), length, etag, modified }))
    }
}

/// Whether an error means that there is nothing at a name, for a client at least.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    // ENXIO: a socket, or a pipe that nobody writes to.
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | InvalidFilename)
        || error.raw_os_error() == Some(libc::ENXIO)
}

impl Shelf {
    /// The files that `route` shows; `None`: it shows none.
    pub(in crate::proxy) fn of(route: &Route) -> Option<Arc<Self>> {
        let crate::config::Action::Files(files) = &route.action else { return None };
        let prefix = Pattern::of(&route.matches.path);
        Some(Arc::new(Self {
            files: (**files).clone(),
            route: route.name.clone(),
            prefix: (!route.matches.path.is_exact()).then_some(prefix),
            memory: files.preload.then(|| Memory::new(&route.name)),
            counts: How::ALL.map(|how| names::FILES.counter(&[&route.name, how.as_str()])),
            quiet_until: AtomicU64::new(0),
        }))
    }

    /// Counts an answer.
    pub(super) fn count(&self, how: How) {
        if let Some(count) = self.counts.get(how as usize) {
            count.increment(1);
        }
    }

    /// Tells the log of a disk that does not answer.
    pub(super) fn complain(&self, error: &io::Error, now: Mono) {
        if now.nanos() >= self.quiet_until.load(Relaxed) {
            self.quiet_until.store((now + QUIET).nanos(), Relaxed);
            let root = self.files.root.display();
            tracing::error!(route = self.route.as_str(), %root, %error, "files cannot be read");
        }
    }

    /// The file that a path means, if it means one.
    pub(in crate::proxy) fn name(&self, path: &str) -> Option<Name> {
        let inner = match &self.prefix {
            Some(prefix) => prefix.behind(path)?,
            None => path,
        };
        name::name(inner, self.files.hidden)
    }

    /// What the request with `head` looks for.
    pub(super) fn wanted(&self, head: &Parts) -> Wanted {
        Wanted { name: self.name(head.uri.path()), codings: coding::choose(&head.headers, &self.files.precompressed) }
    }

    /// Looks in memory. `None`: that does not tell.
    pub(super) fn remember(&self, wanted: &Wanted) -> Option<Found> {
        self.resolve(self.memory.as_ref()?, wanted).ok()
    }

    /// Looks on disk, and reads what is small. May take its time.
    ///
    /// # Errors
    /// The disk's, and that the root is not there.
    pub(super) fn look(&self, wanted: &Wanted) -> io::Result<Found> {
        let mut found = self.resolve(&Root::open(&self.files.root)?, wanted)?;
        if let Found::File(copy) = &mut found
            && let Content::File(file, stamp) = &copy.volume.content
            && stamp.length <= SMALL
        {
            copy.volume.content = Content::Kept(body::read(file, stamp, 0, stamp.length)?);
        }
        Ok(found)
    }

    fn resolve(&self, library: &impl Library, wanted: &Wanted) -> io::Result<Found> {
        if let Some(name) = &wanted.name {
            match library.open(&name.path)? {
                Place::File(volume) if !name.is_folder => {
                    return Self::coded(library, &name.path, volume, &wanted.codings, StatusCode::OK);
                }
                Place::Folder if name.is_folder => {
                    for index in &self.files.index {
                        let path = [&name.path[..], b"/", index.as_bytes()].concat();
                        let path = path.strip_prefix(b"/").unwrap_or(&path);
                        if let Place::File(volume) = library.open(path)? {
                            return Self::coded(library, path, volume, &wanted.codings, StatusCode::OK);
                        }
                    }
                }
                Place::Folder => return Ok(Found::Folder),
                Place::File(_) | Place::Nothing => {}
            }
        }
        let fallback = self.files.fallback.iter().map(|path| (path, StatusCode::OK));
        let not_found = self.files.not_found.iter().map(|path| (path, StatusCode::NOT_FOUND));
        for (path, status) in fallback.chain(not_found) {
            if let Place::File(volume) = library.open(path.as_bytes())? {
                return Self::coded(library, path.as_bytes(), volume, &wanted.codings, status);
            }
        }
        Ok(Found::Nothing)
    }

    /// `volume`, which lies at `path`, in the first of `codings` that lies beside it.
    fn coded(
        library: &impl Library,
        path: &[u8],
        volume: Volume,
        codings: &Codings,
        status: StatusCode,
    ) -> io::Result<Found> {
        let kind = kinds::kind(path);
        for &coding in codings {
            if let Place::File(volume) = library.open(&[path, coding.suffix().as_bytes()].concat())? {
                return Ok(Found::File(Copy { volume, coding: Some(coding), kind, status }));
            }
        }
        Ok(Found::File(Copy { volume, coding: None, kind, status }))
    }

    /// Looks after what is kept in memory, where that is due.
    pub(in crate::proxy) fn tend(self: &Arc<Self>, now: Mono) {
        if let Some(memory) = &self.memory {
            memory.tend(self, now);
        }
    }

    /// Its memory, for who fills it.
    pub(super) const fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }
}
