//! The laws of [`PacketStore`], as checks that run on any store, yours included.
//!
//! `run` wants a [`Subject`]: how to make an empty store and, where there is such a thing, how to open it again. It returns
//! the laws that it checked, or the first [`Breach`]. It needs a tokio runtime and nothing else; it does not panic, so that
//! a program may run it at its own start.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;

mod bookings;
mod crash;
mod sharing;
mod walk;

pub use walk::walk;

use super::audit::audit;
use super::{Created, Deposit, Deposited, Opened, Opener, Opens, PacketStore};
use crate::base::clock::Wall;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::ledger::conformance::Breach;
use crate::redpacket::model::cash::{Mode, Packet, Packing, Phase, Seed, Share, Terms};
use crate::redpacket::model::{ActivityId, BadId, IdempotencyKey, OrderNo, PacketId, Settlement, UserId, Verdict};

/// A store in the making, or why there is none.
pub type Making<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn PacketStore>, String>> + Send + 'a>>;

/// How the suite gets stores of the kind under test.
pub trait Subject: Send + Sync {
    /// A new, empty store.
    fn fresh(&self) -> Making<'_>;

    /// `store` closed and opened again on what it left; nothing for a kind that does not outlive its process.
    fn reopened(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
        drop(store);
        None
    }

    /// Another handle on what `store` keeps, as another process has one; nothing for a kind that belongs to one process.
    fn beside(&self, store: &Arc<dyn PacketStore>) -> Option<Making<'_>> {
        let _ = store;
        None
    }

    /// What keeps `store` dies at once, with whatever is under way, and comes back: its power fails, its server is killed.
    /// Gives a handle on what is left; nothing for a kind that is gone with its power.
    fn struck(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
        drop(store);
        None
    }
}

type Outcome = Result<(), Breach>;

const MONEY: &str = "I3: what was paid in is in accounts, in packets or with openers, whatever was tried";
const SHARES: &str = "I3: shares are at most the count, at least a fen, one each, and add up";
const REFUND: &str = "I3: what nobody opened in time goes back, once";
const SAME: &str = "I2: the same again is the same, and with another body a conflict";
const LEASE: &str = "I5: a booking has one holder at a time, and comes back when the lease ends";
const SETTLE: &str = "I5: delivered is delivered; late words change nothing but for the better";
const LETTERS: &str = "I5: bookings that were given up are listed, and come back only by a person's word";
const PAGES: &str = "I7: every packet and every share can be read, page by page";
const DURABLE: &str = "I4: what was answered is there after the store was opened again";
const SHARED: &str = "I2, I3, I5 between processes that share the store";
const CRASH: &str = "I4: what was answered is there after its power failed under load";

/// Checks every law. Returns those that were checked: a store is not held to what its kind cannot do, such as to outlive
/// its process.
///
/// # Errors
/// The first law that does not hold, or the store's own failure.
pub async fn run(subject: &dyn Subject) -> Result<Vec<&'static str>, Breach> {
    money(subject).await?;
    shares(subject).await?;
    refund(subject).await?;
    same(subject).await?;
    bookings::lease(subject).await?;
    bookings::settle(subject).await?;
    bookings::letters(subject).await?;
    pages(subject).await?;
    let mut held = vec![MONEY, SHARES, REFUND, SAME, LEASE, SETTLE, LETTERS, PAGES];
    for (law, checked) in [
        (SHARED, sharing::shared(subject).await?),
        (DURABLE, durable(subject).await?),
        (CRASH, crash::crash(subject).await?),
    ] {
        held.extend(checked.then_some(law));
    }
    Ok(held)
}

/// A store, and the law that it is held to.
struct Bench {
    law: &'static str,
    store: Arc<dyn PacketStore>,
}

impl Bench {
    async fn new(law: &'static str, subject: &dyn Subject) -> Result<Self, Breach> {
        let store = subject.fresh().await.map_err(|reason| Breach::NoStore { reason })?;
        Ok(Self { law, store })
    }

