//! What a configuration means, and where its findings stand. How they read is told by `tests/golden/config`.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::ids::DatacenterId;
use crate::config::model::{
    Action, Balance, Connections, Health, OnAllDown, Passive, PathMatch, Policy, ProbeKind, Protocol, Retry, UserKey,
    ValueMatch,
};

const NORTH_STAR: &str = include_str!("../../../tests/golden/config/ok-north-star.toml");

fn read(text: &str) -> Result<Config, Findings> {
    parse(text, Path::new("/etc/springtide/springtide.toml"))
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|findings| panic!("{findings}"))
}

/// `severity code line:column` of all that is found.
fn found(text: &str) -> Vec<String> {
    let findings = read(text).map_or_else(|findings| findings, |config| config.warnings);
    let word = |f: &Finding| if f.severity == Severity::Error { "error" } else { "warning" };
    findings.iter().map(|f| format!("{} {} {}:{}", word(f), f.code.as_str(), f.line, f.column)).collect()
}

#[test]
fn the_north_star_is_understood() {
    let config = good(NORTH_STAR);
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert_eq!(config.node.datacenter, Some(DatacenterId::new(0)));
    assert_eq!(config.datacenters[0].capacity_rps, Some(48_000.0));
    let [gifts, claim, recommend] = config.services.as_slice() else { panic!("three services") };
    let placed: Vec<_> = gifts.backends.iter().map(|b| (b.datacenter.index(), b.weight)).collect();
    assert_eq!(placed, [(0, 1), (0, 2), (1, 1), (2, 1)]);
    assert_eq!(claim.balance, Balance::UserHome);
    assert_eq!(
        claim.retry,
        Retry { tries: 2, budget: 0.2, per_try: Some(Duration::from_millis(400)), ..Retry::default() }
    );
    assert_eq!(
        claim.passive,
        Passive { consecutive_failures: 2, eject_for: Duration::from_secs(3), ..Passive::default() }
    );
    assert_eq!(recommend.protocol, Protocol::Http2);
    let probe = recommend.probe.as_ref().unwrap();
    let ProbeKind::Grpc { tls: Some(tls), .. } = &probe.kind else {
        panic!("a probe speaks TLS where its service does")
    };
    assert_eq!(tls.ca, Path::new("/etc/springtide/certs/ca.pem"));
    let dns = config.dns.as_ref().unwrap();
    assert_eq!(dns.steers[0].policy, [Policy::Near, Policy::Weighted]);
    assert_eq!(dns.steers[0].datacenters.iter().map(|(_, w)| *w).collect::<Vec<_>>(), [40, 40, 20]);
    assert_eq!(dns.steers[1].datacenters, [(DatacenterId::new(1), 40), (DatacenterId::new(2), 5)]);
    assert!(matches!(&dns.steers[1].on_all_down, OnAllDown::LastResort(a) if a.len() == 1));
    assert!(dns.steers[1].alpn.is_empty());
    assert_eq!(config.listeners[0].tls.as_ref().unwrap().pairs.len(), 1);
    assert_eq!(config.routes[0].user, UserKey::Header("x-user-id".into()));
    assert_eq!(config.routes[0].max_body, 65_536);
    assert_eq!(
        config.routes[1].matches.headers,
        [("x-beta".into(), ValueMatch::Any), ("x-kind".into(), ValueMatch::Exact("red".into()))]
    );
    let names: Vec<_> = config.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["claim", "gift-list", "recommend", "rest"]);
    assert!(matches!(config.routes[3].action, Action::Respond { status: 404, .. }));
}

#[test]
fn what_is_not_written_has_the_defaults_of_the_model() {
    let config = good(
        "[[datacenter]]\nname = 'a'\n[[service]]\nname = 's'\nprobe = { tcp = true }\nbackends.a = '10.0.0.1:80'\n\
         [dns]\nlisten = '127.0.0.1:0'\n[[dns.zone]]\nname = 'x.'\nfile = 'x'\n[[dns.steer]]\nname = 'w.x.'\nservices = 's'\n\
         datacenters = { name = 'a' }\n[[route]]\nservice = 's'\n"
            .replace("name = 'a'\n[[service", "name = 'a'\naddresses = '192.0.2.1'\n[[service")
            .as_str(),
    );
    let (health, defaults) = (&config.health, Health::default());
    assert_eq!(
        (health.fail_below, health.return_at, health.overprovision, health.ramp),
        (defaults.fail_below, defaults.return_at, defaults.overprovision, defaults.ramp)
    );
    let service = &config.services[0];
    assert_eq!((&service.passive, &service.retry), (&Passive::default(), &Retry::default()));
    let probe = service.probe.as_ref().unwrap();
    assert_eq!((probe.interval.as_millis(), probe.timeout.as_millis(), probe.fall, probe.rise), (1_000, 500, 2, 2));
    let dns = config.dns.as_ref().unwrap();
    assert_eq!((dns.ecs, dns.client_prefix, dns.steers[0].answers), (true, (24, 56), 2));
    assert_eq!(dns.connections, Connections::default());
    assert!(dns.proxies.is_empty() && dns.tls.is_none() && dns.https.is_none() && dns.quic.is_none());
    assert_eq!(dns.steers[0].on_all_down, OnAllDown::ServeAll);
    assert_eq!(dns.steers[0].alpn, ["h2", "http/1.1"]);
    let route = &config.routes[0];
    assert_eq!((&route.user, route.retry_keyed, route.max_body), (&UserKey::Client, true, 1 << 20));
    assert_eq!(route.matches.path, PathMatch::Prefix("/".into()));
    assert!(config.node.workers >= 1 && dns.threads >= 1);
    assert!(config.admin.is_none());
}

