//! What the edge says when it says no: a closed list of reasons, and one function that makes a friendly reply of each.
//!
//! Every reply carries a code, a message, a message key, whether and after how long to try again, and the request's id
//! (RED_PACKET 1.9, O4); as JSON, or as a small page in English and Chinese for who accepts HTML. The wait is spread, so
//! that clients who were turned away together don't come back together.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::download::Out;
use crate::base::entropy::Rng;
use crate::wire::h1::Flaw;

/// Why a request was not answered by a backend. The label of metrics and the word in the access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its head makes no sense: no host, two hosts, a path that cannot be normalised.
    BadRequest,
    /// Its head is longer than is read here, or has too many fields.
    HeadTooLarge,
    /// Its target is longer than is read here.
    TargetTooLong,
    /// A version of HTTP that is not spoken here.
    Version,
    /// No route matches.
    NoRoute,
    /// The route requires a client certificate that was not shown.
    Certificate,
    /// The route shows files, and there is none of this name.
    NoFile,
    /// A method that the edge does not carry (CONNECT).
    Method,
    /// The body is longer than the route allows.
    BodyTooLarge,
    /// The client stopped sending its body.
    BodyStalled,
    /// An upgrade that the edge does not carry.
    Upgrade,
    /// An upgrade that the service cannot make: it is spoken to over HTTP/2, or has declined in words that a tunnel cannot carry.
    NoUpgrade,
    /// The request has passed so many hops of ours that it runs in a circle.
    Loop,
    /// The service keeps data by user, and the request names none.
    NoUser,
    /// The service has no backend that may be used.
    NoBackend,
    /// The user's home is down; nobody else may answer.
    HomeDown,
    /// Too many connections to the backends already.
    Busy,
    /// No connection to a backend could be made.
    Unreachable,
    /// The backend broke off before it answered, or answered nonsense.
    Broken,
    /// No backend answered in time.
    Timeout,
    /// A mistake of ours.
    Internal,
    /// The client left before the answer.
    ClientGone,
    /// The answer broke off half-way: the client saw it truncated.
    Truncated,
}

/// What there is to say about a reason.
struct Words {
    status: StatusCode,
    code: &'static str,
    retryable: bool,
    english: &'static str,
    chinese: &'static str,
}

/// Every reason, for the tables of metrics.
pub(super) const REASONS: [Reason; 23] = [
    Reason::BadRequest,
    Reason::HeadTooLarge,
    Reason::TargetTooLong,
    Reason::Version,
    Reason::NoRoute,
    Reason::Certificate,
    Reason::NoFile,
    Reason::Method,
    Reason::BodyTooLarge,
    Reason::BodyStalled,
    Reason::Upgrade,
    Reason::NoUpgrade,
    Reason::Loop,
    Reason::NoUser,
    Reason::NoBackend,
    Reason::HomeDown,
    Reason::Busy,
    Reason::Unreachable,
    Reason::Broken,
    Reason::Timeout,
    Reason::Internal,
    Reason::ClientGone,
    Reason::Truncated,
];

