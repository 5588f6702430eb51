//! The meaning of a configuration: typed, complete, resolved. Built by `check`, read by everyone above.
//!
//! Defaults are already in: no `Option` here means "use the default". Ids index the tables of the same [`Config`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::diag::Findings;
use crate::base::clock::Wall;
use crate::base::ids::{DatacenterId, ServiceId};

mod balancing;
mod change;
mod discovery;
mod files;
mod homing;
mod http2;
mod http3;
mod leaving;
mod logging;
mod routing;
mod securing;
mod sharing;

pub use balancing::{Limits, Session};
pub use change::{HeaderEdits, PathChange, Redirect, Rewrite, Scheme};
pub use discovery::{Discovery, MOST_FOUND, Origin, Source};
pub use files::{Coding, Files};
pub use homing::{HomeDown, Homing, strangers};
pub use http2::Http2;
pub use http3::Http3;
pub use leaving::Leaving;
pub use logging::{AccessFormat, AccessLog, Endpoint, Export, Follow, Log, LogSink, Trace};
pub use routing::{Action, PathMatch, Route, RouteMatch, Segment, UserKey, ValueMatch};
pub use securing::{
    ClientAuth, ClientCertificate, ListenerTls, PassOn, ProxyProtocol, Requirement, SanMatch, Tickets, TlsVersion,
    UpstreamTls,
};
pub use sharing::{Mirror, Override, Split};

/// Everything that one file says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file it was read from; relative paths in it are already resolved against its folder.
    pub path: PathBuf,
    /// This node.
    pub node: Node,
    /// The admin API, if it is wanted.
    pub admin: Option<Admin>,
    /// Rules of the health core that no service owns.
    pub health: Health,
    /// Datacenters, in the order of the file; [`DatacenterId`] indexes them.
    pub datacenters: Vec<Datacenter>,
    /// Files that say where clients are.
    pub geo: Geo,
    /// How backends are found that the file does not name.
    pub discovery: Discovery,
    /// Services, in the order of the file; [`ServiceId`] indexes them.
    pub services: Vec<Service>,
    /// The name server, if it is wanted.
    pub dns: Option<Dns>,
    /// Listeners of the edge.
    pub listeners: Vec<Listener>,
    /// Routes of the edge, in the order of the file. The most specific match wins; the order breaks ties.
    pub routes: Vec<Route>,
    /// What is logged of requests.
    pub log: Log,
    /// How requests are traced. `None`: what clients say of traces is passed on as it is.
    pub trace: Option<Trace>,
    /// What was found that does not stop it; whoever loads a configuration passes it on.
    pub warnings: Findings,
}

impl Config {
    /// Everywhere that anything is said of clients: by `near`, and by fences.
    pub fn localities(&self) -> impl Iterator<Item = &Locality> {
        let fences = self.dns.iter().flat_map(|d| &d.steers).flat_map(|s| &s.fences).flat_map(|f| &f.clients);
        self.datacenters.iter().flat_map(|d| &d.near).chain(fences)
    }

    /// The datacenters that `steer` may answer with, in its order.
    pub fn candidates<'c>(&'c self, steer: &'c Steer) -> impl Iterator<Item = &'c Datacenter> {
        steer.datacenters.iter().filter_map(|(dc, _)| self.datacenters.get(dc.index()))
    }
}

/// Who this node is.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name, in logs, metrics and NSID.
    pub name: String,
    /// Where it stands: requests go to this datacenter first. `None`: nowhere, by weights alone.
    pub datacenter: Option<DatacenterId>,
    /// Where the last-known-good state is kept. `None`: nowhere, a restart begins without knowledge.
    pub state_dir: Option<PathBuf>,
    /// Threads for the edge; at least 1. Default: one for each core.
    pub workers: usize,
    /// How it leaves.
    pub leaving: Leaving,
}

/// The admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// File with the bearer token; required where `listen` is not loopback.
    pub token_file: Option<PathBuf>,
    /// Admin addresses of the whole fleet, this node's among them: the command line applies an operator's intent to all.
    pub fleet: Vec<SocketAddr>,
}

