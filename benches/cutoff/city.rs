//! Two homes as real processes, a crowd that claims at both, and what can happen to them: killed, stopped, cut off from
//! each other. Used by the bench beside this file and by `tests/homes.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use springtide::base::entropy::Rng;
use springtide::redpacket::peer::Peer;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The longest that anything but the load may take.
pub const SOON: Duration = Duration::from_secs(60);
const TOKEN: &str = "homes-among-themselves";

/// Two network namespaces with a line between them, and one from each to here.
pub struct Lines {
    names: [String; 2],
    net: u8,
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output();
    let output = output.unwrap_or_else(|e| panic!("ip is not here ({e}): `bash tests/run.sh` installs iproute2"));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {args:?} (network namespaces want root): {words}");
}

impl Lines {
    /// Lays them.
    pub fn lay() -> Self {
        let pid = std::process::id();
        let lines = Self { names: [format!("sp{pid}a"), format!("sp{pid}b")], net: (pid % 200) as u8 + 20 };
        let [a, b] = &lines.names;
        for name in &lines.names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        for (at, name) in lines.names.iter().enumerate() {
            let (here, there) = (lines.line(at), format!("{name}0"));
            ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", name]);
            ip(&["addr", "add", &format!("10.{}.{at}.1/24", lines.net), "dev", &here]);
            ip(&["link", "set", &here, "up"]);
            ip(&["-n", name, "addr", "add", &format!("{}/24", lines.address(at)), "dev", &there]);
            ip(&["-n", name, "link", "set", &there, "up"]);
        }
        ip(&["-n", a, "link", "add", "between", "type", "veth", "peer", "name", "between", "netns", b]);
        for (at, name) in lines.names.iter().enumerate() {
            ip(&["-n", name, "addr", "add", &format!("{}/24", lines.between(at)), "dev", "between"]);
            ip(&["-n", name, "link", "set", "between", "up"]);
        }
        lines
    }

    fn line(&self, at: usize) -> String {
        format!("{}1", self.names[at])
    }

    /// Where the home at `at` is for clients.
    fn address(&self, at: usize) -> String {
        format!("10.{}.{at}.2", self.net)
    }

    /// Where it is for the other home.
    fn between(&self, at: usize) -> String {
        format!("10.{}.9.{}", self.net, at + 1)
    }

