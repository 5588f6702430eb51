//! Backends of services: those that are written, and the sources of those that are found.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::names::Names;
use super::{Checker, Look};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::Or;
use crate::config::model::{BackendSpec, Balance, Discovery, Origin, Service, Source};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;
use crate::config::words::{File, Peer};

/// An entry of a list of backends.
type Entry = Or<Peer, raw::Backend>;

/// All sources of the file, by service.
pub(super) fn discovery(root: &Root, places: &Names, services: &[Service], checker: &mut Checker<'_>) -> Discovery {
    let keep = root.discovery.keep.0;
    let mut sources: Vec<Source> = Vec::new();
    for (index, (said, service)) in root.service.0.iter().zip(services).enumerate() {
        let mut seen: HashMap<(DatacenterId, Origin), Span> = HashMap::new();
        for (name, list) in &said.backends.entries {
            // That it is no datacenter has been said with those that are written.
            let Some(datacenter) = places.index(&name.value).map(DatacenterId::new) else { continue };
            for entry in &list.0 {
                let Or::Other(full) = &entry.value else { continue };
                let Some(origin) = origin(entry, full, service, root, checker) else { continue };
                if let Some(first) = seen.insert((datacenter, origin.clone()), entry.span) {
                    checker.twice(entry.span, first, "this source stands twice here");
                    continue;
                }
                let keep = full.keep.as_ref().map_or(keep, |keep| keep.0);
                let service = ServiceId::new(index);
                sources.push(Source { service, datacenter, origin, weight: full.weight.0, keep });
            }
        }
    }
    Discovery { resolvers: root.discovery.resolvers.0.iter().map(|r| r.0).collect(), sources }
}

/// The backends of one service that are written.
pub(super) fn written(said: &raw::Service, places: &Names, checker: &mut Checker<'_>) -> Vec<BackendSpec> {
    let mut found = Vec::new();
    let mut seen: HashMap<SocketAddr, Span> = HashMap::new();
    for (name, list) in &said.backends.entries {
        let datacenter = places.resolve(&name.value, name.span, checker).map(DatacenterId::new);
        for backend in &list.0 {
            let (address, weight) = match &backend.value {
                Or::One(address) => (Some((address.0, backend.span)), 1),
                Or::Other(full) => (full.address.as_ref().map(|a| (a.0, a.span)), full.weight.0),
            };
            let Some((address, span)) = address else { continue };
            if let Some(first) = seen.insert(address, span) {
                checker.twice(span, first, format!("backend {address} stands twice in this service"));
            }
            found.extend(datacenter.map(|datacenter| BackendSpec { datacenter, address, weight }));
        }
        let weightless = |backend: &Or<_, raw::Backend>| match backend {
            Or::One(_) => false,
            Or::Other(full) => full.weight.0 == 0,
        };
        if let (Some(_), Some(first)) = (datacenter, list.0.first())
            && list.0.iter().all(|backend| weightless(&backend.value))
        {
            let message = format!("every backend in `{}` has weight 0: none gets traffic", name.value);
            checker.warn(Code::Doubtful, first.span, message, "to take a datacenter out for a while, drain it");
        }
    }
    found
}

/// What is asked for backends; `None` where it is an address, or wrong, which is said.
fn origin(
    entry: &Said<Entry>,
    full: &raw::Backend,
    service: &Service,
    root: &Root,
    checker: &mut Checker<'_>,
) -> Option<Origin> {
    let kinds = [
        ("address", full.address.as_ref().map(|s| s.span)),
        ("dns", full.dns.as_ref().map(|s| s.span)),
        ("srv", full.srv.as_ref().map(|s| s.span)),
        ("file", full.file.as_ref().map(|s| s.span)),
        ("register", full.register.as_ref().map(|s| s.span)),
    ];
    let said: Vec<_> = kinds.iter().filter_map(|(kind, span)| span.map(|span| (*kind, span))).collect();
    let kind = match said.as_slice() {
        [] => {
            if checker.whole && entry.clean {
                let hint = "one of `address`, `dns`, `srv`, `file`, `register = true`";
                checker.error(Code::MissingKey, entry.span, "this backend does not say where it is", hint);
            }
            return None;
        }
        [(kind, _)] => *kind,
        [(first, at), rest @ ..] => {
            for (other, span) in rest {
                let message = format!("a backend is found in one way: `{first}` or `{other}`");
                checker.notes.push(Finding::error(Code::Conflict, *span, message).related(*at, "here first"));
            }
            return None;
        }
    };
    stray(full, kind, checker);
    if kind != "address" && service.balance == Balance::UserHome {
        let message = "a user's home moves whenever the backends that are found are others";
        checker.warn(Code::Doubtful, entry.span, message, "write the addresses of a service that owns its users' data");
    }
    Some(match (&full.dns, &full.srv, &full.file, &full.register) {
        (Some(dns), ..) => Origin::Dns { name: dns.name.clone(), port: dns.port },
        (_, Some(srv), ..) => Origin::Srv { name: srv.0.clone() },
        (.., Some(file), _) => {
            let port = full.port.as_ref().and_then(|port| u16::try_from(port.0).ok());
            Origin::File { path: list(file, checker), port }
        }
        (.., Some(register)) => {
            lonely(register.span, service, root, checker);
            Origin::Register { allow: full.allow.0.iter().map(|net| net.0).collect() }
        }
        _ => return None,
    })
}

/// Notes keys that say nothing to this kind of backend.
fn stray(full: &raw::Backend, kind: &str, checker: &mut Checker<'_>) {
    let port = full.port.as_ref().map(|port| ("port", port.span, &["file"][..]));
    let allow = full.allow.written.then_some(("allow", full.allow.span, &["register"][..]));
    let keep = full.keep.as_ref().map(|keep: &Said<_>| ("keep", keep.span, &["dns", "srv", "file"][..]));
    for (key, span, kinds) in [port, allow, keep].into_iter().flatten().filter(|(.., kinds)| !kinds.contains(&kind)) {
        let belongs: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
        let message = format!("`{key}` means nothing beside `{kind}`");
        checker.error(Code::Conflict, span, message, format!("it belongs to {}", belongs.join(", ")));
    }
}

/// Warns where backends can announce themselves and nobody listens, or nobody looks after them.
fn lonely(span: Span, service: &Service, root: &Root, checker: &mut Checker<'_>) {
    if root.admin.is_none() && checker.whole {
        let message = "backends announce themselves through the admin API, and there is none";
        checker.warn(Code::Doubtful, span, message, "add `[admin]`");
    }
    if service.probe.is_none() && checker.whole {
        let message = format!("nothing probes `{}`: what has announced itself gets traffic at once", service.name);
        checker.warn(Code::Doubtful, span, message, "add `probe = { ... }` to the service");
    }
}

/// A file of backends, resolved against the configuration's folder. That it is missing is no error: what was known is used.
fn list(said: &Said<File>, checker: &mut Checker<'_>) -> PathBuf {
    let path = checker.folder.join(&said.0);
    if checker.look == Look::AtFiles && !path.is_file() {
        let message = format!("there is no file {} yet", path.display());
        checker.warn(Code::MissingFile, said.span, message, "until it is there, what was known of it is used");
    }
    path
}
