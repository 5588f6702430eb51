//! The edge: its listeners.

use super::names::Names;
use super::{Checker, change, securing};
use crate::config::diag::Code;
use crate::config::kinds::{Flag, Or};
use crate::config::model::{Http2, Http3, Listener};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;

pub(super) fn listeners(root: &Root, checker: &mut Checker<'_>) -> Vec<Listener> {
    Names::collect("listener", root.listener.0.iter().map(|l| l.name.as_ref()), checker);
    let listener = |said: &Said<raw::Listener>, checker: &mut Checker<'_>| {
        if let Some(listen) = said.listen.as_ref().filter(|l| l.0.is_empty() && l.clean) {
            checker.error(
                Code::BadValue,
                listen.span,
                "this listener listens nowhere",
                "for example `listen = \"0.0.0.0:8080\"`",
            );
        }
        Listener {
            name: said.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
            listen: said.listen.iter().flat_map(|l| &l.0).map(|l| l.0).collect(),
            tls: said.tls.as_ref().and_then(|tls| securing::listener(tls, checker)),
            http3: http3(said, checker),
            trusted: said.trusted.0.iter().map(|p| p.0).collect(),
            proxies: said.proxy_protocol.0.iter().map(|p| p.0).collect(),
            redirect: said.redirect.as_ref().map(|redirect| change::redirect(redirect, None, checker)),
            http2: Http2 {
                streams: said.http2.streams.0,
                total_streams: said.http2.total_streams.0,
                glitches: said.http2.glitches.0,
            },
        }
    };
    root.listener.0.iter().map(|said| listener(said, checker)).collect()
}

/// Holds what HTTPS records say of HTTP/3 against what listeners do: clients believe either.
pub(super) fn promises(root: &Root, listeners: &[Listener], checker: &mut Checker<'_>) {
    let told = listeners.iter().find(|l| l.tls.is_some() && l.http3.as_ref().is_some_and(|h| h.advertise));
    let has_http3 = listeners.iter().any(|l| l.http3.is_some());
    let steers = root.dns.iter().flat_map(|dns| &dns.steer.0).filter(|steer| !steer.alpn.0.is_empty());
    for steer in steers {
        let Some(name) = &steer.name else { continue };
        let promised = steer.alpn.0.iter().find(|id| id.0 == "h3");
        if let Some(promised) = promised.filter(|_| !has_http3 && !listeners.is_empty()) {
            let message = format!("the HTTPS record of `{}` promises HTTP/3, and no listener has it", name.0);
            let hint = "set `http3 = true` at the listener, or take \"h3\" out of `alpn`";
            checker.warn(Code::Doubtful, promised.span, message, hint);
        } else if let (None, Some(listener)) = (promised, told) {
            let at = if steer.alpn.written { steer.alpn.span } else { name.span };
            let message = format!(
                "listener `{}` has HTTP/3, and the HTTPS record of `{}` does not say so",
                listener.name, name.0
            );
            let hint = "clients find it with their second connection: say `alpn = [\"h3\", \"h2\", \"http/1.1\"]`";
            checker.warn(Code::Doubtful, at, message, hint);
        }
    }
}

/// HTTP/3 of a listener, where it is asked for.
fn http3(listener: &raw::Listener, checker: &mut Checker<'_>) -> Option<Http3> {
    let said = listener.http3.as_ref()?;
    let wanted = match &said.value {
        Or::One(Flag(false)) => return None,
        Or::One(Flag(true)) => Http3::default(),
        Or::Other(rules) => Http3 { advertise: rules.advertise.0, max_age: rules.max_age.0, streams: rules.streams.0 },
    };
    if listener.tls.is_none() && said.clean {
        let hint = "QUIC is never in plaintext: add `tls = { certs = ..., keys = ... }`, or leave `http3` out";
        checker.error(Code::Conflict, said.span, "HTTP/3 without TLS", hint);
    }
    if cfg!(not(feature = "h3")) {
        let hint = "build it with the feature `h3`, or leave `http3` out";
        checker.error(Code::NotAvailable, said.span, "this binary was built without HTTP/3", hint);
    }
    Some(wanted)
}
