//! What runs where in the demo: addresses, command lines, configurations and the guide. Pure but for `write`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::{fs, io};

use super::certs::DOMAIN;
use crate::redpacket::page;

/// The three datacenters: name, loopback address, weight, the clients that are near.
pub(super) const DATACENTERS: [(&str, Ipv4Addr, u32, &str); 3] = [
    ("shenzhen", Ipv4Addr::new(127, 0, 1, 1), 40, "10.1.0.0/16"),
    ("shanghai", Ipv4Addr::new(127, 0, 2, 1), 40, "10.2.0.0/16"),
    ("tianjin", Ipv4Addr::new(127, 0, 3, 1), 20, "10.3.0.0/16"),
];

/// Upstreams in the order in which they are started, two processes of each in every datacenter.
const UPSTREAMS: [&str; 7] = ["game", "recommend", "gift-list", "zones", "claim", "delivery", "packet"];

/// How the edges treat the service that owns its users' claims.
const CLAIM: &str = "balance = \"user-home\"\nhomes = \"homes.toml\"\nhome_down = \"elsewhere\"\ndeadline = \"2s\"\n";

/// Which kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A red-packet upstream.
    Upstream,
    /// A node of the router: an edge with its name server, or the name server on its own.
    Node,
}

/// One process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// `shenzhen/claim-1`, `shenzhen/edge`, `gslb`.
    pub(super) name: String,
    /// What it is.
    pub(super) role: Role,
    /// Arguments, with `{dir}` for the demo's folder.
    pub(super) args: Vec<String>,
}

/// Which ports are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) dns: u16,
    pub(super) http: u16,
    pub(super) https: u16,
    pub(super) admin: u16,
    upstreams: u16,
}

/// The whole demo.
#[derive(Debug)]
pub(super) struct Plan {
    /// Ports, the same on every address.
    pub(super) ports: Ports,
    /// Processes in the order in which they are started.
    pub(super) processes: Vec<Process>,
}

impl Plan {
    /// With ports of a block that begins at `base`, or with the well-known ones.
    pub(super) fn new(base: Option<u16>) -> Self {
        let ports = match base {
            None => Ports { dns: 5300, http: 8080, https: 8443, admin: 9900, upstreams: 7000 },
            Some(b) => Ports {
                dns: b,
                http: b.saturating_add(1),
                https: b.saturating_add(2),
                admin: b.saturating_add(3),
                upstreams: b.saturating_add(10),
            },
        };
        let mut plan = Self { ports, processes: Vec::new() };
        for upstream in UPSTREAMS {
            for (dc, ..) in DATACENTERS {
                for n in 1..=2 {
                    plan.processes.push(plan.upstream(dc, upstream, n));
                }
            }
        }
        for node in DATACENTERS.map(|d| d.0).into_iter().chain(["gslb"]) {
            let name = if node == "gslb" { node.to_owned() } else { format!("{node}/edge") };
            let args = ["run", "-c", &format!("{{dir}}/{node}.toml"), "--while-stdin-open"];
            plan.processes.push(Process { name, role: Role::Node, args: args.map(String::from).to_vec() });
        }
        plan
    }

    fn port(&self, upstream: &str, n: u16) -> u16 {
        let at = UPSTREAMS.iter().position(|u| *u == upstream).unwrap_or(0) as u16;
        self.ports.upstreams.saturating_add(at * 10 + n)
    }

    fn address(&self, dc: &str, upstream: &str, n: u16) -> SocketAddr {
        let ip = DATACENTERS.iter().find(|d| d.0 == dc).map_or(Ipv4Addr::LOCALHOST, |d| d.1);
        SocketAddr::from((ip, self.port(upstream, n)))
    }

    fn urls(&self, dc: &str, upstream: &str) -> String {
        [1, 2].map(|n| format!("http://{}", self.address(dc, upstream, n))).join(",")
    }

