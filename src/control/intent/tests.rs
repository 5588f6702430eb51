//! Tests.

use super::*;
use crate::control::step::tests::{World, config, wall};

fn intent(subject: Subject, wish: Wish, until: Option<Wall>) -> Intent {
    Intent { subject, wish, since: Wall(1), until, by: "ada".into(), reason: "new kernel".into() }
}

fn dc(name: &str) -> Subject {
    Subject::Datacenter(name.into())
}

fn backend(address: &str, service: Option<&str>) -> Subject {
    Subject::Backend { address: address.into(), service: service.map(Into::into) }
}

fn ask(world: &World, subject: Subject, wish: Wish) -> Result<Effect, IntentError> {
    check(&world.snapshot, &intent(subject, wish, None), world.now, wall(world.now))
}

#[test]
fn names_must_exist() {
    let world = World::up(config(3, 2));
    let of =
        |service: &str, datacenter: &str| Subject::Service { service: service.into(), datacenter: datacenter.into() };
    let unknown = ask(&world, dc("dc9"), Wish::Drain).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no datacenter \"dc9\"; there are: dc0, dc1, dc2");
    assert!(matches!(ask(&world, of("gift", "dc0"), Wish::Drain), Err(IntentError::UnknownService { .. })));
    assert!(matches!(ask(&world, of("gifts", "dc"), Wish::Drain), Err(IntentError::UnknownDatacenter { .. })));
    assert!(matches!(ask(&world, backend("10.0.0.9:80", None), Wish::Down), Err(IntentError::UnknownBackend { .. })));
    assert!(matches!(ask(&world, backend("nonsense", None), Wish::Down), Err(IntentError::UnknownBackend { .. })));
    assert!(ask(&world, backend("10.0.0.1:80", Some("gifts")), Wish::Down).is_ok());
    let over = intent(dc("dc0"), Wish::Drain, Some(wall(world.now)));
    assert_eq!(check(&world.snapshot, &over, world.now, wall(world.now)), Err(IntentError::Expired));
    assert!(matches!(ask(&world, dc("dc0"), Wish::Weight(1_000_001)), Err(IntentError::Weight { .. })));
}

#[test]
fn what_would_be_left_is_said_and_nothing_is_refused() {
    let mut world = World::up(config(2, 2));
    assert_eq!(ask(&world, dc("dc0"), Wish::Drain), Ok(Effect { left: vec![("gifts".into(), 50.0)] }));
    assert_eq!(ask(&world, backend("10.0.0.1:80", None), Wish::Down).map(|e| e.left[0].1), Ok(75.0));
    assert_eq!(ask(&world, dc("dc0"), Wish::Weight(20)), Ok(Effect::default()));
    world.wish(dc("dc0"), Wish::Drain, None);
    let refused = ask(&world, dc("dc1"), Wish::Weight(0));
    assert_eq!(refused, Err(IntentError::NothingLeft { service: "gifts".into(), left: 0.0 }));
}

#[test]
fn the_newest_of_a_kind_wins_and_kinds_stand_side_by_side() {
    let mut intents = Intents::default();
    for wish in [Wish::Weight(3), Wish::Drain, Wish::Weight(5), Wish::Down] {
        intents = with(&intents, intent(dc("a"), wish, None));
    }
    intents = with(&intents, intent(backend("[::1]:80", None), Wish::Drain, Some(Wall(9))));
    let wishes: Vec<Wish> = intents.entries.iter().map(|i| i.wish).collect();
    assert_eq!(wishes, [Wish::Down, Wish::Weight(5), Wish::Drain]);
    assert_eq!(without(&intents, &dc("a")).entries.len(), 1);
    assert_eq!(unexpired(&intents, Wall(8)), None);
    assert_eq!(unexpired(&intents, Wall(9)).unwrap().entries.len(), 2);
}

#[test]
fn each_act_leaves_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let acts = [
        Act::Wish(intent(dc("a"), Wish::Weight(5), Some(Wall(99)))),
        Act::Revoke { subject: dc("a\nb"), by: "bob".into() },
    ];
    for act in &acts {
        audit(folder.path(), &audit_line(act, 7, Wall(1_234))).unwrap();
    }
    let text = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2, "a newline in a name makes no line");
    assert_eq!((&lines[0]["at_ms"], &lines[0]["generation"]), (&1_234.into(), &7.into()));
    assert_eq!((&lines[0]["wish"]["by"], &lines[1]["revoke"]["by"]), (&"ada".into(), &"bob".into()));
}
