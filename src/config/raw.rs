//! Stage one: what may be said. Each section is its struct, its decoder, its part of the reference and of the schema.
//!
//! The doc comments here ARE docs/CONFIG.md and the hints of findings: they speak to operators.

use toml::de::DeValue;

use super::kinds::{By, Count, Flag, Keyed, List, Many, Number, Or, Yes};
use super::model::{Balance, Class, HomeDown, KeyAlgorithm, Locality, OnEmpty, Policy, Protocol, ProxyProtocol};
use super::moment::Moment;
use super::reader::section;
use super::schema::Shape;
use super::words::{
    AllDown, Alpn, DomainName, Drain, File, Host, Ip, Listen, Name, Peer, Prefix, Rate, Seat, Share, Statuses, Text,
    Time, UrlPath,
};

mod balancing;
mod change;
mod discovery;
mod files;
mod guarding;
mod http2;
mod http3;
mod logging;
mod routing;
mod securing;
mod sharing;
mod transports;

pub(super) use balancing::Limits;
pub(super) use change::{HeaderEdits, Headers, Redirect, Rewrite};
pub(super) use discovery::{Backend, Discovery};
pub(super) use files::Files;
pub(super) use guarding::{Cookies, QueryLog, RateLimit};
pub(super) use http2::Http2;
pub(super) use http3::Http3;
pub(super) use logging::{Access, Export, Log, Trace};
pub(super) use routing::{ByHeader, Like, Match, Route};
pub(super) use securing::{ListenerTls, Require, UpstreamTls};
pub(super) use sharing::{Mirror, Override, Split};
pub(super) use transports::{DnsHttps, DnsProxies, DnsSecure, DnsTcp};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const NINETY_DAYS: u64 = 90 * DAY;

/// A share beside others: 0 takes nothing.
pub(super) type Weight = Count<0, 1_000_000>;

/// Keys of `[service.backends]`.
#[derive(Clone, Debug)]
pub(super) struct ByDatacenter;

impl By for ByDatacenter {
    const NAME: &'static str = "datacenter";

    /// What follows the header `[service.backends]` belongs to it, as TOML has it: a trap that everybody falls into once.
    fn misplaced(name: &str, value: &DeValue<'_>) -> Option<String> {
        let ours = Service::describe().fields.iter().any(|field| field.key == name);
        (ours && !value.is_array())
            .then(|| format!("`{name}` belongs to the service: move it above the header of this table"))
    }
}

section! {
    /// One TOML file says everything: `springtide check FILE` reads it and reports all that is wrong with it at once.
    ///
    /// Every duration, size, rate and share carries its unit. Keys that mean nothing are errors. Relative paths start
    /// at the folder of the file. What has a default need not be written.
    Root {
        /// This node.
        node: Node = {},
        /// The admin API: state, metrics, explain, drain. Without this section there is none.
        admin: Admin = optional,
        /// Rules of the health core that no service owns.
        health: Health = {},
        /// The places that serve, in any order.
        datacenter: Many<Datacenter, 64> = [],
        /// Files that say where clients are, for `near`.
        geo: Geo = {},
        /// How backends are found whose addresses are not written here.
        discovery: Discovery = {},
        /// The kinds of work, and who does them.
        service: Many<Service, 10_000> = [],
        /// The name server (GSLB). Without this section there is none.
        dns: Dns = optional,
        /// Where the edge listens for HTTP.
        listener: Many<Listener, 256> = [],
        /// What the edge does with a request. The most specific match wins, in any order.
        route: Many<Route, 20_000> = [],
        /// Logs of requests.
        log: Log = {},
        /// Traces (W3C Trace Context). Without this section what clients say of traces is passed on as it is.
        trace: Trace = optional,
    } later {
        bus: "nodes do not talk to each other yet: every node probes by itself",
        alert: "take alerts from /metrics for now",
    } synonyms {
        datacenters: "datacenter", services: "service", listeners: "listener", routes: "route",
        server: "listener", access_log: "log", logging: "log", tracing: "trace", upstream: "service",
        cluster: "service", zone: "dns", steer: "dns", geoip: "geo", resolver: "discovery",
    }
}

