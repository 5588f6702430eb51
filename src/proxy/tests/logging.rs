//! The access log says what happened, whoever tries to write it otherwise, and nobody waits for it; traces go on.

use std::path::Path;

use serde_json::Value;

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
    config.trace = Some(Trace { sample: 1.0, follow: Follow::All });
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
