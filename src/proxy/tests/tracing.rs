//! Spans on their way to a collector: what they say, read by the published schema, and what a collector may do to us.

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;

use super::*;
use crate::config::{Endpoint, Export, Follow, ListenerTls, Trace};
use crate::net::tls;
use crate::observe::recorder;

const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Who takes spans.
struct Collector {
    origin: Origin,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    /// One that answers its requests, counted from 0, with what `answer` makes of each.
    async fn new(answer: impl Fn(usize) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        let got = Arc::<Mutex<Vec<ExportTraceServiceRequest>>>::default();
        let log = Arc::clone(&got);
        let origin = Origin::new(move |request: Request<Incoming>| {
            let (log, answer) = (Arc::clone(&log), answer.clone());
            async move {
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut log = log.lock().unwrap();
                log.push(ExportTraceServiceRequest::decode(body).unwrap());
                answer(log.len() - 1)
            }
        })
        .await;
        Self { origin, got }
    }

    async fn good() -> Self {
        Self::new(|_| Response::new(stage::empty())).await
    }

    fn requests(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let scopes = got.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|s| s.spans.clone()).collect()
    }
}

fn traced(mut config: Config, collector: SocketAddr) -> Config {
    let (host, port) = (collector.ip().to_string(), collector.port());
    let endpoint = Endpoint { is_tls: false, host, port, path: "/v1/traces".into() };
    let attributes = vec![("deployment.environment.name".to_owned(), "test".to_owned())];
    let export = Export { endpoint, tls: None, headers: None, timeout: Duration::from_secs(5), attributes };
    config.trace = Some(Trace { sample: 1.0, follow: Follow::All, export: Some(export) });
    config.node.leaving.drain = Duration::from_secs(5);
    config
}

/// Stops `edge`: whatever the collector does, in the time that there is.
async fn stop(edge: Edge) {
    edge.shutdown.cancel();
    assert!(tokio::time::timeout(PATIENCE, edge.server.stopped()).await.is_ok(), "not even the end waits for long");
}

fn value(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(n) => n.to_string(),
        Value::BoolValue(b) => b.to_string(),
        Value::DoubleValue(x) => x.to_string(),
        other => panic!("{other:?}"),
    })
}

fn has(span: &Span, wanted: &[(&str, &str)]) {
    for (key, wanted) in wanted {
        assert_eq!(value(span, key).as_deref(), Some(*wanted), "{key} of {span:?}");
    }
}

/// How many spans have come to `outcome`, in this process: other tests count, too.
fn told(outcome: &str) -> u64 {
    let text = recorder::render();
    let series = format!("springtide_proxy_spans_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&series)).map_or(0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn a_request_and_its_tries_are_spans_of_one_trace() {
    let (origin, collector) = (Origin::named("hello").await, Collector::good().await);
    // Every second request comes to the one that refuses first, and is tried again.
    let refusing = nowhere().await;
    let edge = Edge::new(traced(config(&[refusing, origin.address]), collector.origin.address));
    let mut caller = edge.http1().await;
    for _ in 0..2 {
        let mut request = post("/a?secret=1", "four");
        let headers = request.headers_mut();
        headers.insert("traceparent", THEIRS.parse().unwrap());
        headers.insert("tracestate", "a=1".parse().unwrap());
        headers.insert("user-agent", "test/1".parse().unwrap());
        assert_eq!(caller.call(request).await.body, "hello");
    }
    drop(caller);
    stop(edge).await;
    let spans = collector.spans();
    let (servers, tries): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|s| s.kind() == SpanKind::Server);
    assert_eq!((servers.len(), tries.len()), (2, 3), "{spans:?}");
    assert!(spans.iter().all(|s| s.trace_id == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()));
    assert!(spans.iter().all(|s| s.trace_state == "a=1" && s.end_time_unix_nano > s.start_time_unix_nano));
    let now = crate::base::clock::Clock::wall(&crate::base::clock::SystemClock).0;
    assert!(
        servers[0].start_time_unix_nano / 1_000_000 <= now
            && now - servers[0].start_time_unix_nano / 1_000_000 < 60_000
    );
    for server in &servers {
        assert_eq!(server.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(), "the client's");
        assert_eq!(server.name, "POST all");
        has(
            server,
            &[
                ("http.request.method", "POST"),
                ("url.path", "/a"),
                ("url.scheme", "http"),
                ("http.route", "all"),
                ("http.response.status_code", "200"),
                ("client.address", "127.0.0.1"),
                ("network.protocol.version", "1.1"),
                ("user_agent.original", "test/1"),
                ("http.request.body.size", "4"),
                ("http.response.body.size", "5"),
                ("springtide.service", "main"),
                ("springtide.datacenter", "here"),
                ("server.address", "example.test"),
            ],
        );
        has(server, &[("springtide.backend", &origin.address.to_string())]);
        assert!(
            server.status.is_none()
                && value(server, "error.type").is_none()
                && !format!("{server:?}").contains("secret")
        );
        let own: Vec<&&Span> = tries.iter().filter(|t| t.parent_span_id == server.span_id).collect();
        assert!(!own.is_empty() && own.iter().all(|t| t.start_time_unix_nano >= server.start_time_unix_nano));
        if let [first, second] = own[..] {
            let (first, second) =
                if value(first, "springtide.try.number").unwrap() == "1" { (first, second) } else { (second, first) };
            has(
                first,
                &[
                    ("error.type", "refused"),
                    ("springtide.try.outcome", "refused"),
                    ("server.port", &refusing.port().to_string()),
                ],
            );
            assert_eq!(first.status.as_ref().map(|s| s.code), Some(2));
            has(
                second,
                &[
                    ("http.request.resend_count", "1"),
                    ("springtide.try.outcome", "ok"),
                    ("springtide.try.hedge", "false"),
                ],
            );
            has(second, &[("url.full", "http://example.test/a"), ("http.response.status_code", "200")]);
        }
    }
    // Whom a backend was asked by, is the try.
    let asked: Vec<String> =
        (0..2).map(|at| origin.request(at).headers()["traceparent"].to_str().unwrap().to_owned()).collect();
    for parent in asked {
        let id = u64::from_str_radix(&parent[36..52], 16).unwrap().to_be_bytes();
        let found = tries.iter().any(|t| t.span_id == id);
        assert!(found && parent.starts_with(&THEIRS[..36]) && parent.ends_with("-01"), "{parent}");
    }
    assert_eq!(origin.request(0).headers()["tracestate"], "a=1");
    let got = collector.got.lock().unwrap();
    let resource = got[0].resource_spans[0].resource.clone().unwrap();
    let told: Vec<(String, Value)> =
        resource.attributes.into_iter().map(|a| (a.key, a.value.unwrap().value.unwrap())).collect();
    for (key, wanted) in [
        ("service.name", "springtide"),
        ("service.instance.id", "test"),
        ("springtide.datacenter", "here"),
        ("deployment.environment.name", "test"),
    ] {
        assert!(told.contains(&(key.to_owned(), Value::StringValue(wanted.to_owned()))), "{key}: {told:?}");
    }
}