impl Root {
    /// Headers of the sections that repeat.
    pub(super) fn repeats() -> Vec<String> {
        Shape::Section(Self::describe).repeating("")
    }
}

section! {
    /// This node.
    Node {
        /// Its name, in logs, metrics and NSID.
        name: Name = "springtide",
        /// The datacenter that it stands in: requests go to backends there first. Without it, by weights alone.
        datacenter: Name = optional,
        /// Folder for the last-known-good state. Without it, a restart begins without knowledge.
        state_dir: File = optional,
        /// Threads for the edge. By default one for each core.
        workers: Count<1, 1_024> = optional,
        /// How long requests and tunnels may take to finish when the node is stopped; then they are cut.
        drain_limit: Time<0, HOUR> = "30s",
        /// How long they may take when a new process serves in its place (`springtide upgrade`).
        upgrade_drain_limit: Time<0, DAY> = "10m",
        /// How many old processes may still finish their work when another upgrade is asked for: beyond, it is refused.
        old_processes: Count<1, 64> = 8,
    } synonyms {
        threads: "workers", dc: "datacenter", data_dir: "state_dir", id: "name", hard_stop_after: "drain_limit",
        shutdown_timeout: "drain_limit", worker_shutdown_timeout: "drain_limit", max_reloads: "old_processes",
    }
}

section! {
    /// The admin API: state, metrics, explain, drain.
    Admin {
        /// Where it listens.
        listen: Listen = "127.0.0.1:9900",
        /// File with the bearer token. Required as soon as it listens beyond loopback.
        token_file: File = optional,
        /// Admin addresses of the whole fleet, this node's among them: the command line applies drain and undrain to all.
        fleet: List<Peer, 1_024> = [],
    } later {
        tls: "keep it on loopback, or behind something that speaks TLS",
    } synonyms {
        address: "listen", bind: "listen", token: "token_file", nodes: "fleet", peers: "fleet",
    }
}

section! {
    /// Rules of the health core that no service owns.
    Health {
        /// Addresses outside the fleet that accept TCP connections whenever this node's network works: the witnesses of the
        /// self-isolation guard. Without them the node judges by its targets alone.
        references: List<Peer, 16> = [],
        /// Below this share of healthy weight a datacenter is failed for a service.
        fail_below: Share = "50%",
        /// From this share on a failed datacenter is back, if it holds for three evaluations.
        return_at: Share = "65%",
        /// What a datacenter can carry of its usual load when only a part is healthy: factor = min(1, overprovision x health).
        overprovision: Number<1_000, 10_000> = 1.4,
        /// How long a returning datacenter takes from 10 % to its full weight.
        ramp: Time<0, HOUR> = "10s",
    } later {
        quorum: "every node judges by its own probes for now",
    }
}

section! {
    /// A place that serves.
    Datacenter {
        /// The name that everything else calls it by.
        name: Name = required,
        /// Its share beside the other datacenters; 0 takes nothing.
        weight: Weight = 1,
        /// What DNS answers with: the public addresses of its edge.
        addresses: List<Ip, 16> = [],
        /// Whose clients are near: prefixes, of which the longest over all datacenters wins, or with the files of `[geo]`
        /// `class:NAME`, `asn:NUMBER`, `city:GEONAMES-ID` or `city:NAME`, `subdivision:CN-GD`, `country:CN`, `continent:AS`.
        /// Prefixes and classes count first, then these in this order.
        near: List<Locality, 100_000> = [],
        /// What it can carry.
        capacity: Rate = optional,
    } synonyms {
        ip: "addresses", ips: "addresses", share: "weight", region: "near",
    }
}

