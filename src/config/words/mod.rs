//! Kinds of values that are written as strings: the trait, names and texts, closed choices.

use std::path::PathBuf;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::diag::{Code, Finding};
use super::model;
use super::reader::{Item, Kind, Reader};
use super::schema::Shape;

mod address;
mod locality;
mod quantity;
mod request;
mod url;

pub(super) use address::{DomainName, Host, Ip, Listen, Named, Peer, Prefix};
pub(super) use quantity::{Rate, Sampling, Share, Size, Time};
pub(super) use request::{Alpn, HeaderName, HostPattern, Method, Seat, Statuses, UrlPath, User};
pub(super) use url::Url;

/// Why a word was refused.
pub(super) struct Wrong {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Wrong {
    fn new(message: impl Into<String>) -> Self {
        Self { code: Code::BadValue, message: message.into(), hint: None }
    }

    fn range(message: impl Into<String>) -> Self {
        Self { code: Code::OutOfRange, ..Self::new(message) }
    }

    /// For what a later version will understand.
    fn later(what: &str, remedy: &str) -> Self {
        Self { code: Code::NotAvailable, ..Self::new(format!("`{what}` is not available in this version")) }
            .hint(remedy)
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// A value that is written as a string.
pub(super) trait Word: Sized {
    /// What is wanted, with its article and an example.
    fn words() -> String;

    /// Reads it.
    fn parse(text: &str) -> Result<Self, Wrong>;

    /// Its JSON schema.
    fn schema() -> Value {
        json!({ "type": "string" })
    }

    /// What a number without quotes was probably meant to be.
    fn from_number(_number: &str) -> Option<String> {
        None
    }
}

impl<T: Word> Kind for T {
    fn shape() -> Shape {
        Shape::scalar(T::words(), T::schema())
    }

    fn takes(value: &DeValue<'_>) -> bool {
        value.is_str()
    }

    fn read(item: Item<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::String(text) = item.value else {
            let number = match item.value {
                DeValue::Integer(i) => T::from_number(i.as_str()),
                DeValue::Float(f) => T::from_number(f.as_str()),
                _ => None,
            };
            reader.mismatch(item, &T::shape(), number);
            return None;
        };
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(_) if text.is_empty() => {
                let message = format!("`{}` cannot be empty", item.name);
                reader.notes.push(Finding::error(Code::BadValue, item.span, message).expected(T::words()));
                None
            }
            Err(wrong) => {
                let finding = Finding::error(wrong.code, item.span, wrong.message).expected(T::words());
                reader.notes.push(finding.maybe_hint(wrong.hint));
                None
            }
        }
    }
}

/// Any text of at most 64 KiB.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) String);

impl Word for Text {
    fn words() -> String {
        "a string".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.len() > 65_536 { Err(Wrong::range("this text is longer than 64 KiB")) } else { Ok(Self(text.into())) }
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("put it in quotes: \"{number}\""))
    }
}

/// The name of something in this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(pub(super) String);

impl Word for Name {
    fn words() -> String {
        "a name of ASCII letters, digits, `-`, `_` and `.`, at most 63".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 63 && text.chars().all(fits) {
            return Ok(Self(text.into()));
        }
        let words: Vec<&str> = text.split(|c| !fits(c)).filter(|w| !w.is_empty()).collect();
        let better = words.join("-").trim_start_matches(['-', '_', '.']).to_owned();
        let wrong = Wrong::new(format!("`{}` is not a name", short(text)));
        Err(if better.is_empty() || better.len() > 63 {
            wrong
        } else {
            wrong.hint(format!("for example \"{better}\""))
        })
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("put it in quotes: \"{number}\""))
    }
}

/// A file, relative to the folder of the configuration.
#[derive(Clone, Debug)]
pub(super) struct File(pub(super) PathBuf);

impl Word for File {
    fn words() -> String {
        "a path, absolute or relative to the folder of this file".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.trim().is_empty() || text.contains('\0') || text.len() > 4_096 {
            return Err(Wrong::new("this is not a path"));
        }
        Ok(Self(text.into()))
    }
}

/// What was said, short enough to be said again.
fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(57).chain("...".chars()).collect() }
}

/// Closed choices: types of the model that are written as one of a few words.
macro_rules! choices {
    ($($what:literal $ty:ty { $($word:literal => $value:expr),* $(,)? } $(not yet { $($later:literal : $remedy:literal),* $(,)? })? $(rather { $($other:literal : $hint:literal),* $(,)? })?)*) => {$(
        impl Word for $ty {
            fn words() -> String {
                format!("one of {}", crate::config::reader::list(&[$($word),*]))
            }

            fn schema() -> Value {
                json!({ "enum": [$($word),*] })
            }

            fn parse(text: &str) -> Result<Self, Wrong> {
                match text {
                    $($word => Ok($value),)*
                    $($($later => Err(Wrong::later(text, $remedy)),)*)?
                    _ => {
                        let wrong = Wrong::new(format!("`{}` is not {}", short(text), $what));
                        $($(if text == $other {
                            return Err(wrong.hint($hint));
                        })*)?
                        Err(match crate::config::guess::did_you_mean(text, [$($word),*]) {
                            Some(hint) => wrong.hint(hint),
                            None => wrong,
                        })
                    }
                }
            }
        }
    )*};
}