#[test]
fn every_default_can_be_read() {
    for section in ["admin", "health", "node"] {
        assert!(read(&format!("[{section}]\n")).is_ok(), "{section}");
    }
    assert_eq!(good("[admin]\n").admin.unwrap().listen.to_string(), "127.0.0.1:9900");
}

#[test]
fn findings_stand_where_they_belong() {
    assert_eq!(found("[node]\nname = 'é è'\n"), ["error bad-value 2:8"]);
    assert_eq!(found("[[datacenter]]\n[[datacenter]]\nname = 'a'\n"), ["error missing-key 1:1"]);
    assert_eq!(found("# 深圳\n'深圳' = { a = 1 }\n"), ["error unknown-key 2:1"]);
    assert_eq!(found("[node]\n深 = 1\n"), ["error syntax 2:1"]);
    assert_eq!(
        found("[[route]]\nmatch = { path = '/红', method = 'get' }\nrespond = {}"),
        ["error bad-value 2:18", "error bad-value 2:33"]
    );
}

#[test]
fn a_first_mistake_invents_no_second_one() {
    // A name that cannot be read is not missing elsewhere.
    assert_eq!(found("[node]\ndatacenter = 'a'\n[[datacenter]]\nname = 'a b'\n"), ["error bad-value 4:8"]);
    // Nor is what a syntax error hides.
    assert_eq!(found("[node]\ndatacenter = 'a'\n[[datacenter]]\nname = a\n"), ["error syntax 4:8"]);
    // A misspelt key is not missing besides.
    assert_eq!(found("[[datacenter]]\nnmae = 'a'\n"), ["error unknown-key 2:1"]);
    // A service whose probe is not understood still has its backends checked.
    let text = "[[datacenter]]\nname = 'a'\n[[service]]\nname = 's'\nprobe = 1\nbackends.b = ['10.0.0.1:1']\n";
    assert_eq!(found(text), ["error wrong-type 5:9", "error unknown-name 6:10"]);
}

#[test]
fn what_is_found_is_bounded() {
    let many = (0..5_000).map(|i| format!("key{i} = 1")).collect::<Vec<_>>().join("\n");
    let findings = read(&many).unwrap_err();
    assert_eq!(findings.count(), (5_000, 0));
    assert!(findings.iter().len() <= 1_000);
    let rendered = findings.to_string();
    assert_eq!(rendered.matches("error[").count(), 100);
    assert!(rendered.contains("4900 more are not shown"), "{}", rendered.lines().last().unwrap_or_default());
    let deep = format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(read(&deep).is_err());
}

#[test]
fn limits_are_held() {
    let datacenters = (0..65).map(|i| format!("[[datacenter]]\nname = 'd{i}'\n")).collect::<Vec<_>>().concat();
    assert_eq!(found(&datacenters), ["error out-of-range 1:1"]);
    let list = |n: usize| (0..n).map(|i| format!("'10.0.{}.{}:80'", i / 250, i % 250)).collect::<Vec<_>>().join(",");
    let service =
        |n: usize| format!("[[datacenter]]\nname = 'a'\n[[service]]\nname = 's'\nbackends.a = [{}]\n", list(n));
    assert!(read(&service(4_096)).is_ok());
    assert_eq!(found(&service(4_097)), ["error out-of-range 5:14"]);
}

#[test]
fn load_looks_at_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let codes = |file: &Path| load(file).map_or_else(|f| f.iter().map(|f| f.code).collect(), |_| Vec::new());
    assert_eq!(codes(&file), [Code::Unreadable]);
    assert!(load(&file).unwrap_err().unreadable());
    let text = "[admin]\nlisten = '0.0.0.0:1'\ntoken_file = 'token'\n";
    fs::write(&file, text).unwrap();
    assert_eq!(codes(&file), [Code::MissingFile]);
    fs::write(folder.path().join("token"), "x").unwrap();
    let config = load(&file).unwrap();
    assert_eq!(config.admin.unwrap().token_file, Some(folder.path().join("token")));
    fs::write(&file, b"[node]\nname = '\xff'\n").unwrap();
    let findings = load(&file).unwrap_err();
    let place: Vec<_> = findings.iter().map(|f| (f.code, f.line, f.column)).collect();
    assert_eq!(place, [(Code::Syntax, 2, 9)]);
    assert_eq!(codes(folder.path()), [Code::Unreadable]);
}

