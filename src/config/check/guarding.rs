//! What the name server does against abuse, and what it tells of itself.

use super::Checker;
use crate::config::diag::Code;
use crate::config::model::{DnsCookies, DnsGuard, QueryLog, RateLimit};
use crate::config::raw;
use crate::config::reader::Said;
use crate::config::words::Rate;

/// Rates above this are finer than the limiter counts (ours).
const MAX_RATE: f64 = 1e6;

pub(super) fn guard(said: &raw::Dns, checker: &mut Checker<'_>) -> DnsGuard {
    let cookies = DnsCookies {
        key_file: said.cookies.key_file.as_ref().map(|file| checker.file(file)),
        require: said.cookies.require.0,
    };
    let rate_limit = said.rate_limit.as_ref().map(|limit| rate_limit(limit, checker)).unwrap_or_default();
    let log = said.log.as_ref().and_then(|log| {
        let file = checker.folder.join(&log.file.as_ref()?.0);
        Some(QueryLog { sample: log.sample.0, file })
    });
    DnsGuard { udp_size: said.udp_size.0 as u16, cookies, rate_limit, log }
}

fn rate_limit(said: &Said<raw::RateLimit>, checker: &mut Checker<'_>) -> RateLimit {
    let own = |rate: &Option<Said<Rate>>| rate.as_ref().map(|r| r.0);
    let answers = own(&said.per_prefix).unwrap_or(MAX_RATE);
    let rates = [&said.per_prefix, &said.nxdomains, &said.errors, &said.all];
    for rate in rates.into_iter().flatten() {
        if !(1.0..=MAX_RATE).contains(&rate.0) {
            let hint = "from \"1 rps\" to \"1M rps\"; leave `rate_limit` out to limit nobody";
            checker.error(Code::OutOfRange, rate.span, "this limit is out of range", hint);
        }
    }
    if let Some(all) = &said.all
        && all.0 < answers
        && said.per_prefix.is_some()
    {
        let hint = "`all` counts answers of every kind together: it is at least `per_prefix`";
        checker.warn(Code::Doubtful, all.span, "no prefix ever gets as many answers as `per_prefix` allows", hint);
    }
    RateLimit {
        answers,
        nxdomains: own(&said.nxdomains).unwrap_or(answers),
        errors: own(&said.errors).unwrap_or(answers),
        all: own(&said.all),
        window: said.window.0,
        slip: said.slip.0,
        prefix: (said.prefix_v4.0 as u8, said.prefix_v6.0 as u8),
        exempt: said.exempt.0.iter().map(|net| net.0).collect(),
        dry_run: said.dry_run.0,
    }
}