choices! {
    "a class" model::Class {
        "critical" => Self::Critical,
        "degraded" => Self::Degraded,
        "background" => Self::Background,
    }
    "a way to balance" model::Balance {
        "p2c" => Self::P2c,
        "least-request" => Self::LeastRequest,
        "weighted-round-robin" => Self::WeightedRoundRobin,
        "maglev" => Self::Maglev,
        "user-hash" => Self::UserHash,
        "user-home" => Self::UserHome,
    } rather {
        "round-robin": "did you mean `weighted-round-robin`?",
        "rr": "did you mean `weighted-round-robin`?",
        "least_conn": "did you mean `least-request`?",
        "leastconn": "did you mean `least-request`?",
        "ring-hash": "did you mean `maglev`?",
        "random": "did you mean `p2c`?",
        "hash": "did you mean `user-hash`?",
        "sticky": "did you mean `user-hash`?",
    }
    "a way out" model::HomeDown {
        "refuse" => Self::Refuse,
        "elsewhere" => Self::Elsewhere,
    }
    "a format" model::AccessFormat {
        "json" => Self::Json,
        "combined" => Self::Combined,
    } rather {
        "clf": "did you mean `combined`?",
        "text": "did you mean `combined`?",
    }
    "a kind of peer" model::Follow {
        "trusted" => Self::Trusted,
        "all" => Self::All,
    } rather {
        "always": "did you mean `all`?",
        "never": "`trusted`: nobody is, unless a listener says so",
    }
    "a protocol" model::Protocol {
        "http1" => Self::Http1,
        "http2" => Self::Http2,
    } not yet {
        "http3": "use `http1` or `http2` towards backends",
    } rather {
        "h2": "did you mean `http2`?",
        "h2c": "did you mean `http2`?",
        "grpc": "gRPC goes over `http2`",
        "https": "`http1` or `http2`, and `tls = { ... }` beside it",
    }
    "a policy" model::Policy {
        "near" => Self::Near,
        "weighted" => Self::Weighted,
        "failover" => Self::Failover,
        "spread" => Self::Spread,
    } rather {
        "geo": "did you mean `near`?",
        "round-robin": "did you mean `spread`?",
        "random": "did you mean `weighted`?",
    }
    "an algorithm for keys" model::KeyAlgorithm {
        "hmac-sha256" => Self::HmacSha256,
        "hmac-sha384" => Self::HmacSha384,
        "hmac-sha512" => Self::HmacSha512,
    } rather {
        "sha256": "did you mean `hmac-sha256`?",
        "hmac-md5": "MD5 is broken: `hmac-sha256`",
        "hmac-sha1": "SHA-1 is broken: `hmac-sha256`",
    }
    "something to do when all are down" AllDown {
        "serve-all" => Self(model::OnAllDown::ServeAll),
        "nodata" => Self(model::OnAllDown::Nodata),
        "servfail" => Self(model::OnAllDown::Servfail),
        "refused" => Self(model::OnAllDown::Refused),
    } rather {
        "last-resort": "name the addresses: `on_all_down = { last_resort = [\"192.0.2.1\"] }`",
    }
}

choices! {
    "a version of TLS that is spoken" model::TlsVersion {
        "1.2" => Self::V12,
        "1.3" => Self::V13,
    } rather {
        "TLSv1.2": "without its name: \"1.2\"",
        "TLSv1.3": "without its name: \"1.3\"",
        "1.0": "1.0 and 1.1 are broken (RFC 8996): \"1.2\"",
        "1.1": "1.0 and 1.1 are broken (RFC 8996): \"1.2\"",
    }
    "a way to ask for certificates" model::ClientCertificate {
        "request" => Self::Request,
        "require" => Self::Require,
    } rather {
        "optional": "did you mean `request`?",
        "required": "did you mean `require`?",
        "none": "leave `client_ca` out to ask nobody",
        "off": "leave `client_ca` out to ask nobody",
    }
    "something to tell of certificates" model::PassOn {
        "nothing" => Self::Nothing,
        "identity" => Self::Identity,
        "certificate" => Self::Certificate,
    } rather {
        "none": "did you mean `nothing`?",
        "subject": "did you mean `identity`?",
    }
    "a version of the PROXY protocol" model::ProxyProtocol {
        "v1" => Self::V1,
        "v2" => Self::V2,
    } rather {
        "1": "did you mean `v1`?",
        "2": "did you mean `v2`?",
    }
}

choices! {
    "a coding" model::Coding {
        "br" => Self::Br,
        "zstd" => Self::Zstd,
        "gzip" => Self::Gzip,
    } rather {
        "brotli": "did you mean `br`?",
        "gz": "did you mean `gzip`?",
        "zst": "did you mean `zstd`?",
    }
    "a scheme" model::Scheme {
        "http" => Self::Http,
        "https" => Self::Https,
    } rather {
        "https://": "the scheme alone: `https`",
        "tls": "did you mean `https`?",
    }
    "something to do when nobody is left" model::OnEmpty {
        "nodata" => Self::Nodata,
        "refused" => Self::Refused,
        "servfail" => Self::Servfail,
    } rather {
        "serve-all": "a fence never opens: `nodata`, `refused` or `servfail`",
    }
    "something to plan" Drain {
        "drain" => Self,
    } rather {
        "down": "did you mean `drain`? Taking a datacenter down is for operators: `springtide down`",
        "weight": "write the weight: `action = { weight = 10 }`",
    }
}

/// A planned drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain;

/// What to say when every datacenter has failed, where it is said in a word.
#[derive(Clone, Debug)]
pub(super) struct AllDown(pub(super) model::OnAllDown);
