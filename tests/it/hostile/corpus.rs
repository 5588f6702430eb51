//! The corpus: exchanges as readable text. tests/corpus/http/README.md tells what the lines mean.

use std::fs;

use super::h2;
use crate::support::root;

/// One exchange.
#[derive(Debug, Default)]
pub struct Case {
    /// File, name, and which of its variants.
    pub name: String,
    /// What the targets of its requests begin with.
    pub path: String,
    /// What is sent, write by write.
    pub sends: Vec<Vec<u8>>,
    /// Whether the sender then ends its side.
    pub ends: bool,
    /// What comes back, message by message.
    pub expects: Vec<Expect>,
    /// What a backend of this name says instead of the first of these.
    pub differs: Vec<(String, Expect)>,
    /// What a backend sees.
    pub arrives: Vec<Arrival>,
    /// It is HTTP/2 that is sent.
    pub is_h2: bool,
    /// The method of the request that a response is to.
    pub method: String,
    /// The backend's connection may carry another request.
    pub is_reused: bool,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// A response with this status, `x` for any digit, perhaps with so many octets of body.
    Status {
        /// As `4xx`.
        status: String,
        /// Of the body.
        octets: Option<usize>,
        /// Whether the connection goes on.
        keeps: Option<bool>,
    },
    /// Nothing but an end.
    Closed,
    /// A response that can be seen to break off.
    Cut,
    /// That, or a 502: whether the end came together with the beginning is the kernel's affair.
    Broken,
}

/// A message at a backend.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Method, target, and octets of its body.
    pub line: String,
    /// Fields that it has, and ones that it lacks.
    pub fields: Vec<(bool, String)>,
}

/// Every exchange of a file of the corpus.
pub fn read(file: &str) -> Vec<Case> {
    let path = root().join("tests/corpus/http").join(file).with_extension("txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases = Vec::new();
    for block in text.split("\ncase ").skip(1) {
        let (name, body) = block.split_once('\n').unwrap_or((block, ""));
        let mut variants = vec![(String::new(), body.to_owned())];
        for line in body.lines().filter_map(|l| l.trim().strip_prefix("each ")) {
            let (key, values) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line}"));
            let values: Vec<&str> = values.split(" | ").map(str::trim).collect();
            let with = |(label, body): &(String, String)| -> Vec<(String, String)> {
                let one = |(i, v): (usize, &&str)| (format!("{label}.{}", i + 1), body.replace(key, v));
                values.iter().enumerate().map(one).collect()
            };
            variants = variants.iter().flat_map(with).collect();
        }
        for (label, body) in variants {
            cases.push(case(file, &format!("{}{label}", name.trim()), &body));
        }
    }
    assert!(!cases.is_empty(), "{} is empty", path.display());
    cases
}

fn case(file: &str, name: &str, body: &str) -> Case {
    let path = format!("/{file}/{name}");
    let body = body.replace("{p}", &path);
    let mut case = Case { name: format!("{file}/{name}"), path, method: "GET".into(), ..Case::default() };
    case.sends.push(Vec::new());
    let mut fields = Vec::new();
    for line in body.lines().map(str::trim_start) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let last = case.sends.last_mut().unwrap();
        match word {
            "" | "#" | "each" => {}
            ">" => {
                last.extend(octets(rest));
                last.extend(b"\r\n");
            }
            ">+" => last.extend(octets(rest)),
            ">*" => {
                let (times, text) = rest.split_once(' ').unwrap();
                last.extend(octets(text).repeat(times.parse().unwrap()));
            }
            "cut" => case.sends.push(Vec::new()),
            "ends" => case.ends = true,
            "reused" => case.is_reused = true,
            "to" => case.method = rest.to_owned(),
            "=" => case.expects.push(expect(rest)),
            "nginx" | "haproxy" => case.differs.push((word.to_owned(), expect(rest.trim_start_matches("= ")))),
            "arrives" => case.arrives.push(Arrival { line: text(rest), fields: Vec::new() }),
            "has" | "lacks" => case.arrives.last_mut().unwrap().fields.push((word == "has", text(rest))),
            _ => {
                case.is_h2 = true;
                last.extend(h2::line(word, rest, &mut fields, &case.path));
            }
        }
    }
    assert!(!case.expects.is_empty(), "{}: nothing is expected", case.name);
    case
}

fn expect(said: &str) -> Expect {
    let mut words = said.split_whitespace();
    match words.next() {
        Some("closed") => Expect::Closed,
        Some("cut") => Expect::Cut,
        Some("broken") => Expect::Broken,
        Some(status) => {
            let (mut octets, mut keeps) = (None, None);
            for word in words {
                match word {
                    "keep" => keeps = Some(true),
                    "close" => keeps = Some(false),
                    _ => octets = Some(word.parse().unwrap_or_else(|_| panic!("{said}"))),
                }
            }
            Expect::Status { status: status.to_owned(), octets, keeps }
        }
        None => panic!("nothing is expected"),
    }
}

fn text(said: &str) -> String {
    String::from_utf8_lossy(&octets(said)).into_owned()
}

/// Text with escapes.
pub fn octets(said: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = said.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("an escape that nobody knows: {other:?} in {said:?}"),
        });
    }
    out
}
