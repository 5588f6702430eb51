//! HTTP/2 by hand: frames as bad as one likes, fields without compression (RFC 9113, RFC 7541).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::corpus::octets;
use super::talk::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A field as a literal that is not indexed (RFC 7541 section 6.2.2).
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        // A length of seven bits, then the rest in groups of seven.
        if text.len() < 127 {
            out.push(text.len() as u8);
        } else {
            out.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend(text);
    }
    out
}

/// What a line of the corpus sends. `block` gathers fields until they go out.
pub fn line(word: &str, rest: &str, block: &mut Vec<u8>, path: &str) -> Vec<u8> {
    let mut words = rest.splitn(3, ' ');
    let stream = || -> u32 { rest.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{word} {rest}")) };
    let ends = rest.split(' ').nth(1) == Some("end");
    match word {
        "std" => {
            for (name, value) in
                [(":method", rest), (":scheme", "http"), (":path", path), (":authority", "example.test")]
            {
                block.extend(field(name.as_bytes(), value.as_bytes()));
            }
            Vec::new()
        }
        "h>" => {
            let at = rest.get(1..).and_then(|r| r.find(':')).unwrap_or_else(|| panic!("{rest}")) + 1;
            let value = rest[at + 1..].strip_prefix(' ').unwrap_or(&rest[at + 1..]);
            block.extend(field(&octets(&rest[..at]), &octets(value)));
            Vec::new()
        }
        "many>" => {
            let count: usize = words.next().unwrap().parse().unwrap();
            let (name, value) = (words.next().unwrap(), octets(words.next().unwrap_or_default()));
            (0..count).for_each(|i| block.extend(field(name.replace('#', &i.to_string()).as_bytes(), &value)));
            Vec::new()
        }
        "headers" => frame(HEADERS, 4 | u8::from(ends), stream(), &std::mem::take(block)),
        // Without END_HEADERS: CONTINUATION has to follow.
        "headers-open" => frame(HEADERS, u8::from(ends), stream(), &std::mem::take(block)),
        "data" => {
            let skip = 1 + usize::from(ends);
            let text = rest.splitn(skip + 1, ' ').nth(skip).unwrap_or_default();
            frame(DATA, u8::from(ends), stream(), &octets(text))
        }
        "frame" => {
            let number = |word: Option<&str>| word.unwrap().parse().unwrap();
            let (kind, flags) = (number(words.next()), number(words.next()));
            let (stream, payload) = words.next().unwrap().split_once(' ').unwrap();
            frame(kind, flags, stream.parse().unwrap(), &octets(payload))
        }
        _ => panic!("a line that nobody knows: {word} {rest}"),
    }
}

/// A client's connection.
pub struct Client {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It was answered.
    Answered(String, Vec<u8>),
    /// It, or the whole connection, was given up by the server, in so many words.
    Reset,
    /// Nothing came.
    Hung,
}

impl Client {
    /// Connects, says who it is, and that nothing is to be indexed.
    pub fn to(address: SocketAddr) -> Self {
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
        tcp.write_all(&hello).unwrap();
        Self { tcp, buffer: Vec::new() }
    }

    /// Sends whatever it is given. A server may have had enough of it before its end.
    pub fn send(&mut self, octets: &[u8]) {
        self.tcp.write_all(octets).ok();
    }

    /// Asks for `path` on `stream`.
    pub fn get(&mut self, stream: u32, path: &str) {
        let mut block = Vec::new();
        line("std", "GET", &mut block, path);
        self.send(&frame(HEADERS, 5, stream, &block));
    }

    /// Waits for the end of `stream`.
    pub fn fate(&mut self, stream: u32) -> Fate {
        let (mut status, mut body) = (None, Vec::new());
        loop {
            let (kind, flags, of, payload) = match self.next() {
                Ok(frame) => frame,
                Err(fate) => return fate,
            };
            match kind {
                SETTINGS if flags & 1 == 0 => self.send(&frame(SETTINGS, 1, 0, &[])),
                PING if flags & 1 == 0 => self.send(&frame(PING, 1, 0, &payload)),
                GOAWAY => return Fate::Reset,
                RST_STREAM if of == stream => return Fate::Reset,
                HEADERS if of == stream => status = Some(status_of(&payload)),
                DATA if of == stream => body.extend(payload),
                _ => {}
            }
            if of == stream && matches!(kind, DATA | HEADERS) && flags & 1 == 1 {
                return Fate::Answered(status.unwrap_or_default(), body);
            }
        }
    }

    fn next(&mut self) -> Result<(u8, u8, u32, Vec<u8>), Fate> {
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if rest.len() >= length {
                    let of = u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]);
                    let frame = (head[3], head[4], of, rest[..length].to_vec());
                    self.buffer.drain(..9 + length);
                    return Ok(frame);
                }
            }
            let mut octets = [0; 16_384];
            match self.tcp.read(&mut octets) {
                Ok(0) => return Err(Fate::Reset),
                Ok(n) => self.buffer.extend(&octets[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Err(Fate::Hung);
                }
                Err(_) => return Err(Fate::Reset),
            }
        }
    }
}

/// The status that a block of fields begins with (RFC 7541, appendices A and B).
fn status_of(block: &[u8]) -> String {
    // An update of the table's size may come first.
    let block = if block.first().is_some_and(|b| b >> 5 == 1) { &block[1..] } else { block };
    let known = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [indexed @ 0x88..=0x8e, ..] => known[usize::from(indexed - 0x88)].to_owned(),
        [_, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).into_owned(),
        [_, length, code @ ..] if length & 128 != 0 => {
            let mut bits = code.iter().take(usize::from(length & 127)).fold(0u64, |all, b| all << 8 | u64::from(*b));
            let mut left = usize::from(length & 127) * 8;
            let mut text = String::new();
            while text.len() < 3 {
                // 0, 1 and 2 have five bits, the other digits six.
                let five = (bits >> (left - 5)) as u8 & 31;
                let (digit, size) = if five < 3 { (five, 5) } else { ((bits >> (left - 6)) as u8 & 63, 6) };
                text.push(char::from(b'0' + if size == 5 { digit } else { digit - 0x19 + 3 }));
                left -= size;
                bits &= (1 << left) - 1;
            }
            text
        }
        _ => format!("unread: {block:x?}"),
    }
}