    fn upstream(&self, dc: &str, upstream: &str, n: u16) -> Process {
        let listen = self.address(dc, upstream, n).to_string();
        let mut args: Vec<String> =
            ["upstream", upstream, "--listen", &listen, "--while-stdin-open"].map(String::from).to_vec();
        let data = format!("{{dir}}/data/{dc}-{upstream}-{n}");
        match upstream {
            "gift-list" => args.extend(["--recommend".into(), self.urls(dc, "recommend")]),
            "zones" => args.extend(["--game".into(), format!("http://{}", self.address(dc, "game", n))]),
            "claim" => {
                let at = DATACENTERS.iter().position(|d| d.0 == dc).unwrap_or(0) as u16 * 2 + n - 1;
                args.extend(["--data".into(), data, "--bucket".into(), format!("{at}/6")]);
                args.extend(["--homes".into(), "{dir}/homes.toml".into(), "--home".into(), format!("{dc}-{n}")]);
            }
            "game" => args.extend(["--data".into(), data]),
            "packet" => {
                // The game of its number is its wallet; everybody who packs has a thousand yuan to play with.
                let wallet = format!("http://{}", self.address(dc, "game", n));
                args.extend(["--data".into(), data, "--wallet".into(), wallet, "--grant".into(), "100000".into()]);
            }
            "delivery" => {
                // Each worker serves one claim process, and sends to the game of its number: an order goes one way only.
                let claim = format!("http://{}", self.address(dc, "claim", n));
                let game = format!("http://{}", self.address(dc, "game", n));
                args.extend(["--claims".into(), claim, "--game".into(), game]);
            }
            _ => {}
        }
        Process { name: format!("{dc}/{upstream}-{n}"), role: Role::Upstream, args }
    }

    /// Every TCP address that the demo listens on.
    pub(super) fn tcp(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let p = self.ports;
        let nodes = DATACENTERS
            .into_iter()
            .flat_map(move |(_, ip, ..)| [p.dns, p.http, p.https, p.admin].map(|port| SocketAddr::from((ip, port))));
        let upstreams = DATACENTERS
            .into_iter()
            .flat_map(move |(dc, ..)| UPSTREAMS.into_iter().flat_map(move |u| [1, 2].map(|n| self.address(dc, u, n))));
        let gslb = [p.dns, p.admin].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        gslb.into_iter().chain(nodes).chain(upstreams)
    }

    /// Every node's admin API.
    pub(super) fn admins(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let ips = [Ipv4Addr::LOCALHOST].into_iter().chain(DATACENTERS.map(|d| d.1));
        ips.map(|ip| SocketAddr::from((ip, self.ports.admin)))
    }

    /// Every UDP address that the demo listens on.
    pub(super) fn udp(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let ips = DATACENTERS.into_iter().map(|d| d.1).chain([Ipv4Addr::LOCALHOST]);
        ips.map(|ip| SocketAddr::from((ip, self.ports.dns)))
    }

