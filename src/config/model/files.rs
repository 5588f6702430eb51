//! Static files of a route.

use std::path::PathBuf;

/// A folder whose files a route answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The folder.
    pub root: PathBuf,
    /// What answers for a folder: the first of these that is there. Default `index.html`.
    pub index: Vec<String>,
    /// Whether files are kept in memory. Default false.
    pub preload: bool,
    /// Octets of memory for that, at most. Default 64 MiB.
    pub memory: u64,
    /// Codings in which files may lie beside themselves, the best first. Default none.
    pub precompressed: Vec<Coding>,
    /// `Cache-Control` of what is there. Default none.
    pub cache_control: Option<String>,
    /// The file, below the root, that answers in place of what is not there.
    pub fallback: Option<String>,
    /// The file, below the root, that goes with a 404.
    pub not_found: Option<String>,
    /// Whether names that begin with a dot are shown. Default false.
    pub hidden: bool,
}

/// A coding in which a file may lie beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Brotli: `.br`.
    Br,
    /// Zstandard: `.zst`.
    Zstd,
    /// Gzip: `.gz`.
    Gzip,
}

impl Coding {
    /// As HTTP calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// How such a file's name ends.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Br => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}
