//! Zones: their files, who may take them whole, who is told of changes, and the keys for both.

use std::collections::HashMap;

use super::Checker;
use super::names::Names;
use crate::config::diag::{Code, Span};
use crate::config::model::{DnsKey, Signed, Transfer, ZoneFile};
use crate::config::raw;
use crate::config::reader::Said;

/// Names of keys.
pub(super) fn keys(said: &raw::Dns, checker: &mut Checker<'_>) -> Names {
    Names::collect("dns.key", said.key.0.iter().map(|k| k.name.as_ref()), checker)
}

/// The keys themselves.
pub(super) fn secrets(said: &raw::Dns, checker: &mut Checker<'_>) -> Vec<DnsKey> {
    let one = |key: &Said<raw::Key>| DnsKey {
        name: key.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
        algorithm: key.algorithm.value,
        secret_file: key.secret_file.as_ref().map(|file| checker.file(file)).unwrap_or_default(),
    };
    said.key.0.iter().map(one).collect()
}

pub(super) fn zones(said: &raw::Dns, keys: &Names, checker: &mut Checker<'_>) -> Vec<ZoneFile> {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    let mut zones = Vec::new();
    for zone in &said.zone.0 {
        if let Some(name) = &zone.name
            && let Some(first) = seen.insert(&name.0, name.span)
        {
            checker.twice(name.span, first, format!("zone `{}` stands twice", name.0));
        }
        zones.push(ZoneFile {
            origin: zone.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
            file: zone.file.as_ref().map(|file| checker.file(file)).unwrap_or_default(),
            transfer: zone.transfer.as_ref().map(|t| transfer(t, keys, checker)),
            notify: zone.notify.0.iter().map(|n| n.0).collect(),
            dnssec: zone.dnssec.as_ref().map(|said| signed(said, checker)),
        });
        if let Some(transfer) = zone.transfer.as_ref().filter(|_| zone.dnssec.is_some()) {
            // Signatures are made while answering; a secondary would serve the zone bare, and validators would call that bogus.
            let hint =
                "give secondaries the zone from a node that does not sign it, or sign it here and leave `transfer` out";
            let problem = "a zone that is signed while it is answered has no signatures to transfer";
            checker.error(Code::Conflict, transfer.span, problem, hint);
        }
        let told = zone.notify.0.first().filter(|_| zone.transfer.is_none() && checker.whole);
        if let Some(first) = told {
            let hint = "add `transfer = { allow = [...] }`, or leave `notify` out";
            checker.warn(Code::Doubtful, first.span, "secondaries are told of a zone that none of them may take", hint);
        }
    }
    zones
}

fn signed(said: &raw::Signed, checker: &mut Checker<'_>) -> Signed {
    if !(0.1..=0.9).contains(&said.refresh.0) && said.refresh.clean {
        let hint = "\"50%\" leaves half of a signature's life for whatever goes wrong";
        checker.error(Code::OutOfRange, said.refresh.span, "expected a share from 10% to 90%", hint);
    }
    let (validity, backdate, ttl) = (&said.validity, &said.backdate, &said.dnskey_ttl);
    for (time, span) in [(validity.0, validity.span), (backdate.0, backdate.span), (ttl.0, ttl.span)] {
        if time.subsec_nanos() != 0 {
            let hint = "write whole seconds, such as \"1h\"";
            checker.error(Code::BadValue, span, "times of signatures and keys count whole seconds", hint);
        }
    }
    Signed {
        keys: said.keys.as_ref().map(|keys| checker.folder(keys)).unwrap_or_default(),
        validity: said.validity.0,
        backdate: said.backdate.0,
        refresh: said.refresh.0,
        dnskey_ttl: said.dnskey_ttl.0,
        open_per_second: said.open_per_second.0,
        known_per_second: said.known_per_second.0,
    }
}

fn transfer(said: &Said<raw::Transfer>, keys: &Names, checker: &mut Checker<'_>) -> Transfer {
    let key = said.key.as_ref().and_then(|name| keys.resolve(&name.0, name.span, checker));
    let open = said.allow.0.is_empty() && said.allow.clean && said.key.is_none() && said.clean;
    if open {
        let hint = "name them: `allow = [\"192.0.2.0/24\"]`, `key = \"...\"`, or both";
        checker.error(Code::BadValue, said.span, "this would let anybody take the whole zone", hint);
    }
    Transfer { allow: said.allow.0.iter().map(|p| p.0).collect(), key }
}
