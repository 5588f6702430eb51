//! A small world for the name server's tests: one zone, steered names, health as the test wants it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::answer::{Meta, Outcome, Sent, Transport, answer};
use super::table::Table;
use super::zone;
use crate::base::clock::{Mono, Wall};
use crate::base::ids::{DatacenterId, SteerId};
use crate::config::{
    Config, Datacenter, Dns, DnsGuard, DnsHttps, ListenerTls, Locality, Node, OnAllDown, Policy, SecureDns, Steer,
};
use crate::snapshot::health::Candidate;
use crate::snapshot::topology::{Assets, Certificate};
use crate::snapshot::{DcState, Published, Snapshot, SteerHealth, Topology};
use crate::wire::dns::rtype;
use crate::wire::name;
use crate::wire::rdata::type_of;
use crate::wire::zone::Zone;

pub(crate) const ZONE: &str = concat!(
    "$TTL 300\n",
    "@       3600 IN SOA ns1 hostmaster 1 3600 900 604800 60\n",
    "@            NS  ns1\n",
    "@            NS  ns.elsewhere.net.\n",
    "@            MX  10 mail\n",
    "ns1          A   192.0.2.53\n",
    "host         A   192.0.2.1\n",
    "host         A   192.0.2.2\n",
    "host         AAAA 2001:db8::1\n",
    "host         TXT \"hello world\" \"again\"\n",
    "mail         A   192.0.2.25\n",
    "alias        CNAME host\n",
    "alias2       CNAME Alias\n",
    "away         CNAME www.elsewhere.net.\n",
    "lost         CNAME nowhere\n",
    "ring         CNAME ring2\n",
    "ring2        CNAME ring\n",
    "towww        CNAME www\n",
    "a.deep.down  A   192.0.2.3\n",
    "*.wild       A   192.0.2.4\n",
    "*.wild       TXT \"w\"\n",
    "real.wild    A   192.0.2.5\n",
    "x.sub.wild   A   192.0.2.6\n",
    "*.cwild      CNAME host\n",
    "child        NS  ns.child\n",
    "child        NS  ns2\n",
    "child        NS  ns.elsewhere.net.\n",
    "child        DS  1 13 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
    "ns.child     A   192.0.2.100\n",
    "ns.child     AAAA 2001:db8::100\n",
    "ns2          A   192.0.2.101\n",
    "svc          HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.9\n",
    "_s._tcp      SRV 1 2 443 host\n",
    "@            CAA 0 issue \"ca.example\"\n",
    "odd          TYPE65280 \\# 3 010203\n",
    "moved        DNAME wild\n",
    "moved        TXT \"stays\"\n",
    "gone         DNAME elsewhere.net.\n",
    "turns        DNAME turns\n",
    "one          DNAME two\n",
    "two          DNAME one\n",
    "far          DNAME 23456789012345678901234567890123456789012345678901234567890.23456789012345678901234567890123456789012345678901234567890\n",
    "big          TXT \"",
    "0123456789012345678901234567890123456789",
    "\" ( \"01234567890123456789012345678901234567890123456789012345678901234567890123456789\" )\n",
);

