//! Homes apart from each other: any interleaving of claims at home and elsewhere, of lines that are cut or lose answers, of
//! settlements half done, and of takeovers, as plain values: a [`Book`] and a [`Shelf`] a process, a file of homes for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Bounds, Opened, Outcome, Shelf};
use crate::base::clock::Wall;
use crate::config::homes::Homes;
use crate::redpacket::ledger::{Book, Claimed, Fenced, Hold};
use crate::redpacket::model::{
    ActivityId, Claim, Code, GiftId, IdempotencyKey, OrderNo, PacketId, RoleId, UserId, ZoneId,
};

const PROCESSES: usize = 3;
const GIFT: &str = "lantern";
const STOCK: u64 = 5;

/// What became of a message to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It came there, and the answer came back.
    Whole,
    /// It did not come there.
    Cut,
    /// It came there, and the answer was lost: with the line, or with the process that waited for it.
    Deaf,
}

#[derive(Clone, Debug)]
enum Step {
    Claim {
        user: u8,
        packet: u8,
        role: u8,
        key: Option<u8>,
        at: usize,
        line: Line,
    },
    Settle {
        from: usize,
        to: usize,
        line: Line,
        is_forgotten: bool,
    },
    /// The home at that place moves to another process, with its store and its name.
    Move {
        place: usize,
    },
    /// The process that was that home before comes back with its old file.
    Ghost {
        place: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let line = || prop_oneof![3 => Just(Line::Whole), 2 => Just(Line::Cut), 1 => Just(Line::Deaf)];
    prop_oneof![
        8 => (0u8..8, 0u8..2, 0u8..2, prop::option::of(0u8..2), 0..PROCESSES, line())
            .prop_map(|(user, packet, role, key, at, line)| Step::Claim { user, packet, role, key, at, line }),
        4 => (0..PROCESSES, 0..PROCESSES, line(), any::<bool>())
            .prop_map(|(from, to, line, is_forgotten)| Step::Settle { from, to, line, is_forgotten }),
        1 => (0..PROCESSES).prop_map(|place| Step::Move { place }),
        1 => (0..PROCESSES).prop_map(|place| Step::Ghost { place }),
    ]
}

fn claim_of(user: u8, packet: u8, role: u8, key: Option<u8>) -> Claim {
    Claim {
        activity_id: ActivityId::parse("a").unwrap(),
        packet_id: PacketId::parse(&format!("p{packet}")).unwrap(),
        user_id: UserId::parse(&format!("u{user}")).unwrap(),
        gift_id: GiftId::parse(GIFT).unwrap(),
        zone_id: ZoneId::parse("z").unwrap(),
        role_id: RoleId::parse(&format!("r{role}")).unwrap(),
        idempotency_key: key.map(|key| IdempotencyKey::parse(&format!("k{key}")).unwrap()),
    }
}

struct World {
    homes: Homes,
    epochs: [u64; PROCESSES],
    books: Vec<Book>,
    shelves: Vec<Shelf>,
    /// Numbers of whose order somebody was told.
    granted: BTreeSet<OrderNo>,
    /// Numbers for which somebody was told INTENT, and since when the latest of these waits.
    noted: BTreeMap<OrderNo, usize>,
    now: u64,
}

impl World {
    fn new() -> Self {
        let mut text = String::from("epoch = 1\n");
        for place in 0..PROCESSES {
            let _ = write!(text, "[[home]]\nname = \"h{place}\"\nurl = \"http://h{place}:1\"\n");
        }
        let homes = Homes::parse(&text).unwrap();
        let mut books = vec![Book::default(); PROCESSES];
        for (place, book) in books.iter_mut().enumerate() {
            book.provision(GiftId::parse(GIFT).unwrap(), STOCK);
            assert_eq!(book.fence(Hold { epoch: 1, sets: homes.sets_of(place) }, false), Fenced::Held);
        }
        let shelves = vec![Shelf::new(Bounds { open: 6, settled: 100 }); PROCESSES];
        let (granted, noted) = (BTreeSet::new(), BTreeMap::new());
        Self { homes, epochs: [1; PROCESSES], books, shelves, granted, noted, now: 0 }
    }

