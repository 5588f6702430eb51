//! What is written is what the published schema reads; what is read may be anything.

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1 as published;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn span<'a>(name: &'a str, state: &'a [u8]) -> Span<'a> {
    Span {
        trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        id: 0x00f0_67aa_0ba9_02b7,
        parent: Some((7, true)),
        state,
        name,
        kind: Kind::Server,
        began: 1_000_000_000,
        ended: 2_000_000_000,
        is_error: true,
    }
}

fn sent(spans: &[&[u8]]) -> ExportTraceServiceRequest {
    let resource = |attributes: &mut Attributes<'_>| attributes.text("service.name", b"edge");
    let octets = request(resource, ("springtide", "1"), spans.iter().copied());
    ExportTraceServiceRequest::decode(&octets[..]).unwrap()
}

fn value(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|a| a.key == key).unwrap();
    found.value.clone().unwrap().value.unwrap()
}

#[test]
fn what_is_written_is_read_by_the_published_schema() {
    let mut out = Vec::new();
    span("GET gifts", b"a=1").write(&mut out, |attributes| {
        attributes.text("url.path", b"/v1/\xff\"x");
        attributes.count("http.response.status_code", 503);
        attributes.flag("springtide.hedged", true);
        attributes.real("springtide.seconds", 0.25);
        attributes.text("long", "é".repeat(2_000).as_bytes());
    });
    Span { parent: None, kind: Kind::Client, is_error: false, ended: 0, ..span("GET", b"") }.write(&mut out, |_| {});
    let request = sent(&[&out]);
    let resource = request.resource_spans[0].resource.clone().unwrap();
    assert_eq!(value(&resource.attributes, "service.name"), Value::StringValue("edge".into()));
    let scope = &request.resource_spans[0].scope_spans[0];
    assert_eq!(scope.scope.as_ref().map(|s| (&*s.name, &*s.version)), Some(("springtide", "1")));
    let [server, client] = &scope.spans[..] else { panic!("{scope:?}") };
    assert_eq!(server.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(server.span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert_eq!(server.parent_span_id, 7_u64.to_be_bytes());
    assert_eq!((&*server.trace_state, &*server.name), ("a=1", "GET gifts"));
    assert_eq!((server.kind(), client.kind()), (published::span::SpanKind::Server, published::span::SpanKind::Client));
    assert_eq!((server.start_time_unix_nano, server.end_time_unix_nano), (1_000_000_000, 2_000_000_000));
    assert_eq!(server.status.as_ref().map(|s| s.code), Some(published::status::StatusCode::Error as i32));
    assert_eq!((server.flags, client.flags), (0x301, 0x101), "recorded; the parent is elsewhere");
    assert!(client.parent_span_id.is_empty() && client.status.is_none());
    assert_eq!(client.end_time_unix_nano, client.start_time_unix_nano, "time does not run backwards");
    assert_eq!(value(&server.attributes, "url.path"), Value::StringValue("/v1/\u{fffd}\"x".into()));
    assert_eq!(value(&server.attributes, "http.response.status_code"), Value::IntValue(503));
    assert_eq!(value(&server.attributes, "springtide.hedged"), Value::BoolValue(true));
    assert_eq!(value(&server.attributes, "springtide.seconds"), Value::DoubleValue(0.25));
    assert_eq!(value(&server.attributes, "long"), Value::StringValue("é".repeat(TEXT / 2)));
}

#[test]
fn what_a_collector_did_not_take_is_read() {
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too\nold".into() };
    let response = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    assert_eq!(rejected(&response), Rejected { spans: 3, why: "too old".into() });
    assert_eq!(rejected(b""), Rejected::default());
    // google.rpc.Status { code: 8, message: "slow down" }
    assert_eq!(refusal(b"\x08\x08\x12\x09slow down"), "slow down");
    assert_eq!(refusal(b"<html>"), "");
}

proptest! {
    /// Whatever a client sends, the message as a whole can be read, and says it.
    #[test]
    fn no_text_breaks_the_message(texts in prop::collection::vec(any::<Vec<u8>>(), 0..8), long in 0_usize..40_000) {
        let mut out = Vec::new();
        let filler = vec![b'x'; long];
        for text in &texts {
            span("GET", b"").write(&mut out, |attributes| {
                attributes.text("text", text);
                attributes.text("filler", &filler);
            });
        }
        let request = sent(&[&out]);
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        prop_assert_eq!(spans.len(), texts.len());
        for (span, text) in spans.iter().zip(&texts) {
            prop_assert_eq!(value(&span.attributes, "text"), Value::StringValue(String::from_utf8_lossy(text).into()));
        }
    }

    #[test]
    fn what_comes_back_may_be_anything(octets in any::<Vec<u8>>(), spans in any::<i64>(), why in ".{0,80}") {
        prop_assert!(rejected(&octets).why.len().max(refusal(&octets).len()) <= 3 * SENTENCE);
        let partial = ExportTracePartialSuccess { rejected_spans: spans, error_message: why };
        let response = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        prop_assert_eq!(rejected(&response).spans, u64::try_from(spans).unwrap_or(0));
    }
}
