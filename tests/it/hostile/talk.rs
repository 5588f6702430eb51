//! A client of HTTP/1 that sends what it is given and reads responses strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than anything here takes, on a machine that is busy with other things, and shorter than what times out by itself
/// in the edge between requests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client's connection.
pub struct Client {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

/// A whole response.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: String,
    /// Its body.
    pub body: Vec<u8>,
    /// It says that it is the last one.
    pub closes: bool,
    /// It ends with the connection.
    pub ends_it: bool,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gone {
    /// The server ended its side, with nothing said before.
    Closed,
    /// It broke off, or reset the connection, in the middle.
    Cut,
    /// Nothing came any more.
    Hung,
    /// What came is no response.
    Nonsense,
}

impl Gone {
    /// In the middle of a message an end is no clean one.
    fn within(self) -> Self {
        if self == Self::Closed { Self::Cut } else { self }
    }
}

impl Client {
    /// Connects.
    pub fn to(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { tcp, buffer: Vec::new() }
    }

    /// Sends whatever it is given. A server may have had enough of it before its end.
    pub fn send(&mut self, octets: &[u8]) {
        self.tcp.write_all(octets).ok();
    }

    /// Ends this side.
    pub fn end(&mut self) {
        self.tcp.shutdown(Shutdown::Write).ok();
    }

    fn fill(&mut self) -> Result<bool, Gone> {
        let mut octets = [0; 16_384];
        match self.tcp.read(&mut octets) {
            Ok(n) => {
                self.buffer.extend(&octets[..n]);
                Ok(n > 0)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Gone::Hung),
            Err(_) => Err(Gone::Cut),
        }
    }

    fn take(&mut self, octets: usize) -> Result<Vec<u8>, Gone> {
        while self.buffer.len() < octets {
            if !self.fill()? {
                return Err(Gone::Cut);
            }
        }
        Ok(self.buffer.drain(..octets).collect())
    }

    fn line(&mut self) -> Result<String, Gone> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.take(end + 2)?;
                return String::from_utf8(line[..end].to_vec()).map_err(|_| Gone::Nonsense);
            }
            let begun = !self.buffer.is_empty();
            if !self.fill()? {
                return Err(if begun { Gone::Cut } else { Gone::Closed });
            }
        }
    }

    /// The next final response, to a request with `method`.
    pub fn answer(&mut self, method: &str) -> Result<Answer, Gone> {
        loop {
            let first = self.line()?;
            let mut words = first.split(' ');
            if words.next() != Some("HTTP/1.1") {
                return Err(Gone::Nonsense);
            }
            let status = words.next().unwrap_or_default().to_owned();
            let mut fields = Vec::new();
            loop {
                let line = self.line().map_err(Gone::within)?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(": ").ok_or(Gone::Nonsense)?;
                fields.push((name.to_owned(), value.to_owned()));
            }
            if status != "101" && status.starts_with('1') {
                continue;
            }
            return self.rest(status, &fields, method);
        }
    }

    fn rest(&mut self, status: String, fields: &[(String, String)], method: &str) -> Result<Answer, Gone> {
        let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        let closes = all("connection").contains(&"close");
        let mut answer = Answer { status, body: Vec::new(), closes, ends_it: false };
        if method == "HEAD" || matches!(&*answer.status, "101" | "204" | "304") {
            return Ok(answer);
        }
        match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([length], []) => answer.body = self.take(length.parse().map_err(|_| Gone::Nonsense)?)?,
            ([], ["chunked"]) => loop {
                let size = self.line().map_err(Gone::within)?;
                let size = usize::from_str_radix(&size, 16).map_err(|_| Gone::Nonsense)?;
                answer.body.extend(self.take(size)?);
                if size == 0 {
                    while !self.line().map_err(Gone::within)?.is_empty() {}
                    break;
                }
                if self.take(2)? != b"\r\n" {
                    return Err(Gone::Nonsense);
                }
            },
            ([], []) if closes => {
                while self.fill()? {}
                answer.body = std::mem::take(&mut self.buffer);
                answer.ends_it = true;
            }
            _ => return Err(Gone::Nonsense),
        }
        Ok(answer)
    }

    /// Waits for the end, and says whether that is all that comes.
    pub fn ends(&mut self) -> Result<(), Gone> {
        match self.buffer.is_empty().then(|| self.fill()) {
            Some(Ok(false)) => Ok(()),
            Some(Err(gone)) => Err(gone),
            _ => Err(Gone::Nonsense),
        }
    }
}
