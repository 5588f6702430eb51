//! What a line of the access log says of a request, as JSON or in the combined format. Pure: facts in, octets out.
//!
//! Much of it was chosen by the client, so everything is escaped: a line has no control character in it, no quote of somebody
//! else's, and ends where we end it. The query of a target is not written: it may hold what a log should not.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::civil;
use crate::base::clock::Wall;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// One request, and how it ended.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// When its response had gone out.
    pub at: Wall,
    /// Its id.
    pub id: &'a str,
    /// The trace that it is a part of.
    pub trace: Option<&'a str>,
    /// Whom it came from.
    pub client: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// The host that it named.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// `HTTP/1.1` and so on.
    pub protocol: &'a str,
    /// What the connection was made into, where it was: `websocket`.
    pub upgrade: Option<&'a str>,
    /// Whether the client spoke TLS with us.
    pub is_tls: bool,
    /// How, where that is known.
    pub tls: Option<Secured>,
    /// What was answered.
    pub status: u16,
    /// Why: what kept it from a backend's answer, or whose answer it is.
    pub reason: &'a str,
    /// Octets of its body that were read.
    pub received: u64,
    /// Octets of the response's body that were passed on.
    pub sent: u64,
    /// The route that it took.
    pub route: Option<&'a str>,
    /// The service of the last backend asked.
    pub service: Option<&'a str>,
    /// The datacenter of the last backend asked.
    pub datacenter: Option<&'a str>,
    /// The last backend asked.
    pub backend: Option<SocketAddr>,
    /// How many were asked, hedges among them.
    pub tries: u32,
    /// Whether a second backend was asked beside one that was slow.
    pub is_hedged: bool,
    /// The hash of the user by the route's key; the key itself is in no log.
    pub user: Option<u64>,
    /// From its head until the last backend was asked: a short body was collected, others were tried before.
    pub queue: Option<Duration>,
    /// How long it took to connect to the last backend, where that had to be done.
    pub connect: Option<Duration>,
    /// From its head to the head of the backend's answer.
    pub first_byte: Option<Duration>,
    /// From its head to the end of its response.
    pub took: Duration,
    /// Who broke off a body that was under way, in either direction.
    pub aborted: Option<Side>,
    /// The `Referer` that it sent.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` that it sent.
    pub agent: Option<&'a [u8]>,
    /// It stands for one over so many: the share of those like it that are written.
    pub sample: f64,
}

/// How TLS was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Whether it is 1.3, and not 1.2.
    pub is_13: bool,
    /// Whether an earlier session was resumed; `None` where that is not told (QUIC).
    pub is_resumed: Option<bool>,
}

impl Secured {
    /// Its version.
    pub const fn version(self) -> &'static str {
        if self.is_13 { "1.3" } else { "1.2" }
    }
}

/// Who broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client left, or stalled for too long.
    Client,
    /// The backend did.
    Backend,
    /// The edge: its time to drain was over.
    Edge,
}

impl Side {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Edge => "edge",
        }
    }
}

