//! Services: their backends, how these are probed, ejected and tried again; and the health core's own rules.

use std::sync::Arc;

use super::names::Names;
use super::{Checker, Look, backends, securing};
use crate::base::units::show_duration;
use crate::config::diag::{Code, Finding, Span};
use crate::config::homes::Homes;
use crate::config::model::{
    BackendSpec, Balance, Class, Health, Homing, Limits, Passive, Probe, ProbeKind, Retry, Service, Session,
    UpstreamTls, strangers,
};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;

/// Most backends in one file (ours: twice what 500 services in 50 datacenters with 2 each need).
const MAX_BACKENDS: usize = 100_000;

/// Names of services.
pub(super) fn names(root: &Root, checker: &mut Checker<'_>) -> Names {
    Names::collect("service", root.service.0.iter().map(|s| s.name.as_ref()), checker)
}

pub(super) fn rules(root: &Root, checker: &mut Checker<'_>) -> Health {
    let said = &root.health;
    if said.return_at.0 <= said.fail_below.0 && said.return_at.clean && said.fail_below.clean {
        let span = if said.return_at.written { said.return_at.span } else { said.fail_below.span };
        checker.error(
            Code::Conflict,
            span,
            "a datacenter would fail and return at the same share, back and forth",
            "`return_at` stands above `fail_below`: the gap between them is what keeps it calm",
        );
    }
    Health {
        references: said.references.0.iter().map(|r| r.0).collect(),
        fail_below: said.fail_below.0,
        return_at: said.return_at.0,
        overprovision: said.overprovision.0,
        ramp: said.ramp.0,
    }
}

pub(super) fn services(root: &Root, places: &Names, checker: &mut Checker<'_>) -> Vec<Service> {
    let services: Vec<_> = root.service.0.iter().map(|said| service(said, root, places, checker)).collect();
    let total: usize = services.iter().map(|s| s.backends.len()).sum();
    if total > MAX_BACKENDS {
        let message = format!("{total} backends are too many for one node");
        let span = root.service.span;
        checker.error(Code::OutOfRange, span, message, format!("at most {MAX_BACKENDS}: spread services over nodes"));
    }
    services
}

fn service(said: &Said<raw::Service>, root: &Root, places: &Names, checker: &mut Checker<'_>) -> Service {
    let name = said.name.as_ref().map(|n| n.0.clone()).unwrap_or_default();
    let tls = said.tls.as_ref().and_then(|tls| securing::upstream(tls, checker));
    let proxy_protocol = securing::proxy_protocol(said, checker);
    let probe = said.probe.as_ref().and_then(|p| probe(p, tls.as_ref(), checker));
    let probe = probe.map(|p| Probe { proxy_protocol: proxy_protocol.filter(|_| p.port.is_none()), ..p });
    let retry = retry(said, checker);
    let backends = backends::written(said, places, checker);
    covered(said, &name, root, places, checker);
    Service {
        name,
        class: said.class.value,
        balance: said.balance.value,
        probe,
        passive: passive(&said.passive, checker),
        deadline: said.deadline.0,
        retry,
        limits: limits(&said.limits),
        session: session(said, checker),
        slow_start: said.slow_start.0,
        panic_below: said.panic_below.0,
        protocol: said.protocol.value,
        tls,
        proxy_protocol,
        homing: homing(said, &backends, checker),
        backends,
    }
}

/// Where users' homes are, and what happens while one is down.
fn homing(said: &raw::Service, backends: &[BackendSpec], checker: &mut Checker<'_>) -> Homing {
    let down = said.home_down.value;
    if said.balance.value != Balance::UserHome {
        let hint = "leave it out, or write `balance = \"user-home\"`";
        let spans = [said.homes.as_ref().map(|f| f.span), said.home_down.written.then_some(said.home_down.span)];
        for span in spans.into_iter().flatten() {
            checker.error(Code::Conflict, span, "only a service with `balance = \"user-home\"` has homes", hint);
        }
        return Homing::default();
    }
    let none = Homing { down, ..Homing::default() };
    let Some(file) = &said.homes else { return none };
    let path = checker.file(file);
    if checker.look != Look::AtFiles || !path.is_file() {
        return none;
    }
    let homes = match Homes::load(&path) {
        Ok(homes) => homes,
        Err(error) => {
            checker.error(
                Code::BadValue,
                file.span,
                error.to_string(),
                "docs/GUIDE.md, `Homes`, says what it looks like",
            );
            return none;
        }
    };
    for (home, door) in strangers(&homes, backends) {
        let message = format!("home `{}` at {} is no backend of this service", home.name, door.url);
        checker.error(Code::UnknownName, file.span, message, "every home's URL is the address of a backend");
    }
    Homing { homes: Some(Arc::new(homes)), file: Some(path), down }
}