impl Reason {
    /// Its label.
    pub const fn as_str(self) -> &'static str {
        self.words().code
    }

    /// The status that the client gets.
    pub const fn status(self) -> StatusCode {
        self.words().status
    }

    /// Whether the same request may succeed later.
    pub const fn retryable(self) -> bool {
        self.words().retryable
    }

    const fn words(self) -> Words {
        const fn no(status: StatusCode, code: &'static str, english: &'static str, chinese: &'static str) -> Words {
            Words { status, code, retryable: false, english, chinese }
        }
        const fn later(status: StatusCode, code: &'static str, english: &'static str, chinese: &'static str) -> Words {
            Words { status, code, retryable: true, english, chinese }
        }
        match self {
            Self::BadRequest => {
                no(StatusCode::BAD_REQUEST, "bad_request", "The request could not be understood.", "无法识别该请求。")
            }
            Self::HeadTooLarge => no(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                "The head of the request is larger than is read here.",
                "请求头过大。",
            ),
            Self::TargetTooLong => no(
                StatusCode::URI_TOO_LONG,
                "target_too_long",
                "The address of the request is longer than is read here.",
                "请求地址过长。",
            ),
            Self::Version => no(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "version_not_supported",
                "This version of HTTP is not spoken here.",
                "不支持该 HTTP 版本。",
            ),
            Self::NoRoute => {
                no(StatusCode::NOT_FOUND, "no_route", "There is nothing at this address.", "该地址没有内容。")
            }
            Self::Certificate => no(
                StatusCode::FORBIDDEN,
                "certificate_required",
                "This address is for holders of certain certificates only.",
                "该地址仅限持有相应客户端证书者访问。",
            ),
            Self::NoFile => {
                no(StatusCode::NOT_FOUND, "no_file", "There is nothing of this name.", "没有该名称的内容。")
            }
            Self::Method => no(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This method is not served here.",
                "此处不支持该请求方法。",
            ),
            Self::BodyTooLarge => no(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "What was sent is larger than this address takes.",
                "提交的内容超出大小限制。",
            ),
            Self::BodyStalled => later(
                StatusCode::REQUEST_TIMEOUT,
                "body_stalled",
                "The rest of the request did not arrive in time.",
                "请求内容未能及时送达。",
            ),
            Self::Upgrade => no(
                StatusCode::BAD_REQUEST,
                "upgrade_refused",
                "This change of protocol is not possible here.",
                "此处不支持该协议切换。",
            ),
            Self::NoUpgrade => no(
                StatusCode::BAD_GATEWAY,
                "upgrade_unsupported",
                "The service does not take part in this change of protocol.",
                "该服务不支持此协议切换。",
            ),
            Self::Loop => no(StatusCode::LOOP_DETECTED, "loop", "This request runs in a circle.", "请求出现循环转发。"),
            Self::NoUser => no(
                StatusCode::BAD_REQUEST,
                "user_required",
                "The request does not say whom it is for.",
                "请求缺少用户标识。",
            ),
            Self::NoBackend => later(
                StatusCode::SERVICE_UNAVAILABLE,
                "service_unavailable",
                "The service is taking a short break. Please try again in a moment.",
                "服务暂时不可用,请稍后再试。",
            ),
            Self::HomeDown => later(
                StatusCode::SERVICE_UNAVAILABLE,
                "home_unavailable",
                "The place that keeps your data is taking a short break. Nothing is lost; please try again in a moment.",
                "您的数据所在的服务正在恢复,数据不会丢失,请稍后再试。",
            ),
            Self::Busy => later(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "Very many people are here right now. Please try again in a moment.",
                "当前访问人数较多,请稍后再试。",
            ),
            Self::Unreachable => later(
                StatusCode::BAD_GATEWAY,
                "upstream_unreachable",
                "The service could not be reached. Please try again in a moment.",
                "暂时无法连接服务,请稍后再试。",
            ),
            Self::Broken => later(
                StatusCode::BAD_GATEWAY,
                "upstream_broken",
                "The service broke off before it answered. Please try again in a moment.",
                "服务响应中断,请稍后再试。",
            ),
            Self::Timeout => later(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "The service did not answer in time. Please try again in a moment.",
                "服务响应超时,请稍后再试。",
            ),
            Self::Internal => later(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on our side. Please try again in a moment.",
                "系统出现异常,请稍后再试。",
            ),
            Self::ClientGone => no(StatusCode::BAD_REQUEST, "client_gone", "The client left.", "客户端已断开。"),
            Self::Truncated => no(StatusCode::BAD_GATEWAY, "truncated", "The answer broke off.", "响应中断。"),
        }
    }
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::LongHead | Flaw::ManyFields => Self::HeadTooLarge,
            Flaw::LongTarget => Self::TargetTooLong,
            Flaw::Version => Self::Version,
            _ => Self::BadRequest,
        }
    }
}

/// How a refusal is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    JsonChinese,
    Page,
}

/// What the client wants a refusal to look like; taken from a request before its head is given away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taste(Form);

impl Default for Taste {
    /// Of who says nothing: a program.
    fn default() -> Self {
        Self(Form::Json)
    }
}

impl Taste {
    /// Reads `Accept` and `Accept-Language`. JSON unless HTML is wanted more; who says nothing is a program.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
        let accept = text(ACCEPT);
        let html = wish(accept, "text/html");
        if html > 0 && html >= wish(accept, "application/json") {
            return Self(Form::Page);
        }
        let chinese = text(ACCEPT_LANGUAGE).get(..2).is_some_and(|tag| tag.eq_ignore_ascii_case("zh"));
        Self(if chinese { Form::JsonChinese } else { Form::Json })
    }
}

/// How much `media` is wanted by name, in thousandths (RFC 9110 section 12.4.2); wildcards say nothing here.
fn wish(accept: &str, media: &str) -> u32 {
    let of_range = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media)) {
            return None;
        }
        let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        Some(q.map_or(1_000, |q| (q.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0) * 1_000.0) as u32))
    };
    accept.split(',').take(32).find_map(of_range).unwrap_or(0)
}

