//! Honest clients: so many requests a second whatever happens (open loop), over connections that are kept, one in fifty over
//! a new one. A request is good when it is answered with 200 within a second of when it was due.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// After so many requests a client comes over a new connection.
const RENEWED: u64 = 50;

/// What honest clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub due: u64,
    pub good: u64,
    /// From when a request was due until its answer.
    pub times: Vec<Duration>,
}

impl Seen {
    /// The time below which `share` of the good ones were.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

/// `rate` requests a second for `lasts`, by `clients` threads.
pub fn run(target: SocketAddr, rate: u64, clients: u64, lasts: Duration) -> Seen {
    let began = Instant::now();
    let threads: Vec<_> =
        (0..clients).map(|n| std::thread::spawn(move || client(target, rate, clients, n, began, lasts))).collect();
    let mut seen = Seen::default();
    for thread in threads {
        let one = thread.join().unwrap();
        seen.due += one.due;
        seen.good += one.good;
        seen.times.extend(one.times);
    }
    seen.times.sort_unstable();
    seen
}

fn client(target: SocketAddr, rate: u64, clients: u64, n: u64, began: Instant, lasts: Duration) -> Seen {
    let (mut seen, mut connection) = (Seen::default(), None);
    let gap = Duration::from_secs_f64(clients as f64 / rate as f64);
    let mut due = began + gap.mul_f64(n as f64 / clients as f64);
    while due < began + lasts {
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        if seen.due.is_multiple_of(RENEWED) {
            connection = None;
        }
        seen.due += 1;
        connection = connection.or_else(|| connect(target)).and_then(|mut tcp| ask(&mut tcp).map(|()| tcp));
        if connection.is_some() && due.elapsed() <= PATIENCE {
            seen.good += 1;
            seen.times.push(due.elapsed());
        }
        due += gap;
    }
    seen
}

fn connect(target: SocketAddr) -> Option<TcpStream> {
    let tcp = TcpStream::connect_timeout(&target, PATIENCE).ok()?;
    tcp.set_nodelay(true).ok()?;
    tcp.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(tcp)
}

/// One exchange; `None` where it was not answered with 200.
fn ask(tcp: &mut TcpStream) -> Option<()> {
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: siege.test\r\n\r\n").ok()?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = tcp.read(&mut buffer).ok().filter(|&n| n > 0)?;
        seen.extend_from_slice(&buffer[..read]);
        let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&seen[..end]).ok()?.to_ascii_lowercase();
        let length: usize = head.lines().find_map(|l| l.strip_prefix("content-length: "))?.parse().ok()?;
        if seen.len() >= end + 4 + length {
            return head.starts_with("http/1.1 200").then_some(());
        }
    }
}