section! {
    /// Files that say where clients are, for the `near` of datacenters. Read at start and at reload, and when they change.
    Geo {
        /// MaxMind DB files with countries, cities or autonomous systems. Of two that say the same kind of thing about a
        /// client, the first counts.
        databases: List<File, 16> = [],
        /// Lists of prefixes: a line is `PREFIX CLASS[,CLASS]`, `#` begins a comment. `near = "class:NAME"` refers to them.
        cidr: List<File, 64> = [],
        /// How often the files are looked at for changes; `0s` is never, then only a reload reads them again.
        poll: Time<0, DAY> = "30s",
    } later {
        url: "files are not fetched: let `geoipupdate` or a timer put them there",
        edition: "files are not fetched: let `geoipupdate` or a timer put them there",
    } synonyms {
        database: "databases", mmdb: "databases", file: "databases", files: "databases", lists: "cidr", nets: "cidr",
        map: "cidr", maps: "cidr", interval: "poll", refresh: "poll", watch: "poll",
    }
}

section! {
    /// A kind of work, done by backends in datacenters.
    Service {
        /// The name that routes and steered names call it by.
        name: Name = required,
        /// How much it matters: a datacenter is as healthy as its worst critical service.
        class: Class = "critical",
        /// How a backend is chosen. `p2c`: the cheaper of two by latency and load, or of all where they are few;
        /// `least-request`: the one with the fewest requests in flight; `weighted-round-robin`; `maglev`: sticky by the
        /// route's user, by a table and up to 125 % of its share of the load; `user-hash`: sticky by the route's user,
        /// whatever the load; `user-home`: always the user's own backend over all datacenters, or a kind refusal.
        balance: Balance = "p2c",
        /// The file that says which backend is whose home, with `balance = "user-home"`; the claim processes read the same
        /// file. It is followed: a change takes effect without a reload. Without it, homes follow from the backends' weights.
        homes: File = optional,
        /// What happens to a user's request while the user's home is down: it is refused kindly (`refuse`), or goes to the
        /// nearest healthy backend of this service (`elsewhere`), which must be able to take a note for home, as `springtide
        /// upstream claim --homes` is.
        home_down: HomeDown = "refuse",
        /// How its backends are probed. Without it live traffic alone judges them.
        probe: Probe = optional,
        /// When live traffic ejects a backend.
        passive: Passive = {},
        /// How long a request may take in all, retries included.
        deadline: Time<1, HOUR> = "5s",
        /// When a request is tried again.
        retry: Retry = {},
        /// How much of it may be under way at a time.
        limits: Limits = {},
        /// Clients stay at the backend that answered them, by `cookie:NAME` or `header:NAME`: it is set with a response, and
        /// honoured while that backend is used or drained. Without it they don't.
        session: Seat = optional,
        /// How long a backend that returned takes from 10 % to its full weight.
        slow_start: Time<0, HOUR> = "10s",
        /// Below this share of usable weight within one datacenter, health is ignored there. `0%` is never.
        panic_below: Share = "50%",
        /// How its backends are spoken to.
        protocol: Protocol = "http1",
        /// TLS towards its backends.
        tls: UpstreamTls = optional,
        /// Its backends are told by the PROXY protocol, `v1` or `v2`, for whom a connection is: they must expect it. Then no
        /// connection to a backend serves two connections of clients.
        proxy_protocol: ProxyProtocol = optional,
        /// Its backends, by datacenter.
        backends: Keyed<ByDatacenter, List<Or<Peer, Backend>, 4_096>, 64> = {},
    } later {
        fallback: "answer from the service itself for now (gift-list has a default list of its own)",
        limit: "requests are not limited yet: limit in the service",
        queue: "requests are not queued yet: set `deadline`",
        concurrency: "concurrency is not limited yet: set `deadline` and `retry.budget`",
        cache: "responses are not cached yet",
        circuit_breaker: "`passive` ejects what fails, and `limits` bound what is under way",
    } synonyms {
        timeout: "deadline", servers: "backends", endpoints: "backends", targets: "backends", upstreams: "backends",
        health: "probe", health_check: "probe", check: "probe", retries: "retry", lb: "balance", policy: "balance",
        outlier: "passive", sticky: "session", persistence: "session", circuit_breakers: "limits",
        send_proxy: "proxy_protocol",
    }
}

