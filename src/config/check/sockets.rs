//! Who listens where: nothing listens twice, and nothing forwards to itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Checker;
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::{Flag, Or};
use crate::config::raw::Root;

/// By which protocols a place listens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum By {
    Tcp,
    Udp,
}

#[derive(Clone)]
struct Place {
    what: String,
    address: SocketAddr,
    span: Span,
}

/// Notes addresses that two parts of this node want by the same protocol.
pub(super) fn collisions(root: &Root, checker: &mut Checker<'_>) {
    let mut ports: HashMap<(u16, bool, By), Port> = HashMap::new();
    let mut exact: HashMap<SocketAddr, Place> = HashMap::new();
    for (place, protocols) in places(root).into_iter().filter(|(place, _)| place.address.port() != 0) {
        let Place { address, span, .. } = place;
        let ports_of = |by| (address.port(), address.is_ipv4(), by);
        let taken = protocols.iter().find_map(|&by| ports.get(&ports_of(by))?.taken(address.ip()));
        if let Some(other) = taken {
            let message = match (&place.what, &other.what) {
                (a, b) if a == b => format!("{a} listens on {address} twice"),
                (a, b) => format!("{a} and {b} both listen on {address}"),
            };
            let finding = Finding::error(Code::Conflict, span, message).related(other.span, "taken here");
            checker.notes.push(finding.hint("choose another port, or one address for each"));
        }
        for &by in protocols {
            ports.entry(ports_of(by)).or_default().take(&place);
        }
        if protocols.contains(&By::Tcp) {
            exact.entry(address).or_insert(place);
        }
    }
    loops(root, &exact, checker);
}

/// Where this node listens, in the order of who is told of a collision: the later one.
fn places(root: &Root) -> Vec<(Place, &'static [By])> {
    let mut places = Vec::new();
    let mut add = |what: &str, address: SocketAddr, span: Span, by: &'static [By]| {
        places.push((Place { what: what.to_owned(), address, span }, by));
    };
    for admin in root.admin.iter().filter(|a| a.listen.written) {
        add("the admin API", admin.listen.0, admin.listen.span, &[By::Tcp]);
    }
    if let Some(dns) = &root.dns {
        let https = dns.https.as_ref().and_then(|s| s.listen.as_ref());
        let ways: [(_, _, &'static [By]); 4] = [
            ("the name server", dns.listen.as_ref(), &[By::Tcp, By::Udp]),
            ("DNS over TLS", dns.tls.as_ref().and_then(|s| s.listen.as_ref()), &[By::Tcp]),
            ("DNS over HTTPS", https, &[By::Tcp]),
            ("DNS over QUIC", dns.quic.as_ref().and_then(|s| s.listen.as_ref()), &[By::Udp]),
        ];
        for (what, listen, by) in ways {
            for l in listen.iter().flat_map(|l| &l.0) {
                add(what, l.0, l.span, by);
            }
        }
    }
    for listener in &root.listener.0 {
        let what = listener.name.as_ref().map_or_else(|| "a listener".into(), |n| format!("listener `{}`", n.0));
        let has_http3 = listener.http3.as_ref().is_some_and(|said| !matches!(said.value, Or::One(Flag(false))));
        let by: &[By] = if has_http3 { &[By::Tcp, By::Udp] } else { &[By::Tcp] };
        for l in listener.listen.iter().flat_map(|l| &l.0) {
            add(&what, l.0, l.span, by);
        }
    }
    places
}

/// Who has one port of one family. `[::]` is IPv6 alone.
#[derive(Default)]
struct Port {
    hosts: HashMap<IpAddr, Place>,
    first: Option<Place>,
    wildcard: Option<Place>,
}

impl Port {
    /// Who would not let a socket on `ip` bind, or would lose connections to it.
    fn taken(&self, ip: IpAddr) -> Option<&Place> {
        let any = if ip.is_unspecified() { self.first.as_ref() } else { self.hosts.get(&ip) };
        any.or(self.wildcard.as_ref())
    }

    fn take(&mut self, place: &Place) {
        self.first.get_or_insert_with(|| place.clone());
        if place.address.ip().is_unspecified() {
            self.wildcard.get_or_insert_with(|| place.clone());
        }
        self.hosts.entry(place.address.ip()).or_insert_with(|| place.clone());
    }
}

/// Warns of backends at which this node listens itself.
fn loops(root: &Root, places: &HashMap<SocketAddr, Place>, checker: &mut Checker<'_>) {
    let lists = root.service.0.iter().flat_map(|s| &s.backends.entries).flat_map(|(_, list)| &list.0);
    let backends = lists.filter_map(|backend| match &backend.value {
        Or::One(address) => Some((address.0, backend.span)),
        Or::Other(full) => full.address.as_ref().map(|a| (a.0, a.span)),
    });
    for (address, span) in backends {
        if let Some(place) = places.get(&address) {
            let message =
                format!("{address} is where {} of this node listens: requests would go in circles", place.what);
            let finding = Finding::warning(Code::Doubtful, span, message).related(place.span, "here");
            checker.notes.push(finding.hint("write the address of the backend"));
        }
    }
}