#[test]
fn json_says_what_the_text_says() {
    let findings = read("[node]\nnmae = 1\n").unwrap_err();
    let json = findings.to_json();
    assert_eq!(json["errors"], 1);
    let finding = &json["findings"][0];
    assert_eq!((&finding["code"], &finding["line"], &finding["column"]), (&"unknown-key".into(), &2.into(), &1.into()));
    assert_eq!(finding["hint"], "did you mean `name`?");
}

/// Valid text for one service, drawn at random.
fn service() -> impl Strategy<Value = (u32, u64, u32, Vec<u32>)> {
    (1_u32..=10, 1_u64..3_600_000, 1_u32..=100, prop::collection::vec(0_u32..=1_000_000, 1..20))
}

proptest! {
    #[test]
    fn what_is_said_is_what_it_means((tries, deadline_ms, share, weights) in service()) {
        let backends: Vec<String> =
            weights.iter().enumerate().map(|(i, w)| format!("{{ address = '10.0.0.{}:80', weight = {w} }}", i + 1)).collect();
        let text = format!(
            "[[datacenter]]\nname = 'a'\n[[service]]\nname = 's'\ndeadline = '{deadline_ms}ms'\n\
             retry = {{ tries = {tries}, budget = '{share}%' }}\nbackends.a = [{}]\n",
            backends.join(", ")
        );
        let config = good(&text);
        let service = &config.services[0];
        prop_assert_eq!(service.deadline, Duration::from_millis(deadline_ms));
        prop_assert_eq!(service.retry.tries, tries);
        prop_assert!((service.retry.budget - f64::from(share) / 100.0).abs() < 1e-9);
        prop_assert_eq!(service.backends.iter().map(|b| b.weight).collect::<Vec<_>>(), weights);
    }
}

/// A configuration with `pools`, each with its members, and one name that is steered to those of `top`.
fn pooled(pools: &[(String, Vec<String>)], top: &[String]) -> String {
    let quoted = |names: &[String]| names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
    let head = "[[datacenter]]\nname = \"dc\"\naddresses = [\"203.0.113.10\"]\n[[service]]\nname = \"claim\"\n\
                backends.dc = [\"10.1.0.21:7100\"]\n[dns]\nlisten = \"127.0.0.1:5300\"\n\
                [[dns.zone]]\nname = \"hongbao.test.\"\nfile = \"hongbao.test.zone\"\n";
    let pools = pools
        .iter()
        .map(|(name, members)| format!("[[dns.pool]]\nname = {name:?}\ndatacenters = [{}]\n", quoted(members)));
    let steer = "[[dns.steer]]\nname = \"a.hongbao.test.\"\nservices = \"claim\"";
    format!("{head}{}{steer}\ndatacenters = [{}]\n", pools.collect::<String>(), quoted(top))
}

/// Levels of pools, each of which holds all of the next level; the last holds `bottom`.
fn lattice(levels: usize, wide: usize, bottom: &str) -> String {
    let level = |l: usize| (0..wide).map(|i| format!("p{l}-{i}")).collect::<Vec<_>>();
    let under = |l: usize| if l + 1 == levels { vec![bottom.to_owned()] } else { level(l + 1) };
    let pools: Vec<_> = (0..levels).flat_map(|l| level(l).into_iter().map(move |name| (name, under(l)))).collect();
    pooled(&pools, &level(0))
}

#[test]
fn pools_that_many_ways_lead_to_are_looked_at_once() {
    // Eight levels of eight: two million ways lead through them, and every pool but those on top is met again.
    let met_again = found(&lattice(8, 8, "dc"));
    assert_eq!(met_again.len(), 7 * 8 + 1, "{met_again:?}");
    assert!(met_again.iter().all(|f| f.starts_with("error duplicate")), "{met_again:?}");
    // The same, bent into rings: told where they close, and the name beneath them is left alone.
    let rings = found(&lattice(8, 8, "p0-0"));
    assert_eq!(rings.iter().filter(|f| f.starts_with("error conflict")).count(), 1, "{rings:?}");
    assert!(rings.len() < 20, "{rings:?}");
}

#[test]
fn pools_nest_so_deep_and_no_deeper() {
    let chain = |length: usize, last: &str| {
        let next = |i: usize| if i + 1 == length { last.to_owned() } else { format!("p{}", i + 1) };
        let pools: Vec<_> = (0..length).map(|i| (format!("p{i}"), vec![next(i)])).collect();
        found(&pooled(&pools, &["p0".to_owned()]))
    };
    assert_eq!(chain(8, "dc"), Vec::<String>::new());
    // p0 is too deep by one: it is told where the ninth stands, in p7.
    assert_eq!(chain(9, "dc"), ["error out-of-range 35:16"]);
    assert_eq!(chain(1_000, "dc").len(), 992, "one for each that is too deep");
    assert_eq!(chain(20, "p0"), ["error conflict 71:16"], "a ring is a ring, however long");
}