    fn hold(&self, holds: bool, found: impl FnOnce() -> String) -> Outcome {
        if holds { Ok(()) } else { Err(Breach::Law { law: self.law, found: found() }) }
    }

    fn failed(&self) -> impl Fn(StoreError) -> Breach + use<> {
        let law = self.law;
        move |source| Breach::Failed { law, source }
    }

    fn bad(&self) -> impl Fn(BadId) -> Breach + use<> {
        let law = self.law;
        move |e| Breach::Law { law, found: format!("the suite's own identifiers are broken: {e}") }
    }

    fn packet(&self, name: &str) -> Result<PacketId, Breach> {
        PacketId::parse(name).map_err(self.bad())
    }

    fn user(&self, name: &str) -> Result<UserId, Breach> {
        UserId::parse(name).map_err(self.bad())
    }

    fn opener(&self, name: &str, key: Option<&str>) -> Result<Opener, Breach> {
        let idempotency_key = key.map(IdempotencyKey::parse).transpose().map_err(self.bad())?;
        Ok(Opener { user_id: self.user(name)?, idempotency_key })
    }

    fn packing(&self, name: &str, total_fen: u64, count: u32, mode: Mode) -> Result<Packing, Breach> {
        Ok(Packing {
            packet_id: self.packet(name)?,
            activity_id: ActivityId::parse("conformance").map_err(self.bad())?,
            payer: self.user("payer")?,
            terms: Terms { total_fen, count, mode, seed: Seed::new([7; 16]) },
            lasts_ms: 1_000,
        })
    }

    async fn pay(&self, key: &str, amount_fen: u64) -> Result<Deposited, Breach> {
        let idempotency_key = IdempotencyKey::parse(key).map_err(self.bad())?;
        let deposit = Deposit { payer: self.user("payer")?, idempotency_key, amount_fen };
        self.store.deposit(deposit).await.map_err(self.failed())
    }

    async fn balance(&self) -> Result<u64, Breach> {
        let account = self.store.account(self.user("payer")?).await.map_err(self.failed())?;
        Ok(account.map_or(0, |a| a.balance_fen))
    }

    async fn make(&self, packing: Packing, now: u64) -> Result<Created, Breach> {
        self.store.create(packing, Wall(now)).await.map_err(self.failed())
    }

    async fn funded(&self, packing: Packing, now: u64) -> Result<Packet, Breach> {
        match self.make(packing, now).await? {
            Created::Funded(packet) => Ok(packet),
            other => Err(Breach::Law { law: self.law, found: format!("a packet that was paid for gave {other:?}") }),
        }
    }

    async fn open(&self, packet: &str, openers: Vec<Opener>, now: u64) -> Result<Opens, Breach> {
        let many = openers.len();
        let opens = self.store.open(self.packet(packet)?, openers, Wall(now)).await.map_err(self.failed())?;
        self.hold(opens.each.len() == many, || format!("{many} openers, {} answers", opens.each.len()))?;
        Ok(opens)
    }

    async fn one(&self, packet: &str, user: &str, key: Option<&str>, now: u64) -> Result<Opened, Breach> {
        let mut opens = self.open(packet, vec![self.opener(user, key)?], now).await?;
        opens.each.pop().ok_or(Breach::Law { law: self.law, found: "no answer".into() })
    }

    async fn share(&self, packet: &str, user: &str, now: u64) -> Result<Share, Breach> {
        match self.one(packet, user, None, now).await? {
            Opened::Share(share) => Ok(share),
            other => Err(Breach::Law { law: self.law, found: format!("an open packet gave {other:?}") }),
        }
    }

