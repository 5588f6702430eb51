//! The edge: its listeners.

use super::names::Names;
use super::{Checker, change, securing};
use crate::config::diag::Code;
use crate::config::model::{Http2, Listener};
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