section! {
    /// How a backend is probed: one of `http`, `tcp`, `tls` or `grpc`. Equal probes of one address are made once.
    Probe {
        /// `GET` this path, with its query.
        http: UrlPath = optional,
        /// `true`: the connection is accepted.
        tcp: Yes = optional,
        /// A TLS handshake succeeds under this name.
        tls: Host = optional,
        /// `grpc.health.v1.Health/Check` answers SERVING for this service; empty for the whole server.
        grpc: Text = optional,
        /// The `Host` header of an HTTP probe. By default the backend's address.
        host: Text = optional,
        /// Statuses of an HTTP probe that are a success.
        expect: Statuses = "200-299",
        /// File with the authorities to trust, PEM, for a probe over TLS. By default that of the service's `tls`.
        ca: File = optional,
        /// Speak TLS to an HTTP or gRPC probe under this name. By default as the service's `tls` says.
        tls_name: Host = optional,
        /// Time between probes; jittered by 10 %.
        interval: Time<100, HOUR> = "1s",
        /// When an answer is too late; at most `interval`.
        timeout: Time<10, 60_000> = "500ms",
        /// Failures in a row that take a backend down.
        fall: Count<1, 100> = 2,
        /// Successes in a row that bring it back.
        rise: Count<1, 100> = 2,
        /// Where to ask, if not at the backend's own port.
        port: Count<1, 65_535> = optional,
    } later {
        body: "a probe judges by the status for now",
        script: "external checks are not run",
        exec: "external checks are not run",
    } synonyms {
        path: "http", url: "http", https: "http", every: "interval", period: "interval", status: "expect", codes: "expect",
        unhealthy_threshold: "fall", healthy_threshold: "rise", failures: "fall", successes: "rise", ca_file: "ca",
        sni: "tls_name", server_name: "tls_name",
    }
}

section! {
    /// When live traffic ejects a backend.
    Passive {
        /// Failures in a row to connect or to be answered (refused, reset, timeout) that eject. 0 is never.
        consecutive_failures: Count<0, 1_000> = 3,
        /// 502, 503 and 504 in a row that eject; said overload does not count. 0 is never.
        consecutive_errors: Count<0, 1_000> = 5,
        /// Share of successes within 10 s, below which a backend with at least 20 requests is ejected. `0%` is never.
        success_below: Share = "80%",
        /// How far below the mean of its peers a backend's share of successes within 10 s may lie, among five or more of
        /// them with 20 requests each. `0%` is never.
        below_peers: Share = "10%",
        /// How many times the p90 latency of its peers a backend may take, three windows in a row. 0 is never.
        slower_than_peers: Number<0, 1_000_000> = 3.0,
        /// First ejection; doubles with each further one, up to 300 s.
        eject_for: Time<100, 300_000> = "5s",
        /// Largest share of a service's backends in a datacenter that live traffic alone may eject.
        max_ejected: Share = "34%",
    }
}

section! {
    /// When a request is tried again: only where that is safe.
    Retry {
        /// Tries in all, the first among them.
        tries: Count<1, 10> = 3,
        /// Retries as a share of requests, with a floor of 10 a second.
        budget: Share = "20%",
        /// Longest wait for the head of a response in one try that can be repeated. By default from observed latency.
        per_try: Time<1, HOUR> = optional,
        /// Second requests beside slow first ones, as a share of the requests of routes with `hedge`, with a floor of one a
        /// second.
        hedge_budget: Share = "2%",
    } synonyms {
        attempts: "tries", max: "tries", count: "tries", timeout: "per_try",
    }
}