    /// Opens in as many calls at the same time as there are lists of openers; what each got, in no order.
    async fn together(&self, packet: &str, crowds: Vec<Vec<Opener>>) -> Result<Vec<(UserId, Opened)>, Breach> {
        let (mut running, packet) = (JoinSet::new(), self.packet(packet)?);
        for openers in crowds {
            let (store, packet) = (self.store.clone(), packet.clone());
            running.spawn(async move {
                let users: Vec<UserId> = openers.iter().map(|o| o.user_id.clone()).collect();
                store.open(packet, openers, Wall(100)).await.map(|opens| (users, opens.each))
            });
        }
        let mut all = Vec::new();
        while let Some(ended) = running.join_next().await {
            let ended = ended.map_err(|e| Breach::Law { law: self.law, found: format!("an open panicked: {e}") })?;
            let (users, each) = ended.map_err(self.failed())?;
            all.extend(users.into_iter().zip(each));
        }
        Ok(all)
    }

    async fn counted(&self) -> Outcome {
        let report = audit(&*self.store).await.map_err(self.failed())?;
        self.hold(report.differences == 0, || format!("{:?}", report.told))
    }
}

/// I3, accounts: deposits, packets that are paid for and packets that are not.
async fn money(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(MONEY, subject).await?;
    let made = bench.make(bench.packing("early", 10, 1, Mode::Fixed)?, 1).await?;
    bench.hold(made == Created::Unfunded, || format!("a packet out of no account: {made:?}"))?;
    let nothing = bench.pay("k0", 0).await?;
    bench.hold(nothing == Deposited::Refused, || format!("a deposit of nothing: {nothing:?}"))?;
    bench.pay("k1", 600).await?;
    bench.pay("k2", 400).await?;
    let much = bench.pay("k3", u64::MAX).await?;
    bench.hold(much == Deposited::Refused, || format!("more than a ledger can hold: {much:?}"))?;
    let made = bench.make(bench.packing("large", 1_001, 7, Mode::Fixed)?, 1).await?;
    bench.hold(made == Created::Unfunded, || format!("1001 fen out of 1000: {made:?}"))?;
    for (total, count) in [(0, 0), (10, 0), (9, 10)] {
        let made = bench.make(bench.packing("odd", total, count, Mode::Fixed)?, 1).await?;
        bench.hold(made == Created::Refused, || format!("{total} fen for {count}: {made:?}"))?;
    }
    bench.hold(bench.balance().await? == 1_000, || "refused packets cost something".into())?;
    let mut running = JoinSet::new();
    for n in 0..20 {
        let (store, packing) = (bench.store.clone(), bench.packing(&format!("p{n}"), 100, 3, Mode::DoubleMean)?);
        running.spawn(async move { store.create(packing, Wall(1)).await });
    }
    let mut funded = 0;
    while let Some(ended) = running.join_next().await {
        let made = ended.map_err(|e| Breach::Law { law: MONEY, found: format!("a making panicked: {e}") })?;
        funded += u32::from(matches!(made.map_err(bench.failed())?, Created::Funded(_)));
    }
    let balance = bench.balance().await?;
    bench
        .hold((funded, balance) == (10, 0), || format!("1000 fen made {funded} packets of 100, and left {balance}"))?;
    bench.counted().await
}