    /// Cuts the line between the homes, or mends it.
    pub fn cut(&self, is_cut: bool) {
        ip(&["-n", &self.names[0], "link", "set", "between", if is_cut { "down" } else { "up" }]);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        for name in &self.names {
            // What is gone is gone.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// One home.
struct House {
    name: &'static str,
    command: Vec<String>,
    child: Child,
    peer: Arc<Peer>,
}

impl House {
    fn start(name: &'static str, command: Vec<String>, client: Option<&str>) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{command:?}: {line:?}: {e}"));
        let listen = ready["listen"].as_str().unwrap();
        let port = listen.rsplit(':').next().unwrap();
        let origin = client.map_or_else(|| format!("http://{listen}"), |ip| format!("http://{ip}:{port}"));
        let peer = Arc::new(Peer::new(origin.parse().unwrap()).bearing(TOKEN));
        Self { name, command, child, peer }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{}: {signal}", self.name);
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The homes.
pub struct City {
    folder: PathBuf,
    houses: Mutex<Vec<House>>,
    pub lines: Option<Lines>,
}

/// Two free ports, one after the other taken and given back: the file of homes names them before anybody listens.
fn ports() -> [u16; 2] {
    let taken = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap().port())
}

impl City {
    /// Starts two homes with their data in `folder`; with `lines`, each in a network of its own.
    pub fn found(binary: &Path, folder: &Path, lines: Option<Lines>) -> Self {
        Self::stocked(binary, folder, lines, 50_000_000)
    }

    /// As [`City::found`], with so many of every gift.
    pub fn stocked(binary: &Path, folder: &Path, lines: Option<Lines>, stock: u64) -> Self {
        let mut catalogue: Value = serde_json::from_str(include_str!("../../src/redpacket/catalogue.json")).unwrap();
        for gift in catalogue["gifts"].as_array_mut().unwrap() {
            gift["stock"] = stock.into();
        }
        fs::write(folder.join("catalogue.json"), catalogue.to_string()).unwrap();
        fs::write(folder.join("token"), TOKEN).unwrap();
        let ports = ports();
        let at = |at: usize| lines.as_ref().map_or("127.0.0.1".into(), |lines| lines.between(at));
        let homes = format!(
            "epoch = 1\n[[home]]\nname = \"a\"\nurl = \"http://{}:{}\"\n[[home]]\nname = \"b\"\nurl = \"http://{}:{}\"\n",
            at(0),
            ports[0],
            at(1),
            ports[1]
        );
        fs::write(folder.join("homes.toml"), homes).unwrap();
        let houses = [0, 1].map(|at| {
            let name = ["a", "b"][at];
            let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
            let mut command: Vec<String> = Vec::new();
            if let Some(lines) = &lines {
                command.extend(["ip", "netns", "exec", &lines.names[at]].map(String::from));
            }
            let ip = if lines.is_some() { "0.0.0.0" } else { "127.0.0.1" };
            command.extend([binary.to_str().unwrap(), "upstream", "claim", "--log", "error"].map(String::from));
            command.extend(["--listen".into(), format!("{ip}:{}", ports[at]), "--bucket".into(), format!("{at}/2")]);
            command.extend(["--data".into(), path(name), "--catalogue".into(), path("catalogue.json")]);
            command.extend(["--homes".into(), path("homes.toml"), "--home".into(), name.into()]);
            command.extend(["--token-file".into(), path("token")]);
            House::start(name, command, lines.as_ref().map(|lines| lines.address(at)).as_deref())
        });
        Self { folder: folder.to_path_buf(), houses: Mutex::new(houses.into()), lines }
    }

    /// How to call the home at `at`.
    pub fn peer(&self, at: usize) -> Arc<Peer> {
        self.houses.lock().unwrap()[at].peer.clone()
    }

    /// Kills the home at `at` at once and starts it again.
    pub fn strike(&self, at: usize) {
        self.strike_and_start(at, &[]);
    }

    /// Kills the home at `at` at once; nobody starts it again for now.
    pub fn kill(&self, at: usize) {
        let mut houses = self.houses.lock().unwrap();
        let _ = houses[at].child.kill();
        let _ = houses[at].child.wait();
    }

    /// Kills the home at `at` at once and starts it again, once with more arguments.
    pub fn strike_and_start(&self, at: usize, extra: &[&str]) {
        let mut houses = self.houses.lock().unwrap();
        let _ = houses[at].child.kill();
        let _ = houses[at].child.wait();
        let (name, own) = (houses[at].name, houses[at].command.clone());
        let command = own.iter().cloned().chain(extra.iter().map(ToString::to_string)).collect();
        let client = self.lines.as_ref().map(|lines| lines.address(at));
        houses[at] = House::start(name, command, client.as_deref());
        houses[at].command = own;
    }

    /// Sends a signal such as `-STOP` to the home at `at`.
    pub fn signal(&self, at: usize, signal: &str) {
        self.houses.lock().unwrap()[at].signal(signal);
    }

    /// A metric without labels of the home at `at`.
    pub async fn metric(&self, at: usize, name: &str) -> f64 {
        let Ok(page) = self.peer(at).get("/metrics", SOON).await else { return f64::NAN };
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or(0.0)
    }

    /// Waits until no home keeps an intent any more; says how long that took.
    pub async fn settled(&self) -> Duration {
        let (began, mut since) = (Instant::now(), None);
        loop {
            let mut open = 0.0;
            for at in 0..2 {
                open += self.metric(at, "springtide_redpacket_intents").await;
            }
            match since {
                // The gauge is read from the store once a second: what is zero for longer than two such looks is zero.
                Some(zero) if open == 0.0 && began.elapsed() > zero + Duration::from_millis(2_200) => return zero,
                Some(_) if open == 0.0 => {}
                None if open == 0.0 => since = Some(began.elapsed()),
                _ => since = None,
            }
            assert!(began.elapsed() < SOON, "{open} intents are still open");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the home at `at` may issue of the gift in all, and what it has issued.
    pub async fn stock(&self, at: usize, gift: &str) -> (u64, u64) {
        let stats = self.peer(at).get("/internal/stats", SOON).await.unwrap();
        let stats: Value = serde_json::from_slice(&stats.body).unwrap();
        let stock = stats["stock"].as_array().unwrap().iter().find(|stock| stock[0] == gift).unwrap();
        (stock[1]["total"].as_u64().unwrap(), stock[1]["issued"].as_u64().unwrap())
    }

    /// Orders in the store of the home at `at`.
    pub async fn orders(&self, at: usize) -> u64 {
        let stats = self.peer(at).get("/internal/stats", SOON).await.unwrap();
        let stats: Value = serde_json::from_slice(&stats.body).unwrap();
        ["accepted", "delivering", "retry_wait", "delivered", "dead", "compensated"]
            .iter()
            .map(|state| stats[*state].as_u64().unwrap())
            .sum()
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What the crowd saw in one phase.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers by code; `-` is none.
    pub codes: BTreeMap<String, usize>,
    /// How long each took, in ms.
    pub latency_ms: Vec<f64>,
    /// How long the phase was.
    pub took: Duration,
}

impl Seen {
    /// Answers with that code.
    pub fn count(&self, code: &str) -> usize {
        self.codes.get(code).copied().unwrap_or(0)
    }

    /// That part of answers came within so many ms.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.latency_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }
}

/// Clients that claim for one user after another at either home, each until somebody has said 202 or 200.
pub struct Crowd {
    city: Arc<City>,
    next: AtomicUsize,
    stop: AtomicBool,
    /// User -> order number, and whether an intent was what it was told first.
    told: Mutex<BTreeMap<String, (String, bool)>>,
    seen: Mutex<Seen>,
    since: Mutex<Instant>,
    pause: Duration,
}

impl Crowd {
    /// `clients` of them, each pausing for so long between its users.
    pub fn gather(city: &Arc<City>, clients: usize, pause: Duration) -> (Arc<Self>, JoinSet<()>) {
        let crowd = Arc::new(Self {
            city: city.clone(),
            next: AtomicUsize::default(),
            stop: AtomicBool::default(),
            told: Mutex::default(),
            seen: Mutex::default(),
            since: Mutex::new(Instant::now()),
            pause,
        });
        let mut running = JoinSet::new();
        for seed in 0..clients {
            running.spawn(crowd.clone().walk(Rng::seeded(seed as u64 + 1)));
        }
        (crowd, running)
    }

    async fn walk(self: Arc<Self>, mut rng: Rng) {
        while !self.stop.load(Ordering::Relaxed) {
            let user = format!("user-{}", self.next.fetch_add(1, Ordering::Relaxed));
            let mut at = rng.below(2) as usize;
            loop {
                if let Some(told) = self.claim(at, &user).await {
                    self.told.lock().unwrap().insert(user, told);
                    break;
                }
                // As an edge would: the other one. It is the same number wherever it is asked for.
                at = 1 - at;
                sleep(Duration::from_millis(5)).await;
            }
            sleep(self.pause).await;
        }
    }

    async fn claim(&self, at: usize, user: &str) -> Option<(String, bool)> {
        let wish = json!({ "packet_id": "p1", "gift_id": "gold-ingots", "zone_id": "hh-1", "role_id": "r1" });
        let (peer, body, began) = (self.city.peer(at), Bytes::from(wish.to_string()), Instant::now());
        let headers = [("x-user-id", user)];
        let reply = peer.call(Method::POST, "/v1/claims", body, &headers, Duration::from_secs(2)).await;
        let value: Value = match &reply {
            Ok(reply) => serde_json::from_slice(&reply.body).unwrap(),
            Err(_) => Value::Null,
        };
        let code = value["code"].as_str().unwrap_or("-");
        let mut seen = self.seen.lock().unwrap();
        *seen.codes.entry(code.to_owned()).or_default() += 1;
        seen.latency_ms.push(began.elapsed().as_secs_f64() * 1e3);
        drop(seen);
        match code {
            "ACCEPTED" | "ALREADY_CLAIMED" | "INTENT" => {
                Some((value["order_no"].as_str().unwrap().to_owned(), code == "INTENT"))
            }
            "-" | "UNAVAILABLE" | "DEADLINE" | "OVERLOADED" => None,
            other => panic!("{user}: {other}: {value}"),
        }
    }

    /// What was seen since the last look.
    pub fn look(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let mut since = self.since.lock().unwrap();
        seen.took = since.elapsed();
        *since = Instant::now();
        seen
    }

    /// Lets everybody end with an answer.
    pub async fn go_home(&self, mut running: JoinSet<()>) {
        self.stop.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = running.join_next().await {
                ended.unwrap();
            }
        };
        timeout(SOON, all).await.expect("everybody gets an answer");
    }

    /// Asks both homes about everybody who was told anything. Every promise must be an order, of the number that was told;
    /// and there must be no order beside them. Gives (users, those told INTENT).
    pub async fn judge(&self) -> (usize, usize) {
        let told = Arc::new(self.told.lock().unwrap().clone());
        let mut asking = JoinSet::new();
        for part in 0..16 {
            let (told, peers) = (told.clone(), [self.city.peer(0), self.city.peer(1)]);
            asking.spawn(async move {
                for (user, (order_no, _)) in told.iter().skip(part).step_by(16) {
                    for peer in &peers {
                        let path = format!("/v1/claims/{order_no}");
                        let headers = [("x-user-id", user.as_str())];
                        let began = Instant::now();
                        let value: Value = loop {
                            let reply = peer.call(Method::GET, &path, Bytes::new(), &headers, SOON).await.unwrap();
                            let value: Value = serde_json::from_slice(&reply.body).unwrap();
                            // Home was away a moment ago: it is asked again in a moment.
                            if value["code"] != "UNAVAILABLE" || began.elapsed() > SOON {
                                break value;
                            }
                            sleep(Duration::from_millis(100)).await;
                        };
                        let code = value["code"].as_str().unwrap();
                        assert!(matches!(code, "PENDING" | "OK"), "{user} was told {order_no}, and now: {value}");
                        assert_eq!(value["order_no"], order_no.as_str());
                        assert_eq!(value["state"], "ACCEPTED", "an order of home's, not an intent: {value}");
                    }
                }
            });
        }
        while let Some(ended) = asking.join_next().await {
            ended.unwrap();
        }
        let orders = self.city.orders(0).await + self.city.orders(1).await;
        assert_eq!(orders as usize, told.len(), "one order for everybody who was told, and none beside");
        (told.len(), told.values().filter(|(_, is_intent)| *is_intent).count())
    }
}