section! {
    /// The name server (GSLB).
    Dns {
        /// Where it listens, UDP and TCP.
        listen: List<Listen, 64> = required,
        /// Threads for each UDP address. By default one for each core, at most 4.
        threads: Count<1, 256> = optional,
        /// Whether the client subnet that resolvers send (RFC 7871) is honoured.
        ecs: Flag = true,
        /// Bits of an IPv4 resolver's address that stand for its clients, and the longest IPv4 scope ever returned.
        client_prefix_v4: Count<1, 32> = 24,
        /// Bits of an IPv6 resolver's address that stand for its clients, and the longest IPv6 scope ever returned.
        client_prefix_v6: Count<1, 128> = 56,
        /// The most classes that client subnets may divide the answers of a name into: blocks of addresses that are told a
        /// scope of their own, each of which a resolver asks for and keeps by itself. A configuration, or a changed file of
        /// `[geo]`, that makes more of them is refused. Names that are told apart by a hash (`weighted`, `spread`,
        /// capacities) have `client_prefix_v4` and `client_prefix_v6` for that. By default there is no limit.
        ecs_max_classes: Count<1, 100_000_000> = optional,
        /// Limits of connections.
        tcp: DnsTcp = {},
        /// DNS over TLS (RFC 7858), by convention on port 853 of TCP.
        tls: DnsSecure = optional,
        /// DNS over HTTPS (RFC 8484).
        https: DnsHttps = optional,
        /// DNS over QUIC (RFC 9250), by convention on port 853 of UDP.
        quic: DnsSecure = optional,
        /// Balancers in front that say whom they speak for.
        proxy_protocol: DnsProxies = optional,
        /// Whom the name server asks for the addresses that an `ALIAS` stands for: recursive resolvers, tried in order. By
        /// default those of /etc/resolv.conf.
        resolver: List<Peer, 8> = [],
        /// Secrets that zone transfers and NOTIFY are signed with (TSIG, RFC 8945).
        key: Many<Key, 1_000> = [],
        /// Octets of the largest answer over UDP. Beyond 1232 answers are fragmented on some paths, and then lost on some.
        udp_size: Count<512, 4096> = 1232,
        /// DNS cookies (RFC 7873, 9018).
        cookies: Cookies = {},
        /// Limits answers over UDP by client prefix. Without this section nobody is limited, but who would be at
        /// `"1000 rps"` is counted.
        rate_limit: RateLimit = optional,
        /// Writes some of the queries to a file.
        log: QueryLog = optional,
        /// Static zones.
        zone: Many<Zone, 10_000> = [],
        /// Steered names.
        steer: Many<Steer, 10_000> = [],
        /// Groups of datacenters, for steered names to choose among.
        pool: Many<Pool, 1_000> = [],
        /// What is planned for datacenters, by time; for both edges.
        schedule: Many<Schedule, 1_000> = [],
    } later {
    } synonyms {
        address: "listen", bind: "listen", zones: "zone", steers: "steer", edns_client_subnet: "ecs", max_scopes: "ecs_max_classes", pools: "pool",
        group: "pool", schedules: "schedule", maintenance: "schedule", dot: "tls", doh: "https", doq: "quic",
        proxy: "proxy_protocol", limits: "tcp", rrl: "rate_limit", max_udp_size: "udp_size",
        edns_udp_size: "udp_size", cookie: "cookies", querylog: "log",
        resolvers: "resolver", keys: "key", tsig: "key",
    }
}

section! {
    /// A static zone.
    Zone {
        /// Its apex.
        name: DomainName = required,
        /// Its master file (RFC 1035 section 5).
        file: File = required,
        /// Who may take the whole zone (AXFR, IXFR). Without it nobody may.
        transfer: Transfer = optional,
        /// Secondaries that are told when the serial has moved (NOTIFY, RFC 1996).
        notify: List<Peer, 64> = [],
        /// Signs its answers (DNSSEC), live. Without this they are not signed.
        dnssec: Signed = optional,
    } synonyms {
        origin: "name", path: "file", zonefile: "file", allow_transfer: "transfer", also_notify: "notify",
    }
}

section! {
    /// Who may take a whole zone: what is said must hold, both where both are said.
    Transfer {
        /// Prefixes that a secondary's address lies in. By default any, and then `key` is required.
        allow: List<Prefix, 1_024> = [],
        /// The key that a secondary signs with; NOTIFY is signed with it too. Without it nothing needs to be signed.
        key: Name = optional,
    } synonyms {
        from: "allow", acl: "allow", tsig: "key", tsig_key: "key",
    }
}

