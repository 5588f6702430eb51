//! Addresses, prefixes, and names in the domain name system.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Word, Wrong, short};

/// An IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Ip(pub(in crate::config) IpAddr);

impl Word for Ip {
    fn words() -> String {
        "an IP address such as \"203.0.113.10\" or \"2001:db8::10\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map(Self).map_err(|_| {
            let wrong = Wrong::new(format!("`{}` is not an IP address", short(text)));
            match text.parse::<SocketAddr>() {
                Ok(socket) => wrong.hint(format!("without a port: \"{}\"", socket.ip())),
                Err(_) => wrong,
            }
        })
    }
}

/// Where something listens; port 0 lets the system choose one if `ANY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Socket<const ANY: bool>(pub(in crate::config) SocketAddr);

/// Where we listen: any port.
pub(in crate::config) type Listen = Socket<true>;
/// Whom we call: a port from 1 on.
pub(in crate::config) type Peer = Socket<false>;

impl<const ANY: bool> Word for Socket<ANY> {
    fn words() -> String {
        "an IP address with a port, such as \"10.1.0.11:7000\" or \"[2001:db8::11]:7000\"".into()
    }

    fn from_number(number: &str) -> Option<String> {
        let port: u16 = number.parse().ok().filter(|_| ANY)?;
        Some(format!("for all addresses: [\"0.0.0.0:{port}\", \"[::]:{port}\"]"))
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not an address with a port", short(text)));
        if let Ok(socket) = text.parse::<SocketAddr>() {
            if !ANY && socket.port() == 0 {
                return Err(Wrong::range("nobody can be called at port 0"));
            }
            if !ANY && socket.ip().is_unspecified() {
                return Err(Wrong::range(format!("nobody can be called at `{}`", socket.ip())));
            }
            return Ok(Self(socket));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            let unbracketed =
                text.rsplit_once(':').and_then(|(ip, port)| Some((ip.parse::<Ipv6Addr>().ok()?, port.parse().ok()?)));
            return Err(wrong().hint(match unbracketed {
                Some((ip, port)) => format!("IPv6 stands in brackets: \"{}\"", SocketAddr::new(ip.into(), port)),
                None => format!("add the port: \"{}\"", SocketAddr::new(ip, 8080)),
            }));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let unbracketed = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        Err(match (host, port.parse::<u16>(), unbracketed) {
            ("" | "*", Ok(port), _) if ANY => {
                wrong().hint(format!("for all addresses: \"0.0.0.0:{port}\" and \"[::]:{port}\""))
            }
            ("localhost", Ok(port), _) => wrong().hint(format!("write \"127.0.0.1:{port}\"")),
            (_, Err(_), Ok(_)) => wrong().hint("ports go from 0 to 65535"),
            (host, Ok(port), Err(_)) if host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':') => {
                let name = host.trim_end_matches('.');
                wrong().hint(format!(
                    "write the IP address of `{host}`; only backends are found by name: {{ dns = \"{name}.:{port}\" }}"
                ))
            }
            _ => wrong(),
        })
    }
}

/// A prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Prefix(pub(in crate::config) IpNet);

impl Word for Prefix {
    fn words() -> String {
        "a prefix such as \"10.1.0.0/16\" or \"2001:db8::/32\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not a prefix", short(text)));
        match text.parse::<IpNet>() {
            Ok(net) if net.trunc() == net => Ok(Self(net)),
            Ok(net) => Err(wrong().hint(format!(
                "bits are set beyond /{}: did you mean \"{}\"?",
                net.prefix_len(),
                net.trunc()
            ))),
            Err(_) => Err(match text.parse::<IpAddr>() {
                Ok(ip) => wrong().hint(format!("for this address alone: \"{}\"", IpNet::from(ip))),
                Err(_) => wrong(),
            }),
        }
    }
}

/// A name in the domain name system, absolute, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct DomainName(pub(in crate::config) String);

impl Word for DomainName {
    fn words() -> String {
        "an absolute domain name with its final dot, such as \"www.example.com.\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"\.$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not an absolute domain name", short(text)));
        let Some(relative) = text.strip_suffix('.') else {
            let valid = domain_labels(text);
            return Err(if valid { wrong().hint(format!("add the final dot: \"{text}.\"")) } else { wrong() });
        };
        if domain_labels(relative) { Ok(Self(text.to_ascii_lowercase())) } else { Err(wrong()) }
    }
}

pub(super) fn domain_labels(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// A name in the domain name system with a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Named {
    /// Absolute, in lower case.
    pub(in crate::config) name: String,
    /// From 1 on.
    pub(in crate::config) port: u16,
}

impl Word for Named {
    fn words() -> String {
        "an absolute domain name with its final dot and a port, such as \"backends.internal.:7000\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"\.:[0-9]+$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not a domain name with a port", short(text)));
        if text.parse::<SocketAddr>().is_ok() {
            return Err(wrong().hint(format!("an address is no name: write \"{text}\" alone")));
        }
        let Some((name, port)) = text.rsplit_once(':') else {
            return Err(wrong().hint(format!("add the port: \"{}.:8080\"", text.trim_end_matches('.'))));
        };
        let Some(port) = port.parse().ok().filter(|port| *port > 0) else {
            return Err(wrong().hint("ports go from 1 to 65535"));
        };
        match name.strip_suffix('.') {
            Some(relative) if domain_labels(relative) => Ok(Self { name: name.to_ascii_lowercase(), port }),
            None if domain_labels(name) => Err(wrong().hint(format!("add the final dot: \"{name}.:{port}\""))),
            _ => Err(wrong()),
        }
    }
}

/// A host name to verify or to ask for.
#[derive(Clone, Debug)]
pub(in crate::config) struct Host(pub(in crate::config) String);

impl Word for Host {
    fn words() -> String {
        "a host name such as \"gift.internal\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if domain_labels(text) || text.parse::<IpAddr>().is_ok() {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Wrong::new(format!("`{}` is not a host name", short(text))))
        }
    }
}
