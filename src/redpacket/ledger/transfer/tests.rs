//! Any interleaving of claims, wishes, answers that are lost, late or doubled, deaths and new totals, between three homes.

use proptest::prelude::*;

use super::*;
use crate::base::clock::Wall;
use crate::redpacket::ledger::{Book, Claimed};
use crate::redpacket::model::{ActivityId, Claim, PacketId, RoleId, UserId, ZoneId};

const HOMES: usize = 3;
const EACH: u64 = 7;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody claims.
    Claim { at: usize },
    /// A home asks another: the question is on its way.
    Ask { at: usize, of: usize, most: u64 },
    /// A question arrives, and may arrive again.
    Hear { which: usize, stays: bool },
    /// An answer arrives, and may arrive again.
    Credit { which: usize, stays: bool },
    /// Something on its way is lost: with the line, or with a process that waited for it.
    Lose { which: usize },
    /// A process starts: it says what the configuration says.
    Start { at: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..HOMES).prop_map(|at| Step::Claim { at }),
        4 => (0..HOMES, 0..HOMES, 1u64..9).prop_map(|(at, of, most)| Step::Ask { at, of, most }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, stays)| Step::Hear { which, stays }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, stays)| Step::Credit { which, stays }),
        2 => any::<usize>().prop_map(|which| Step::Lose { which }),
        1 => (0..HOMES).prop_map(|at| Step::Start { at }),
    ]
}

fn gift() -> GiftId {
    GiftId::parse("lantern").unwrap()
}

fn name(home: usize) -> String {
    format!("home-{home}")
}

#[derive(Clone, Debug)]
struct Message {
    taker: usize,
    giver: usize,
    number: u64,
    amount: u64,
}

struct World {
    books: Vec<Book>,
    questions: Vec<Message>,
    answers: Vec<Message>,
    users: usize,
}

impl World {
    fn new() -> Self {
        let mut books = vec![Book::default(); HOMES];
        for book in &mut books {
            book.provision(gift(), EACH);
        }
        Self { books, questions: Vec::new(), answers: Vec::new(), users: 0 }
    }

    fn ask(&mut self, taker: usize, giver: usize, amount: u64) {
        let number = self.books[taker].turn(&name(giver), &gift());
        self.questions.push(Message { taker, giver, number, amount });
    }

    fn hear(&mut self, message: &Message) {
        let Message { taker, giver, number, amount } = *message;
        let transfer = Transfer { with: name(taker), gift: gift(), number };
        if let Some(amount @ 1..) = self.books[giver].give(&transfer, amount) {
            self.answers.push(Message { taker, giver, number, amount });
        }
    }

    fn credit(&mut self, message: &Message) {
        let Message { taker, giver, number, amount } = *message;
        self.books[taker].take(&Transfer { with: name(giver), gift: gift(), number }, amount);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Claim { at } => {
                self.users += 1;
                self.books[at].claim(claim(self.users), Wall(1));
            }
            Step::Ask { at, of, most } if at != of => self.ask(at, of, most),
            Step::Hear { which, stays } if !self.questions.is_empty() => {
                let at = which % self.questions.len();
                let message = if stays { self.questions[at].clone() } else { self.questions.swap_remove(at) };
                self.hear(&message);
            }
            Step::Credit { which, stays } if !self.answers.is_empty() => {
                let at = which % self.answers.len();
                let message = if stays { self.answers[at].clone() } else { self.answers.swap_remove(at) };
                self.credit(&message);
            }
            Step::Lose { which } if !self.answers.is_empty() => {
                self.answers.swap_remove(which % self.answers.len());
            }
            Step::Lose { which } if !self.questions.is_empty() => {
                self.questions.swap_remove(which % self.questions.len());
            }
            Step::Start { at } => self.books[at].provision(gift(), EACH),
            Step::Ask { .. } | Step::Hear { .. } | Step::Credit { .. } | Step::Lose { .. } => {}
        }
    }

    /// (all totals, all that was issued)
    fn sums(&self) -> (u64, u64) {
        let stocks = self.books.iter().map(|book| book.stats().stock[0].1);
        stocks.fold((0, 0), |(total, issued), stock| {
            assert!(stock.issued <= stock.total, "{stock:?}");
            (total + stock.total, issued + stock.issued)
        })
    }
}

