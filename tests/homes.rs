//! Two homes as real processes, and what may become of them under load: killed, stopped, cut off from each other. Whatever
//! happens: everybody who was told anything has one order in the end, and nobody has two.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, clippy::pedantic, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "tests measure with the system's clock")]

#[path = "../benches/cutoff/city.rs"]
mod city;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use city::{City, Crowd, Lines, SOON};
use tokio::time::{sleep, timeout};

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_springtide"))
}

/// Waits until the crowd has been answered so often with one of `codes`.
async fn until(crowd: &Crowd, codes: &[&str], times: usize) {
    let enough = async {
        let mut seen = 0;
        while seen < times {
            sleep(Duration::from_millis(10)).await;
            let now = crowd.look();
            seen += codes.iter().map(|code| now.count(code)).sum::<usize>();
        }
    };
    timeout(SOON, enough).await.unwrap_or_else(|_| panic!("fewer than {times} answers of {codes:?}"));
}

const GRANTED: &[&str] = &["ACCEPTED", "ALREADY_CLAIMED"];

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_stopped_or_killed_loses_nothing_and_gives_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let city = Arc::new(City::found(binary(), folder.path(), None));
    let (crowd, running) = Crowd::gather(&city, 8, Duration::from_millis(5));
    until(&crowd, GRANTED, 100).await;
    for at in [0, 1] {
        city.signal(at, "-STOP");
        until(&crowd, &["INTENT"], 60).await;
        city.signal(at, "-CONT");
        until(&crowd, GRANTED, 50).await;
        // While intents may still be on their way, either side dies.
        city.strike(at);
        until(&crowd, GRANTED, 50).await;
        city.strike(1 - at);
        until(&crowd, GRANTED, 50).await;
    }
    crowd.go_home(running).await;
    city.settled().await;
    let (users, intents) = crowd.judge().await;
    assert!(users > 400 && intents >= 60, "{users} users, {intents} intents");
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_cut_off_from_each_other_give_intents_and_settle_them() {
    let folder = tempfile::tempdir().unwrap();
    let city = Arc::new(City::found(binary(), folder.path(), Some(Lines::lay())));
    let (crowd, running) = Crowd::gather(&city, 8, Duration::from_millis(5));
    let lines = city.lines.as_ref().unwrap();
    until(&crowd, GRANTED, 100).await;
    for _ in 0..2 {
        lines.cut(true);
        until(&crowd, &["INTENT"], 200).await;
        lines.cut(false);
        until(&crowd, GRANTED, 100).await;
    }
    crowd.go_home(running).await;
    city.settled().await;
    let (users, intents) = crowd.judge().await;
    assert!(users > 600 && intents >= 400, "{users} users, {intents} intents");
}

#[test]
fn yesterdays_file_does_not_open_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let start = |homes: &str, extra: &[&str]| {
        std::fs::write(folder.path().join("homes.toml"), homes).unwrap();
        let output = Command::new(binary())
            .args(["upstream", "claim", "--while-stdin-open", "--log", "error", "--home", "a", "--homes"])
            .arg(folder.path().join("homes.toml"))
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(extra)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let homes = |epoch: u32, of_a: &str, of_b: &str| {
        format!(
            "epoch = {epoch}\n[[home]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\nsets = [\"{of_a}\"]\n\
             [[home]]\nname = \"b\"\nurl = \"http://127.0.0.1:2\"\nsets = [\"{of_b}\"]\n"
        )
    };
    assert!(start(&homes(2, "00-7f", "80-ff"), &[]).0);
    let (went, words) = start(&homes(1, "00-7f", "80-ff"), &[]);
    assert!(!went && words.contains("held under epoch 2"), "{words}");
    let (went, words) = start(&homes(2, "00-8f", "90-ff"), &[]);
    assert!(!went && words.contains("greater epoch"), "{words}");
    let (went, words) = start(&homes(3, "00-8f", "90-ff"), &[]);
    assert!(!went && words.contains("16 sets") && words.contains("--take-over"), "{words}");
    assert!(start(&homes(3, "00-8f", "90-ff"), &["--take-over"]).0);
    let (went, words) = start(&homes(4, "00-8f", "8f-ff"), &[]);
    assert!(!went && words.contains("set 8f has two homes: a and b"), "{words}");
}
