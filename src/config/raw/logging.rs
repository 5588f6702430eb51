//! What is logged of requests, and how they are traced.

use super::super::kinds::{By, Flag, Keyed};
use super::super::model::{AccessFormat, Follow};
use super::super::reader::section;
use super::super::words::{File, Share, Text, Time, Url};
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
        /// Where the spans of recorded traces go. Needs a build with the feature `otlp`. Without this section they go nowhere.
        export: Export = optional,
    } synonyms {
        otlp: "export", exporter: "export", collector: "export",
        rate: "sample", ratio: "sample", sampling: "sample", trust: "follow",
    }
}

/// Names of attributes.
#[derive(Clone, Debug)]
pub(in crate::config) struct ByAttribute;

impl By for ByAttribute {
    const NAME: &'static str = "attribute";
}

section! {
    /// A collector of spans: OTLP over HTTP, as protobuf. A span for each recorded request and one for each of its tries at
    /// backends. What the collector does not take in time is dropped and counted: no request waits for it.
    Export {
        /// Its URL, `http` or `https`. Where it has no path, `/v1/traces`.
        endpoint: Url = required,
        /// File with the authorities that an `https` one is verified by, PEM.
        ca: File = optional,
        /// Our own certificate, if it asks for one: the chain, PEM.
        certificate: File = optional,
        /// Its private key, PEM.
        key: File = optional,
        /// A file with what every request to it carries: `name: value` in each line, `#` begins a remark. For tokens; readable
        /// by this user alone. Read again with every reload.
        headers: File = optional,
        /// How long it may take to answer a request.
        timeout: Time<100, 60_000> = "10s",
        /// What is told of this node beside `service.name` (springtide), `service.version`, `service.instance.id` (the name of
        /// the node) and `springtide.datacenter`. `service.name` may be another one.
        attributes: Keyed<ByAttribute, Text, 64> = {},
    } later {
        protocol: "OTLP over HTTP as protobuf is spoken, and nothing else: let a collector translate",
        compression: "requests are not compressed",
        interval: "what is there is sent each second, or sooner when there is much",
    } synonyms {
        url: "endpoint", to: "endpoint", address: "endpoint", header: "headers", headers_file: "headers", token_file: "headers",
        ca_file: "ca", cert: "certificate", resource: "attributes", resource_attributes: "attributes",
    }
}