#[tokio::test]
async fn refusals_hedges_and_other_protocols_say_so() {
    let collector = Collector::good().await;
    let count = Arc::new(AtomicUsize::new(0));
    let falling_silent = Origin::new(move |_| {
        let count = Arc::clone(&count);
        async move {
            if count.fetch_add(1, SeqCst) >= 50 {
                std::future::pending::<()>().await;
            }
            Response::new(stage::full("first"))
        }
    })
    .await;
    let second = Origin::named("second").await;
    let mut config = traced(config(&[falling_silent.address, second.address]), collector.origin.address);
    config.routes[0].hedge = true;
    config.services[0].retry.hedge_budget = 1.0;
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    for _ in 0..106 {
        caller.call(get("/")).await;
    }
    let mut raw = edge.connect().await;
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n").await.unwrap();
    let _ = read_head(&mut raw).await;
    drop(caller);
    stop(edge).await;
    let spans = collector.spans();
    let hedged: Vec<&Span> =
        spans.iter().filter(|s| value(s, "springtide.try.hedge").as_deref() == Some("true")).collect();
    assert!(!hedged.is_empty());
    for hedge in hedged {
        let server = spans.iter().find(|s| s.span_id == hedge.parent_span_id).unwrap();
        has(server, &[("springtide.hedged", "true"), ("springtide.tries", "2")]);
        let both = spans.iter().filter(|s| s.parent_span_id == server.span_id);
        let outcomes: Vec<String> = both.map(|s| value(s, "springtide.try.outcome").unwrap()).collect();
        assert!(outcomes.contains(&"outrun".to_owned()) && outcomes.contains(&"ok".to_owned()), "{outcomes:?}");
    }
    let bad = spans.iter().find(|s| value(s, "error.type").as_deref() == Some("bad_request")).unwrap();
    has(bad, &[("http.request.method", "_OTHER"), ("http.response.status_code", "400")]);
    assert!(bad.name == "HTTP" && bad.status.is_none(), "what a client gets wrong is no failure of this side");
}

#[tokio::test]
async fn what_nobody_samples_is_not_told() {
    let (origin, collector) = (Origin::named("ok").await, Collector::good().await);
    let mut config = traced(config(&[origin.address]), collector.origin.address);
    config.trace.as_mut().unwrap().sample = 0.0;
    let edge = Edge::new(config);
    edge.get("/").await;
    let mut request = get("/");
    request.headers_mut().insert("traceparent", THEIRS.replace("-01", "-00").parse().unwrap());
    edge.http1().await.call(request).await;
    let mut request = get("/");
    request.headers_mut().insert("traceparent", THEIRS.parse().unwrap());
    edge.http1().await.call(request).await;
    stop(edge).await;
    assert_eq!(collector.spans().len(), 2, "the client's own says so, and that counts");
}

