//! Routes of the edge.

use super::super::kinds::{By, Count, Flag, Keyed, List, Or, Yes};
use super::super::reader::section;
use super::super::words::{HostPattern, Method, Name, Size, Text, Time, UrlPath, User};
use super::{Files, HOUR, Headers, Mirror, Redirect, Require, Rewrite, Split};

/// Keys of `header = { ... }`.
#[derive(Clone, Debug)]
pub(in crate::config) struct ByHeader;

impl By for ByHeader {
    const NAME: &'static str = "header name";
}

/// Keys of `query = { ... }`.
#[derive(Clone, Debug)]
pub(in crate::config) struct ByParameter;

impl By for ByParameter {
    const NAME: &'static str = "parameter";
}

/// Keys of `cookie = { ... }`.
#[derive(Clone, Debug)]
pub(in crate::config) struct ByCookie;

impl By for ByCookie {
    const NAME: &'static str = "cookie";
}

/// What is wanted of a value: this one, that it is there, or how it begins.
type Value = Or<Text, Or<Yes, Like>>;

section! {
    /// What the edge does with a request that matches.
    Route {
        /// Its name, in logs and metrics. By default that of its service.
        name: Name = optional,
        /// What it matches: everything that is said must hold. By default every request.
        matches as "match": Match = {},
        /// What a request must bring beside: a client certificate. One that does not is refused with 403.
        require: Require = optional,
        /// The service that gets the request.
        service: Name = optional,
        /// Or: services that share the requests.
        split: Split = optional,
        /// Or: the answer.
        respond: Respond = optional,
        /// Or: where the client is sent.
        redirect: Redirect = optional,
        /// Or: files of a folder.
        files: Files = optional,
        /// What the service sees instead of what the client sent.
        rewrite: Rewrite = optional,
        /// Headers that are changed on the way.
        headers: Headers = {},
        /// A service that gets copies of requests.
        mirror: Mirror = optional,
        /// Who the user is, the key of stickiness: `header:NAME`, `cookie:NAME`, `path:NAME` for the part `{NAME}` of the
        /// route's path, or `client`, its address.
        user: User = "client",
        /// How long a request may take in all. By default as the service says.
        deadline: Time<1, HOUR> = optional,
        /// Whether a request with an `Idempotency-Key` header may be tried again, whatever its method.
        retry_keyed: Flag = true,
        /// Whether a GET or HEAD without a body that takes longer than 95 % of them do is asked of a second backend too: the
        /// first answer counts. Bounded by the service's `retry.hedge_budget`.
        hedge: Flag = false,
        /// Longest request body.
        max_body: Size = "1MiB",
    } later {
        limit: "requests are not limited per user yet: limit in the service",
        cache: "responses are not cached yet",
        compress: "responses go through as they came",
        cors: "answer CORS in the service",
        auth: "authenticate in the service",
    } synonyms {
        timeout: "deadline", upstream: "service", backend: "service", cluster: "service", to: "service",
        response: "respond", canary: "split", static: "files", root: "files", shadow: "mirror", when: "match", matches: "match", path: "match", host: "match", body_limit: "max_body",
    }
}

section! {
    /// What a route matches: everything that is said must hold.
    Match {
        /// The host: a name, or `*.name` for one or more labels before it. By default any.
        host: HostPattern = optional,
        /// This path and no other. `{name}` stands for one segment: `/v1/gifts/{id}`; `{*name}` at the end for all that
        /// follows: `/files/{*rest}` matches `/files` and all below it.
        path: UrlPath = optional,
        /// This path and all below it, by whole segments: `/v1` matches `/v1` and `/v1/gifts`, not `/v12`.
        /// `{name}` stands for one segment here too.
        path_prefix: UrlPath = optional,
        /// The method, or several. By default any.
        method: List<Method, 16> = [],
        /// Headers: the value that each must have, `{ prefix = "..." }` for how it must begin, or `true` where it must be
        /// there. Any of several values will do.
        header: Keyed<ByHeader, Value, 16> = {},
        /// Parameters of the query, decoded: as headers.
        query: Keyed<ByParameter, Value, 16> = {},
        /// Cookies: as headers; of several with one name the first counts.
        cookie: Keyed<ByCookie, Value, 16> = {},
    } later {
        regex: "paths are matched whole, by prefix or by pattern: `path = \"/v1/gifts/{id}\"`",
        path_regex: "paths are matched whole, by prefix or by pattern: `path = \"/v1/gifts/{id}\"`",
        client: "clients are not matched yet",
    } synonyms {
        prefix: "path_prefix", methods: "method", headers: "header", hosts: "host", hostname: "host",
        params: "query", parameter: "query", parameters: "query", queries: "query", cookies: "cookie",
        path_pattern: "path", pattern: "path",
    }
}

section! {
    /// How a value must begin.
    Like {
        /// With this.
        prefix: Text = required,
    } later {
        regex: "values are matched whole or by prefix",
        suffix: "values are matched whole or by prefix",
    } synonyms {
        begins: "prefix", starts_with: "prefix",
    }
}

section! {
    /// An answer that needs no service.
    Respond {
        /// Status.
        status: Count<200, 599> = 200,
        /// Content type.
        content_type: Text = "text/plain; charset=utf-8",
        /// Body.
        body: Text = "",
    } later {
        headers: "an answer has a status, a content type and a body for now",
        file: "an answer has its body in the configuration for now",
    } synonyms {
        code: "status", text: "body", type: "content_type",
    }
}