fn claim(user: usize) -> Claim {
    Claim {
        activity_id: ActivityId::parse("a").unwrap(),
        packet_id: PacketId::parse("p").unwrap(),
        user_id: UserId::parse(&format!("u{user}")).unwrap(),
        gift_id: gift(),
        zone_id: ZoneId::parse("z").unwrap(),
        role_id: RoleId::parse("r").unwrap(),
        idempotency_key: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    /// At no moment have all homes together more than they were given, and none issues more than it has. Once everybody has
    /// asked again under the old numbers, they have all of it; and as long as somebody has some, whoever asks gets it.
    #[test]
    fn stock_that_moves_is_never_more_and_never_lost(steps in prop::collection::vec(step(), 1..120)) {
        const ALL: u64 = EACH * HOMES as u64;
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            let (total, issued) = world.sums();
            prop_assert!(total <= ALL && issued <= total, "{total} of {ALL} after {step:?}");
        }
        (world.questions, world.answers) = (Vec::new(), Vec::new());
        for (taker, giver) in (0..HOMES).flat_map(|a| (0..HOMES).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            world.ask(taker, giver, 1);
            let question = world.questions.pop().unwrap();
            world.hear(&question);
            if let Some(answer) = world.answers.pop() {
                world.credit(&answer);
            }
        }
        prop_assert_eq!(world.sums().0, ALL, "what was on its way has come");
        while world.sums().1 < ALL {
            world.users += 1;
            let claimed = world.books[0].claim(claim(world.users), Wall(1));
            if claimed != Claimed::SoldOut {
                continue;
            }
            let before = world.sums().1;
            for giver in 1..HOMES {
                world.ask(0, giver, 3);
                let question = world.questions.pop().unwrap();
                world.hear(&question);
                if let Some(answer) = world.answers.pop() {
                    world.credit(&answer);
                }
            }
            prop_assert!(world.books[0].stats().stock[0].1.left() > 0, "{before} of {ALL} issued, and none to be had");
        }
    }
}

#[test]
fn a_giver_keeps_half_and_knows_its_numbers() {
    let latest = Latest { number: 4, amount: 9 };
    for (number, most, left, want) in [
        (5, 100, 11, Giving::New(6)),
        (5, 3, 11, Giving::New(3)),
        (5, 3, 1, Giving::New(1)),
        (5, 3, 0, Giving::Nothing),
        (4, 100, 0, Giving::Again(9)),
        (3, 1, 9, Giving::Stale),
        (6, 1, 9, Giving::Stale),
        (0, 1, 9, Giving::Stale),
    ] {
        assert_eq!(give(latest, number, most, left), want, "{number}");
    }
    assert_eq!(give(Latest::default(), 0, 1, 9), Giving::Stale);
    assert_eq!([3, 4, 5, 6].map(|number| take(latest, number)), [false, false, true, false]);
    assert_eq!(Share { base: 10, taken: 5, given: 20 }.total(), 0);
}

#[test]
fn who_is_low_gets_what_makes_both_even_and_the_last_one_goes_where_it_is_wanted() {
    let stock = |total, left| Stock { total, issued: total - left };
    for (total, left, refused, want) in [
        (100, 20, false, None),
        (100, 19, false, Some(Need::Low { left: 19 })),
        (100, 0, false, Some(Need::Low { left: 0 })),
        (100, 0, true, Some(Need::Out)),
        (0, 0, false, None),
        (0, 0, true, Some(Need::Out)),
    ] {
        assert_eq!(Need::of(stock(total, left), refused), want, "{left} of {total}");
    }
    for (total, left, need, want) in [
        (100, 60, Need::Low { left: 19 }, 20),
        (100, 20, Need::Low { left: 19 }, 0),
        (100, 19, Need::Low { left: 3 }, 0),
        (100, 19, Need::Low { left: 0 }, 9),
        (100, 1, Need::Low { left: 0 }, 0),
        (100, 1, Need::Out, 1),
        (100, 0, Need::Out, 0),
        (100, 60, Need::Recall, 0),
    ] {
        assert_eq!(spare(stock(total, left), need), want, "{left} of {total}, {need:?}");
    }
}

proptest! {
    /// Without claims, homes that ask each other come to rest.
    #[test]
    fn stock_does_not_go_to_and_fro(totals in [0u64..5_000, 0..5_000, 0..5_000], spent in [0u64..5_000, 0..5_000, 0..5_000]) {
        let mut homes = [0, 1, 2].map(|at| Stock { total: totals[at], issued: spent[at].min(totals[at]) });
        let all = |homes: &[Stock; 3]| homes.iter().map(|stock| stock.total).sum::<u64>();
        let before = all(&homes);
        let mut moves = 0;
        for round in 0..200 {
            let (taker, giver) = (round % 3, (round + 1 + round / 3 % 2) % 3);
            if let Some(need) = Need::of(homes[taker], false) {
                let amount = spare(homes[giver], need);
                homes[giver].total -= amount;
                homes[taker].total += amount;
                moves += usize::from(round >= 150 && amount > 0);
            }
        }
        prop_assert_eq!(all(&homes), before);
        prop_assert_eq!(moves, 0, "{:?}", homes);
    }
}
