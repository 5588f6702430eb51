//! Cash packets under real clients and real deaths.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::crowd::cash::{MONEY, Openers, fill, name, pack};
use super::crowd::{Process, SOON, all_done, ask, eventually, luck, path};

/// I3, I4 and I5 over 20 deaths at random moments under load: whoever was told of a share has it, every packet adds up to
/// the fen, the wallet applied each share once.
#[tokio::test]
async fn every_share_that_was_told_survives_every_death_and_is_booked_once() {
    const ROUNDS: usize = 20;
    const PACKETS: usize = 6;
    const USERS: usize = 150;
    let mut rng = luck();
    let dir = tempfile::tempdir().unwrap();
    let wallet = Process::start("game", &["--data", path(&dir.path().join("wallet"))]);
    let (data, origin) = (dir.path().join("packets"), wallet.origin());
    let prepaid = format!("campaign={MONEY}");
    let pace = ["--delivery-timeout", "300ms", "--lease", "600ms"];
    let args = [&["--data", path(&data), "--prepaid", &prepaid, "--wallet", &origin], &pace[..]].concat();
    let (here, alive) = watch::channel(Vec::new());
    let mut process = Process::start("packet", &args);
    fill(&process.peer, PACKETS).await;
    let (crowd, clients) = Openers::start(alive, USERS, PACKETS, 16);
    let run = async {
        for round in 0..ROUNDS {
            here.send_replace(vec![process.peer.clone()]);
            // Somewhere in this round's answers, and a moment into what follows them.
            let each = (USERS * PACKETS / ROUNDS) as u64;
            let enough = round * each as usize + rng.below(each) as usize;
            eventually("answers", async || (crowd.answers() >= enough).then_some(())).await;
            sleep(Duration::from_micros(rng.below(8_000))).await;
            here.send_replace(Vec::new());
            process.kill();
            process = Process::start("packet", &args);
        }
        here.send_replace(vec![process.peer.clone()]);
        all_done(clients).await;
        process
    };
    let process = timeout(Duration::from_secs(110), run).await.expect("within its time");
    let told = crowd.settled(&process.peer, &wallet.peer).await;
    eprintln!("{} shares, {ROUNDS} deaths", told.len());
}

/// One request for `curl --config`, whose answer goes to a file of its own.
fn request(config: &mut String, url: &str, user: &str, body: &Value, answer: &Path) {
    let data = body.to_string().replace('"', "\\\"");
    let separator = if config.is_empty() { "" } else { "next\n" };
    let _ = write!(
        config,
        "{separator}url = \"{url}\"\nheader = \"x-user-id: {user}\"\nheader = \"content-type: application/json\"\n\
         data = \"{data}\"\noutput = \"{}\"\nsilent\n",
        answer.display()
    );
}

/// Runs what `config` asks for, 200 at a time, and reads the answers in the order of `answers`.
fn curl(config: &str, answers: &[PathBuf]) -> Vec<Value> {
    let file = answers[0].with_extension("curl");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("curl");
    let run = command.args(["--parallel", "--parallel-max", "200", "--no-progress-meter", "--config"]).arg(&file);
    let out = run.output().expect("curl is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    answers.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// What issue 5 asks for under "To be shown" 4: one packet of 500 shares, 5,000 who want one, with curl.
#[tokio::test]
async fn one_packet_of_500_shares_and_5000_openers() {
    const OPENERS: usize = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let prepaid = format!("campaign={MONEY}");
    let data = dir.path().join("packets");
    let process = Process::start("packet", &["--data", path(&data), "--prepaid", &prepaid, "--limit", "4096"]);
    pack(&process.peer, 0, 50_000, 500, "double_mean").await;
    let url = |call: &str| format!("{}/v1/packets/{}/{call}", process.origin(), name(0));
    let file = |call: &str, n: usize| dir.path().join(format!("{call}-{n}"));
    let all = |call: &str, ask: &dyn Fn(usize) -> Value| {
        let (mut config, files) = (String::new(), (0..OPENERS).map(|n| file(call, n)).collect::<Vec<_>>());
        for (n, answer) in files.iter().enumerate() {
            request(&mut config, &url(call), &format!("user-{n}"), &ask(n), answer);
        }
        #[expect(clippy::disallowed_methods, reason = "how long a test took, for a person")]
        let started = std::time::Instant::now();
        let answers = curl(&config, &files);
        (answers, started.elapsed())
    };
    let (grabs, grabbing) = all("grab", &|_| json!({}));
    assert!(grabs.iter().all(|answer| answer["code"] == "OK"), "nobody has opened: {:?}", grabs.first());
    let (opens, opening) = all("open", &|n| json!({ "grab_token": grabs[n]["grab_token"] }));
    let count = |code: &str| opens.iter().filter(|answer| answer["code"] == code).count();
    assert_eq!((count("OK"), count("SOLD_OUT")), (500, OPENERS - 500));
    let fen: Vec<u64> = opens.iter().filter_map(|answer| answer["amount_fen"].as_u64()).collect();
    assert_eq!((fen.iter().sum::<u64>(), fen.iter().min() >= Some(&1)), (50_000, true), "to the fen");
    let ranks: BTreeSet<u64> = opens.iter().filter_map(|answer| answer["rank"].as_u64()).collect();
    assert!(ranks.iter().copied().eq(1..=500));
    let audit = ask(&process.peer, "/internal/audit").await;
    assert_eq!(
        (&audit["differences"], &audit["shares"], &audit["shares_fen"]),
        (&json!(0), &json!(500), &json!(50_000))
    );
    let (again, _) = all("open", &|n| json!({ "grab_token": grabs[n]["grab_token"] }));
    for (first, second) in opens.iter().zip(&again) {
        assert_eq!((&first["amount_fen"], &first["order_no"]), (&second["amount_fen"], &second["order_no"]));
    }
    let metrics = process.peer.get("/metrics", SOON).await.unwrap();
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let batches = text.lines().find_map(|l| l.strip_prefix("springtide_redpacket_open_batch_size_count ")).unwrap();
    eprintln!(
        "500 shares, {OPENERS} openers through curl: {} ms to grab, {} ms to open, {batches} trips to the store",
        grabbing.as_millis(),
        opening.as_millis()
    );
}

#[tokio::test]
async fn the_rest_goes_back_and_money_is_not_prepaid_twice() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--data", path(dir.path()), "--prepaid", "campaign=1000"];
    let process = Process::start("packet", &args);
    let wish = json!({ "total_fen": 600, "count": 4, "expire_s": 1, "idempotency_key": name(0) });
    let headers = [("x-user-id", "campaign")];
    let reply = process.peer.call(Method::POST, "/v1/packets", wish.to_string().into(), &headers, SOON).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(ask(&process.peer, "/internal/accounts/campaign").await["balance_fen"], 400);
    assert!(process.stop().await.success());
    let process = Process::start("packet", &args);
    eventually("given back", async || {
        (ask(&process.peer, "/internal/accounts/campaign").await["balance_fen"] == 1_000).then_some(())
    })
    .await;
    let seen = ask(&process.peer, &format!("/v1/packets/{}", name(0))).await;
    assert_eq!((&seen["state"], &seen["refund_fen"]), (&json!("REFUNDED"), &json!(600)));
    assert!(process.stop().await.success());
    let mut other = Process::command("packet", &["--data", path(dir.path()), "--prepaid", "campaign=2000"]);
    let mut child = other.stderr(Stdio::piped()).spawn().unwrap();
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(words.contains("prepaid with another amount"), "{words}");
}
