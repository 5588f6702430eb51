//! Several services behind one route.

use super::super::kinds::{By, Count, Keyed, List};
use super::super::reader::section;
use super::super::words::{Name, Prefix, Share, User};
use super::Weight;

/// Keys of `services = { ... }`.
#[derive(Clone, Debug)]
pub(in crate::config) struct ByService;

impl By for ByService {
    const NAME: &'static str = "service";
}

/// Keys of `values = { ... }`.
#[derive(Clone, Debug)]
pub(in crate::config) struct ByValue;

impl By for ByValue {
    const NAME: &'static str = "value";
}

section! {
    /// Services that share the requests of a route: gray release. A user (the route's `user`) stays on one side while the
    /// weights stay; when a weight grows, users come to that side and nobody else moves. Requests without a user are dealt
    /// by lot.
    Split {
        /// The services, each with its weight beside the others: `{ gift-list = 95, gift-list-next = 5 }`. 0 is reached by
        /// `override` only.
        services: Keyed<ByService, Weight, 16> = required,
        /// How a client may choose its side.
        choice as "override": Override = optional,
    } synonyms {
        sides: "services", weights: "services", force: "override", choice: "override", header: "override",
        cookie: "override",
    }
}

section! {
    /// How a client may choose its side of a split.
    Override {
        /// What chooses: `header:NAME` or `cookie:NAME`.
        by: User = required,
        /// Values that choose, with the service of each: `{ always = "gift-list-next", never = "gift-list" }`. Any other
        /// value says nothing.
        values: Keyed<ByValue, Name, 64> = required,
        /// Prefixes of clients who may choose. By default all may: then values are best hard to guess.
        from: List<Prefix, 1_024> = [],
    } synonyms {
        header: "by", cookie: "by", key: "by", trusted: "from", allow: "from", clients: "from",
    }
}

section! {
    /// Copies of requests for a service whose answers nobody waits for: one try each, with an `x-mirrored-by` header. The
    /// original never waits for them. Requests whose body is longer than 64 KiB or of unknown length are not copied.
    Mirror {
        /// The service that gets the copies.
        service: Name = required,
        /// The share of requests that is copied.
        share: Share = "100%",
        /// Copies under way at a time on this node; beyond them none are made.
        concurrent: Count<1, 10_000> = 64,
    } synonyms {
        to: "service", backend: "service", percent: "share", percentage: "share", max: "concurrent",
        concurrency: "concurrent", limit: "concurrent",
    }
}