/// I3, one packet and far more openers than shares, in crowds and alone, all at once.
async fn shares(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(SHARES, subject).await?;
    bench.pay("k", 1_000_000).await?;
    for (name, mode) in [("double", Mode::DoubleMean), ("split", Mode::PreSplit), ("fixed", Mode::Fixed)] {
        let terms = bench.funded(bench.packing(name, 5_003, 50, mode)?, 1).await?.packing.terms;
        let crowd = |from: u32, to: u32| (from..to).map(|u| bench.opener(&format!("u{}", u % 150), None)).collect();
        let crowds = (0..300).step_by(10).map(|n| crowd(n, n + 10)).collect::<Result<Vec<_>, _>>()?;
        let all = bench.together(name, crowds).await?;
        let (mut fen, mut users, mut ranks) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut again = Vec::new();
        for (user, opened) in &all {
            match opened {
                Opened::Share(share) => {
                    fen.push(share.amount_fen);
                    bench.hold(users.insert(user.clone()), || format!("{user} got two shares"))?;
                    bench.hold(share.user_id == *user, || format!("{user} got the share of {}", share.user_id))?;
                    ranks.insert(share.rank);
                }
                Opened::Already(share) => again.push((user, share.user_id.clone())),
                Opened::SoldOut => {}
                other => bench.hold(false, || format!("{mode:?}: {other:?}"))?,
            }
        }
        bench.hold(again.iter().all(|(user, whose)| *user == whose), || "a share of another's".into())?;
        let sum: u64 = fen.iter().sum();
        bench.hold((fen.len(), sum) == (50, 5_003), || format!("{mode:?}: {} shares, {sum} fen", fen.len()))?;
        bench.hold(fen.iter().all(|f| *f >= 1) && ranks.len() == 50, || format!("{mode:?}: {fen:?}, {ranks:?}"))?;
        let packet = bench.store.find(bench.packet(name)?).await.map_err(bench.failed())?;
        let over = packet.as_ref().is_some_and(|p| (p.phase, p.left_fen, p.left_count) == (Phase::Exhausted, 0, 0));
        bench.hold(over, || format!("after the last share: {packet:?}"))?;
        let by_rank = bench.store.shares(bench.packet(name)?, 0, 100).await.map_err(bench.failed())?;
        let told: Vec<u64> = by_rank.iter().map(|s| s.amount_fen).collect();
        let expected: Vec<u64> = terms.shares().collect();
        bench.hold(told == expected, || format!("{mode:?}: {told:?} is not what the seed makes"))?;
    }
    let none = bench.one("nothing", "u1", None, 1).await?;
    bench.hold(none == Opened::NoSuchPacket, || format!("a packet that is not: {none:?}"))?;
    bench.counted().await
}

/// I3, the end of a packet.
async fn refund(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(REFUND, subject).await?;
    bench.pay("k", 1_000).await?;
    for n in 0..5_u64 {
        bench.funded(bench.packing(&format!("p{n}"), 200, 4, Mode::DoubleMean)?, n).await?;
    }
    let spent = bench.share("p0", "u1", 999).await?.amount_fen;
    for n in 0..4 {
        bench.share("p1", &format!("u{n}"), 500).await?;
    }
    let late = bench.one("p0", "u2", None, 1_000).await?;
    bench.hold(late == Opened::Expired, || format!("opened at the very end: {late:?}"))?;
    let mine = bench.one("p0", "u1", None, 1_000).await?;
    bench.hold(matches!(mine, Opened::Already(_)), || format!("who has a share, after the end: {mine:?}"))?;
    let sweep = async |limit, now| bench.store.sweep(limit, Wall(now)).await.map_err(bench.failed());
    let early = sweep(10, 999).await?;
    bench.hold(early.is_empty(), || format!("given back before the end: {early:?}"))?;
    let first = sweep(1, 1_004).await?;
    let refund = first.first().map(|p| (p.id().as_str() == "p0", p.phase, p.refund_fen));
    bench.hold(refund == Some((true, Phase::Refunded, 200 - spent)), || format!("the longest over: {first:?}"))?;
    let mut running = JoinSet::new();
    for _ in 0..6 {
        let store = bench.store.clone();
        running.spawn(async move { store.sweep(10, Wall(1_004)).await });
    }
    let mut swept = Vec::new();
    while let Some(ended) = running.join_next().await {
        let packets = ended.map_err(|e| Breach::Law { law: REFUND, found: format!("a sweep panicked: {e}") })?;
        swept.extend(packets.map_err(bench.failed())?.iter().map(|p| p.id().clone()));
    }
    swept.sort();
    bench
        .hold(swept.iter().map(PacketId::as_str).eq(["p2", "p3", "p4"]), || format!("six sweeps at once: {swept:?}"))?;
    let balance = bench.balance().await?;
    bench.hold(balance == 800 - spent, || format!("{balance} fen came back of {}", 800 - spent))?;
    let after = bench.one("p2", "u9", None, 500).await?;
    bench.hold(after == Opened::Expired, || format!("opened after the refund, on a slow clock: {after:?}"))?;
    bench.counted().await
}

