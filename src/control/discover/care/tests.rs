//! How one source stands, answer by answer.

use super::*;
use crate::base::ids::{DatacenterId, ServiceId};

const S: Duration = Duration::from_secs(1);

fn at(s: u64) -> Mono {
    Mono::from_millis(1_000_000 + s * 1_000)
}

fn list(hosts: &[u8]) -> Vec<Found> {
    hosts.iter().map(|host| Found { address: ([10, 0, 0, *host], 80).into(), weight: 1, name: None }).collect()
}

fn care(origin: Origin, known: Option<&[u8]>) -> Care {
    let source =
        Source { service: ServiceId::new(0), datacenter: DatacenterId::new(0), origin, weight: 1, keep: 60 * S };
    let key = SourceKey { service: "s".into(), datacenter: "d".into(), origin: source.origin.to_string() };
    Care::new(key, source, known.map(|hosts| list(hosts).into()), None, at(0))
}

fn name() -> Origin {
    Origin::Srv { name: "_s._tcp.x.".into() }
}

fn heard(hosts: &[u8], ttl: u64) -> Outcome {
    Outcome::Heard(list(hosts), Duration::from_secs(ttl), None)
}

const NONE: fn(SocketAddr) -> bool = |_| false;

#[test]
fn an_answer_is_asked_for_again_when_its_time_is_over() {
    let mut care = care(name(), None);
    assert!(care.settle(heard(&[1, 2], 10), NONE, at(0), Wall(1)));
    assert!((at(10)..=at(10) + S / 2).contains(&care.due), "its TTL, and a little");
    assert!(!care.settle(heard(&[2, 1], 0), NONE, at(10), Wall(2)), "the same in another order");
    assert!((at(11)..at(12)).contains(&care.due), "no sooner than a second");
    care.settle(heard(&[1, 2], 86_400), NONE, at(20), Wall(3));
    assert!(care.due <= at(20) + 301 * S, "and within five minutes");
    assert_eq!((care.answered, care.list.len()), (Some(Wall(3)), 2));
}

#[test]
fn what_cannot_be_asked_changes_nothing_and_is_asked_ever_less() {
    let mut care = care(name(), Some(&[1, 2, 3]));
    let pauses: Vec<Duration> = (0..8)
        .map(|i| {
            assert!(!care.settle(Outcome::Failed(Failure::Unanswered, None), NONE, at(i * 100), Wall(1)));
            care.due.since(at(i * 100))
        })
        .collect();
    assert_eq!(pauses, [S, 2 * S, 4 * S, 8 * S, 16 * S, 30 * S, 30 * S, 30 * S]);
    assert_eq!((care.list.len(), care.failing.as_ref().map(|f| f.times)), (3, Some(8)));
    assert!(!care.reconsider(NONE, at(9_000)), "however long");
    assert!(care.settle(heard(&[1, 2, 3, 4], 5), NONE, at(9_001), Wall(2)) && care.failing.is_none());
}

#[test]
fn an_empty_answer_is_believed_when_it_has_lasted_or_was_confirmed() {
    for confirmed in [false, true] {
        let mut care = care(name(), Some(&[1, 2, 3]));
        assert!(!care.settle(heard(&[], 1), NONE, at(0), Wall(1)));
        assert_eq!(care.held.as_ref().map(|held| held.doubt), Some(Doubt::Empty));
        assert!(!care.settle(heard(&[], 1), NONE, at(30), Wall(1)), "half of the time");
        assert!(!care.reconsider(NONE, at(59)));
        if confirmed {
            care.held.as_mut().unwrap().confirmed = true;
            assert!(care.reconsider(NONE, at(59)));
        } else {
            assert!(care.reconsider(NONE, at(60)));
        }
        assert!(care.held.is_none() && care.list.is_empty());
    }
}

#[test]
fn time_during_which_a_source_is_silent_confirms_nothing() {
    let mut care = care(name(), Some(&[1, 2, 3]));
    care.settle(heard(&[], 1), NONE, at(0), Wall(1));
    care.settle(Outcome::Failed(Failure::Unanswered, None), NONE, at(30), Wall(1));
    assert!(!care.reconsider(NONE, at(600)) && care.list.len() == 3);
    assert!(care.settle(heard(&[1, 2, 3], 1), NONE, at(601), Wall(1)) || care.held.is_none());
    assert!(care.held.is_none() && care.list.len() == 3, "it has come back, and nothing was lost");
}

#[test]
fn others_are_taken_beside_until_they_have_been_seen_to_work() {
    let mut care = care(name(), Some(&[1, 2]));
    assert!(care.settle(heard(&[3, 4], 1), NONE, at(0), Wall(1)));
    assert_eq!(care.list.len(), 4);
    assert!(!care.reconsider(NONE, at(1)));
    assert!(!care.settle(heard(&[3, 4], 1), NONE, at(1), Wall(2)), "said again, they are still the same doubt");
    assert!(care.reconsider(|_| true, at(2)));
    assert_eq!((&*care.list, care.held.is_none()), (&*list(&[3, 4]), true));
}

#[test]
fn a_file_that_is_always_young_is_read_all_the_same() {
    let mut care = care(Origin::File { path: "x".into(), port: None }, None);
    for _ in 0..PATIENCE {
        assert!(!care.seen().1);
        assert!(!care.settle(Outcome::Young, NONE, at(0), Wall(1)));
        assert_eq!(care.due, at(0) + YOUNG);
    }
    assert!(care.seen().1);
    assert!(care.settle(heard(&[1], 0), NONE, at(1), Wall(1)) && !care.seen().1);
    assert_eq!(care.due, at(2));
}

#[test]
fn registrations_from_the_disk_have_their_time_anew() {
    let mut care = care(Origin::Register { allow: Vec::new() }, Some(&[1, 2]));
    assert_eq!((care.due, care.tried), (Mono::NEVER, true));
    let registry = care.registry.as_mut().unwrap();
    assert_eq!(registry.entry(list(&[1])[0].address).map(|e| e.expires), Some(at(0) + DEFAULT_TTL));
    registry.leave(list(&[1])[0].address);
    assert!(care.follow_registry(Wall(1)) && !care.follow_registry(Wall(1)));
    assert_eq!(&*care.list, &*list(&[2]));
}

#[test]
fn what_was_registered_with_a_predecessor_is_taken_over_and_what_is_here_stays() {
    let mut care = care(Origin::Register { allow: Vec::new() }, Some(&[1]));
    let entry = Entry {
        source: care.key.clone(),
        answered: Wall(1),
        backends: list(&[1, 2]),
        ttls_ms: [(list(&[2])[0].address, 60_000)].into(),
    };
    assert!(care.recall(&entry, at(5), Wall(2)) && !care.recall(&entry, at(6), Wall(2)));
    assert_eq!(&*care.list, &*list(&[1, 2]));
    let expires = |host: u8| care.registry.as_ref()?.entry(list(&[host])[0].address).map(|entry| entry.expires);
    assert_eq!((expires(1), expires(2)), (Some(at(0) + DEFAULT_TTL), Some(at(65))));
}
