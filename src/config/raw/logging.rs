//! What is logged of requests, and how they are traced.

use super::super::kinds::Flag;
use super::super::model::{AccessFormat, Follow};
use super::super::reader::section;
use super::super::words::{File, Share, Time};
use super::HOUR;

section! {
    /// Logs of requests. The node's own log goes to standard error.
    Log {
        /// The access log. Without this section there is none.
        access: Access = optional,
    }
}

section! {
    /// The access log: a line for each request that is worth one. What does not fit is lost and counted: no request waits for a
    /// disk. Say one of `file`, `stdout` and `syslog`.
    Access {
        /// A file, appended to. Renamed or removed, it is made anew within a second, or at once on SIGUSR1.
        file: File = optional,
        /// Whether to write to standard output.
        stdout: Flag = false,
        /// A socket that takes datagrams, such as `/dev/log`: a line each.
        syslog: File = optional,
        /// `json`, or `combined` as Apache and nginx have it with our fields behind it.
        format: AccessFormat = "json",
        /// The share that is written by lot. Failures, retries and what is slow are always written; each line has its share
        /// in `sample`, so that one can scale up.
        sample: Share = "100%",
        /// From this time on a request is slow.
        slow: Time<1, HOUR> = "1s",
    } synonyms {
        path: "file", to: "file", access_log: "file", rate: "sample", log_format: "format", socket: "syslog",
    }
}

section! {
    /// Traces (W3C Trace Context): every request is a span, and the parent of what backends do for it. Its ids stand in the
    /// access log.
    Trace {
        /// The share of traces begun here that is recorded. A trace that is continued is recorded where it was begun so.
        sample: Share = "1%",
        /// Whose traces are continued: `trusted` (peers in `trusted` of the listener), or `all`. Others get a new trace.
        follow: Follow = "trusted",
    } synonyms {
        rate: "sample", ratio: "sample", sampling: "sample", trust: "follow",
    }
}