/// Rules of the health core that no service owns.
#[derive(Clone, Debug)]
pub struct Health {
    /// Addresses outside the fleet that are reachable whenever this node's network is (TCP connect): the witnesses of the
    /// self-isolation guard. Empty: the node judges by its targets alone.
    pub references: Vec<SocketAddr>,
    /// Below this share of healthy weight a datacenter is failed for a service. Default 0.5 (gdnsd's).
    pub fail_below: f64,
    /// A failed datacenter is back from this share on, held for three evaluations. Default 0.65.
    pub return_at: f64,
    /// How much of its load a datacenter can carry in spare: factor = min(1, overprovision x health). Default 1.4 (Envoy's).
    pub overprovision: f64,
    /// How long a returning datacenter takes from 10 % to its full weight. Default 10 s.
    pub ramp: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            references: Vec::new(),
            fail_below: 0.5,
            return_at: 0.65,
            overprovision: 1.4,
            ramp: Duration::from_secs(10),
        }
    }
}

/// A place that serves.
#[derive(Clone, Debug)]
pub struct Datacenter {
    /// Its name.
    pub name: String,
    /// Its share beside the others: 0 to 1,000,000; 0 takes nothing.
    pub weight: u32,
    /// What DNS answers with: the public addresses of its edge.
    pub addresses: Vec<IpAddr>,
    /// Who is near. The most exact kind that is said of a client by any datacenter counts, see [`Locality`].
    pub near: Vec<Locality>,
    /// What it can carry, in requests a second. `None`: not said.
    pub capacity_rps: Option<f64>,
}

/// Where clients are. In the order of precedence: a prefix, written here or in a list, counts before all that databases say,
/// and of prefixes the longest; then the network that the client belongs to, then where it stands, the smaller place first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locality {
    /// In this prefix.
    Net(IpNet),
    /// Of this class, by the lists of prefixes.
    Class(String),
    /// In the autonomous system of this number.
    Asn(u32),
    /// In the city of this GeoNames id.
    CityId(u32),
    /// In a city of this English name, lower case.
    City(String),
    /// In this subdivision, ISO 3166-2: `CN-GD`.
    Subdivision(String),
    /// In this country, ISO 3166-1 in two capital letters.
    Country(String),
    /// On this continent, in two capital letters.
    Continent(String),
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => write!(f, "{net}"),
            Self::Class(name) => write!(f, "class:{name}"),
            Self::Asn(number) => write!(f, "asn:{number}"),
            Self::CityId(id) => write!(f, "city:{id}"),
            Self::City(name) => write!(f, "city:{name}"),
            Self::Subdivision(code) => write!(f, "subdivision:{code}"),
            Self::Country(code) => write!(f, "country:{code}"),
            Self::Continent(code) => write!(f, "continent:{code}"),
        }
    }
}

/// Files that say where clients are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Geo {
    /// MaxMind DB files. Where several say something of one kind, the first that says it counts.
    pub databases: Vec<PathBuf>,
    /// Lists of prefixes with their classes.
    pub cidr: Vec<PathBuf>,
    /// How often they are looked at for changes. `None`: only a reload reads them again.
    pub poll: Option<Duration>,
}

/// How much a service matters when something has to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Stays up on fallbacks while everything else degrades; decides whether a datacenter is healthy.
    #[default]
    Critical,
    /// May be degraded or hidden.
    Degraded,
    /// May be dropped.
    Background,
}

/// How a backend is chosen among those of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The cheaper of two random ones by peak EWMA latency x (in flight + 1) / weight.
    #[default]
    P2c,
    /// The one with the fewest requests in flight for its weight.
    LeastRequest,
    /// Smooth weighted round robin.
    WeightedRoundRobin,
    /// By the route's user key through a table (Maglev), up to a bound of load: sticky, moves when the backend fails or
    /// has more than its share.
    Maglev,
    /// Rendezvous by the route's user key among what is healthy: sticky, moves when the backend fails.
    UserHash,
    /// Rendezvous by the route's user key over ALL backends of ALL datacenters, whatever their health: the user's home owns
    /// the user's data, and while the home is down the request is refused kindly, or goes elsewhere where the service says so.
    UserHome,
}

