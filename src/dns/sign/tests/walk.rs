//! Walks over the networks of a steered name with many datacenters: what they cost, and what everybody else gets.

use proptest::prelude::*;

use super::*;
use crate::base::ids::DatacenterId;
use crate::config::{Datacenter, Policy, Steer};
use crate::snapshot::DcState;

/// `wide.example.test.` among ten datacenters, all of the same weight, of which these numbers are not to be used.
fn wide(down: &[usize]) -> Snapshot {
    let steer = Steer { datacenters: (0..10).map(|i| (DatacenterId::new(i), 10)).collect(), ..steered("wide") };
    let mut snapshot = fixture::snapshot(vec![fixture::zone("example.test.", fixture::ZONE)], vec![steer]);
    let mut config = (*snapshot.topology.config).clone();
    config.datacenters = (0..10u8)
        .map(|i| Datacenter {
            name: format!("dc{i}"),
            weight: 10,
            addresses: vec![[203, 0, 113, i].into()],
            near: Vec::new(),
            capacity_rps: None,
        })
        .collect();
    snapshot.topology = Arc::new(Topology::build(Arc::new(config), snapshot.topology.assets.clone(), None));
    snapshot.views = Arc::default();
    with_health(&snapshot, SteerId::new(0), |health| {
        for i in down {
            health.candidates[*i].state = DcState::AdminDown;
            health.candidates[*i].effective = 0;
        }
    })
}

fn steered(name: &str) -> Steer {
    fixture::steer(&format!("{name}.example.test."), &[Policy::Weighted])
}

/// The last octets of the addresses in an answer.
fn sites(message: &Message) -> Vec<u8> {
    let all = message.answers.iter().filter_map(|r| match &r.data {
        RData::A(a) => Some(a.0.octets()[3]),
        _ => None,
    });
    all.collect()
}

#[test]
fn a_walk_over_networks_is_signed_within_the_budget_and_everybody_is_answered() {
    let rules = Signed { open_per_second: 10, ..rules() };
    let stage = Stage::of(wide(&[4]), vec![key(CSK, Algorithm::Ed25519, Times::default())], &rules);
    let ask = |i: u32| Ask::new("wide.example.test.", "A").dnssec().subnet(&format!("10.{}.{}.0/24", i / 256, i % 256));
    let (mut made, mut shared) = (0, 0);
    for i in 0..500 {
        let message = stage.verified(&ask(i), &[]);
        let sent = stage.ask(&ask(i)).1;
        assert_eq!((sent.rcode, sent.truncated, sites(&message).len()), (Rcode::NoError, false, 2));
        assert!(!sites(&message).contains(&4), "taken down");
        assert!(sent.steered.is_some_and(|(_, c)| c.scope == 24));
        shared += u32::from(sent.signatures.shared);
        made += u32::from(sent.signatures.made);
    }
    assert!(shared > 300, "{shared}");
    assert_eq!(made, 0, "the second of a kind finds the signature of the first");
    // What is given away in the place of 36 sets is what few crowds are given; with time everybody gets their own.
    stage.clock.advance(Duration::from_secs(1));
    let late = stage.ask(&ask(499)).1.signatures;
    assert_eq!((late.made + late.kept, late.shared), (1, 0));
}

#[test]
fn where_nothing_at_all_may_be_signed_the_client_is_told_why() {
    let rules = Signed { open_per_second: 1, known_per_second: 1, ..rules() };
    let stage = Stage::of(wide(&[]), vec![key(CSK, Algorithm::Ed25519, Times::default())], &rules);
    let ask = |i: u32| Ask::new("wide.example.test.", "A").dnssec().subnet(&format!("10.0.{i}.0/24"));
    let sent: Vec<Sent> = (0..200).map(|i| stage.ask(&ask(i)).1).collect();
    assert!(sent.iter().map(|s| u32::from(s.signatures.made)).sum::<u32>() <= 2);
    assert!(sent.iter().filter(|s| s.truncated).count() > 50, "come by TCP");
    assert!(sent.iter().all(|s| s.truncated || s.signatures.kept + s.signatures.made == 1));
    let failed = (0..200).map(|i| stage.ask(&ask(i).tcp())).find(|(_, s)| s.rcode == Rcode::ServFail).unwrap();
    assert!(failed.0.answers.is_empty() && !failed.0.metadata.authoritative);
    let octets = (0..200)
        .map(|i| ask(i).tcp().at(stage.clock.wall()).of(&stage.table))
        .find(|(_, s)| s.rcode == Rcode::ServFail);
    assert_eq!(ede(&octets.unwrap().0), Some(10), "RRSIGs missing");
}

proptest! {
    /// Whatever walks: no second sees more signatures than its budgets, nothing goes out unsigned, and who was taken down
    /// is in no answer.
    #[test]
    fn no_walk_costs_more_than_its_budget(
        limits in (1u32..20, 1u32..20),
        down in prop::collection::btree_set(0usize..10, 0..9),
        asked in prop::collection::vec((any::<u16>(), any::<bool>(), prop::bool::weighted(0.02)), 1..200),
    ) {
        let rules = Signed { open_per_second: limits.0, known_per_second: limits.1, ..rules() };
        let down: Vec<usize> = down.into_iter().collect();
        let stage = Stage::of(wide(&down), vec![key(CSK, Algorithm::Ed25519, Times::default())], &rules);
        let mut made = [0u32; 2];
        for (client, tcp, pause) in asked {
            if pause {
                stage.clock.advance(Duration::from_secs(1));
                made = [0; 2];
            }
            let ask = Ask::new("wide.example.test.", "A").dnssec().subnet(&format!("10.{}.{}.0/24", client >> 8, client & 255));
            let (message, sent) = stage.ask(&if tcp { ask.tcp() } else { ask });
            made[usize::from(tcp)] += u32::from(sent.signatures.made);
            prop_assert!(made[usize::from(tcp)] <= limits.0 + limits.1);
            let whole = sent.rcode == Rcode::NoError && !sent.truncated;
            prop_assert_eq!(message.answers.iter().filter_map(signature).count(), usize::from(whole));
            prop_assert_eq!(sites(&message).len(), if whole { 2.min(10 - down.len()) } else { 0 });
            prop_assert!(sites(&message).iter().all(|s| !down.contains(&usize::from(*s))));
            prop_assert_eq!(sent.rcode == Rcode::ServFail, !whole && tcp);
        }
    }
}