#[tokio::test]
async fn a_collector_may_ask_to_come_back_and_may_refuse() {
    recorder::install();
    let origin = Origin::named("ok").await;
    let later = Collector::new(|at| {
        let status = if at == 0 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        Response::builder().status(status).header("retry-after", "1").body(stage::empty()).unwrap()
    })
    .await;
    let edge = Edge::new(traced(config(&[origin.address]), later.origin.address));
    edge.get("/").await;
    eventually("it comes again", || later.requests() == 2).await;
    stop(edge).await;
    let got = later.got.lock().unwrap().clone();
    assert_eq!(got[0], got[1], "with the same");

    let (refused, exported) = (told("refused"), told("exported"));
    let refusing = Collector::new(|at| {
        if at == 0 {
            return Response::builder().status(400).body(stage::full(&b"\x08\x03\x12\x04what"[..])).unwrap();
        }
        let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "old".into() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        Response::new(stage::full(Bytes::from(answer)))
    })
    .await;
    let edge = Edge::new(traced(config(&[origin.address]), refusing.origin.address));
    edge.get("/").await;
    eventually("the first is refused", || refusing.requests() == 1 && told("refused") >= refused + 2).await;
    edge.get("/").await;
    eventually("the second is taken in part", || told("refused") >= refused + 3 && told("exported") > exported).await;
    stop(edge).await;
    assert_eq!(refusing.requests(), 2, "what was refused is not sent again");
    assert_eq!(refusing.origin.accepted.load(SeqCst), 1, "over one connection");
}

#[tokio::test]
async fn whatever_a_collector_does_no_request_waits_for_it() {
    recorder::install();
    let origin = Origin::named("ok").await;
    let garbage = Origin::raw(|mut tcp| async move {
        let _ = read_head(&mut tcp).await;
        let _ = tcp.write_all(b"SMTP? 220 hello\r\n\r\n").await;
    })
    .await;
    let endless = Origin::raw(|mut tcp| async move {
        let _ = read_head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while tcp.write_all(b"400\r\n").await.is_ok() && tcp.write_all(&[b'x'; 0x400]).await.is_ok() {
            if tcp.write_all(b"\r\n").await.is_err() {
                return;
            }
        }
    })
    .await;
    let (silent, dead) = (Origin::silent().await, nowhere().await);
    for collector in [silent.address, dead, garbage.address, endless.address] {
        let (failed, exported) = (told("failed"), told("exported"));
        let edge = Edge::new(traced(config(&[origin.address]), collector));
        let mut caller = edge.http1().await;
        let began = crate::base::clock::Clock::mono(&crate::base::clock::SystemClock);
        for _ in 0..50 {
            assert_eq!(caller.call(get("/")).await.status, 200);
        }
        let took = crate::base::clock::Clock::mono(&crate::base::clock::SystemClock).since(began);
        assert!(took < Duration::from_secs(4), "the collector's time is 5 s: {took:?}");
        drop(caller);
        stop(edge).await;
        if collector == endless.address {
            eventually("a status is an answer", || told("exported") >= exported + 100).await;
        } else if collector != silent.address {
            eventually("what could not be brought is counted", || told("failed") >= failed + 100).await;
        }
    }
}

#[tokio::test]
async fn a_collector_over_tls_is_verified_and_told_who_asks_and_may_change() {
    let authority = secure::Authority::new();
    let (origin, collector) = (Origin::named("ok").await, Collector::good().await);
    // What speaks TLS before the collector is an edge itself.
    let mut front = config(&[collector.origin.address]);
    let listener = ListenerTls { pairs: vec![authority.issue("127.0.0.1")], ..ListenerTls::default() };
    let assets = secure::assets_of(&listener);
    front.listeners[0].tls = Some(listener);
    let front = Edge::with(front, assets, Stages::default());
    let trusted = authority.trusted_as("127.0.0.1");
    let mut config = traced(config(&[origin.address]), front.address);
    let export = config.trace.as_mut().unwrap().export.as_mut().unwrap();
    (export.endpoint.is_tls, export.tls) = (true, Some(trusted.clone()));
    let upstream_tls = [(trusted.clone(), tls::client_config(&trusted).unwrap())].into();
    let export_headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, "Bearer x".parse().unwrap())]);
    let edge =
        Edge::with(config.clone(), Assets { upstream_tls, export_headers, ..Assets::default() }, Stages::default());
    edge.get("/").await;
    eventually("it arrives", || collector.spans().len() == 2).await;
    let request = collector.origin.request(0);
    assert_eq!(
        (request.uri().path(), &request.headers()["authorization"]),
        ("/v1/traces", &"Bearer x".parse::<http::HeaderValue>().unwrap())
    );
    assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("springtide/"));
    // Another collector: also without a restart.
    let other = Collector::good().await;
    let config = traced(config, other.origin.address);
    let topology = Topology::build(Arc::new(config), Assets::default(), Some(&edge.published.load().topology));
    edge.step(Event::Reload(Box::new(topology)));
    edge.get("/").await;
    eventually("the other one has it", || other.spans().len() == 2).await;
    assert!(!other.origin.request(0).headers().contains_key("authorization"));
    stop(edge).await;
    stop(front).await;
}
