//! Static files of a route.

use super::super::kinds::{Flag, List};
use super::super::model::Coding;
use super::super::reader::section;
use super::super::words::{File, Size, Text};

section! {
    /// A folder whose files are the answer. What is asked for is what follows the prefix that `match` matched; with an exact path,
    /// the whole of it.
    Files {
        /// The folder. Nothing outside it is ever read: links are followed within it only.
        root: File = required,
        /// What answers for a folder: the first of these that is there. Folders are never listed.
        index: List<Text, 8> = ["index.html"],
        /// Keeps files of up to 1 MiB in memory, and looks every two seconds whether they have changed.
        preload: Flag = false,
        /// Memory for that, at most. What does not fit is read when it is asked for.
        memory: Size = "64MiB",
        /// Codings in which files lie beside themselves, the best first: `br` as `.br`, `zstd` as `.zst`, `gzip` as `.gz`.
        precompressed: List<Coding, 3> = [],
        /// `Cache-Control` of what is there.
        cache_control: Text = optional,
        /// The file, below `root`, that answers with 200 in place of what is not there: for applications of a single page.
        fallback: Text = optional,
        /// The file, below `root`, that goes with a 404.
        not_found: Text = optional,
        /// Whether names that begin with a dot are shown. `.well-known` always is.
        hidden: Flag = false,
    } later {
        listing: "folders are not listed: put an index there",
        autoindex: "folders are not listed: put an index there",
        expires: "say it in full: `cache_control = \"max-age=3600\"`",
    } synonyms {
        folder: "root", dir: "root", path: "root", indexes: "index", compressed: "precompressed", spa: "fallback",
        try_files: "fallback", error_page: "not_found", dotfiles: "hidden", cache: "cache_control",
    }
}