pub(crate) fn zone(origin: &str, text: &str) -> Zone {
    let origin = name::parse(origin, None).unwrap();
    let read = &mut |_: &Path| Err("no files here".into());
    zone::parse(text, Path::new("test.zone"), &origin, read).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Three datacenters as in the demo: 40, 40 and 20.
pub(crate) fn datacenters() -> Vec<Datacenter> {
    let dc = |name: &str, weight, octet: u8, near: &[&str]| Datacenter {
        name: name.into(),
        weight,
        addresses: vec![IpAddr::from([203, 0, 113, octet]), format!("2001:db8:{octet}::1").parse().unwrap()],
        near: near.iter().map(|n| Locality::Net(n.parse().unwrap())).collect(),
        capacity_rps: None,
    };
    vec![
        dc("shenzhen", 40, 1, &["10.1.0.0/16", "2001:db8:1000::/36"]),
        dc("shanghai", 40, 2, &["10.2.0.0/16", "10.1.128.0/20"]),
        dc("tianjin", 20, 3, &["10.3.0.0/16"]),
    ]
}

pub(crate) fn steer(name: &str, policy: &[Policy]) -> Steer {
    Steer {
        name: name.into(),
        services: Vec::new(),
        policy: policy.to_vec(),
        datacenters: [40, 40, 20].into_iter().enumerate().map(|(i, w)| (DatacenterId::new(i), w)).collect(),
        answers: 2,
        ttl_base: Duration::from_secs(20),
        ttl_min: Duration::from_secs(5),
        on_all_down: OnAllDown::ServeAll,
        alpn: vec!["h2".into(), "http/1.1".into()],
        ..Steer::default()
    }
}

pub(crate) fn healthy(steer: &Steer) -> SteerHealth {
    let candidate = |(_, w): &(DatacenterId, u32)| Candidate {
        state: DcState::Serving,
        effective: u64::from(*w) * 1_000,
        ..Candidate::default()
    };
    SteerHealth { candidates: steer.datacenters.iter().map(candidate).collect(), all_down: false, ttl: 20 }
}

/// A snapshot that serves `zones` and `steers`, everything healthy.
pub(crate) fn snapshot(zones: Vec<Zone>, steers: Vec<Steer>) -> Snapshot {
    let dns = Dns {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        threads: 1,
        ecs: true,
        client_prefix: (24, 56),
        guard: DnsGuard::default(),
        steers,
        ..Dns::default()
    };
    let config = Config {
        node: Node { name: "node-1".into(), ..Node::default() },
        datacenters: datacenters(),
        dns: Some(dns),
        ..Config::default()
    };
    let steers = config.dns.iter().flat_map(|d| &d.steers).map(healthy).collect();
    let assets = Assets { zones: zones.into_iter().map(Arc::new).collect(), ..Assets::default() };
    Snapshot {
        generation: 1,
        at: Mono::from_millis(1_000),
        topology: Arc::new(Topology::build(Arc::new(config), assets, None)),
        targets: Arc::default(),
        backends: Arc::default(),
        weights: Arc::default(),
        steers: Arc::new(steers),
        spill: Arc::default(),
        intents: Arc::default(),
        steered_from: Arc::default(),
        isolated_since: None,
        views: Arc::default(),
    }
}

/// A node that has no name server.
pub(crate) fn without_dns() -> Snapshot {
    let mut snapshot = snapshot(Vec::new(), Vec::new());
    snapshot.topology = Arc::new(Topology::build(Arc::default(), Assets::default(), None));
    snapshot
}

/// The same topology with other health of one steered name.
pub(crate) fn with_health(snapshot: &Snapshot, id: SteerId, change: impl FnOnce(&mut SteerHealth)) -> Snapshot {
    let mut next = Snapshot { generation: snapshot.generation + 1, views: Arc::default(), ..snapshot.clone() };
    change(&mut Arc::make_mut(&mut next.steers)[id.index()]);
    next
}

/// `example.test.` with `www`, `near`, `order` and `turn` steered.
pub(crate) fn world() -> Snapshot {
    let steers = vec![
        steer("www.example.test.", &[Policy::Weighted]),
        steer("near.example.test.", &[Policy::Near, Policy::Weighted]),
        steer("order.example.test.", &[Policy::Failover]),
        steer("turn.example.test.", &[Policy::Spread]),
    ];
    snapshot(vec![zone("example.test.", ZONE)], steers)
}

pub(crate) fn published(snapshot: Snapshot) -> Arc<Published> {
    Arc::new(Published::new(snapshot))
}

/// The name on the certificate of [`everywhere`].
pub(crate) const SERVER: &str = "ns1.example.test";

/// The world, listening by every transport on ports of the system's choice, and what a client has to trust for that.
pub(crate) fn everywhere(change: impl FnOnce(&mut Dns)) -> (Arc<Published>, rustls::ClientConfig) {
    let mut snapshot = world();
    let topology = Arc::get_mut(&mut snapshot.topology).unwrap();
    let dns = Arc::get_mut(&mut topology.config).unwrap().dns.as_mut().unwrap();
    let secure = SecureDns { listen: vec!["127.0.0.1:0".parse().unwrap()], tls: ListenerTls::default() };
    dns.listen = secure.listen.clone();
    (dns.tls, dns.quic) = (Some(secure.clone()), Some(secure.clone()));
    dns.https = Some(DnsHttps { secure, path: "/dns-query".into() });
    change(dns);
    let made = rcgen::generate_simple_self_signed([SERVER.to_owned()]).unwrap();
    let own = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let key = Arc::new(CertifiedKey::new(vec![own.clone()], key));
    let certificate = Certificate { names: vec![SERVER.into()], key };
    topology.assets.dns_certificates = [(); 3].map(|()| vec![certificate.clone()]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (published(snapshot), client)
}

/// A client that speaks `alpn` and nothing else.
pub(crate) fn speaking(client: &rustls::ClientConfig, alpn: &str) -> Arc<rustls::ClientConfig> {
    let mut client = client.clone();
    client.alpn_protocols = vec![alpn.into()];
    Arc::new(client)
}
/// What threads share: nothing has happened yet.
pub(crate) fn guard() -> super::guard::Guard {
    super::guard::Guard::new(super::log::channel().0)
}

/// When everything happens: RFC 9018's example.
pub(crate) const NOW: Wall = Wall(1_559_731_985_000);

/// A query being built.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) packet: Vec<u8>,
    options: Option<(u16, Vec<u8>)>,
    /// The first octet of the EDNS flags: DO and CO.
    flags: u8,
    pub(crate) meta: Meta,
}

impl Ask {
    pub(crate) fn new(qname: &str, qtype: &str) -> Self {
        let qtype = match qtype {
            "AXFR" => 252,
            "OPT" => rtype::OPT,
            other => type_of(other).unwrap(),
        };
        let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(name::parse(qname, None).unwrap());
        packet.extend(qtype.to_be_bytes());
        packet.extend([0, 1]);
        let meta = Meta { client: [198, 51, 100, 7].into(), transport: Transport::Udp, now: NOW };
        Self { packet, options: None, flags: 0, meta }
    }

    pub(crate) fn edns(mut self, size: u16) -> Self {
        self.options = Some((size, Vec::new()));
        self
    }

    /// Wants signatures.
    pub(crate) fn dnssec(mut self) -> Self {
        self.flags |= 0x80;
        self.edns(1232)
    }

    /// Takes NXDOMAIN beside a compact denial.
    pub(crate) fn compact(mut self) -> Self {
        self.flags |= 0x40;
        self
    }

    pub(crate) fn option(mut self, code: u16, data: &[u8]) -> Self {
        let (_, options) = self.options.get_or_insert((1232, Vec::new()));
        options.extend(code.to_be_bytes());
        options.extend((data.len() as u16).to_be_bytes());
        options.extend(data);
        self
    }

    pub(crate) fn subnet(self, net: &str) -> Self {
        let net: ipnet::IpNet = net.parse().unwrap();
        let (family, octets) = match net.network() {
            IpAddr::V4(a) => (1, a.octets().to_vec()),
            IpAddr::V6(a) => (2, a.octets().to_vec()),
        };
        let mut data = vec![0, family, net.prefix_len(), 0];
        data.extend(&octets[..usize::from(net.prefix_len()).div_ceil(8)]);
        self.option(8, &data)
    }

    pub(crate) fn from(mut self, client: &str) -> Self {
        self.meta.client = client.parse().unwrap();
        self
    }

    pub(crate) fn at(mut self, now: Wall) -> Self {
        self.meta.now = now;
        self
    }

    pub(crate) fn tcp(mut self) -> Self {
        self.meta.transport = Transport::Tcp;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut packet = self.packet.clone();
        if let Some((size, options)) = &self.options {
            packet[11] += 1;
            packet.extend([0, 0, 41]);
            packet.extend(size.to_be_bytes());
            packet.extend([0, 0, self.flags, 0]);
            packet.extend((options.len() as u16).to_be_bytes());
            packet.extend(options);
        }
        packet
    }

    /// The answer of `table`, and what it says of itself.
    pub(crate) fn of(&self, table: &Table) -> (Vec<u8>, Sent) {
        let mut out = vec![0; 65_535];
        match answer(table, &self.bytes(), &self.meta, &mut out) {
            Outcome::Send(sent) => {
                out.truncate(sent.length);
                (out, sent)
            }
            Outcome::Drop(why) => panic!("dropped: {why:?}"),
        }
    }
}

/// A message that asks for nothing but a cookie (RFC 7873 section 5.4).
pub(crate) fn for_a_cookie(cookie: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0];
    packet.extend((4 + cookie.len() as u16).to_be_bytes());
    packet.extend([0, 10, 0, cookie.len() as u8]);
    packet.extend(cookie);
    packet
}

