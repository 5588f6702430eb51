//! What is logged of requests, and how they are traced.

use super::{Checker, securing};
use crate::config::diag::{Code, Finding};
use crate::config::model::{AccessLog, Export, Log, LogSink, Trace, UpstreamTls};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;

pub(super) fn log(root: &Root, checker: &mut Checker<'_>) -> Log {
    Log { access: root.log.access.as_ref().and_then(|said| access(said, checker)) }
}

pub(super) fn trace(root: &Root, checker: &mut Checker<'_>) -> Option<Trace> {
    root.trace.as_ref().map(|said| Trace {
        sample: said.sample.0,
        follow: said.follow.value,
        export: said.export.as_ref().and_then(|said| export(said, checker)),
    })
}

fn export(said: &Said<raw::Export>, checker: &mut Checker<'_>) -> Option<Export> {
    if cfg!(not(feature = "otlp")) {
        let hint = "build it with `--features otlp`, or leave `export` out";
        checker.error(Code::NotAvailable, said.span, "this build has no `otlp`: it cannot export spans", hint);
    }
    let ca = said.ca.as_ref().map(|ca| checker.file(ca));
    let certificate = securing::own(said.certificate.as_ref(), said.key.as_ref(), checker);
    let headers = said.headers.as_ref().map(|file| checker.file(file));
    let endpoint = said.endpoint.as_ref()?;
    let unused = said.ca.as_ref().or(said.certificate.as_ref()).filter(|_| !endpoint.0.is_tls);
    if let Some(at) = unused {
        let finding = Finding::error(Code::Conflict, at.span, "this collector is spoken to in plaintext");
        checker.notes.push(finding.related(endpoint.span, "by this URL").hint("write `https://`, or leave it out"));
    }
    if endpoint.0.is_tls && ca.is_none() && said.clean {
        let hint = "add `ca = \"...\"`; the system's own is /etc/ssl/certs/ca-certificates.crt on most";
        checker.error(Code::MissingKey, endpoint.span, "nothing says by which authorities it is verified", hint);
    }
    let tls = ca.filter(|_| endpoint.0.is_tls).map(|ca| UpstreamTls { name: endpoint.0.host.clone(), ca, certificate });
    let attributes = said.attributes.entries.iter().map(|(name, value)| (name.value.clone(), value.0.clone()));
    Some(Export {
        endpoint: endpoint.0.clone(),
        tls,
        headers,
        timeout: said.timeout.0,
        attributes: attributes.collect(),
    })
}

fn access(said: &Said<raw::Access>, checker: &mut Checker<'_>) -> Option<AccessLog> {
    let file = said.file.as_ref().map(|file| (LogSink::File(checker.folder.join(&file.0)), file.span));
    let stdout = said.stdout.0.then_some((LogSink::Stdout, said.stdout.span));
    let syslog = said.syslog.as_ref().map(|path| (LogSink::Syslog(checker.folder.join(&path.0)), path.span));
    let mut sinks = [file, stdout, syslog].into_iter().flatten();
    let (first, second) = (sinks.next(), sinks.next());
    if let Some((_, span)) = second {
        let hint = "one of `file`, `stdout` and `syslog`: a collector can copy";
        checker.error(Code::Conflict, span, "the access log goes to one place", hint);
    }
    let Some((to, _)) = first else {
        if said.clean {
            let hint = "`file = \"access.log\"`, `stdout = true` or `syslog = \"/dev/log\"`";
            checker.error(Code::MissingKey, said.span, "the access log does not say where it goes", hint);
        }
        return None;
    };
    Some(AccessLog { to, format: said.format.value, sample: said.sample.0, slow: said.slow.0 })
}