/// I2: names, keys, users.
async fn same(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(SAME, subject).await?;
    let first = bench.pay("k", 1_000).await?;
    let again = bench.pay("k", 1_000).await?;
    let account = match first {
        Deposited::Done(account) => Some(Deposited::Already(account)),
        _ => None,
    };
    bench.hold(account == Some(again), || format!("the same deposit: {first:?}, then {again:?}"))?;
    let other = bench.pay("k", 999).await?;
    bench.hold(other == Deposited::KeyConflict, || format!("the same key, another amount: {other:?}"))?;
    let packet = bench.funded(bench.packing("p", 300, 3, Mode::PreSplit)?, 5).await?;
    let mut again = bench.packing("p", 300, 3, Mode::PreSplit)?;
    again.terms.seed = Seed::new([9; 16]);
    let again = bench.make(again, 50).await?;
    bench.hold(again == Created::Already(packet), || format!("the same packet: {again:?}"))?;
    for changed in [
        bench.packing("p", 301, 3, Mode::PreSplit)?,
        bench.packing("p", 300, 2, Mode::PreSplit)?,
        bench.packing("p", 300, 3, Mode::Fixed)?,
        Packing { payer: bench.user("other")?, ..bench.packing("p", 300, 3, Mode::PreSplit)? },
        Packing { lasts_ms: 2_000, ..bench.packing("p", 300, 3, Mode::PreSplit)? },
    ] {
        let conflict = bench.make(changed, 50).await?;
        bench.hold(conflict == Created::KeyConflict, || format!("the same name, another packet: {conflict:?}"))?;
    }
    bench.hold(bench.balance().await? == 700, || "one packet was paid for more than once".into())?;
    bench.funded(bench.packing("q", 300, 3, Mode::PreSplit)?, 5).await?;
    let share = match bench.one("p", "u", Some("open-1"), 10).await? {
        Opened::Share(share) => share,
        other => return Err(Breach::Law { law: SAME, found: format!("an open packet gave {other:?}") }),
    };
    for key in [Some("open-1"), Some("open-2"), None] {
        let again = bench.one("p", "u", key, 20).await?;
        bench.hold(again == Opened::Already(share.clone()), || format!("opened again: {again:?}"))?;
    }
    let conflict = bench.one("q", "u", Some("open-1"), 20).await?;
    bench.hold(conflict == Opened::KeyConflict, || format!("the same key, another packet: {conflict:?}"))?;
    let theirs = bench.one("q", "v", Some("open-1"), 20).await?;
    bench.hold(matches!(theirs, Opened::Share(_)), || format!("another user's key of that name: {theirs:?}"))?;
    let twice = vec![bench.opener("w", None)?, bench.opener("w", None)?];
    let twice = bench.open("q", twice, 20).await?;
    let right = matches!(twice.each.as_slice(), [Opened::Share(a), Opened::Already(b)] if a.rank == b.rank);
    bench.hold(right, || format!("one user twice in one call: {:?}", twice.each))?;
    bench.counted().await
}

