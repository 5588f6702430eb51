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
    /// Whether the client spoke TLS with us.
    pub is_tls: bool,
    /// What was answered.
    pub status: u16,
    /// Why: what kept it from a backend's answer, or whose answer it is.
    pub reason: &'a str,
    /// Octets of its body, where it said how many.
    pub received: Option<u64>,
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
    /// The hash of the user by the route's key; the key itself is in no log.
    pub user: Option<u64>,
    /// From its head to the head of the backend's answer.
    pub first_byte: Option<Duration>,
    /// From its head to the end of its response.
    pub took: Duration,
    /// The `Referer` that it sent.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` that it sent.
    pub agent: Option<&'a [u8]>,
    /// It stands for one over so many: the share of those like it that are written.
    pub sample: f64,
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
        object.plain("tls", format_args!("{}", self.is_tls));
        object.plain("status", format_args!("{}", self.status));
        object.text("reason", self.reason.as_bytes());
        if let Some(received) = self.received {
            object.plain("received", format_args!("{received}"));
        }
        object.plain("sent", format_args!("{}", self.sent));
        object.maybe("route", self.route.map(str::as_bytes));
        object.maybe("service", self.service.map(str::as_bytes));
        object.maybe("datacenter", self.datacenter.map(str::as_bytes));
        if let Some(backend) = self.backend {
            object.plain("backend", format_args!("\"{backend}\""));
        }
        object.plain("tries", format_args!("{}", self.tries));
        if let Some(user) = self.user {
            object.plain("user", format_args!("\"{user:016x}\""));
        }
        if let Some(first_byte) = self.first_byte {
            object.plain("first_byte_ms", format_args!("{:.3}", ms(first_byte)));
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
        if let Some(first_byte) = self.first_byte {
            let _ = write!(out, " first_byte_ms={:.3}", ms(first_byte));
        }
        let (took, sample) = (ms(self.took), self.sample);
        let _ = write!(out, " tls={} tries={} duration_ms={took:.3} sample={sample}", self.is_tls, self.tries);
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
            is_tls: true,
            status: 200,
            reason: "answered",
            received: None,
            sent: 42,
            route: Some("all"),
            service: Some("web"),
            datacenter: Some("here"),
            backend: Some("192.0.2.1:80".parse().unwrap()),
            tries: 1,
            user: Some(0xabc),
            first_byte: Some(Duration::from_micros(1_500)),
            took: Duration::from_millis(2),
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
            r#"{"time":"1994-11-06T08:49:37.042Z","id":"4bf9","client":"2001:db8::7","method":"GET","host":"a.test","path":"/v1/x","protocol":"HTTP/1.1","tls":true,"status":200,"reason":"answered","sent":42,"route":"all","service":"web","datacenter":"here","backend":"192.0.2.1:80","tries":1,"user":"0000000000000abc","first_byte_ms":1.500,"duration_ms":2.000,"agent":"curl/8","sample":0.01}"#
        );
        assert_eq!(
            line(|out| access.combined(out)),
            r#"2001:db8::7 - 0000000000000abc [06/Nov/1994:08:49:37 +0000] "GET /v1/x HTTP/1.1" 200 42 "-" "curl/8" host="a.test" id="4bf9" reason="answered" route="all" service="web" datacenter="here" backend="192.0.2.1:80" first_byte_ms=1.500 tls=true tries=1 duration_ms=2.000 sample=0.01"#
        );
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