    /// Writes the configurations and the zone into `folder`.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join("hongbao.test.zone"), zone())?;
        page::write(&folder.join("www"))?;
        fs::write(folder.join("homes.toml"), self.homes())?;
        for (dc, ip, ..) in DATACENTERS {
            fs::write(folder.join(format!("{dc}.toml")), self.node(dc, ip, folder))?;
        }
        fs::write(folder.join("gslb.toml"), self.node("gslb", Ipv4Addr::LOCALHOST, folder))
    }

    /// Whose home is where: every claim process owns its share of the users, and notes what it hears for the others while
    /// their homes are down.
    fn homes(&self) -> String {
        let mut out = String::from("epoch = 1\n");
        for (dc, ..) in DATACENTERS {
            for n in 1..=2 {
                let address = self.address(dc, "claim", n);
                let _ = write!(out, "\n[[home]]\nname = \"{dc}-{n}\"\nurl = \"http://{address}\"\n");
            }
        }
        out
    }

    /// The configuration of one node. All nodes know the same datacenters and services; an edge has a listener as well.
    fn node(&self, name: &str, ip: Ipv4Addr, folder: &Path) -> String {
        let Ports { dns, http, https, admin, .. } = self.ports;
        let edge = name != "gslb";
        let fleet: Vec<String> = self.admins().map(|address| format!("\"{address}\"")).collect();
        let mut out = format!("[node]\nname = \"{name}\"\nstate_dir = \"state/{name}\"\nworkers = 1\n");
        if edge {
            let _ = writeln!(out, "datacenter = \"{name}\"");
        }
        let _ = write!(out, "\n[admin]\nlisten = \"{ip}:{admin}\"\nfleet = [{}]\n", fleet.join(", "));
        for (dc, ip, weight, near) in DATACENTERS {
            let _ = write!(
                out,
                "\n[[datacenter]]\nname = \"{dc}\"\nweight = {weight}\naddresses = [\"{ip}\"]\nnear = [\"{near}\"]\n"
            );
        }
        // The edges are a service too: a datacenter whose edge is dead must not be answered with.
        let _ = write!(out, "\n[[service]]\nname = \"edge\"\nprobe = {{ http = \"/healthz\" }}\n");
        for (dc, ip, ..) in DATACENTERS {
            let _ = writeln!(out, "backends.{dc} = [\"{ip}:{http}\"]");
        }
        for (service, rest) in [
            ("gift-list", "deadline = \"1s\"\n"),
            ("zones", "deadline = \"1s\"\n"),
            ("claim", CLAIM),
            ("packet", "balance = \"user-home\"\ndeadline = \"2s\"\n"),
        ] {
            let _ = write!(out, "\n[[service]]\nname = \"{service}\"\nprobe = {{ http = \"/healthz\" }}\n{rest}");
            for (dc, ..) in DATACENTERS {
                let both = [1, 2].map(|n| format!("\"{}\"", self.address(dc, service, n))).join(", ");
                let _ = writeln!(out, "backends.{dc} = [{both}]");
            }
        }
        let _ = write!(
            out,
            "\n[dns]\nlisten = [\"{ip}:{dns}\"]\n\n[[dns.zone]]\nname = \"{DOMAIN}.\"\nfile = \"hongbao.test.zone\"\n\
             \n[[dns.steer]]\nname = \"www.{DOMAIN}.\"\nservices = [\"edge\", \"gift-list\", \"zones\", \"claim\"]\n\
             policy = [\"near\", \"weighted\"]\nanswers = 2\nttl = {{ base = \"20s\", min = \"5s\" }}\n"
        );
        if edge {
            let pem = |file: &str| folder.join(file).display().to_string();
            let _ = write!(
                out,
                "\n[[listener]]\nname = \"public\"\nlisten = [\"{ip}:{http}\"]\n\
                 \n[[listener]]\nname = \"public-tls\"\nlisten = [\"{ip}:{https}\"]\n\
                 tls = {{ certs = [{:?}], keys = [{:?}] }}\n",
                pem("edge.pem"),
                pem("edge.key"),
            );
            routes(&mut out);
            // Whatever else is asked for is of the page.
            let www = folder.join("www").display().to_string();
            let _ = write!(
                out,
                "\n[[route]]\nmatch = {{ path_prefix = \"/\" }}\nfiles = {{ root = {www:?}, index = \"index.html\" }}\n"
            );
            let _ = write!(
                out,
                "\n[[route]]\nmatch = {{ path = \"/healthz\" }}\nrespond = {{ status = 200, body = \"ok\" }}\n"
            );
        }
        out
    }

    /// What to type, with the real pids.
    pub(super) fn guide(&self, folder: &Path, pids: &BTreeMap<String, u32>) -> String {
        let Ports { dns, http, https, admin, .. } = self.ports;
        let pid = |name: &str| pids.get(name).map_or_else(|| "?".into(), u32::to_string);
        let all_of = |dc: &str| {
            let of: Vec<String> = pids
                .iter()
                .filter(|(n, _)| n.starts_with(dc) && !n.ends_with("/edge"))
                .map(|(_, p)| p.to_string())
                .collect();
            of.join(" ")
        };
        let exe = std::env::current_exe().map_or_else(|_| "springtide".into(), |p| p.display().to_string());
        let ca = folder.join("ca.pem");
        let ca = ca.display();
        let on = if admin == 9900 { String::new() } else { format!(" --admin 127.0.0.1:{admin}") };
        let mut out =
            String::from("\n  datacenter  address    weight  edge     gift-list        zones            claim\n");
        for (dc, ip, weight, _) in DATACENTERS {
            let two =
                |u: &str| format!("{:<16}", format!("{} {}", pid(&format!("{dc}/{u}-1")), pid(&format!("{dc}/{u}-2"))));
            let _ = writeln!(
                out,
                "  {dc:<11} {ip}  {weight:>6}  {:<8} {} {} {}",
                pid(&format!("{dc}/edge")),
                two("gift-list"),
                two("zones"),
                two("claim")
            );
        }
        let _ = write!(
            out,
            "
Ready. In another terminal:

  # the name server: who is near first, the rest by weight
  dig @127.0.0.1 -p {dns} www.{DOMAIN} A +short
  dig @127.0.0.1 -p {dns} www.{DOMAIN} A +subnet=10.2.3.0/24 +short
  dig @127.0.1.1 -p {dns} www.{DOMAIN} HTTPS +tcp +short

  # a user's way: gifts, zones, a claim, its order (the same claim again gives the same order)
  curl -s http://127.0.1.1:{http}/v1/gifts -H 'x-user-id: alice'
  curl -s --http2 --cacert {ca} --resolve www.{DOMAIN}:{https}:127.0.2.1 'https://www.{DOMAIN}:{https}/v1/zones?game_id=arena-nine' -H 'x-user-id: alice'
  curl -s http://127.0.3.1:{http}/v1/claims -H 'x-user-id: alice' -H 'content-type: application/json' \\
       -d '{{\"packet_id\":\"p1\",\"gift_id\":\"firecracker\",\"zone_id\":\"an-1\",\"role_id\":\"r1\"}}'

  # a packet of money: alice makes one for three, bob grabs and opens, everybody may look (see the guide)
  curl -s http://127.0.1.1:{http}/v1/packets -H 'x-user-id: alice' -H 'idempotency-key: new-year-packet-0001' \\
       -H 'content-type: application/json' -d '{{\"total_fen\":8800,\"count\":3}}'
  token=$(curl -s -X POST http://127.0.2.1:{http}/v1/packets/new-year-packet-0001/grab -H 'x-user-id: bob' |
       sed 's/.*\"grab_token\":\"\\([^\"]*\\)\".*/\\1/')
  curl -s http://127.0.3.1:{http}/v1/packets/new-year-packet-0001/open -H 'x-user-id: bob' \\
       -H 'content-type: application/json' -d \"{{\\\"grab_token\\\":\\\"$token\\\"}}\"
  curl -s http://127.0.1.1:{http}/v1/packets/new-year-packet-0001 -H 'x-user-id: bob'

  # the same as a person: gifts and packets on a page for telephones
  open http://127.0.1.1:{http}/ in a browser

  # what the health core thinks, and why
  {exe} status{on}
  {exe} explain dns www.{DOMAIN} --client 10.2.3.4{on}
  {exe} explain http http://www.{DOMAIN}/v1/gifts --user alice --admin 127.0.1.1:{admin}
  open http://127.0.0.1:{admin}/ in a browser

  # kill one backend, kill a datacenter, silence it: watch both edges move
  kill -9 {one}
  kill -9 {dead}
  kill -STOP {silent}

  # take a datacenter out by hand, and back
  {exe} drain shanghai{on}
  {exe} undrain shanghai{on}

Files and logs: {folder}
Ctrl-C stops everything.
",
            one = pid("shenzhen/gift-list-1"),
            dead = all_of("shanghai"),
            silent = all_of("tianjin"),
            folder = folder.display(),
        );
        out
    }
}

