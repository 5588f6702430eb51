//! The access log says what happened, whoever tries to write it otherwise, and nobody waits for it; traces go on.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{AccessFormat, AccessLog, Follow, LogSink, Trace};

fn logged(mut config: Config, to: LogSink, sample: f64) -> Config {
    let slow = Duration::from_mins(1);
    config.log.access = Some(AccessLog { to, format: AccessFormat::Json, sample, slow });
    config
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "no line is torn");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Everything that is written once the edge has stopped.
async fn stop(edge: Edge) {
    edge.shutdown.cancel();
    edge.server.stopped().await;
}

#[tokio::test]
async fn every_line_says_what_happened_and_nobody_writes_a_line_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Origin::named("hello").await;
    let mut config = logged(config(&[origin.address]), LogSink::File(path.clone()), 1.0);
    config.routes[0].user = crate::config::UserKey::Header("x-user-id".into());
    let edge = Edge::new(config);
    let mut request = get("/a?secret=1");
    let headers = request.headers_mut();
    headers.insert("user-agent", "\"},{\\\"status\":200".parse().unwrap());
    headers.insert("x-user-id", "ann".parse().unwrap());
    assert_eq!(edge.http1().await.call(request).await.body, "hello");
    let mut raw = edge.connect().await;
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n").await.unwrap();
    let _ = read_head(&mut raw).await;
    stop(edge).await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let good = &lines[0];
    let want = [("method", "GET"), ("path", "/a"), ("reason", "answered"), ("protocol", "HTTP/1.1")];
    for (key, value) in want {
        assert_eq!(good[key], value, "{good}");
    }
    assert_eq!((&good["status"], &good["sent"], &good["tries"]), (&200.into(), &5.into(), &1.into()), "{good}");
    assert_eq!(good["backend"], origin.address.to_string());
    assert!(good["agent"].as_str().unwrap().starts_with("\"},{"), "{good}");
    assert!(good["user"].as_str().is_some_and(|u| u.len() == 16) && !good.to_string().contains("ann"), "{good}");
    assert!(good["first_byte_ms"].as_f64().unwrap() <= good["duration_ms"].as_f64().unwrap());
    assert!(!good.to_string().contains("secret"));
    assert_eq!((&lines[1]["status"], &lines[1]["reason"]), (&400.into(), &"bad_request".into()));
}

#[tokio::test]
async fn what_fails_is_always_written_and_the_rest_by_lot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Origin::named("ok").await;
    // One of two refuses: what comes there first is tried again.
    let edge = Edge::new(logged(config(&[nowhere().await, origin.address]), LogSink::File(path.clone()), 0.0));
    for _ in 0..20 {
        edge.get("/").await;
    }
    edge.take_down(origin.address);
    for _ in 0..5 {
        edge.get("/").await;
    }
    stop(edge).await;
    let lines = lines(&path);
    assert!(lines.iter().all(|l| l["sample"] == 1), "{lines:?}");
    assert!(lines.iter().all(|l| l["tries"].as_u64() > Some(1) || l["status"].as_u64() >= Some(500)), "{lines:?}");
    assert!(lines.iter().any(|l| l["status"] == 200 && l["tries"] == 2), "a retry: {lines:?}");
    assert_eq!(lines.iter().filter(|l| l["status"].as_u64() >= Some(500)).count(), 5);
}

#[tokio::test]
async fn rotation_under_load_loses_and_tears_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Origin::named("ok").await;
    let edge = Edge::new(logged(config(&[origin.address]), LogSink::File(path.clone()), 1.0));
    let mut caller = edge.http1().await;
    let (mut asked, mut rotated) = (0usize, 0);
    while rotated < 4 {
        for _ in 0..100 {
            assert_eq!(caller.call(get("/")).await.status, 200);
        }
        asked += 100;
        if asked % 900 == 0 {
            caller = edge.http1().await;
        }
        if path.exists() {
            rotated += 1;
            std::fs::rename(&path, dir.path().join(format!("access.log.{rotated}"))).unwrap();
            crate::observe::pen::reopen();
        }
    }
    stop(edge).await;
    let found: usize = std::fs::read_dir(dir.path()).unwrap().map(|entry| lines(&entry.unwrap().path()).len()).sum();
    assert_eq!(found, asked);
}

