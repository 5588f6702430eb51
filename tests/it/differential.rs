//! Our answers beside those of Knot, NSD and BIND, on random zones and random questions, over UDP and TCP.
//!
//! Compared are the code, AA, TC, and the answer and authority sections as sets; the additional section of referrals. A
//! difference is a defect, or it stands in [`EXPLAINED`] with its reason. `DIFF_SEED=7` replays one world,
//! `DIFF_WORLDS=20 DIFF_QUERIES=5000` asks more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use springtide::base::entropy::Rng;
use springtide::wire::{name, rdata, text};

use crate::peers::{Peer, free_port};
use crate::support::Node;

const SOON: Duration = Duration::from_secs(30);
/// How long an answer is waited for; and where there may be none.
const PATIENCE: Duration = Duration::from_secs(2);
const BRIEF: Duration = Duration::from_millis(250);
const ORIGIN: &str = "z.test.";

/// A difference that is meant: of whom, when, and why.
struct Explained {
    peer: &'static str,
    when: fn(&Question, &Said, &Said) -> bool,
    #[allow(dead_code, reason = "it is for those who read it")]
    why: &'static str,
}

const EXPLAINED: &[Explained] = &[
    Explained {
        peer: "knot nsd bind",
        when: |q, _, _| q.rtype == 255,
        why: "ANY: we give HINFO (RFC 8482 section 4.2), they one set or all of them",
    },
    Explained {
        peer: "knot nsd bind",
        when: |q, ours, theirs| q.mangled && ours.is_bare() && theirs.is_bare(),
        why: "what is no plain query gets FORMERR, NOTIMP, REFUSED or nothing, as each likes: RFC 1035 section 4.1.1 has the codes, no rule",
    },
    Explained {
        peer: "knot",
        when: |q, _, theirs| q.mangled && theirs.rcode == Some(1) && theirs.is_bare(),
        why: "Knot refuses octets behind the last record that is counted; we, NSD and BIND pass over them (RFC 1035 is silent)",
    },
    Explained {
        peer: "bind",
        when: |_, ours, theirs| ours.but_for_glue(theirs) && ours.glue.is_superset(&theirs.glue),
        why: "BIND leaves out glue from beside the cut, which we, Knot and NSD add: it may be there (RFC 9471 section 3.2)",
    },
    Explained {
        peer: "knot nsd bind",
        when: |_, ours, theirs| ours.ring() || theirs.ring(),
        why: "a ring of CNAMEs or DNAMEs: everybody stops somewhere else, and no RFC says where",
    },
    Explained {
        peer: "knot nsd bind",
        when: |_, ours, theirs| ours.chain() >= 8 || theirs.chain() >= 8,
        why: "we leave a chain of more than eight links to the resolver (RFC 1034 section 3.6.2 has no number)",
    },
];

#[test]
fn others_answer_alike() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (first, worlds, queries) = (number("DIFF_SEED", 1), number("DIFF_WORLDS", 2), number("DIFF_QUERIES", 400));
    let mut found = Vec::new();
    let mut asked = 0;
    for seed in first..first + worlds {
        let world = World::start(seed);
        let mut rng = Rng::seeded(seed ^ 0xd1ff);
        for _ in 0..queries {
            let question = Question::any(&mut rng, &world.names);
            asked += 1;
            for tcp in [false, true] {
                let ours = world.ask(world.node.dns().port(), &question, tcp);
                for peer in &world.peers {
                    let theirs = world.ask(peer.port, &question, tcp);
                    let explained = |e: &&Explained| e.peer.contains(peer.name) && (e.when)(&question, &ours, &theirs);
                    if ours != theirs && !EXPLAINED.iter().any(|e| explained(&e)) {
                        let by = if tcp { "TCP" } else { "UDP" };
                        found.push(format!(
                            "seed {seed} {} over {by}: {question}\n  ours   {ours}\n  theirs {theirs}",
                            peer.name
                        ));
                    }
                }
            }
        }
    }
    let shown = found.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(found.is_empty(), "{} differences in {asked} questions\n{shown}", found.len());
}

