//! What a route changes.

use super::super::kinds::{Count, Keyed, List};
use super::super::model::Scheme;
use super::super::reader::section;
use super::super::words::{HeaderName, Host, Text, UrlPath};
use super::ByHeader;

section! {
    /// Sends the client elsewhere. What is not said stays as the client asked for it.
    Redirect {
        /// 301, 302, 303, 307 or 308. With 307 and 308 the client keeps its method; 301 and 308 are kept for good.
        status: Count<301, 308> = 307,
        /// `http` or `https`.
        scheme: Scheme = optional,
        /// The host.
        host: Host = optional,
        /// The port. By default the request's, or none where the scheme changes.
        port: Count<1, 65_535> = optional,
        /// The whole path; `{name}` stands for what the variable of that name in `match` matched.
        path: UrlPath = optional,
        /// What stands in place of the prefix that `match` matched; what follows it stays. `/` takes the prefix off.
        path_prefix: UrlPath = optional,
        /// What stands behind `?`; `""` for none. By default the request's.
        query: Text = optional,
    } later {
        to: "say it by parts: `scheme`, `host`, `path`",
        url: "say it by parts: `scheme`, `host`, `path`",
        regex: "name parts of the path in `match`: `path = \"/v1/gifts/{id}\"`",
    } synonyms {
        code: "status", prefix: "path_prefix", replace_prefix: "path_prefix", hostname: "host",
    }
}

section! {
    /// What backends see instead of what the client sent.
    Rewrite {
        /// The whole path; `{name}` stands for what the variable of that name in `match` matched. The query stays.
        path: UrlPath = optional,
        /// What stands in place of the prefix that `match` matched; what follows it stays. `/` takes the prefix off.
        path_prefix: UrlPath = optional,
        /// The `Host` header. By default the client's; `X-Forwarded-Host` has that in any case.
        host: Host = optional,
    } later {
        query: "the query goes through as it came",
        regex: "name parts of the path in `match`: `path = \"/v1/gifts/{id}\"`",
    } synonyms {
        prefix: "path_prefix", strip_prefix: "path_prefix", replace_prefix: "path_prefix", authority: "host",
    }
}

section! {
    /// Headers that are changed on the way. Those that frame a message or belong to one hop cannot be.
    Headers {
        /// Of requests, as backends see them.
        request: HeaderEdits = {},
        /// Of responses, refusals and redirects of this route among them.
        response: HeaderEdits = {},
    } synonyms {
        requests: "request", responses: "response", up: "request", down: "response",
    }
}

section! {
    /// What happens to headers, in this order.
    HeaderEdits {
        /// Names that go.
        remove: List<HeaderName, 64> = [],
        /// Names with the one value that each has afterwards.
        set: Keyed<ByHeader, Text, 64> = {},
        /// Names with values that come beside what is there.
        add: Keyed<ByHeader, List<Text, 16>, 64> = {},
    } synonyms {
        delete: "remove", del: "remove", replace: "set", append: "add",
    }
}
