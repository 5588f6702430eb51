//! Backends as they are written: an address, or where their addresses are found.

use super::super::kinds::{Count, List, Yes};
use super::super::reader::section;
use super::super::words::{DomainName, File, Named, Peer, Prefix, Time};
use super::{WEEK, Weight};

section! {
    /// A backend with more than an address, or a source of backends: one of `address`, `dns`, `srv`, `file`, `register`.
    ///
    /// What a source finds is followed while the node runs, and what is known of backends that stay is kept. A source that
    /// cannot be asked, or that would take away more than half of its backends at once, changes nothing; see `keep`.
    Backend {
        /// Where it listens.
        address: Peer = optional,
        /// All addresses of this name, at this port, as its A and AAAA records say: asked again when their TTL ends.
        dns: Named = optional,
        /// What the SRV records of this name say (RFC 2782): targets, ports and weights, of the lowest priority alone.
        srv: DomainName = optional,
        /// A file with a backend in each line, `ADDRESS[:PORT] [weight=N] [name=NAME]`, or a list in JSON. Looked at every
        /// second.
        file: File = optional,
        /// Backends announce themselves through the admin API, and are gone when their heartbeats are.
        register: Yes = optional,
        /// Who may be registered. Without it any address.
        allow: List<Prefix, 256> = [],
        /// The port of addresses that a file says without one.
        port: Count<1, 65_535> = optional,
        /// Its share beside the other backends of this service in this datacenter; of a source, where that says nothing
        /// of its backends.
        weight: Weight = 1,
        /// How long a source must say the same before it is believed that most of its backends have gone. By default as
        /// `[discovery]` says.
        keep: Time<0, WEEK> = optional,
    } synonyms {
        addr: "address", ip: "address", host: "dns", share: "weight", name: "dns", hostname: "dns",
        path: "file", list: "file", registry: "register", heartbeat: "register", cidr: "allow", from: "allow",
        hold: "keep",
    }
}

section! {
    /// How backends are found whose addresses are not written here.
    Discovery {
        /// Who is asked for names. By default what `/etc/resolv.conf` names.
        resolvers: List<Peer, 16> = [],
        /// How long a source must say the same before it is believed that most of its backends have gone. `0s` believes at
        /// once.
        keep: Time<0, WEEK> = "1h",
    } later {
        consul: "let it write a file, or answer as a name server: `{ file = ... }`, `{ srv = ... }`",
        kubernetes: "headless services answer by name: `{ srv = \"_http._tcp.NAME.NAMESPACE.svc.cluster.local.\" }`",
        etcd: "let it write a file: `{ file = ... }`",
        zookeeper: "let it write a file: `{ file = ... }`",
    } synonyms {
        resolver: "resolvers", nameservers: "resolvers", servers: "resolvers", dns: "resolvers", hold: "keep",
    }
}