section! {
    /// A secret that this server and its secondaries share.
    Key {
        /// Its name, the same on both sides; the final dot may be left out.
        name: Name = required,
        /// How messages are signed.
        algorithm: KeyAlgorithm = "hmac-sha256",
        /// File with the secret in base64, readable by this user alone. `tsig-keygen NAME` of BIND makes one.
        secret_file: File = required,
    } synonyms {
        secret: "secret_file", file: "secret_file", algo: "algorithm",
    }
}

section! {
    /// How a zone is signed: by the keys in a folder, as BIND names them (`springtide keys make` makes them). Their
    /// times say what each does when; denial is compact (RFC 9824).
    Signed {
        /// The folder of its key files, `Kzone.+013+12345.key` and `.private`.
        keys: File = required,
        /// How long a signature is good.
        validity: Time<HOUR, NINETY_DAYS> = "7d",
        /// After which share of that it is made anew.
        refresh: Share = "50%",
        /// How far in the past a signature begins: for resolvers whose clocks are behind.
        backdate: Time<0, DAY> = "1h",
        /// TTL of the DNSKEY, CDS and CDNSKEY records.
        dnskey_ttl: Time<1_000, WEEK> = "1h",
        /// Signatures a second, at most, for what whoever asks makes up: for names that are not configured (denials,
        /// wildcards), and as many for the sets that steered names choose for networks; each in datagrams, and as many
        /// again over connections. Above it a steered name gives a set that many networks share; for all else datagrams
        /// are answered with TC, connections with SERVFAIL. A core makes some 40,000 a second.
        open_per_second: Count<1, 1_000_000> = 2000,
        /// Signatures a second, at most, for what is configured, in datagrams, and as many again over connections: all of
        /// it is signed once after a start and then every few days, when it is asked for. Above it, the same.
        known_per_second: Count<1, 1_000_000> = 20000,
    } synonyms {
        dir: "keys", folder: "keys", key_dir: "keys", lifetime: "validity", expire: "validity",
        signature_validity: "validity", ttl: "dnskey_ttl",
    }
}

section! {
    /// A steered name: A, AAAA and HTTPS of one decision by health, nearness and weight.
    Steer {
        /// The name, inside one of the zones; a zone's apex may be steered too.
        name: DomainName = required,
        /// The services behind it: a datacenter is as healthy here as its worst critical one of these.
        services: List<Name, 256> = required,
        /// How datacenters are chosen, in order. `near` narrows to who is near; `weighted`, `failover` or `spread` ranks
        /// what that leaves; `spread` behind one of them turns the addresses of each datacenter.
        policy: List<Policy, 4> = ["near", "weighted"],
        /// What it chooses among, in order of preference: datacenters and pools by their names, or
        /// `{ name, weight, standby }`. A datacenter stands here once, pools and all. By default all datacenters.
        datacenters: List<Or<Name, Preference>, 64> = optional,
        /// Addresses of how many datacenters make an answer.
        answers: Count<1, 16> = 2,
        /// How long resolvers may keep an answer.
        ttl: Ttl = {},
        /// What to say when every datacenter has failed: `serve-all` (but what an operator took down), `nodata`,
        /// `servfail`, `refused`, or `{ last_resort = ["192.0.2.1"] }`.
        on_all_down: Or<AllDown, LastResort> = "serve-all",
        /// Clients that may be sent to some datacenters only, whatever else is said: data residency.
        fence: Many<Fence, 64> = [],
        /// What to say to clients whose fence leaves nobody: `nodata`, `refused` or `servfail`.
        on_empty: OnEmpty = "nodata",
        /// ALPN ids of the HTTPS record; an empty list leaves the record out.
        alpn: List<Alpn, 16> = ["h2", "http/1.1"],
    } later {
        cname: "a steered name answers with addresses",
        geo: "`near` goes by what `[[datacenter]]` says there, with the files of `[geo]`",
    } synonyms {
        service: "services", policies: "policy", dcs: "datacenters", datacenter: "datacenters", pools: "datacenters",
        fallback: "on_all_down", host: "name", fences: "fence", geofence: "fence", residency: "fence",
    }
}