fn limits(said: &raw::Limits) -> Limits {
    Limits {
        requests: said.requests.0,
        connections: said.connections.0,
        pending: said.pending.0,
        retries: said.retries.0,
    }
}

fn session(said: &raw::Service, checker: &mut Checker<'_>) -> Option<Session> {
    let session = said.session.as_ref()?;
    if said.balance.value == Balance::UserHome {
        let message = "a user's home is where the user's requests go, whatever a session says";
        checker.error(Code::Conflict, session.span, message, "leave `session` out");
    }
    Some(session.0.clone())
}

fn retry(said: &raw::Service, checker: &mut Checker<'_>) -> Retry {
    let retry = &said.retry;
    if let Some(per_try) = retry.per_try.as_ref().filter(|t| t.0 > said.deadline.0 && said.deadline.clean) {
        let message = format!("one try may take longer than the deadline ({})", show_duration(said.deadline.0));
        checker.error(Code::Conflict, per_try.span, message, "`per_try` is a part of `deadline`");
    }
    if retry.tries.0 > 1 && retry.budget.written && retry.budget.0 == 0.0 {
        checker.warn(
            Code::Doubtful,
            retry.budget.span,
            "a budget of 0% leaves only the floor of 10 retries a second",
            "to try once only: `tries = 1`",
        );
    }
    Retry {
        tries: retry.tries.0,
        budget: retry.budget.0,
        per_try: retry.per_try.as_ref().map(|t| t.0),
        hedge_budget: retry.hedge_budget.0,
    }
}

fn passive(said: &raw::Passive, checker: &mut Checker<'_>) -> Passive {
    if said.slower_than_peers.0 > 0.0 && said.slower_than_peers.0 <= 1.0 {
        checker.error(
            Code::OutOfRange,
            said.slower_than_peers.span,
            "half of all backends are slower than the median of their peers",
            "write a factor above 1, such as 3.0, or 0 for never",
        );
    }
    Passive {
        consecutive_failures: said.consecutive_failures.0,
        consecutive_errors: said.consecutive_errors.0,
        success_below: said.success_below.0,
        below_peers: said.below_peers.0,
        slower_than_peers: said.slower_than_peers.0,
        eject_for: said.eject_for.0,
        max_ejected: said.max_ejected.0,
    }
}

/// Warns where a service has no backend: a steered name with a critical one fails there.
fn covered(said: &Said<raw::Service>, name: &str, root: &Root, places: &Names, checker: &mut Checker<'_>) {
    let entries = &said.backends.entries;
    let understood = said.backends.clean && entries.iter().all(|(place, _)| places.knows(&place.value));
    if !checker.whole || name.is_empty() || !understood {
        return;
    }
    let span = said.name.as_ref().map_or(said.span, |n| n.span);
    if entries.is_empty() {
        checker.warn(
            Code::Doubtful,
            span,
            format!("service `{name}` has no backends: only a program that embeds the router can serve it"),
            "add `[service.backends]` with a list of addresses for each datacenter",
        );
        return;
    }
    for place in root.datacenter.0.iter().filter_map(|d| d.name.as_ref()) {
        // An empty list says that this is meant.
        if said.class.value != Class::Critical || entries.iter().any(|(entry, _)| entry.value == place.0) {
            continue;
        }
        checker.notes.push(
            Finding::warning(
                Code::Doubtful,
                span,
                format!("critical service `{name}` has no backend in `{}`", place.0),
            )
            .related(place.span, "this datacenter counts as failed wherever the service is needed")
            .hint(format!("add `{} = [...]` to its backends, or an empty list if that is meant", place.0)),
        );
    }
}

fn probe(said: &Said<raw::Probe>, upstream: Option<&UpstreamTls>, checker: &mut Checker<'_>) -> Option<Probe> {
    if said.timeout.0 > said.interval.0 && said.timeout.clean && said.interval.clean {
        let message = format!(
            "a probe may take {}, longer than the time between probes ({})",
            show_duration(said.timeout.0),
            show_duration(said.interval.0)
        );
        let span = if said.timeout.written { said.timeout.span } else { said.interval.span };
        checker.error(Code::Conflict, span, message, "`timeout` is at most `interval`");
    }
    let kind = kind(said, upstream, checker)?;
    Some(Probe {
        kind,
        interval: said.interval.0,
        timeout: said.timeout.0,
        fall: said.fall.0,
        rise: said.rise.0,
        port: said.port.as_ref().map(|p| p.0 as u16),
        proxy_protocol: None,
    })
}