#[tokio::test]
async fn a_full_disk_and_a_reader_that_sleeps_stop_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // It is open and never read: 64 KiB fit, and the writer waits. For both ends at once, so that opening does not wait.
    let _reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    for to in [pipe.clone(), "/dev/full".into(), dir.path().join("none/access.log")] {
        let origin = Origin::named("ok").await;
        let edge = Edge::new(logged(config(&[origin.address]), LogSink::File(to), 1.0));
        let long = format!("/{}", "x".repeat(1_000));
        let mut caller = edge.http1().await;
        for _ in 0..400 {
            assert_eq!(caller.call(get(&long)).await.status, 200);
        }
        drop(caller);
        let stopped = tokio::time::timeout(PATIENCE, stop(edge)).await;
        assert!(stopped.is_ok(), "not even the end waits for long");
    }
}

#[tokio::test]
async fn backends_are_asked_within_the_clients_trace_or_a_new_one() {
    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Origin::named("ok").await;
    let mut config = logged(config(&[origin.address]), LogSink::File(path.clone()), 1.0);
    config.trace = Some(Trace { sample: 1.0, follow: Follow::All, export: None });
    let edge = Edge::new(config);
    let mut request = get("/");
    request.headers_mut().insert("traceparent", THEIRS.parse().unwrap());
    request.headers_mut().insert("tracestate", "a=1".parse().unwrap());
    edge.http1().await.call(request).await;
    edge.get("/").await;
    stop(edge).await;
    let parent = |at: usize| origin.request(at).headers()["traceparent"].to_str().unwrap().to_owned();
    assert!(parent(0).starts_with(&THEIRS[..36]) && parent(0)[36..] != THEIRS[36..], "{}", parent(0));
    assert_eq!(origin.request(0).headers()["tracestate"], "a=1");
    assert!(parent(1)[3..35] != THEIRS[3..35] && parent(1).ends_with("-01"), "{}", parent(1));
    let lines = lines(&path);
    let traces: Vec<&str> = lines.iter().map(|l| l["trace"].as_str().unwrap()).collect();
    assert_eq!(traces, [&parent(0)[3..52], &parent(1)[3..52]]);
}

/// One line, of what `ask` does to an edge over `backends`.
async fn line_of<F: Future<Output = ()>>(backends: &[SocketAddr], ask: impl FnOnce(Arc<Edge>) -> F) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let edge = Arc::new(Edge::new(logged(config(backends), LogSink::File(path.clone()), 1.0)));
    ask(Arc::clone(&edge)).await;
    eventually("a line is written", || !lines(&path).is_empty()).await;
    stop(Arc::into_inner(edge).unwrap()).await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

#[tokio::test]
async fn octets_are_counted_whatever_carries_them_and_phases_are_told() {
    let origin = Origin::new(|request: Request<Incoming>| async move {
        let read = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::new(stage::full(format!("{read:08}")))
    })
    .await;
    let chunked = line_of(&[origin.address], async |edge| {
        let mut raw = edge.connect().await;
        raw.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        raw.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("00000007"), "{answer}");
    })
    .await;
    assert_eq!((&chunked["received"], &chunked["sent"]), (&7.into(), &8.into()), "{chunked}");
    let [queue, connect, first, all] =
        ["queue_ms", "connect_ms", "first_byte_ms", "duration_ms"].map(|key| chunked[key].as_f64().unwrap());
    assert!(queue + connect <= first && first <= all, "{chunked}");
    let over_h2 = line_of(&[origin.address], async |edge| {
        let (mut sender, connection) = ::h2::client::handshake(edge.connect().await).await.unwrap();
        let _task = task::spawn("h2 client", async { drop(connection.await) });
        let request = Request::post("http://example.test/x").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(Bytes::from(vec![b'x'; 9_000]), true).unwrap();
        let mut answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
        while let Some(data) = answer.data().await {
            assert_eq!(data.unwrap(), "00009000");
        }
    })
    .await;
    assert_eq!((&over_h2["received"], &over_h2["sent"]), (&9_000.into(), &8.into()), "{over_h2}");
    assert_eq!(over_h2["protocol"], "HTTP/2.0");
    assert!(over_h2.get("tls_version").is_none() && over_h2.get("aborted").is_none(), "{over_h2}");
}