    fn decide(&mut self, home: usize, claim: Claim) -> Code {
        let no = claim.number();
        assert!(self.homes.sets_of(home).has(no.set()), "only home decides");
        let claimed = self.books[home].claim(claim, Wall(self.now));
        if let Claimed::Accepted(order) | Claimed::Already(order) = &claimed {
            assert_eq!(order.order_no, no);
        }
        claimed.code()
    }

    fn claim(&mut self, claim: Claim, at: usize, line: Line) {
        let (no, home) = (claim.number(), self.homes.owner(OrderNo::set_of(&claim.user_id)));
        let reached = home == at || line != Line::Cut;
        let code = reached.then(|| self.decide(home, claim.clone()));
        if let Some(code) = code.filter(|_| home == at || line == Line::Whole) {
            if matches!(code, Code::Accepted | Code::AlreadyClaimed) {
                self.granted.insert(no);
            }
            return;
        }
        match self.shelves[at].open(claim, Wall(self.now)) {
            Opened::New(intent) | Opened::Same(intent) if intent.is_open() => {
                assert_eq!(intent.number(), no);
                self.noted.insert(no, at);
            }
            Opened::New(_) | Opened::Same(_) => {
                self.granted.insert(no);
            }
            Opened::Conflict | Opened::Full => {}
        }
    }

    fn settle(&mut self, from: usize, to: usize, line: Line, is_forgotten: bool) {
        if from == to || line == Line::Cut {
            return;
        }
        let mut words = Vec::new();
        for intent in self.shelves[from].due(self.homes.sets_of(to), 4) {
            let code = self.decide(to, intent.claim.clone());
            words.extend(Outcome::of(code).map(|outcome| (intent.number(), outcome)));
        }
        // An answer that is lost, or a process that dies before it has written it down, are the same to both sides.
        if line == Line::Whole && !is_forgotten {
            for (no, outcome) in words {
                assert!(self.shelves[from].settle(no, outcome, Wall(self.now)));
            }
        }
    }

    fn relocate(&mut self, place: usize) {
        self.epochs[place] += 1;
        let hold = Hold { epoch: self.epochs[place], sets: self.homes.sets_of(place) };
        assert_eq!(self.books[place].fence(hold, false), Fenced::Held, "the same sets, a newer epoch");
    }

    /// Who was that home before the last move may not decide any more.
    fn ghost(&mut self, place: usize) {
        let old = Hold { epoch: self.epochs[place] - 1, sets: self.homes.sets_of(place) };
        let newest = self.epochs[place];
        assert_eq!(self.books[place].fence(old, true), Fenced::Older { epoch: newest });
    }

    fn check(&self) {
        let mut orders = BTreeSet::new();
        for (place, book) in self.books.iter().enumerate() {
            let trails = book.scan(None, 1_000);
            let stats = book.stats();
            assert!(stats.stock.iter().all(|(_, s)| s.issued <= s.total), "I1");
            assert_eq!(stats.orders(), trails.len() as u64, "I1: what was given is in orders");
            for trail in trails {
                assert!(orders.insert(trail.order.order_no), "I2: a second order, in another store");
                assert_eq!(self.homes.owner(trail.order.order_no.set()), place, "I8: home decides");
            }
        }
        assert!(self.granted.is_subset(&orders), "I4: who was told of an order has it");
    }

    /// All lines are mended, and every settler has its way.
    fn heal(&mut self) {
        for _ in 0..20 {
            for from in 0..PROCESSES {
                for to in 0..PROCESSES {
                    self.settle(from, to, Line::Whole, false);
                }
            }
        }
        self.check();
        for (no, at) in &self.noted {
            let intent = self.shelves[*at].find(*no).expect("what was noted is kept");
            let (outcome, _) = intent.settled.expect("what was noted is settled");
            let order = self.books[self.homes.owner(no.set())].find(*no);
            if outcome == Outcome::Granted {
                assert!(order.is_some(), "granted means an order");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    #[test]
    fn nobody_claims_twice_whatever_is_cut_or_lost(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.now += 1;
            match step {
                Step::Claim { user, packet, role, key, at, line } => world.claim(claim_of(user, packet, role, key), at, line),
                Step::Settle { from, to, line, is_forgotten } => world.settle(from, to, line, is_forgotten),
                Step::Move { place } => world.relocate(place),
                Step::Ghost { place } => world.ghost(place),
            }
            world.check();
        }
        world.heal();
    }
}
