//! Counts every fen of a store: each packet's shares, its rest and its refund against its total, and all of them against
//! the store's own sums. For the ends of drills and tests; what it finds is what a person must look at.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Account, PacketStore, Totals};
use crate::redpacket::ledger::StoreError;
use crate::redpacket::model::cash::{Packet, Phase};
use crate::redpacket::model::{PacketId, UserId};

/// Packets or shares that are read at once.
const PAGE: usize = 512;
/// Differences that are told; more are counted.
const TOLD: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Packets read.
    pub packets: u64,
    /// Shares read.
    pub shares: u64,
    /// What all shares come to, in fen.
    pub shares_fen: u64,
    /// How many things do not add up.
    pub differences: u64,
    /// The first hundred of them, in words.
    pub told: Vec<String>,
}

impl Report {
    /// This and another, of two stores.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.packets = self.packets.saturating_add(other.packets);
        self.shares = self.shares.saturating_add(other.shares);
        self.shares_fen = self.shares_fen.saturating_add(other.shares_fen);
        self.differences = self.differences.saturating_add(other.differences);
        self.told.extend(other.told);
        self.told.truncate(TOLD);
        self
    }

    fn expect(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.differences += 1;
            if self.told.len() < TOLD {
                self.told.push(words());
            }
        }
    }
}

/// Counts `store`, which must be at rest: pages are of different moments, and a share that comes in between is a
/// difference.
///
/// # Errors
/// The store cannot be read.
pub async fn audit(store: &dyn PacketStore) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let mut payers: HashSet<UserId> = HashSet::new();
    let (mut left, mut refunded, mut phases) = (0_u64, 0_u64, [0_u64; Phase::ALL.len()]);
    let mut after: Option<PacketId> = None;
    loop {
        let page = store.scan(after.clone(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id().clone());
        for packet in &page {
            count(store, packet, &mut report).await?;
            left = left.saturating_add(packet.left_fen);
            refunded = refunded.saturating_add(packet.refund_fen);
            payers.insert(packet.packing.payer.clone());
            for (phase, n) in Phase::ALL.into_iter().zip(&mut phases) {
                *n += u64::from(phase == packet.phase);
            }
        }
    }
    let totals = store.totals().await?;
    sums(&totals, (left, refunded, phases), &mut report);
    for payer in payers {
        let account = store.account(payer.clone()).await?.unwrap_or_default();
        let Account { deposited_fen, balance_fen } = account;
        report.expect(balance_fen <= deposited_fen, || {
            format!("account {payer} has {balance_fen} fen of {deposited_fen} that were paid in")
        });
    }
    Ok(report)
}

async fn count(store: &dyn PacketStore, packet: &Packet, report: &mut Report) -> Result<(), StoreError> {
    let (id, terms) = (packet.id(), packet.packing.terms);
    let (mut users, mut sum, mut rank) = (HashSet::new(), 0_u64, 0);
    loop {
        let page = store.shares(id.clone(), rank, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for share in page {
            report.expect(share.rank == rank + 1, || format!("packet {id}: rank {} follows {rank}", share.rank));
            rank = share.rank.max(rank + 1);
            sum = sum.saturating_add(share.amount_fen);
            report.expect(share.amount_fen >= 1, || format!("packet {id}: share {rank} is nothing"));
            let (user, number) = (share.user_id, share.order_no);
            report.expect(number == packet.number(&user), || format!("packet {id}: share {rank} has a strange number"));
            report.expect(users.insert(user.clone()), || format!("packet {id}: {user} has two shares"));
        }
    }
    report.packets += 1;
    report.shares += users.len() as u64;
    report.shares_fen = report.shares_fen.saturating_add(sum);
    let whole = sum.saturating_add(packet.left_fen).saturating_add(packet.refund_fen);
    report.expect(whole == terms.total_fen, || {
        let Packet { left_fen, refund_fen, .. } = packet;
        format!("packet {id}: {sum} opened + {left_fen} left + {refund_fen} back is not {}", terms.total_fen)
    });
    let opened = packet.opened_count();
    report
        .expect(users.len() as u64 == u64::from(opened), || format!("packet {id}: {} of {opened} shares", users.len()));
    Ok(())
}

fn sums(totals: &Totals, (left, refunded, phases): (u64, u64, [u64; Phase::ALL.len()]), report: &mut Report) {
    report.expect(totals.add_up(), || format!("the sums do not add up: {totals:?}"));
    let (fen, shares) = (report.shares_fen, report.shares);
    for (what, counted, said) in [
        ("fen opened", fen, totals.opened_fen),
        ("fen left", left, totals.left_fen),
        ("fen given back", refunded, totals.refunded_fen),
        ("shares", shares, totals.all_shares()),
    ] {
        report.expect(counted == said, || format!("{counted} {what} were counted, the sums say {said}"));
    }
    for (phase, counted) in Phase::ALL.into_iter().zip(phases) {
        let said = totals.packets_in(phase);
        report.expect(counted == said, || format!("{counted} packets are {}, the sums say {said}", phase.as_str()));
    }
}