impl Access<'_> {
    /// As a JSON object.
    pub fn json(&self, out: &mut Vec<u8>) {
        let mut object = Object { out, is_first: true };
        object.plain("time", format_args!("\"{}\"", iso(self.at)));
        object.text("id", self.id.as_bytes());
        object.maybe("trace", self.trace.map(str::as_bytes));
        object.plain("client", format_args!("\"{}\"", self.client));
        object.text("method", self.method.as_bytes());
        object.text("host", self.host.as_bytes());
        object.text("path", self.path.as_bytes());
        object.text("protocol", self.protocol.as_bytes());
        object.maybe("upgrade", self.upgrade.map(str::as_bytes));
        object.plain("tls", format_args!("{}", self.is_tls));
        if let Some(tls) = self.tls {
            object.plain("tls_version", format_args!("\"{}\"", tls.version()));
            if let Some(is_resumed) = tls.is_resumed {
                object.plain("tls_resumed", format_args!("{is_resumed}"));
            }
        }
        object.plain("status", format_args!("{}", self.status));
        object.text("reason", self.reason.as_bytes());
        object.maybe("aborted", self.aborted.map(|side| side.as_str().as_bytes()));
        object.plain("received", format_args!("{}", self.received));
        object.plain("sent", format_args!("{}", self.sent));
        object.maybe("route", self.route.map(str::as_bytes));
        object.maybe("service", self.service.map(str::as_bytes));
        object.maybe("datacenter", self.datacenter.map(str::as_bytes));
        if let Some(backend) = self.backend {
            object.plain("backend", format_args!("\"{backend}\""));
        }
        object.plain("tries", format_args!("{}", self.tries));
        if self.is_hedged {
            object.plain("hedged", format_args!("true"));
        }
        if let Some(user) = self.user {
            object.plain("user", format_args!("\"{user:016x}\""));
        }
        for (key, phase) in self.phases() {
            object.plain(key, format_args!("{:.3}", ms(phase)));
        }
        object.plain("duration_ms", format_args!("{:.3}", ms(self.took)));
        object.maybe("referer", self.referer);
        object.maybe("agent", self.agent);
        object.plain("sample", format_args!("{}", self.sample));
        object.out.push(b'}');
    }

    /// In the combined format, with what it does not know behind it.
    pub fn combined(&self, out: &mut Vec<u8>) {
        let user = self.user.map_or_else(|| "-".to_owned(), |user| format!("{user:016x}"));
        // Into memory: this cannot fail.
        let _ = write!(out, "{} - {user} [{}] \"", self.client, clf(self.at));
        escape(out, self.method.as_bytes());
        out.push(b' ');
        escape(out, self.path.as_bytes());
        let _ = write!(out, " {}\" {} {}", self.protocol, self.status, self.sent);
        for field in [self.referer, self.agent] {
            out.extend_from_slice(b" \"");
            escape(out, field.unwrap_or(b"-"));
            out.push(b'"');
        }
        let texts = [
            ("host", Some(self.host)),
            ("id", Some(self.id)),
            ("trace", self.trace),
            ("reason", Some(self.reason)),
            ("route", self.route),
            ("service", self.service),
            ("datacenter", self.datacenter),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                let _ = write!(out, " {key}=\"");
                escape(out, text.as_bytes());
                out.push(b'"');
            }
        }
        if let Some(backend) = self.backend {
            let _ = write!(out, " backend=\"{backend}\"");
        }
        for (key, phase) in self.phases() {
            let _ = write!(out, " {key}={:.3}", ms(phase));
        }
        let _ = write!(out, " tls={}", self.is_tls);
        if let Some(tls) = self.tls {
            let _ = write!(out, " tls_version={}", tls.version());
            if let Some(is_resumed) = tls.is_resumed {
                let _ = write!(out, " tls_resumed={is_resumed}");
            }
        }
        let words = [("upgrade", self.upgrade), ("aborted", self.aborted.map(Side::as_str))];
        for (key, word) in words.into_iter().filter_map(|(key, word)| Some((key, word?))) {
            let _ = write!(out, " {key}={word}");
        }
        let _ = write!(out, " received={} tries={}", self.received, self.tries);
        if self.is_hedged {
            out.extend_from_slice(b" hedged=true");
        }
        let (took, sample) = (ms(self.took), self.sample);
        let _ = write!(out, " duration_ms={took:.3} sample={sample}");
    }

    /// The phases that it had, in their order.
    fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let phases = [("queue_ms", self.queue), ("connect_ms", self.connect), ("first_byte_ms", self.first_byte)];
        phases.into_iter().filter_map(|(key, phase)| Some((key, phase?)))
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Writes the members of a JSON object.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.out.push(if std::mem::take(&mut self.is_first) { b'{' } else { b',' });
        let _ = write!(self.out, "\"{key}\":");
    }

    /// A value that needs no escaping.
    fn plain(&mut self, key: &str, value: std::fmt::Arguments<'_>) {
        self.key(key);
        let _ = self.out.write_fmt(value);
    }

    fn text(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        for piece in value.utf8_chunks() {
            for c in piece.valid().chars() {
                match c {
                    '"' | '\\' => self.out.extend_from_slice(&[b'\\', c as u8]),
                    // Also what a terminal would obey, and what some readers take for the end of a line.
                    c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                        let _ = write!(self.out, "\\u{:04x}", u32::from(c));
                    }
                    c => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            if !piece.invalid().is_empty() {
                self.out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.out.push(b'"');
    }

    fn maybe(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }
}

/// As nginx and Apache escape: what is not printable ASCII, quotes and backslashes as `\xHH`.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &b in text {
        if matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\') {
            out.push(b);
        } else {
            let _ = write!(out, "\\x{b:02X}");
        }
    }
}

struct Moment {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: u64,
    milli: u64,
}

fn moment(at: Wall) -> Moment {
    let (seconds, milli) = (at.0 / 1_000, at.0 % 1_000);
    let (year, month, day) = civil::date((seconds / 86_400).cast_signed());
    Moment { year, month, day, second_of_day: seconds % 86_400, milli }
}