/// An answer in short, as hickory-proto reads it: `RCODE flags | answers | authorities | additionals | options`.
pub(crate) fn show(message: &[u8]) -> String {
    use hickory_proto::op::Message;
    use hickory_proto::serialize::binary::BinEncodable as _;
    let message = Message::from_vec(message).unwrap_or_else(|e| panic!("{e}: {}", message.escape_ascii()));
    let meta = &message.metadata;
    let mut flags = String::new();
    for (set, flag) in [(meta.authoritative, "aa"), (meta.truncation, "tc"), (meta.recursion_desired, "rd")] {
        if set {
            flags += " ";
            flags += flag;
        }
    }
    let section = |records: &[hickory_proto::rr::Record]| {
        let all: Vec<String> = records
            .iter()
            .map(|r| {
                let data = match r.data.to_bytes() {
                    // hickory-proto has no form for it.
                    Ok(wire) if u16::from(r.record_type()) == rtype::DNAME => name::show(&wire),
                    _ => r.data.to_string(),
                };
                format!("{} {} {} {}", r.name, r.ttl, r.record_type(), data.trim())
            })
            .collect();
        all.join("; ")
    };
    let code = meta.response_code.to_string().replace(' ', "");
    let sections = [section(&message.answers), section(&message.authorities), section(&message.additionals)];
    let edns = message.edns.as_ref().map_or(String::new(), |e| format!(" edns={}", e.max_payload()));
    format!("{code}{flags}{edns} | {} | {} | {}", sections[0], sections[1], sections[2]).trim_end().to_owned()
}