/// Shortest and longest wait that a refused client is asked for, in milliseconds (ours).
const WAIT_MS: (u64, u64) = (1_000, 3_000);

/// The reply for `reason`. `close`: the connection cannot go on (an unread body stands in the way).
pub(super) fn refuse(reason: Reason, taste: Taste, request_id: &str, close: bool, rng: &mut Rng) -> Response<Out> {
    let words = reason.words();
    let wait_ms = if words.retryable { WAIT_MS.0 + rng.below(WAIT_MS.1 - WAIT_MS.0) } else { 0 };
    let (body, content_type) = match taste.0 {
        Form::Page => (page(&words, wait_ms, request_id), "text/html; charset=utf-8"),
        Form::Json => (json(&words, words.english, wait_ms, request_id), "application/json"),
        Form::JsonChinese => (json(&words, words.chinese, wait_ms, request_id), "application/json"),
    };
    let mut response = Response::new(Out::full(Bytes::from(body)));
    *response.status_mut() = words.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if words.retryable {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1_000)));
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn json(words: &Words, message: &str, wait_ms: u64, request_id: &str) -> String {
    let mut out = String::with_capacity(320);
    // None of these needs escaping: words of ours, and an id that was checked or made by us.
    let _ = write!(
        out,
        r#"{{"code":"{code}","message":"{message}","msg_key":"edge.{code}","retryable":{retryable},"retry_after_ms":{wait_ms},"request_id":"{request_id}"}}"#,
        code = words.code,
        retryable = words.retryable,
    );
    out
}

fn page(words: &Words, wait_ms: u64, request_id: &str) -> String {
    let mut out = String::with_capacity(1_200);
    let status = words.status.as_u16();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{status}</title><style>body{{font:16px/1.6 system-ui,sans-serif;max-width:34em;margin:12vh auto;\
         padding:0 1em;color:#333}}h1{{color:#c8161d;font-size:1.3em}}small{{color:#888}}</style>\
         <h1>{}</h1><p lang=\"zh\">{}</p>",
        words.english, words.chinese
    );
    if words.retryable {
        let seconds = wait_ms.div_ceil(1_000);
        let _ = write!(out, "<p>Try again in {seconds} s. <span lang=\"zh\">请在 {seconds} 秒后重试。</span></p>");
    }
    let _ = write!(out, "<p><small>{} &middot; {request_id}</small></p></html>", words.code);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taste(accept: &str, language: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers.insert(ACCEPT_LANGUAGE, language.parse().unwrap());
        Taste::of(&headers).0
    }

    #[test]
    fn browsers_get_a_page_and_programs_get_json() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(taste(firefox, "en"), Form::Page);
        for program in ["*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0", "", ";;,"] {
            assert_eq!(taste(program, "en"), Form::Json, "{program}");
        }
        assert_eq!(taste("*/*", "zh-CN,zh;q=0.9"), Form::JsonChinese);
        assert_eq!(Taste::of(&HeaderMap::new()).0, Form::Json);
    }

    #[test]
    fn every_refusal_is_valid_json_with_all_fields_and_a_spread_wait() {
        let mut rng = Rng::seeded(7);
        for reason in REASONS {
            let words = reason.words();
            for message in [words.english, words.chinese] {
                let wait_ms = rng.below(5_000);
                let value: serde_json::Value = serde_json::from_str(&json(&words, message, wait_ms, "abc")).unwrap();
                assert_eq!(value["code"], reason.as_str());
                assert_eq!(value["message"], message);
                assert_eq!(value["msg_key"], format!("edge.{}", reason.as_str()));
                assert_eq!(value["retryable"], reason.retryable());
                assert_eq!(value["retry_after_ms"], wait_ms);
                assert_eq!(value["request_id"], "abc");
            }
        }
        let waits: std::collections::BTreeSet<String> = (0..50)
            .map(|_| refuse(Reason::Timeout, Taste(Form::Json), "x", false, &mut rng))
            .map(|r| r.headers()[RETRY_AFTER].to_str().unwrap().to_owned())
            .collect();
        assert_eq!(waits.into_iter().collect::<Vec<_>>(), ["2", "3"]);
    }

    #[test]
    fn a_page_speaks_both_languages() {
        let page = page(&Reason::HomeDown.words(), 2_000, "id-1");
        assert!(page.contains("Nothing is lost") && page.contains("数据不会丢失") && page.contains("id-1"), "{page}");
    }
}