/// RFC 3339 in UTC.
fn iso(at: Wall) -> String {
    let Moment { year, month, day, second_of_day: s, milli } = moment(at);
    let (hour, minute, second) = (s / 3_600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// As the common log format has it, in UTC.
fn clf(at: Wall) -> String {
    let Moment { year, month, day, second_of_day: s, .. } = moment(at);
    let month = MONTHS.get((month - 1) as usize).copied().unwrap_or("Jan");
    let (hour, minute, second) = (s / 3_600, s / 60 % 60, s % 60);
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn access<'a>(path: &'a str, agent: &'a [u8]) -> Access<'a> {
        Access {
            at: Wall(784_111_777_042),
            id: "4bf9",
            trace: None,
            client: "2001:db8::7".parse().unwrap(),
            method: "GET",
            host: "a.test",
            path,
            protocol: "HTTP/1.1",
            upgrade: None,
            is_tls: true,
            tls: Some(Secured { is_13: true, is_resumed: Some(false) }),
            status: 200,
            reason: "answered",
            received: 7,
            sent: 42,
            route: Some("all"),
            service: Some("web"),
            datacenter: Some("here"),
            backend: Some("192.0.2.1:80".parse().unwrap()),
            tries: 1,
            is_hedged: false,
            user: Some(0xabc),
            queue: Some(Duration::from_micros(250)),
            connect: None,
            first_byte: Some(Duration::from_micros(1_500)),
            took: Duration::from_millis(2),
            aborted: None,
            referer: None,
            agent: Some(agent),
            sample: 0.01,
        }
    }

    fn line(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_look_as_readers_expect_them() {
        let access = access("/v1/x", b"curl/8");
        assert_eq!(
            line(|out| access.json(out)),
            r#"{"time":"1994-11-06T08:49:37.042Z","id":"4bf9","client":"2001:db8::7","method":"GET","host":"a.test","path":"/v1/x","protocol":"HTTP/1.1","tls":true,"tls_version":"1.3","tls_resumed":false,"status":200,"reason":"answered","received":7,"sent":42,"route":"all","service":"web","datacenter":"here","backend":"192.0.2.1:80","tries":1,"user":"0000000000000abc","queue_ms":0.250,"first_byte_ms":1.500,"duration_ms":2.000,"agent":"curl/8","sample":0.01}"#
        );
        assert_eq!(
            line(|out| access.combined(out)),
            r#"2001:db8::7 - 0000000000000abc [06/Nov/1994:08:49:37 +0000] "GET /v1/x HTTP/1.1" 200 42 "-" "curl/8" host="a.test" id="4bf9" reason="answered" route="all" service="web" datacenter="here" backend="192.0.2.1:80" queue_ms=0.250 first_byte_ms=1.500 tls=true tls_version=1.3 tls_resumed=false received=7 tries=1 duration_ms=2.000 sample=0.01"#
        );
    }

    #[test]
    fn what_was_unusual_is_told() {
        let access = Access {
            upgrade: Some("websocket"),
            tls: Some(Secured { is_13: true, is_resumed: None }),
            is_hedged: true,
            connect: Some(Duration::from_micros(125)),
            aborted: Some(Side::Backend),
            ..access("/", b"")
        };
        let json: Value = serde_json::from_str(&line(|out| access.json(out))).unwrap();
        let want =
            serde_json::json!({ "upgrade": "websocket", "hedged": true, "connect_ms": 0.125, "aborted": "backend" });
        for (key, value) in want.as_object().unwrap() {
            assert_eq!(&json[key], value, "{json}");
        }
        assert!(json.get("tls_resumed").is_none(), "QUIC does not tell: {json}");
        let combined = line(|out| access.combined(out));
        for piece in [" upgrade=websocket", " hedged=true", " connect_ms=0.125", " aborted=backend"] {
            assert!(combined.contains(piece), "{piece}: {combined}");
        }
    }

    proptest! {
        /// Whatever a client sends: one line, which says what was sent.
        #[test]
        fn nobody_writes_a_line_of_their_own(path in any::<String>(), agent in any::<Vec<u8>>()) {
            let access = access(&path, &agent);
            let json = line(|out| access.json(out));
            prop_assert!(!json.chars().any(char::is_control));
            let read: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read["path"].as_str(), Some(&*path));
            prop_assert_eq!(read["agent"].as_str().unwrap(), &*String::from_utf8_lossy(&agent));
            let combined = line(|out| access.combined(out));
            prop_assert!(combined.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(combined.matches('"').count(), 6 + 2 * 7);
        }
    }
}