/// The four servers, on one zone.
struct World {
    node: Node,
    peers: [Peer; 3],
    names: Vec<String>,
    _dir: tempfile::TempDir,
}

impl World {
    fn start(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (zone, names) = zone(&mut Rng::seeded(seed));
        let file = dir.path().join("z.zone");
        fs::write(&file, &zone).unwrap();
        let config = dir.path().join("ours.toml");
        fs::write(&config, format!("[node]\nname = \"ours\"\nworkers = 1\n[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n[[dns.zone]]\nname = \"{ORIGIN}\"\nfile = \"z.zone\"\n")).unwrap();
        let node = Node::start(&config);
        let file = file.display();
        let knot = format!(
            "zone:\n  - domain: {ORIGIN}\n    file: \"{file}\"\n    semantic-checks: soft\n    zonefile-sync: -1\n    journal-content: none\n"
        );
        let nsd = format!("zone:\n  name: {ORIGIN}\n  zonefile: \"{file}\"\n");
        let bind = format!("zone \"{ORIGIN}\" {{ type primary; file \"{file}\"; notify no; }};\n");
        let peers = [
            Peer::knot(free_port(), dir.path(), &knot),
            Peer::nsd(free_port(), dir.path(), &nsd),
            Peer::bind(free_port(), dir.path(), &bind),
        ];
        for peer in &peers {
            wait(peer, dir.path(), &zone);
        }
        Self { node, peers, names, _dir: dir }
    }

    fn ask(&self, port: u16, question: &Question, tcp: bool) -> Said {
        let packet = match tcp {
            true => over_tcp(port, &question.packet, if question.mangled { BRIEF } else { PATIENCE }),
            false if question.mangled => over_udp_within(port, &question.packet, BRIEF),
            // Once more where a busy machine lost it.
            false => over_udp_within(port, &question.packet, PATIENCE)
                .or_else(|| over_udp_within(port, &question.packet, PATIENCE)),
        };
        packet.map_or_else(Said::nothing, |packet| Said::read(&packet))
    }
}

fn wait(peer: &Peer, dir: &Path, zone: &str) {
    let soa = Question::of(ORIGIN, 6);
    let deadline = Instant::now() + SOON;
    loop {
        let said = over_udp_within(peer.port, &soa.packet, Duration::from_millis(200)).map(|p| Said::read(&p));
        if said.is_some_and(|s| s.rcode == Some(0) && s.answer.len() == 1) {
            return;
        }
        let log = || fs::read_to_string(dir.join(format!("{}.log", peer.name))).unwrap_or_default();
        assert!(Instant::now() < deadline, "{} does not serve the zone:\n{}\n{zone}", peer.name, log());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn over_udp_within(port: u16, packet: &[u8], wait: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    socket.send(packet).ok()?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

fn over_tcp(port: u16, packet: &[u8], wait: Duration) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(wait)).unwrap();
    let mut framed = (packet.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

/// A message with its names written out: the others compress them in data, too.
#[derive(Default)]
struct Message {
    rcode: u16,
    sections: [BTreeSet<String>; 3],
}

impl Message {
    fn read(packet: &[u8]) -> Option<Self> {
        let count = |i: usize| u16::from_be_bytes([packet[i], packet[i + 1]]);
        let mut message = Self { rcode: u16::from(packet.get(3)? & 15), ..Self::default() };
        let mut at = 12;
        for _ in 0..count(4) {
            at = expand(packet, at)?.1 + 4;
        }
        for (section, field) in [(0, 6), (1, 8), (2, 10)] {
            for _ in 0..count(field) {
                let (owner, fixed) = expand(packet, at)?;
                let head = packet.get(fixed..fixed + 10)?;
                let (rtype, length) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[8], head[9]]));
                let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                let start = fixed + 10;
                at = start + usize::from(length);
                if rtype == 41 {
                    message.rcode |= u16::from(head[4]) << 4;
                    continue;
                }
                // How many octets stand before the names, and how many names there are (RFC 3597 section 4).
                let (before, names) = match rtype {
                    2 | 5 | 12 | 39 => (0, 1),
                    6 => (0, 2),
                    15 => (2, 1),
                    33 => (6, 1),
                    _ => (0, 0),
                };
                let mut data = packet.get(start..start + before)?.to_vec();
                let mut next = start + before;
                for _ in 0..names {
                    let (name, after) = expand(packet, next)?;
                    data.extend(name);
                    next = after;
                }
                data.extend(packet.get(next..at)?);
                let (owner, rtype_text) = (name::show(&owner), rdata::type_name(rtype));
                let record = format!("{owner} {ttl} in {rtype_text} {}", text::show(rtype, &data));
                message.sections[section].insert(record.to_ascii_lowercase());
            }
        }
        (at == packet.len()).then_some(message)
    }
}