#[tokio::test]
async fn who_broke_off_is_told() {
    let seen = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&seen);
    let cut = Origin::raw(move |mut tcp| {
        let told = Arc::clone(&told);
        async move {
            let _ = read_head(&mut tcp).await;
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf").await;
            told.notified().await;
        }
    })
    .await;
    let backend = line_of(&[cut.address], async |edge| {
        let mut raw = edge.connect().await;
        raw.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        read_head(&mut raw).await;
        raw.read_exact(&mut [0; 4]).await.unwrap();
        // What breaks off before any of it went on would be asked elsewhere.
        seen.notify_one();
        let _ = raw.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(
        (&backend["aborted"], &backend["reason"], &backend["sent"]),
        (&"backend".into(), &"truncated".into(), &4.into())
    );
    let silent = Origin::silent().await;
    let client = line_of(&[silent.address], async |edge| {
        let mut raw = edge.connect().await;
        raw.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        eventually("it is asked", || edge.load(0).in_flight() == 1).await;
    })
    .await;
    assert_eq!((&client["aborted"], &client["status"]), (&"client".into(), &499.into()), "{client}");
}

#[tokio::test]
async fn a_websocket_is_told_as_what_it_was() {
    let (origin, _) = connect::agreeing(None).await;
    let over_h2 = line_of(&[origin.address], async |edge| {
        let (mut sender, _task) = connect::client(&edge).await;
        let (answer, _send) = sender.send_request(connect::connect(Some("websocket")), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    })
    .await;
    let told = |line: &Value| json!([line["method"], line["status"], line["protocol"], line["upgrade"]]);
    assert_eq!(told(&over_h2), json!(["CONNECT", 200, "HTTP/2.0", "websocket"]), "{over_h2}");
    let over_h1 = line_of(&[origin.address], async |edge| {
        let mut raw = edge.connect().await;
        let asked = b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        raw.write_all(asked).await.unwrap();
        assert!(read_head(&mut raw).await.starts_with("HTTP/1.1 101 "));
    })
    .await;
    assert_eq!(told(&over_h1), json!(["GET", 101, "HTTP/1.1", "websocket"]), "{over_h1}");
}

#[tokio::test]
async fn tls_is_told_with_its_version() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), secure::Authority::new());
    let path = dir.path().join("access.log");
    let origin = Origin::named("ok").await;
    let mut config = logged(config(&[origin.address]), LogSink::File(path.clone()), 1.0);
    let listener = crate::config::ListenerTls { pairs: vec![authority.issue("one.test")], ..Default::default() };
    let assets = secure::assets_of(&listener);
    config.listeners[0].tls = Some(listener);
    let edge = Edge::with(config, assets, Stages::default());
    let mut tls = authority.connect(&edge, "one.test", crate::config::Protocol::Http1).await.unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nhost: one.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    stop(edge).await;
    let lines = lines(&path);
    let told = json!([lines[0]["tls"], lines[0]["tls_version"], lines[0]["tls_resumed"]]);
    assert_eq!(told, json!([true, "1.3", false]), "{lines:?}");
}
