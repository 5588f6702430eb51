//! A home cut off for 30 s under load (issue "Red packets", to be shown 5): what is answered before, during and after, how
//! long the intents take to be settled, and whether anything was lost or given twice. Root, for network namespaces.
//!
//! `cargo bench --bench cutoff` or `cargo bench --bench cutoff -- SECONDS CLIENTS PAUSE_MS`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]
#![allow(missing_docs, unreachable_pub, dead_code, clippy::panic, clippy::pedantic, reason = "a measuring program")]
#![allow(clippy::expect_used, reason = "a measuring program")]

mod city;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use city::{City, Crowd, Lines, Seen};
use tokio::time::sleep;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let number = |at: usize, otherwise| numbers.get(at).copied().unwrap_or(otherwise);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(Duration::from_secs(number(0, 30)), number(1, 32) as usize, number(2, 20)));
}

async fn run(cut: Duration, clients: usize, pause_ms: u64) {
    let folder = tempfile::tempdir().unwrap();
    let city = Arc::new(City::found(Path::new(env!("CARGO_BIN_EXE_springtide")), folder.path(), Some(Lines::lay())));
    let (crowd, running) = Crowd::gather(&city, clients, Duration::from_millis(pause_ms));
    println!("two homes in network namespaces, redb, {clients} clients with {pause_ms} ms between claims");
    println!("| phase | s | claims/s | ACCEPTED | INTENT | refused | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|---|");
    let lines = city.lines.as_ref().unwrap();
    sleep(Duration::from_secs(10)).await;
    print("together", &crowd.look());
    lines.cut(true);
    sleep(cut).await;
    print("cut off", &crowd.look());
    let open =
        city.metric(0, "springtide_redpacket_intents").await + city.metric(1, "springtide_redpacket_intents").await;
    lines.cut(false);
    let settled = city.settled().await;
    sleep(Duration::from_secs(10).saturating_sub(settled)).await;
    print("together again", &crowd.look());
    crowd.go_home(running).await;
    city.settled().await;
    let (users, intents) = crowd.judge().await;
    println!("\n{open} intents were open when the line was mended; none {:.1} s later.", settled.as_secs_f64());
    println!("{users} users were told 200 or 202, {intents} of them INTENT first: {users} orders, 0 lost, 0 double.");
}

fn print(phase: &str, seen: &Seen) {
    let promised = seen.count("ACCEPTED") + seen.count("ALREADY_CLAIMED") + seen.count("INTENT");
    let refused = seen.codes.values().sum::<usize>() - promised;
    println!(
        "| {phase} | {:.1} | {:.0} | {} | {} | {refused} | {:.1} | {:.1} |",
        seen.took.as_secs_f64(),
        promised as f64 / seen.took.as_secs_f64(),
        promised - seen.count("INTENT"),
        seen.count("INTENT"),
        seen.quantile(0.5),
        seen.quantile(0.99)
    );
}