fn expand(packet: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut wire, mut end) = (Vec::new(), None);
    for _ in 0..300 {
        match *packet.get(at)? {
            0 => {
                wire.push(0);
                return Some((wire, end.unwrap_or(at + 1)));
            }
            length @ 1..=63 => {
                wire.extend(packet.get(at..at + 1 + usize::from(length))?);
                at += 1 + usize::from(length);
            }
            high => {
                end = end.or(Some(at + 2));
                at = usize::from(u16::from_be_bytes([high & 0x3f, *packet.get(at + 1)?]));
            }
        }
    }
    None
}

/// What an answer comes down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    /// `None`: no answer at all.
    rcode: Option<u16>,
    authoritative: bool,
    truncated: bool,
    answer: BTreeSet<String>,
    authority: BTreeSet<String>,
    /// Of a referral alone.
    glue: BTreeSet<String>,
}

impl Said {
    fn nothing() -> Self {
        Self::default()
    }

    fn read(packet: &[u8]) -> Self {
        let Some(message) = Message::read(packet) else { panic!("unreadable: {}", packet.escape_ascii()) };
        let truncated = packet[2] & 2 != 0;
        let mut said =
            Self { rcode: Some(message.rcode), authoritative: packet[2] & 4 != 0, truncated, ..Self::default() };
        // What is cut is cut somewhere else by everybody.
        if !truncated {
            [said.answer, said.authority, said.glue] = message.sections;
        }
        if !said.referral() {
            said.glue.clear();
        }
        said
    }

    /// The same referral, whatever its glue.
    fn but_for_glue(&self, other: &Self) -> bool {
        let bare = |said: &Self| Self { glue: BTreeSet::new(), ..said.clone() };
        self.referral() && bare(self) == bare(other)
    }

    /// No data at all.
    fn is_bare(&self) -> bool {
        self.answer.is_empty() && self.authority.is_empty()
    }

    fn referral(&self) -> bool {
        self.authority.iter().any(|r| r.contains(" in ns "))
    }

    fn links(&self) -> BTreeMap<&str, &str> {
        let cname = |r: &&String| r.contains(" in cname ");
        self.answer.iter().filter(cname).filter_map(|r| Some((r.split(' ').next()?, r.rsplit(' ').next()?))).collect()
    }

    fn chain(&self) -> usize {
        self.links().len()
    }

    fn ring(&self) -> bool {
        let links = self.links();
        links.keys().any(|start| {
            let mut at = *start;
            (0..=links.len()).any(|_| match links.get(at) {
                Some(next) => {
                    at = next;
                    at == *start
                }
                None => false,
            })
        })
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |s: &BTreeSet<String>| s.iter().cloned().collect::<Vec<_>>().join("; ");
        let (aa, tc) = (if self.authoritative { " aa" } else { "" }, if self.truncated { " tc" } else { "" });
        write!(
            f,
            "{:?}{aa}{tc} | {} | {} | {}",
            self.rcode,
            list(&self.answer),
            list(&self.authority),
            list(&self.glue)
        )
    }
}