/// A kind of work, done by backends in datacenters.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How much it matters.
    pub class: Class,
    /// How a backend is chosen.
    pub balance: Balance,
    /// How its backends are probed. `None`: not at all; live traffic alone judges them.
    pub probe: Option<Probe>,
    /// When live traffic ejects a backend.
    pub passive: Passive,
    /// How long a request may take in all, retries included.
    pub deadline: Duration,
    /// When a request is tried again.
    pub retry: Retry,
    /// How much may be under way at a time.
    pub limits: Limits,
    /// Whether a client stays at its backend, and how it says where that is.
    pub session: Option<Session>,
    /// How long a backend that returned takes from 10 % to its full weight. Default 10 s.
    pub slow_start: Duration,
    /// Below this share of usable weight within one datacenter, health is ignored there (panic). Default 0.5; 0 is never.
    pub panic_below: f64,
    /// How its backends are spoken to.
    pub protocol: Protocol,
    /// TLS towards the backends, if it is wanted.
    pub tls: Option<UpstreamTls>,
    /// How the backends are told for whom a connection is, if they are.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Where its users' homes are, where it balances by them.
    pub homing: Homing,
    /// Its backends in the order of the file, as far as they are written there.
    pub backends: Vec<BackendSpec>,
}

/// One address that does the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Where it stands.
    pub datacenter: DatacenterId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share beside the others of the same service and datacenter: 0 to 1,000,000; default 1.
    pub weight: u32,
}

/// How backends are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge in plaintext or by ALPN over TLS.
    Http2,
}

/// How a target is probed, and when its verdict turns. Equal definitions of one address are one target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// Time between probes; jittered by 10 %. Default 1 s.
    pub interval: Duration,
    /// When an answer is too late. Default 500 ms.
    pub timeout: Duration,
    /// Failures in a row that take a target down. Default 2.
    pub fall: u32,
    /// Successes in a row that bring it back. Default 2; flap damping multiplies it.
    pub rise: u32,
    /// Where to ask, if not at the backend's own port.
    pub port: Option<u16>,
    /// How the target is told that a connection is for nobody but the prober, where it expects to be told.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Probe {
    /// How a reference of the self-isolation guard is probed: by connecting, at the default pace (DECISIONS).
    pub const fn reference() -> Self {
        Self {
            kind: ProbeKind::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            fall: 2,
            rise: 2,
            port: None,
            proxy_protocol: None,
        }
    }
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// The connection is accepted.
    Tcp,
    /// The handshake succeeds for `tls`.
    Tls {
        /// Whom to trust and what name to ask for.
        tls: UpstreamTls,
    },
    /// `GET path` gives one of `expect`.
    Http {
        /// The path, with its query.
        path: String,
        /// The `Host` header; default: the backend's address.
        host: Option<String>,
        /// Lowest and highest status that is a success. Default 200 to 299.
        expect: (u16, u16),
        /// Over TLS, if it is wanted.
        tls: Option<UpstreamTls>,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// The service asked about; empty for the whole server.
        service: String,
        /// Over TLS, if it is wanted.
        tls: Option<UpstreamTls>,
    },
}

/// When live traffic ejects a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Passive {
    /// Local-origin failures in a row (refused, reset, TLS, connect timeout) that eject. Default 3; 0 is never.
    pub consecutive_failures: u32,
    /// 502, 503 and 504 in a row that eject, overload markers apart. Default 5; 0 is never.
    pub consecutive_errors: u32,
    /// Share of successes within 10 s, below which a backend with at least 20 requests is ejected. Default 0.8; 0 is never.
    pub success_below: f64,
    /// How far, as a share, a backend's success may lie below the mean of its peers before it is ejected. Default 0.1; 0 is
    /// never.
    pub below_peers: f64,
    /// How many times its peers' median p90 latency a backend may take, three windows in a row. Default 3; 0 is never.
    pub slower_than_peers: f64,
    /// First ejection; doubles with each further one, up to 300 s. Default 5 s.
    pub eject_for: Duration,
    /// Largest share of one service's backends in one datacenter that may be ejected by live traffic alone. Default 0.34.
    pub max_ejected: f64,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            consecutive_failures: 3,
            consecutive_errors: 5,
            success_below: 0.8,
            below_peers: 0.1,
            slower_than_peers: 3.0,
            eject_for: Duration::from_secs(5),
            max_ejected: 0.34,
        }
    }
}

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Tries in all, the first among them. Default 3.
    pub tries: u32,
    /// Retries as a share of requests, with a floor of 10 a second. Default 0.2.
    pub budget: f64,
    /// Longest wait for the head of a response in one try that can be repeated. Default: from observed latency.
    pub per_try: Option<Duration>,
    /// Hedges as a share of the requests that may be hedged. Default 0.02.
    pub hedge_budget: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 3, budget: 0.2, per_try: None, hedge_budget: 0.02 }
    }
}

