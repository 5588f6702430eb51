//! TLS at both ends, who must show a certificate, and who may speak for others: that it goes together.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Checker;
use crate::config::diag::{Code, Finding};
use crate::config::kinds::Or;
use crate::config::model::{
    ClientAuth, Listener, ListenerTls, Protocol, ProxyProtocol, Requirement, SanMatch, Tickets, UpstreamTls,
};
use crate::config::raw;
use crate::config::reader::Said;
use crate::config::words::{File, Text};

pub(super) fn listener(said: &Said<raw::ListenerTls>, checker: &mut Checker<'_>) -> Option<ListenerTls> {
    let (certs, keys) = (said.certs.as_ref()?, said.keys.as_ref()?);
    if certs.0.len() != keys.0.len() && said.clean {
        let message = format!("{} and {}", count(certs.0.len(), "certificate"), count(keys.0.len(), "key"));
        let finding = Finding::error(Code::Conflict, keys.span, message).related(certs.span, "for these certificates");
        checker.notes.push(finding.hint("`keys` has the key of each of `certs`, in the same order"));
    }
    if certs.0.is_empty() && said.clean {
        let hint = "add a certificate, or leave `tls` out to speak plaintext";
        checker.error(Code::BadValue, certs.span, "TLS without a certificate", hint);
    }
    let pairs = files(&certs.0, checker).into_iter().zip(files(&keys.0, checker)).collect();
    Some(ListenerTls {
        pairs,
        min_version: said.min_version.value,
        post_quantum: said.post_quantum.0,
        tickets: said.tickets.as_ref().and_then(|tickets| {
            Some(Tickets { file: checker.file(tickets.file.as_ref()?), lifetime: tickets.lifetime.0 })
        }),
        clients: clients(said, checker),
    })
}

fn clients(said: &raw::ListenerTls, checker: &mut Checker<'_>) -> Option<ClientAuth> {
    if said.client_ca.0.is_empty() {
        let unused = [
            ("client_certificate", said.client_certificate.written.then_some(said.client_certificate.span)),
            ("crl", (said.crl.written && !said.crl.0.is_empty()).then_some(said.crl.span)),
            ("pass_on", said.pass_on.written.then_some(said.pass_on.span)),
        ];
        for (key, span) in unused.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let message = format!("`{key}` means nothing where no client is asked for a certificate");
            let hint = "add `client_ca = [\"...\"]`, the authorities to verify them against";
            checker.error(Code::Conflict, span, message, hint);
        }
        return None;
    }
    Some(ClientAuth {
        ca: files(&said.client_ca.0, checker),
        crl: files(&said.crl.0, checker),
        wanted: said.client_certificate.value,
        pass_on: said.pass_on.value,
    })
}

pub(super) fn upstream(said: &Said<raw::UpstreamTls>, checker: &mut Checker<'_>) -> Option<UpstreamTls> {
    let ca = said.ca.as_ref().map(|ca| checker.file(ca));
    let certificate = own(said.certificate.as_ref(), said.key.as_ref(), checker);
    Some(UpstreamTls { name: said.name.as_ref()?.0.clone(), ca: ca?, certificate })
}

/// Our own certificate with its key.
pub(super) fn own(
    certificate: Option<&Said<File>>,
    key: Option<&Said<File>>,
    checker: &mut Checker<'_>,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some((checker.file(certificate), checker.file(key))),
        (Some(at), None) | (None, Some(at)) => {
            let (one, other) = if key.is_none() { ("certificate", "key") } else { ("key", "certificate") };
            let hint = format!("add `{other} = \"...\"`, PEM");
            checker.error(Code::MissingKey, at.span, format!("`{one}` without `{other}`"), hint);
            None
        }
        (None, None) => None,
    }
}

/// How a service's backends are told for whom a connection is.
pub(super) fn proxy_protocol(said: &raw::Service, checker: &mut Checker<'_>) -> Option<ProxyProtocol> {
    let spoken = said.proxy_protocol.as_ref()?;
    if said.protocol.value == Protocol::Http2 {
        let message = "over HTTP/2 a connection is for many clients at once, and a PROXY header names one";
        let finding = Finding::error(Code::Conflict, spoken.span, message);
        let finding = if said.protocol.written { finding.related(said.protocol.span, "HTTP/2") } else { finding };
        checker.notes.push(finding.hint("leave it out: requests say it as `X-Forwarded-For`"));
    }
    Some(spoken.value)
}

/// What a route requires, and that a listener lets clients bring it.
pub(super) fn requirement(
    said: &Said<raw::Require>,
    listeners: &[Listener],
    checker: &mut Checker<'_>,
) -> Option<Requirement> {
    let wanted = said.client_certificate.as_ref()?;
    let asks = |l: &Listener| l.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if !listeners.is_empty() && !listeners.iter().any(asks) && checker.whole {
        let message = "no listener asks clients for certificates: every request of this route is refused";
        checker.error(Code::Conflict, wanted.span, message, "add `client_ca = [...]` to the `tls` of a listener");
    }
    match &wanted.value {
        Or::One(_) => Some(Requirement::ClientCertificate),
        Or::Other(holder) => {
            let names = holder.san.as_ref()?;
            if names.0.is_empty() && names.clean {
                let hint = "name somebody, or write `client_certificate = true` for anybody with a certificate";
                checker.error(Code::BadValue, names.span, "nobody has one of no names", hint);
            }
            Some(Requirement::ClientNamed(names.0.iter().filter_map(|name| san(name, checker)).collect()))
        }
    }
}

fn san(said: &Said<Text>, checker: &mut Checker<'_>) -> Option<SanMatch> {
    let text = said.0.as_str();
    let is_dns = |name: &str| {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        name.len() <= 253 && name.split('.').all(is_label)
    };
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
    let read = if let Ok(address) = text.parse::<IpAddr>() {
        Some(SanMatch::Ip(address))
    } else if text.contains("://") || text.starts_with("urn:") {
        is_plain.then(|| SanMatch::Uri(text.to_owned()))
    } else if let Some((local, domain)) = text.split_once('@') {
        let is_email = is_plain && !local.is_empty() && is_dns(domain);
        is_email.then(|| SanMatch::Email(format!("{local}@{}", domain.to_ascii_lowercase())))
    } else if let Some(parent) = text.strip_prefix("*.") {
        is_dns(parent).then(|| SanMatch::Below(parent.to_ascii_lowercase()))
    } else {
        is_dns(text).then(|| SanMatch::Dns(text.to_ascii_lowercase()))
    };
    if read.is_none() {
        let hint = "a DNS name, a URI such as \"spiffe://gifts.internal/claim\", an email address or an IP address";
        checker.error(Code::BadValue, said.span, format!("`{text}` is no name of a certificate's holder"), hint);
    }
    read
}

fn files(said: &[Said<File>], checker: &mut Checker<'_>) -> Vec<PathBuf> {
    said.iter().map(|file| checker.file(file)).collect()
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
