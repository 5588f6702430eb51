//! What is logged of requests, and how they are traced.

use super::Checker;
use crate::config::diag::Code;
use crate::config::model::{AccessLog, Log, LogSink, Trace};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;

pub(super) fn log(root: &Root, checker: &mut Checker<'_>) -> Log {
    Log { access: root.log.access.as_ref().and_then(|said| access(said, checker)) }
}

pub(super) fn trace(root: &Root) -> Option<Trace> {
    root.trace.as_ref().map(|said| Trace { sample: said.sample.0, follow: said.follow.value })
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
