//! How the name server is reached beside UDP and plain TCP.

use std::net::SocketAddr;

use super::Checker;
use crate::config::diag::Code;
use crate::config::kinds::List;
use crate::config::model::{Connections, DnsHttps, ListenerTls, SecureDns};
use crate::config::raw;
use crate::config::reader::Said;
use crate::config::words::{File, Listen};

pub(super) fn connections(said: &Said<raw::DnsTcp>, checker: &mut Checker<'_>) -> Connections {
    if said.per_client.0 > said.connections.0 && said.per_client.written && said.clean {
        let message = format!("{} connections of one client, of {} in all", said.per_client.0, said.connections.0);
        let hint = "one client can take every connection: lower `per_client`, or raise `connections`";
        checker.warn(Code::Doubtful, said.per_client.span, message, hint);
    }
    Connections {
        total: said.connections.0 as usize,
        per_client: said.per_client.0 as usize,
        idle: said.idle.0,
        write: said.write.0,
        handshake: said.handshake.0,
    }
}

pub(super) fn secure(said: &Said<raw::DnsSecure>, checker: &mut Checker<'_>) -> Option<SecureDns> {
    door(said.listen.as_ref(), said.cert.as_ref(), said.key.as_ref(), checker)
}

pub(super) fn https(said: &Said<raw::DnsHttps>, checker: &mut Checker<'_>) -> Option<DnsHttps> {
    let path = &said.path.0;
    if let Some(at) = path.find(['?', '#', '*', '{']) {
        let before = path.get(..at).unwrap_or_default();
        let hint = format!("the path alone, without a template: \"{before}\"");
        checker.error(Code::BadValue, said.path.span, format!("`{path}` is not the path of a request"), hint);
    }
    let secure = door(said.listen.as_ref(), said.cert.as_ref(), said.key.as_ref(), checker)?;
    Some(DnsHttps { secure, path: path.clone() })
}

fn door(
    listen: Option<&Said<List<Listen, 64>>>,
    cert: Option<&Said<File>>,
    key: Option<&Said<File>>,
    checker: &mut Checker<'_>,
) -> Option<SecureDns> {
    if let Some(listen) = listen.filter(|l| l.0.is_empty() && l.clean) {
        let hint = "name an address, for example \"0.0.0.0:853\", or leave the whole section out";
        checker.error(Code::BadValue, listen.span, "this listens nowhere", hint);
    }
    let pair = cert.map(|f| checker.file(f)).zip(key.map(|f| checker.file(f)));
    let listen: Vec<SocketAddr> = listen?.0.iter().map(|l| l.0).collect();
    Some(SecureDns { listen, tls: ListenerTls { pairs: vec![pair?], ..ListenerTls::default() } })
}