/// The name server.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    /// Where it listens, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Threads for each UDP address; at least 1.
    pub threads: usize,
    /// Static zones.
    pub zones: Vec<ZoneFile>,
    /// Keys that transfers and NOTIFY are signed with.
    pub keys: Vec<DnsKey>,
    /// Whom to ask for what an `ALIAS` stands for; empty: those of /etc/resolv.conf.
    pub resolver: Vec<SocketAddr>,
    /// Steered names.
    pub steers: Vec<Steer>,
    /// What is planned for datacenters, by time.
    pub schedules: Vec<Schedule>,
    /// Whether the client subnet of RFC 7871 is honoured. Default true.
    pub ecs: bool,
    /// The most classes that client subnets may divide the answers of a name into, where no hash does. Default: no limit.
    pub ecs_max_classes: Option<u64>,
    /// Prefixes of resolvers (IPv4 bits, IPv6 bits) that stand for their clients where there is no client subnet; also
    /// the longest scopes ever returned. Default 24 and 56.
    pub client_prefix: (u8, u8),
    /// Limits of connections: of TCP, TLS, HTTPS and QUIC each for itself.
    pub connections: Connections,
    /// Peers whose connections begin with a PROXY header, which is believed. Default none.
    pub proxies: Vec<IpNet>,
    /// DNS over TLS, if it is wanted.
    pub tls: Option<SecureDns>,
    /// DNS over HTTPS, if it is wanted.
    pub https: Option<DnsHttps>,
    /// DNS over QUIC, if it is wanted.
    pub quic: Option<SecureDns>,
    /// What it does against abuse, and what it tells of itself.
    pub guard: DnsGuard,
}

impl Dns {
    /// One of the encrypted ways, if it is wanted.
    pub fn secure(&self, way: SecureWay) -> Option<&SecureDns> {
        match way {
            SecureWay::Tls => self.tls.as_ref(),
            SecureWay::Https => self.https.as_ref().map(|https| &https.secure),
            SecureWay::Quic => self.quic.as_ref(),
        }
    }
}

/// The encrypted ways to the name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureWay {
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS.
    Https,
    /// DNS over QUIC.
    Quic,
}

impl SecureWay {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Tls, Self::Https, Self::Quic];
}

/// An encrypted way to the name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureDns {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Its certificate.
    pub tls: ListenerTls,
}

/// DNS over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsHttps {
    /// Where, and with which certificate.
    pub secure: SecureDns,
    /// The path that is asked. Default `/dns-query`.
    pub path: String,
}

/// What connections to the name server may cost. The defaults are ours, near to what gdnsd and Knot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Connections in all. Default 1024.
    pub total: usize,
    /// Connections of one client: an IPv4 address, or a /56 of IPv6. Default 128.
    pub per_client: usize,
    /// How long a connection may stand without a whole query. RFC 7766 section 6.2.3 wants seconds. Default 15 s.
    pub idle: Duration,
    /// How long the peer may take to take what is written. Default 5 s.
    pub write: Duration,
    /// How long a PROXY header and a TLS handshake may take together. Default 5 s.
    pub handshake: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            total: 1_024,
            per_client: 128,
            idle: Duration::from_secs(15),
            write: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
        }
    }
}

/// What the name server does against abuse, and what it tells of itself.
#[derive(Clone, Debug)]
pub struct DnsGuard {
    /// The largest answer over UDP, 512 to 4096 octets. Default 1232.
    pub udp_size: u16,
    /// DNS cookies.
    pub cookies: DnsCookies,
    /// Limits of answers by client prefix.
    pub rate_limit: RateLimit,
    /// The query log, if one is wanted.
    pub log: Option<QueryLog>,
}

