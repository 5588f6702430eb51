//! A request's place in a trace: it continues its client's or begins one, and is the parent of what backends do for it.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::entropy::Rng;
use crate::config::{self, Follow};
use crate::wire::trace_context::{Parent, may_pass};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// One request's.
#[derive(Debug)]
pub(super) struct Trace {
    /// What its backends are told: they were asked by this request.
    own: Parent,
    /// It is a part of its client's trace.
    continues: bool,
}

impl Trace {
    /// Of a request with `headers`, from a client that is trusted or not.
    pub(super) fn begin(rule: &config::Trace, is_trusted: bool, headers: &HeaderMap, rng: &mut Rng) -> Self {
        let span = rng.next_u64().max(1);
        let told = (is_trusted || rule.follow == Follow::All).then(|| parent(headers)).flatten();
        if let Some(parent) = told {
            return Self { own: Parent { span, ..parent }, continues: true };
        }
        let trace = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64().max(1));
        Self { own: Parent { trace, span, is_sampled: rng.chance(rule.sample) }, continues: false }
    }

    /// Tells a backend with `headers` who asks.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.own.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        let keeps = self.continues && may_pass(headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes));
        if !keeps {
            headers.remove(TRACESTATE);
        }
    }

    /// Trace and span, for the log.
    pub(super) fn id(&self) -> String {
        format!("{:032x}-{:016x}", self.own.trace, self.own.span)
    }
}

/// Who asked, where it is said once.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut said = headers.get_all(TRACEPARENT).iter();
    let (first, second) = (said.next()?, said.next());
    second.is_none().then(|| Parent::parse(first.as_bytes())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn passed(follow: Follow, is_trusted: bool, parents: &[&'static str]) -> (String, Option<String>) {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, HeaderValue::from_static(parent));
        }
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        let rule = config::Trace { sample: 0.0, follow };
        Trace::begin(&rule, is_trusted, &headers, &mut Rng::seeded(1)).pass_on(&mut headers);
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned());
        (text(TRACEPARENT).unwrap(), text(TRACESTATE))
    }

    #[test]
    fn a_trace_goes_on_for_those_who_may_and_begins_anew_for_all_others() {
        for (follow, is_trusted) in [(Follow::All, false), (Follow::Trusted, true)] {
            let (parent, state) = passed(follow, is_trusted, &[THEIRS]);
            assert!(parent.starts_with(&THEIRS[..36]) && parent.ends_with("-01"), "the same trace, recorded: {parent}");
            assert_ne!(parent[36..52], THEIRS[36..52], "another span");
            assert_eq!(state.as_deref(), Some("a=1"));
        }
        for (follow, is_trusted, parents) in [
            (Follow::Trusted, false, &[THEIRS][..]),
            (Follow::All, true, &[THEIRS, THEIRS]),
            (Follow::All, true, &["00-1"]),
            (Follow::All, true, &[]),
        ] {
            let (parent, state) = passed(follow, is_trusted, parents);
            assert!(!parent.starts_with(&THEIRS[..36]) && parent.ends_with("-00"), "{parent}");
            assert_eq!(state, None, "what belongs to a trace that ended here");
        }
    }
}