/// The routes to the upstreams.
fn routes(out: &mut String) {
    for (path, service) in [("/v1/gifts", "gift-list"), ("/v1/zones", "zones"), ("/v1/claims", "claim")] {
        let _ = write!(
            out,
            "\n[[route]]\nmatch = {{ path_prefix = \"{path}\" }}\nservice = \"{service}\"\n\
             user = \"header:x-user-id\"\n"
        );
    }
    // A packet's home is found by its name, which is the key that it was made with.
    for (path, user) in [
        ("path_prefix = \"/v1/packets/{id}\"", "path:id"),
        ("path = \"/v1/packets\", method = \"POST\"", "header:idempotency-key"),
    ] {
        let _ = write!(out, "\n[[route]]\nmatch = {{ {path} }}\nservice = \"packet\"\nuser = \"{user}\"\n");
    }
}

fn zone() -> String {
    format!(
        "$ORIGIN {DOMAIN}.
$TTL 300
@       IN SOA  ns1 hostmaster 2026112201 7200 3600 1209600 30
        IN NS   ns1
        IN MX   10 mail
        IN TXT  \"v=spf1 -all\"
ns1     IN A    127.0.0.1
mail    IN A    127.0.0.1
static  IN A    192.0.2.80
shop    IN CNAME www
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_processes_share_an_address() {
        for plan in [Plan::new(None), Plan::new(Some(20_000))] {
            let mut tcp: Vec<_> = plan.tcp().collect();
            let before = tcp.len();
            tcp.sort();
            tcp.dedup();
            assert_eq!(tcp.len(), before);
            assert_eq!(plan.processes.len(), 3 * 2 * UPSTREAMS.len() + 4);
        }
    }

    #[test]
    fn its_configurations_have_no_findings() {
        let folder = tempfile::tempdir().unwrap();
        super::super::certs::write(folder.path()).unwrap();
        let plan = Plan::new(None);
        plan.write(folder.path()).unwrap();
        for node in ["shenzhen", "shanghai", "tianjin", "gslb"] {
            let checked = crate::config::check::load(&folder.path().join(format!("{node}.toml")));
            assert!(checked.is_ok(), "{}", checked.unwrap_err());
        }
    }
}
