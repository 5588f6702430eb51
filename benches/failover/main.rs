//! How fast a fault is gone: the demo under load, backends killed and silenced, a timeline for each run.
//!
//! `cargo bench --bench failover -- [RUNS]` (default 10) prints, for each kind of fault, the time from its stroke to the
//! last error that a client saw and to the last DNS answer with a dead datacenter: every run, median and worst.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]
#![allow(missing_docs, unreachable_pub, dead_code, clippy::panic, clippy::pedantic, reason = "a measuring program")]

mod demo;
mod load;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use demo::{DATACENTERS, Demo, signal};
use load::Log;

const HTTP_RATE: u32 = 1_000;
const DNS_RATE: u32 = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    KillOne,
    KillDatacenter,
    SilenceDatacenter,
}

struct Run {
    requests: usize,
    errors: usize,
    last_error: Option<Duration>,
    claims_refused: usize,
    slow: usize,
    worst: Duration,
    dns: usize,
    last_bad_answer: Option<Duration>,
    empty: usize,
    back: Option<Duration>,
}

fn main() {
    let runs = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let demo = Demo::start(Path::new(env!("CARGO_BIN_EXE_springtide")), dir.path(), Duration::from_secs(2));
        for (fault, title) in [
            (Fault::KillOne, "kill -9 of one backend (gift-list-1 of a datacenter)"),
            (Fault::KillDatacenter, "kill -9 of every upstream of a datacenter"),
            (Fault::SilenceDatacenter, "SIGSTOP of every upstream of a datacenter"),
        ] {
            println!("\n{title}; {HTTP_RATE} requests/s on three edges, {DNS_RATE} queries/s");
            println!("  run  requests  errors  last error  claims 503  >100 ms   worst  queries  empty  last bad answer  full again");
            let mut all = Vec::new();
            for n in 0..runs {
                settled(&demo, Duration::from_secs(60)).await;
                let run = strike(&demo, fault, n).await;
                let show = |d: Option<Duration>| d.map_or("-".into(), |d| format!("{} ms", d.as_millis()));
                println!(
                    "  {:>3}  {:>8}  {:>6}  {:>10}  {:>10}  {:>7}  {:>6}  {:>7}  {:>5}  {:>15}  {:>10}",
                    n + 1,
                    run.requests,
                    run.errors,
                    show(run.last_error),
                    run.claims_refused,
                    run.slow,
                    format!("{} ms", run.worst.as_millis()),
                    run.dns,
                    run.empty,
                    show(run.last_bad_answer),
                    show(run.back),
                );
                all.push(run);
            }
            summary("last error", all.iter().map(|r| r.last_error).collect());
            summary("last bad answer", all.iter().map(|r| r.last_bad_answer).collect());
        }
    });
}

fn summary(what: &str, mut values: Vec<Option<Duration>>) {
    values.sort();
    let show = |d: Option<Option<&Duration>>| d.flatten().map_or("none".into(), |d| format!("{} ms", d.as_millis()));
    let (median, worst) = (values.get(values.len() / 2), values.last());
    println!("  {what}: median {}, worst {}", show(median.map(Option::as_ref)), show(worst.map(Option::as_ref)));
}

async fn strike(demo: &Demo, fault: Fault, n: usize) -> Run {
    let (dc, ip) = DATACENTERS[n % DATACENTERS.len()];
    let pids = match fault {
        Fault::KillOne => vec![demo.pids()[&format!("{dc}/gift-list-1")]],
        _ => demo.upstreams(dc),
    };
    let log = Arc::new(Log::default());
    let edges = DATACENTERS.iter().map(|(_, ip)| demo.http(*ip)).collect();
    let http = tokio::spawn(load::http(edges, HTTP_RATE, true, Arc::clone(&log)));
    let dns = tokio::spawn(load::dns(demo.dns(), "www.hongbao.test", DNS_RATE, Arc::clone(&log)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stroke = Instant::now();
    signal(if fault == Fault::SilenceDatacenter { "STOP" } else { "KILL" }, &pids);
    tokio::time::sleep(Duration::from_secs(5)).await;
    log.stop();
    let _ = tokio::join!(http, dns);
    tokio::time::sleep(Duration::from_secs(3)).await;
    if fault == Fault::SilenceDatacenter {
        signal("CONT", &pids);
    }
    let healed = Instant::now();
    let back = settled(demo, Duration::from_secs(60)).await.map(|at| at - healed);
    judge(&log, stroke, ip, fault, back)
}

fn judge(log: &Log, stroke: Instant, ip: Ipv4Addr, fault: Fault, back: Option<Duration>) -> Run {
    let http = log.http.lock().unwrap();
    let dns = log.dns.lock().unwrap();
    // A claim whose home is down is refused kindly, as it must be; everything else is retry-safe.
    let is_error = |d: &&load::Done| d.is_error() && d.kind != "claim";
    let whole = fault != Fault::KillOne;
    // Restarted processes end the fault; what a killed datacenter says after two seconds is its return.
    let until = stroke + Duration::from_secs(if fault == Fault::KillDatacenter { 2 } else { 5 });
    Run {
        requests: http.len(),
        errors: http.iter().filter(is_error).count(),
        last_error: http.iter().filter(is_error).map(|d| d.ended.saturating_duration_since(stroke)).max(),
        claims_refused: http.iter().filter(|d| d.kind == "claim" && d.is_error()).count(),
        slow: http.iter().filter(|d| d.ended - d.due > Duration::from_millis(100)).count(),
        worst: http.iter().map(|d| d.ended - d.due).max().unwrap_or_default(),
        dns: dns.len(),
        empty: dns.iter().filter(|a| a.addresses.is_empty()).count(),
        last_bad_answer: dns
            .iter()
            .filter(|a| whole && a.addresses.contains(&ip) && a.at > stroke && a.at < until)
            .map(|a| a.at - stroke)
            .max(),
        back,
    }
}

/// Waits until every service serves with its full weight in every datacenter, on every node.
async fn settled(demo: &Demo, limit: Duration) -> Option<Instant> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        let mut full = true;
        for ip in DATACENTERS.map(|d| d.1).into_iter().chain([Ipv4Addr::LOCALHOST]) {
            full &= is_full(demo, ip).await.unwrap_or(false);
        }
        if full {
            return Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

async fn is_full(demo: &Demo, ip: Ipv4Addr) -> Option<bool> {
    use http_body_util::BodyExt;
    let mut connection = load::dial(demo.admin(ip)).await.ok()?;
    let request = hyper::Request::get("/v1/state").header("host", "127.0.0.1").body(Default::default()).ok()?;
    let body = connection.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
    Some(load::is_whole(&serde_json::from_slice(&body).ok()?))
}