fn kind(said: &Said<raw::Probe>, upstream: Option<&UpstreamTls>, checker: &mut Checker<'_>) -> Option<ProbeKind> {
    let kinds = [
        ("http", said.http.as_ref().map(|s| s.span)),
        ("tcp", said.tcp.as_ref().map(|s| s.span)),
        ("tls", said.tls.as_ref().map(|s| s.span)),
        ("grpc", said.grpc.as_ref().map(|s| s.span)),
    ];
    let asked: Vec<_> = kinds.iter().filter_map(|(kind, span)| span.map(|span| (*kind, span))).collect();
    match asked.as_slice() {
        [] => {
            if checker.whole && said.clean {
                let hint = "one of `http = \"/healthz\"`, `tcp = true`, `tls = \"name\"`, `grpc = \"service\"`";
                checker.error(Code::MissingKey, said.span, "this probe does not say what to ask", hint);
            }
            return None;
        }
        [_] => {}
        [(first, at), rest @ ..] => {
            for (other, span) in rest {
                let message = format!("a probe asks one thing: `{first}` or `{other}`");
                checker.notes.push(Finding::error(Code::Conflict, *span, message).related(*at, "here first"));
            }
            return None;
        }
    }
    stray(said, checker);
    let named = said.tls_name.as_ref().or(said.tls.as_ref());
    let ca = said.ca.as_ref().map(|ca| checker.file(ca)).or_else(|| upstream.map(|u| u.ca.clone()));
    // Who asks backends shows them the same certificate as who brings them requests.
    let certificate = upstream.and_then(|u| u.certificate.clone());
    let tls = match (named, ca) {
        (Some(name), Some(ca)) => Some(UpstreamTls { name: name.0.clone(), ca, certificate }),
        (Some(name), None) => {
            let hint = "add `ca = \"...\"`, a PEM file with the authorities to trust";
            checker.error(Code::MissingKey, name.span, "a probe over TLS trusts nobody without `ca`", hint);
            None
        }
        (None, Some(ca)) if said.tcp.is_none() => match (upstream, &said.ca) {
            (Some(upstream), _) => Some(UpstreamTls { name: upstream.name.clone(), ca, certificate }),
            (None, Some(at)) => {
                let hint = "add `tls_name = \"...\"`, the name to verify";
                checker.error(Code::MissingKey, at.span, "`ca` alone does not make a probe speak TLS", hint);
                None
            }
            (None, None) => None,
        },
        (None, _) => None,
    };
    match (&said.http, &said.grpc, &said.tls) {
        (Some(path), _, _) => Some(ProbeKind::Http {
            path: path.0.clone(),
            host: said.host.as_ref().map(|h| h.0.clone()),
            expect: (said.expect.0, said.expect.1),
            tls,
        }),
        (_, Some(service), _) => Some(ProbeKind::Grpc { service: service.0.clone(), tls }),
        (_, _, Some(_)) => tls.map(|tls| ProbeKind::Tls { tls }),
        _ => Some(ProbeKind::Tcp),
    }
}

/// Notes keys that say nothing to the kind of probe that was asked for.
fn stray(said: &raw::Probe, checker: &mut Checker<'_>) {
    let mut note = |key: &str, span: Span, kinds: &str| {
        let message = format!("`{key}` means nothing to this probe");
        checker.error(Code::Conflict, span, message, format!("it belongs to {kinds}"));
    };
    let over_tls = said.http.is_some() || said.grpc.is_some() || said.tls.is_some();
    if let Some(host) = said.host.as_ref().filter(|_| said.http.is_none()) {
        note("host", host.span, "`http` probes");
    }
    if said.expect.written && said.http.is_none() {
        note("expect", said.expect.span, "`http` probes");
    }
    if let Some(name) = said.tls_name.as_ref().filter(|_| said.http.is_none() && said.grpc.is_none()) {
        note("tls_name", name.span, "`http` and `grpc` probes");
    }
    if let Some(ca) = said.ca.as_ref().filter(|_| !over_tls) {
        note("ca", ca.span, "probes over TLS");
    }
}