section! {
    /// A member of a steered name or of a pool, with a weight of its own.
    Preference {
        /// The datacenter, or the pool.
        name: Name = required,
        /// Its share here; 0 is never used. By default a datacenter's own, and a pool's those of its members together.
        weight: Weight = optional,
        /// Used when every other member beside it has failed, those that stand by or have weight 0 apart.
        standby: Flag = false,
    } synonyms {
        datacenter: "name", pool: "name", share: "weight", backup: "standby", spare: "standby",
    }
}

section! {
    /// A group of datacenters: stands wherever a steered name, or another pool, may name a datacenter.
    Pool {
        /// Its name; no datacenter has it.
        name: Name = required,
        /// Its members, in order of preference: datacenters and further pools, or `{ name, weight, standby }`.
        datacenters: List<Or<Name, Preference>, 64> = required,
        /// How one of them is chosen, as in a steered name.
        policy: List<Policy, 4> = ["weighted"],
        /// Below this share of healthy weight it has failed: it is used only when everything beside it has failed too.
        fail_below: Share = "50%",
    } synonyms {
        members: "datacenters", pools: "datacenters", dcs: "datacenters", policies: "policy",
    }
}

section! {
    /// Clients that may be sent to some datacenters only.
    Fence {
        /// Who: as in a datacenter's `near`. The most exact that is said of a client by any fence of the name decides.
        clients: List<Locality, 100_000> = required,
        /// Where they may be sent: datacenters of the name.
        only: List<Name, 64> = required,
    } synonyms {
        client: "clients", near: "clients", datacenters: "only", to: "only",
    }
}

section! {
    /// What is planned for a datacenter. A wish of an operator comes before it.
    Schedule {
        /// The datacenter.
        datacenter: Name = required,
        /// From when on, RFC 3339.
        from: Moment = required,
        /// Until when, RFC 3339.
        until: Moment = required,
        /// `drain`: nothing new goes there; or `{ weight = 10 }`: this weight instead of the configured one.
        action: Or<Drain, PlannedWeight> = "drain",
    } synonyms {
        name: "datacenter", begin: "from", start: "from", end: "until", to: "until",
    }
}

section! {
    /// A weight for a time.
    PlannedWeight {
        /// The weight instead of the configured one; 0 takes nothing.
        weight: Weight = required,
    }
}

section! {
    /// Addresses for when every datacenter has failed.
    LastResort {
        /// The addresses.
        last_resort: List<Ip, 16> = required,
    }
}

section! {
    /// How long resolvers may keep an answer, in whole seconds.
    Ttl {
        /// In the calm.
        base: Time<1_000, DAY> = "20s",
        /// At the least: while health is in doubt.
        min: Time<1_000, DAY> = "5s",
    } synonyms {
        max: "base", default: "base", minimum: "min",
    }
}

section! {
    /// Where the edge listens for HTTP/1.1, HTTP/2 and, if it is asked for, HTTP/3.
    Listener {
        /// Its name, in logs and metrics.
        name: Name = required,
        /// Where it listens. `0.0.0.0` is all of IPv4, `[::]` all of IPv6.
        listen: List<Listen, 64> = required,
        /// Certificates; without them it speaks plaintext.
        tls: ListenerTls = optional,
        /// HTTP/3 too, over UDP: `true`, or with rules of its own. Needs `tls`.
        http3: Or<Flag, Http3> = optional,
        /// Peers whose `Forwarded` and `X-Forwarded-*` headers are believed.
        trusted: List<Prefix, 4_096> = [],
        /// Balancers in front whose connections must begin with a PROXY header (versions 1 and 2): the client is whom it
        /// names. The header of anybody else is not expected and not believed.
        proxy_protocol: List<Prefix, 4_096> = [],
        /// Sends everybody elsewhere who comes in here and is not there yet, before any route:
        /// `redirect = { scheme = "https", status = 308 }`.
        redirect: Redirect = optional,
        /// What HTTP/2 connections may do.
        http2: Http2 = {},
    } synonyms {
        address: "listen", addresses: "listen", bind: "listen", port: "listen", trusted_proxies: "trusted",
        accept_proxy: "proxy_protocol", proxies: "proxy_protocol", h3: "http3", quic: "http3",
    }
}