/// One packet.
struct Question {
    what: String,
    rtype: u16,
    packet: Vec<u8>,
    /// It is no plain query any more: some answer with an error, some not at all.
    mangled: bool,
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

const TYPES: [u16; 20] = [1, 28, 2, 5, 6, 15, 16, 33, 39, 43, 12, 257, 13, 29, 35, 44, 52, 65, 255, 65_280];

impl Question {
    fn of(name: &str, rtype: u16) -> Self {
        let mut packet = vec![1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(name::parse(name, None).unwrap());
        packet.extend(rtype.to_be_bytes());
        packet.extend([0, 1]);
        Self { what: format!("{name} TYPE{rtype}"), rtype, packet, mangled: false }
    }

    fn any(rng: &mut Rng, names: &[String]) -> Self {
        let below = |rng: &mut Rng, n: usize| rng.below(n as u64) as usize;
        let known = names[below(rng, names.len())].clone();
        let label = LABELS[below(rng, LABELS.len())];
        let mut name = match rng.below(10) {
            0..=4 => known,
            5 | 6 => format!("{label}.{known}"),
            7 => format!("{label}.{}.{known}", LABELS[below(rng, LABELS.len())]),
            8 => known
                .split_once('.')
                .map(|(_, up)| format!("{label}.{up}"))
                .filter(|n| n.ends_with("z.test."))
                .unwrap_or(known),
            _ => ["other.test.", ".", "test.", "xz.test.", "z.test."][below(rng, 5)].to_owned(),
        };
        if name::parse(&name, None).is_err() {
            name = ORIGIN.to_owned();
        }
        if rng.chance(0.3) {
            name = name.chars().map(|c| if rng.chance(0.5) { c.to_ascii_uppercase() } else { c }).collect();
        }
        let mut question = Self::of(&name, TYPES[below(rng, TYPES.len())]);
        if rng.chance(0.3) {
            // RD and CD.
            question.packet[2] |= 1;
            question.packet[3] |= (rng.next_u64() as u8) & 0x10;
        }
        if rng.chance(0.5) {
            let size = [512u16, 600, 1232, 1400, 4096][below(rng, 5)];
            question.packet[11] = 1;
            question.packet.extend([0, 0, 41]);
            question.packet.extend(size.to_be_bytes());
            question.packet.extend([0, u8::from(rng.chance(0.05)), 0, 0, 0, 0]);
            let _ = write!(question.what, " edns {size}/{}", question.packet[question.packet.len() - 5]);
        }
        match rng.below(100) {
            // Another class; another opcode; an EDNS version that nobody has; a bit that is wrong somewhere.
            0 => {
                let at = 12 + name::parse(&name, None).map_or(1, |n| n.len()) + 2;
                question.packet[at + 1] = [2, 4, 5][below(rng, 3)];
                question.what += " class";
            }
            1 => {
                question.packet[2] |= [1 << 3, 2 << 3, 6 << 3, 15 << 3][below(rng, 4)];
                question.what += " opcode";
            }
            2 if question.packet[11] == 1 => {
                let at = question.packet.len() - 5;
                question.packet[at - 1] = 1 + (rng.next_u64() as u8) % 3;
                question.what += " version";
            }
            3 => {
                question.packet.truncate(12 + below(rng, question.packet.len() - 12));
                question.what += " cut";
            }
            4 => {
                question.packet[[4, 5, 7, 9, 11][below(rng, 5)]] ^= 1 << rng.below(3);
                question.what += " counts";
            }
            _ => {}
        }
        question.mangled =
            [" class", " opcode", " version", " cut", " counts"].iter().any(|w| question.what.ends_with(w));
        let _ = write!(question.what, " {}", question.packet.escape_ascii());
        question
    }
}

const LABELS: [&str; 14] = ["a", "b", "c", "d", "e", "f", "g", "h", "x-1", "_s", "*", "\\032sp", "do\\.t", "q\\000"];

/// A zone that all four take, and the names in it.
fn zone(rng: &mut Rng) -> (String, Vec<String>) {
    let mut text = format!(
        "$ORIGIN {ORIGIN}\n$TTL 300\n@ 3600 IN SOA ns1 hostmaster 7 3600 900 604800 60\n@ NS ns1\n@ NS ns.elsewhere.test.\nns1 A 192.0.2.53\n@ MX 10 ns1\n@ TXT \"apex\"\n"
    );
    // Names as labels under the apex, with what stands there: d(ata), c(name), n(s), r(edirect).
    let mut taken: BTreeMap<Vec<&str>, char> = BTreeMap::new();
    taken.insert(vec!["ns1"], 'd');
    let below = |rng: &mut Rng, n: usize| rng.below(n as u64) as usize;
    for _ in 0..60 {
        let depth = 1 + below(rng, 3);
        let labels: Vec<&str> = (0..depth)
            .map(|i| if i == 0 { LABELS[below(rng, LABELS.len())] } else { LABELS[below(rng, 10)] })
            .collect();
        let under = |kind: char| (1..labels.len()).any(|i| taken.get(&labels[i..]) == Some(&kind));
        let above = taken.keys().any(|t| t.len() > labels.len() && t.ends_with(&labels));
        if taken.contains_key(&labels) || under('n') || under('r') {
            continue;
        }
        let owner = labels.join(".");
        let target = |rng: &mut Rng| match rng.below(4) {
            0 => "away.elsewhere.test.".to_owned(),
            1 => LABELS[below(rng, 8)].to_owned(),
            _ => format!("{}.{}", LABELS[below(rng, 8)], LABELS[below(rng, 8)]),
        };
        let star = labels[0] == "*";
        let kind = match rng.below(10) {
            0 | 1 => 'c',
            2 if !above && !star => 'r',
            3 if !above && !star => 'n',
            _ => 'd',
        };
        match kind {
            'c' => writeln!(text, "{owner} CNAME {}", target(rng)).unwrap(),
            'r' => writeln!(text, "{owner} DNAME {}", target(rng)).unwrap(),
            'n' => {
                writeln!(text, "{owner} NS ns.{owner}\n{owner} NS ns1\n{owner} NS far.elsewhere.test.").unwrap();
                if rng.chance(0.6) {
                    writeln!(text, "ns.{owner} A 192.0.2.60\nns.{owner} AAAA 2001:db8::60").unwrap();
                }
                if rng.chance(0.4) {
                    writeln!(text, "{owner} DS 7 13 2 {}", "ab".repeat(32)).unwrap();
                }
            }
            _ => data(rng, &owner, &mut text),
        }
        taken.insert(labels, kind);
    }
    let mut names: Vec<String> = taken.keys().map(|labels| format!("{}.{ORIGIN}", labels.join("."))).collect();
    names.push(ORIGIN.to_owned());
    (text, names)
}

fn data(rng: &mut Rng, owner: &str, text: &mut String) {
    let all = [
        "A 192.0.2.1",
        "A 192.0.2.2",
        "AAAA 2001:db8::1",
        "TXT \"one\" \"two;\"",
        "MX 10 a",
        "SRV 1 2 443 b.a",
        "CAA 0 issue \"ca.example\"",
        "HINFO \"c\" \"o\"",
        "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 1m 10000m 10m",
        "NAPTR 100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:x@z.test!\" .",
        "SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789",
        "TLSA 3 1 1 123456789abcdef67890123456789abcdef67890123456789abcdef123456789",
        "TYPE65280 \\# 3 010203",
        "PTR c.b",
    ];
    for _ in 0..1 + rng.below(3) {
        writeln!(text, "{owner} {}", all[rng.below(all.len() as u64) as usize]).unwrap();
    }
    if rng.chance(0.1) {
        for i in 0..8 {
            writeln!(text, "{owner} TXT \"{i}{}\"", "0123456789".repeat(20)).unwrap();
        }
    }
}
