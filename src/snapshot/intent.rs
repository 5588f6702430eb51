//! What operators want, whatever the evidence says: drain, down, another weight; each with an end and an author.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::clock::Wall;

/// What an intent speaks of, by name, so that it outlives a reload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A whole datacenter.
    Datacenter(String),
    /// One service within a datacenter.
    Service {
        /// The service.
        service: String,
        /// The datacenter.
        datacenter: String,
    },
    /// One backend by its address; of one service, or of all that use the address.
    Backend {
        /// The address, `ip:port`.
        address: String,
        /// The service; `None`: all.
        service: Option<String>,
    },
}

impl fmt::Display for Subject {
    /// The form that an operator writes and [`Subject::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datacenter(name) => f.write_str(name),
            Self::Service { service, datacenter } => write!(f, "{service}@{datacenter}"),
            Self::Backend { address, service: None } => f.write_str(address),
            Self::Backend { address, service: Some(service) } => write!(f, "{service}/{address}"),
        }
    }
}

/// A text names no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names no subject: write a datacenter (shanghai), a service in one (gift-list@shanghai), an address \
     (10.0.0.1:7000), or an address of one service (gift-list/10.0.0.1:7000)"
)]
pub struct SubjectError {
    /// What was written.
    pub text: String,
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let refused = || SubjectError { text: text.to_owned() };
        let name = |name: &str| if name.is_empty() { Err(refused()) } else { Ok(name.to_owned()) };
        let address = |text: &str| text.parse::<SocketAddr>().map(|a| a.to_string()).map_err(|_| refused());
        if let Some((service, datacenter)) = text.split_once('@') {
            return Ok(Self::Service { service: name(service)?, datacenter: name(datacenter)? });
        }
        if let Some((service, rest)) = text.split_once('/') {
            return Ok(Self::Backend { address: address(rest)?, service: Some(name(service)?) });
        }
        if text.contains(':') {
            return Ok(Self::Backend { address: address(text)?, service: None });
        }
        name(text).map(Self::Datacenter)
    }
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Nothing new: no answers, no new requests; what runs may finish, and owners of data (`user-home`) are still reached.
    Drain,
    /// Nothing at all, whatever happens: not even when everything else has failed.
    Down,
    /// This weight instead of the configured one.
    Weight(u32),
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drain"),
            Self::Down => f.write_str("down"),
            Self::Weight(weight) => write!(f, "weight {weight}"),
        }
    }
}

/// One intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Of what.
    pub subject: Subject,
    /// What.
    pub wish: Wish,
    /// When it was said.
    pub since: Wall,
    /// When it ends by itself. `None`: when somebody takes it back.
    pub until: Option<Wall>,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// All intents in force: at most one of each kind (state, weight) for a subject; the newest wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intents {
    /// Sorted by subject, state before weight.
    pub entries: Vec<Intent>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_as_they_are_written() {
        for text in ["shanghai", "gift-list@shanghai", "10.0.0.1:7000", "gift-list/10.0.0.1:7000", "claim/[::1]:7000"] {
            assert_eq!(text.parse::<Subject>().map(|s| s.to_string()).as_deref(), Ok(text));
        }
        let backend = Subject::Backend { address: "[::1]:7000".into(), service: None };
        assert_eq!("[0:0::1]:7000".parse(), Ok(backend), "an address has one form");
    }

    #[test]
    fn what_names_nothing_is_refused_with_the_forms_that_do() {
        for text in [
            "",
            "@",
            "gift-list@",
            "@shanghai",
            "gift-list/",
            "gift-list/10.0.0.1",
            "10.0.0.1:",
            "a:b",
            "/10.0.0.1:7000",
        ] {
            let error = text.parse::<Subject>().unwrap_err();
            assert!(error.to_string().contains("gift-list@shanghai"), "{text}");
        }
    }
}
