//! The edge: listeners with their certificates.

use std::path::PathBuf;

use super::names::Names;
use super::{Checker, change};
use crate::config::diag::{Code, Finding};
use crate::config::model::{Listener, ListenerTls};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;
use crate::config::words::File;

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
            tls: said.tls.as_ref().and_then(|tls| certificates(tls, checker)),
            trusted: said.trusted.0.iter().map(|p| p.0).collect(),
            redirect: said.redirect.as_ref().map(|redirect| change::redirect(redirect, None, checker)),
        }
    };
    root.listener.0.iter().map(|said| listener(said, checker)).collect()
}

fn certificates(said: &Said<raw::ListenerTls>, checker: &mut Checker<'_>) -> Option<ListenerTls> {
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
    let mut read = |files: &[Said<File>]| files.iter().map(|file| checker.file(file)).collect::<Vec<PathBuf>>();
    let (certs, keys) = (read(&certs.0), read(&keys.0));
    Some(ListenerTls { pairs: certs.into_iter().zip(keys).collect() })
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