/// I7, pages.
async fn pages(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(PAGES, subject).await?;
    bench.pay("k", 10_000).await?;
    for n in 0..7 {
        bench.funded(bench.packing(&format!("p{n}"), 100, 10, Mode::PreSplit)?, 1).await?;
    }
    for n in 0..10 {
        bench.share("p3", &format!("u{n}"), 2).await?;
    }
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = bench.store.scan(after.clone(), 3).await.map_err(bench.failed())?;
        bench.hold(page.len() <= 3, || format!("{} on a page of 3", page.len()))?;
        let Some(last) = page.last() else { break };
        after = Some(last.id().clone());
        names.extend(page.iter().map(|p| p.id().to_string()));
    }
    bench.hold(names == ["p0", "p1", "p2", "p3", "p4", "p5", "p6"], || format!("{names:?}"))?;
    let mut ranks = Vec::new();
    loop {
        let after = ranks.last().copied().unwrap_or_default();
        let page = bench.store.shares(bench.packet("p3")?, after, 4).await.map_err(bench.failed())?;
        if page.is_empty() {
            break;
        }
        ranks.extend(page.iter().map(|s| s.rank));
    }
    bench.hold(ranks.iter().copied().eq(1..=10), || format!("{ranks:?}"))?;
    bench.share("p5", "u3", 2).await?;
    let mut numbers: Vec<OrderNo> = Vec::new();
    loop {
        let page = bench.store.scan_shares(numbers.last().copied(), 4).await.map_err(bench.failed())?;
        bench.hold(page.len() <= 4, || format!("{} on a page of 4", page.len()))?;
        if page.is_empty() {
            break;
        }
        numbers.extend(page.iter().map(|s| s.order_no));
    }
    let rising = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    bench.hold(numbers.len() == 11 && rising, || format!("11 shares by number: {numbers:?}"))?;
    let none = bench.store.share(bench.packet("p3")?, bench.user("nobody")?).await.map_err(bench.failed())?;
    bench.hold(none.is_none(), || format!("somebody who has none: {none:?}"))?;
    bench.counted().await
}

/// I4: all of it, after the store was opened again. False where this kind of store cannot be.
async fn durable(subject: &dyn Subject) -> Result<bool, Breach> {
    let mut bench = Bench::new(DURABLE, subject).await?;
    bench.pay("k", 1_000).await?;
    bench.funded(bench.packing("p", 600, 30, Mode::DoubleMean)?, 1).await?;
    bench.funded(bench.packing("q", 100, 5, Mode::PreSplit)?, 1).await?;
    for n in 0..20 {
        bench.one("p", &format!("u{n}"), Some(&format!("key-{n}")), 100).await?;
    }
    let leased = bench.store.lease(5, Wall(2_000), Wall(100)).await.map_err(bench.failed())?;
    let word = |s: &Share| Settlement { order_no: s.order_no, attempt: 1, verdict: Verdict::Delivered };
    bench.store.settle(leased.iter().take(3).map(word).collect(), Wall(150)).await.map_err(bench.failed())?;
    let totals = bench.store.totals().await.map_err(bench.failed())?;
    let all = bench.store.shares(bench.packet("p")?, 0, 100).await.map_err(bench.failed())?;
    let Some(reopened) = subject.reopened(bench.store) else { return Ok(false) };
    bench.store = reopened.await.map_err(|reason| Breach::NoStore { reason })?;
    let after = bench.store.totals().await.map_err(bench.failed())?;
    bench.hold(after == totals, || format!("before {totals:?}, after {after:?}"))?;
    let kept = bench.store.shares(bench.packet("p")?, 0, 100).await.map_err(bench.failed())?;
    bench.hold(kept == all, || format!("{} shares before, {} after", all.len(), kept.len()))?;
    let again = bench.one("p", "u7", Some("key-7"), 200).await?;
    bench.hold(matches!(again, Opened::Already(_)), || format!("opened again: {again:?}"))?;
    let conflict = bench.one("q", "u7", Some("key-7"), 200).await?;
    bench.hold(conflict == Opened::KeyConflict, || format!("the same key, another packet: {conflict:?}"))?;
    let again = bench.pay("k", 1_000).await?;
    bench.hold(matches!(again, Deposited::Already(_)), || format!("the same deposit: {again:?}"))?;
    for n in 20..30 {
        bench.share("p", &format!("u{n}"), 300).await?;
    }
    let whole = bench.store.shares(bench.packet("p")?, 0, 100).await.map_err(bench.failed())?;
    let terms = bench.packing("p", 600, 30, Mode::DoubleMean)?.terms;
    bench.hold(whole.iter().map(|s| s.amount_fen).eq(terms.shares()), || "the list is another one".into())?;
    let swept = bench.store.sweep(10, Wall(5_000)).await.map_err(bench.failed())?;
    bench.hold(swept.len() == 1, || format!("one packet was left to give back: {swept:?}"))?;
    bench.counted().await?;
    Ok(true)
}