impl Default for DnsGuard {
    fn default() -> Self {
        Self { udp_size: 1232, cookies: DnsCookies::default(), rate_limit: RateLimit::default(), log: None }
    }
}

/// DNS cookies (RFC 7873, 9018).
#[derive(Clone, Debug, Default)]
pub struct DnsCookies {
    /// The secrets of the fleet. Default: a random one of this process.
    pub key_file: Option<PathBuf>,
    /// Whether a client that speaks cookies must show one of ours before it is answered. Default false.
    pub require: bool,
}

/// Limits of answers over UDP by client prefix.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Answers with rcode NOERROR, a second and a prefix.
    pub answers: f64,
    /// The same for NXDOMAIN.
    pub nxdomains: f64,
    /// The same for every other rcode.
    pub errors: f64,
    /// All of them together; none: only each by itself.
    pub all: Option<f64>,
    /// How many seconds' worth may come at once.
    pub window: Duration,
    /// Of so many limited answers one goes out without records; 0: none.
    pub slip: u32,
    /// Bits of a client's address (IPv4, IPv6) that count as one.
    pub prefix: (u8, u8),
    /// Who is never limited.
    pub exempt: Vec<IpNet>,
    /// Limits nobody, but counts who would be.
    pub dry_run: bool,
}

impl Default for RateLimit {
    /// What counts without limiting anybody: a resolver that passes client subnets on asks thousands of times a second and
    /// honestly, so how much is too much is for an operator to say.
    fn default() -> Self {
        Self {
            answers: 1_000.0,
            nxdomains: 1_000.0,
            errors: 1_000.0,
            all: None,
            window: Duration::from_secs(1),
            slip: 2,
            prefix: (24, 56),
            exempt: Vec::new(),
            dry_run: true,
        }
    }
}

/// The query log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLog {
    /// Of so many queries one is written.
    pub sample: u32,
    /// Where to: JSON, a query a line.
    pub file: PathBuf,
}

/// A static zone.
#[derive(Clone, Debug, Default)]
pub struct ZoneFile {
    /// Its apex, lower case, with the final dot.
    pub origin: String,
    /// Its master file (RFC 1035 section 5).
    pub file: PathBuf,
    /// Who may take all of it. Default nobody.
    pub transfer: Option<Transfer>,
    /// Secondaries that are told of a new serial. Default none.
    pub notify: Vec<SocketAddr>,
    /// How its answers are signed; `None`: they are not.
    pub dnssec: Option<Signed>,
}

/// How a zone is signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// The folder of its key files.
    pub keys: PathBuf,
    /// How long a signature is good.
    pub validity: Duration,
    /// How far in the past it begins: for clocks that are behind.
    pub backdate: Duration,
    /// After which share of its life it is made anew.
    pub refresh: f64,
    /// TTL of DNSKEY, CDS and CDNSKEY.
    pub dnskey_ttl: Duration,
    /// Signatures a second for what whoever asks makes up: names that nobody configured, and as many for sets that steered
    /// names choose for networks; as many again of each over connections.
    pub open_per_second: u32,
    /// Signatures a second for what is configured; as many again over connections.
    pub known_per_second: u32,
}

/// Who may take a whole zone: what is said must hold.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// Prefixes of the addresses that may; empty: any.
    pub allow: Vec<IpNet>,
    /// The key that it must be signed with, an index into [`Dns::keys`].
    pub key: Option<usize>,
}

/// A secret shared with secondaries (RFC 8945).
#[derive(Clone, Debug)]
pub struct DnsKey {
    /// Its name, without a final dot where none was written.
    pub name: String,
    /// How messages are signed.
    pub algorithm: KeyAlgorithm,
    /// File with the secret in base64.
    pub secret_file: PathBuf,
}

/// How messages are signed (RFC 8945 section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

