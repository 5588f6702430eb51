//! Who listens where: nothing listens twice, and nothing forwards to itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Checker;
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::Or;
use crate::config::raw::Root;

#[derive(Clone)]
struct Place {
    what: String,
    address: SocketAddr,
    span: Span,
}

/// Notes addresses that two parts of this node want. All of them are TCP; the name server's are UDP besides.
pub(super) fn collisions(root: &Root, checker: &mut Checker<'_>) {
    let admin =
        root.admin.iter().filter(|a| a.listen.written).map(|a| ("the admin API".to_owned(), a.listen.0, a.listen.span));
    let dns = root.dns.iter().filter_map(|d| d.listen.as_ref()).flat_map(|l| &l.0);
    let dns = dns.map(|l| ("the name server".to_owned(), l.0, l.span));
    let edge = root.listener.0.iter().flat_map(|listener| {
        let name = listener.name.as_ref().map(|n| format!("listener `{}`", n.0));
        let listen = listener.listen.iter().flat_map(|l| &l.0);
        listen.map(move |l| (name.clone().unwrap_or_else(|| "a listener".into()), l.0, l.span))
    });
    let mut ports: HashMap<(u16, bool), Port> = HashMap::new();
    let mut exact: HashMap<SocketAddr, Place> = HashMap::new();
    for (what, address, span) in admin.chain(dns).chain(edge).filter(|(_, address, _)| address.port() != 0) {
        let place = Place { what, address, span };
        let port = ports.entry((address.port(), address.is_ipv4())).or_default();
        if let Some(other) = port.taken(address.ip()) {
            let message = match (&place.what, &other.what) {
                (a, b) if a == b => format!("{a} listens on {address} twice"),
                (a, b) => format!("{a} and {b} both listen on {address}"),
            };
            let finding = Finding::error(Code::Conflict, span, message).related(other.span, "taken here");
            checker.notes.push(finding.hint("choose another port, or one address for each"));
        }
        port.take(&place);
        exact.entry(address).or_insert(place);
    }
    loops(root, &exact, checker);
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
