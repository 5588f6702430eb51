//! What goes back: one envelope for every answer, so that a client reads `code` and `retry_after_ms` the same way
//! everywhere.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response};
use serde::Serialize;
use serde_json::Value;

use super::model::Code;
use crate::base::entropy::Rng;
use crate::net::stage::{Body, full};

/// A header on answers of a service that was over its limit and did nothing: balancers must not retry, and back off.
pub const OVERLOADED_HEADER: &str = "x-overloaded";

/// Why part of an answer made do without a dependency; the name of that dependency.
pub type Degraded = &'static str;

/// An answer in the making.
#[derive(Clone, Debug, Serialize)]
pub struct Envelope {
    /// The outcome.
    pub code: Code,
    /// The key of the message, for translations.
    pub msg_key: &'static str,
    /// The message for a person, in English.
    pub message: String,
    /// Whether the same request may do better later.
    pub retryable: bool,
    /// How long to wait before that.
    pub retry_after_ms: Option<u64>,
    /// Dependencies that this answer made do without.
    pub degraded: Vec<Degraded>,
    /// The request's id, for logs. Left out of answers that caches compare by their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What the request asked for: an object, whose fields stand beside those above.
    #[serde(flatten)]
    pub data: Value,
}

impl Envelope {
    /// An answer with nothing but its code.
    pub fn new(code: Code, trace_id: &str) -> Self {
        let retry_after = code.retry_after(Rng::from_os().next_u64());
        Self {
            code,
            msg_key: code.msg_key(),
            message: code.message().into(),
            retryable: code.retryable(),
            retry_after_ms: retry_after.map(|d| d.as_millis() as u64),
            degraded: Vec::new(),
            trace_id: Some(trace_id.into()),
            data: Value::Object(serde_json::Map::new()),
        }
    }

    /// With these fields beside the envelope's. `data` must serialise to an object; anything else is left out.
    #[must_use]
    pub fn with(mut self, data: impl Serialize) -> Self {
        if let Ok(value @ Value::Object(_)) = serde_json::to_value(data) {
            self.data = value;
        }
        self
    }

    /// With words for this case in the place of the code's.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// With this wait, where the code says that waiting helps.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        if self.retryable {
            self.retry_after_ms = Some(wait.as_millis() as u64);
        }
        self
    }

    /// An answer that another process of ours gave; nothing where the bytes are none. What it made do without stays
    /// unsaid: those names are not ours.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else { return None };
        let code: Code = serde_json::from_value(fields.remove("code")?).ok()?;
        let message = fields.remove("message")?.as_str()?.to_owned();
        let trace_id = fields.remove("trace_id").and_then(|id| id.as_str().map(str::to_owned));
        let retry_after_ms = fields.remove("retry_after_ms").and_then(|ms| ms.as_u64());
        for ours in ["msg_key", "retryable", "degraded"] {
            fields.remove(ours);
        }
        let (msg_key, retryable) = (code.msg_key(), code.retryable());
        let data = Value::Object(fields);
        Some(Self { code, msg_key, message, retryable, retry_after_ms, degraded: Vec::new(), trace_id, data })
    }

    /// As JSON.
    pub fn bytes(&self) -> Bytes {
        // Serialising text and numbers into memory cannot fail; an empty object is still JSON.
        serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec()).into()
    }

    /// As a response, which no cache may keep.
    pub fn respond(self) -> Response<Body> {
        let mut response = Response::new(full(self.bytes()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(ms) = self.retry_after_ms.filter(|_| !self.code.status().is_success()) {
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        if self.code == Code::Overloaded {
            headers.insert(OVERLOADED_HEADER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_flat_object() {
        let answer = Envelope::new(Code::Ok, "t1").with(serde_json::json!({ "order_no": "x" }));
        let value: Value = serde_json::from_slice(&answer.bytes()).unwrap();
        assert_eq!(value["code"], "OK");
        assert_eq!(value["order_no"], "x");
        assert_eq!(value["trace_id"], "t1");
        assert_eq!(value["retry_after_ms"], Value::Null);
        assert_eq!(value["degraded"], serde_json::json!([]));
    }

    #[test]
    fn an_answer_is_passed_on_as_it_is() {
        for code in Code::ALL {
            let answer = Envelope::new(code, "t1").saying("words").with(serde_json::json!({ "order_no": "x" }));
            let read = Envelope::read(&answer.bytes()).unwrap();
            assert_eq!(read.bytes(), answer.bytes());
        }
        for bad in ["", "[]", "{}", r#"{"code":"MAYBE","message":""}"#, r#"{"code":"OK"}"#] {
            assert!(Envelope::read(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn who_is_turned_away_learns_for_how_long() {
        let response = Envelope::new(Code::Overloaded, "t1").respond();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[OVERLOADED_HEADER], "1");
        let wait: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait));
        let response = Envelope::new(Code::BadRequest, "t1").respond();
        assert!(response.headers().get(RETRY_AFTER).is_none());
    }
}