/// A steered name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steer {
    /// The name, lower case, with the final dot; inside one of the zones.
    pub name: String,
    /// A datacenter is as healthy here as its worst critical service of these.
    pub services: Vec<ServiceId>,
    /// In order: each narrows what the next chooses from; the last one ranks.
    pub policy: Vec<Policy>,
    /// Datacenters it may answer with, in order of preference, with their weights here. Default: all, with their own
    /// weights. Each stands here once, wherever it stands in `members`.
    pub datacenters: Vec<(DatacenterId, u32)>,
    /// What `policy` chooses among. Empty: `datacenters`, each by itself.
    pub members: Vec<Member>,
    /// Whom some clients may be sent to, whatever else is said.
    pub fences: Vec<Fence>,
    /// What to say to a client whose fence leaves nobody.
    pub on_empty: OnEmpty,
    /// Addresses of how many datacenters make an answer. Default 2.
    pub answers: usize,
    /// TTL in the calm.
    pub ttl_base: Duration,
    /// TTL at the least.
    pub ttl_min: Duration,
    /// What to say when every datacenter has failed.
    pub on_all_down: OnAllDown,
    /// ALPN ids of the HTTPS record. Default `h2`, `http/1.1`; empty: no HTTPS record.
    pub alpn: Vec<String>,
}

impl Steer {
    /// Whether it matters anywhere, in a group too, who is near.
    pub fn is_by_near(&self) -> bool {
        fn any(policy: &[Policy], members: &[Member]) -> bool {
            policy.contains(&Policy::Near)
                || members.iter().any(|m| matches!(&m.who, Who::Pool(pool) if any(&pool.policy, &pool.members)))
        }
        any(&self.policy, &self.members)
    }
}

/// What a policy chooses among: a datacenter, or a group of further members.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Which.
    pub who: Who,
    /// A group's share beside the other members; a datacenter's stands in [`Steer::datacenters`].
    pub weight: u32,
    /// Used when every other member of some weight that is no standby has failed.
    pub standby: bool,
}

/// Who is a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// A datacenter, by its place in [`Steer::datacenters`].
    Datacenter(usize),
    /// A group.
    Pool(Pool),
}

/// A group of datacenters and further groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// As in [`Steer`].
    pub policy: Vec<Policy>,
    /// At least one.
    pub members: Vec<Member>,
    /// Below this share of healthy weight it is used only when everything beside it has failed. Default 0.5 (gdnsd's).
    pub fail_below: f64,
}

/// Clients that may be sent to some datacenters only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Who. The most exact kind that is said of a client by any fence of the name counts, see [`Locality`].
    pub clients: Vec<Locality>,
    /// Where they may be sent: places in [`Steer::datacenters`].
    pub only: Vec<usize>,
}

/// What to say to a client whose fence leaves nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnEmpty {
    /// No data.
    #[default]
    Nodata,
    /// REFUSED.
    Refused,
    /// SERVFAIL.
    Servfail,
}

/// What is planned for a datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// For which.
    pub datacenter: DatacenterId,
    /// From when on.
    pub from: Wall,
    /// Until when.
    pub until: Wall,
    /// What.
    pub action: Planned,
}

/// What may be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Planned {
    /// Nothing new goes there.
    Drain,
    /// This weight instead of the configured one.
    Weight(u32),
}

/// How datacenters are chosen for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Those nearest by the longest matching prefix first, the rest after them.
    Near,
    /// By weight, rendezvous over the client's subnet: sticky, order-free, minimal movement.
    Weighted,
    /// In the order of the file: the first that is healthy.
    Failover,
    /// All of them, rotated by the client's subnet. After another one: the addresses of each datacenter.
    Spread,
}

/// What to say when every datacenter has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnAllDown {
    /// All but what an operator took down, at configured weights.
    #[default]
    ServeAll,
    /// These addresses.
    LastResort(Vec<IpAddr>),
    /// No data.
    Nodata,
    /// SERVFAIL.
    Servfail,
    /// REFUSED.
    Refused,
}

/// A listener of the edge.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// TLS, if it is wanted.
    pub tls: Option<ListenerTls>,
    /// HTTP/3, if it is wanted; only with TLS.
    pub http3: Option<Http3>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed. Default none.
    pub trusted: Vec<IpNet>,
    /// Peers whose connections begin with a PROXY header. Default none.
    pub proxies: Vec<IpNet>,
    /// Where everybody is sent who comes in here and is not there yet, before any route.
    pub redirect: Option<Redirect>,
    /// What HTTP/2 connections may do.
    pub http2: Http2,
}
