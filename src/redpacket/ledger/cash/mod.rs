//! The ledger of cash: what every store of accounts, packets and shares must do, whatever it keeps them in.
//!
//! [`PacketStore`] is the trait, its laws stand beside it, [`conformance`] checks them on any implementation, [`judge_create`]
//! and [`judge_open`] are the decisions that all of them make, [`CashBook`] is the whole thing as a plain value, and [`audit`]
//! counts every fen of a store at rest.

use serde::{Deserialize, Serialize};

use super::{Answer, StoreError};
use crate::base::clock::Wall;
use crate::redpacket::model::cash::{Closed, Packet, Packing, Phase, Share};
use crate::redpacket::model::{
    Code, IdempotencyKey, OrderNo, PacketId, Resolution, Settled, Settlement, State, UserId,
};

pub mod audit;
pub(in crate::redpacket) mod book;
pub mod conformance;

pub use book::CashBook;

/// Openers of one packet in one call, at most: what a line gathers for one commit (RED_PACKET 2.7).
pub const OPENERS: usize = 256;
/// All that a ledger may ever have been paid, in fen. Ours: sums fit in 64 bits with a sign, in every engine.
pub const MAX_PAID_FEN: u64 = i64::MAX.cast_unsigned();

/// Keeps accounts, packets, shares and what is to be booked. The laws (RED_PACKET 2.4), which [`conformance`] checks:
///
/// - **I3** Of every packet: at most `count` shares, each of at least a fen, no two of one user; at every commit shares +
///   rest + refund = total. Over all: deposits = balances + rests + shares. A refund happens once, and only after the end.
/// - **I2** The same packet again is the packet that was made, the same opener gets the share that they have, the same deposit
///   counts once; the same name or key with another body is a conflict. None of them moves a fen.
/// - **I4** When [`PacketStore::create`], [`PacketStore::open`] or [`PacketStore::deposit`] has answered, all that it says is
///   durable, in one commit: the debit with the packet, the share with its place in the queue for booking. An error means
///   that nothing was done, except [`StoreError::Unknown`].
/// - **I5** A booking is in at most one worker's lease at a time, is leased again when that ends without a word, and leaves
///   the queue for good once it is delivered, or until a person says otherwise once it is dead. Late words change nothing but
///   for the better.
/// - **I7** [`PacketStore::totals`] adds up, [`PacketStore::scan_shares`] shows every share, and [`audit`] finds nothing.
///
/// A store may be one process's own or a server that many share: then all of this holds for all of them together, and a
/// handle sees at once what another's commit wrote. A store that cannot tell whether its commit went through tries again
/// under the same names, and answers what stands, or [`StoreError::Unknown`].
///
/// No method blocks the caller's thread on IO or waits without a bound: a store with too much to do refuses with
/// [`StoreError::Overloaded`]. Time comes in as an argument; so does all chance, as the seed of a packet.
pub trait PacketStore: Send + Sync {
    /// What it is, for logs: `redb`, `memory`, `postgres`.
    fn name(&self) -> &'static str;

    /// Puts money into an account, which begins with that.
    fn deposit(&self, deposit: Deposit) -> Answer<'_, Deposited>;

    /// The account of `payer`.
    fn account(&self, payer: UserId) -> Answer<'_, Option<Account>>;

    /// Makes the packet that `packing` asks for out of its payer's balance, or finds the one that it made before. Terms that
    /// [`Terms::check`](crate::redpacket::model::cash::Terms::check) refuses are the caller's fault, and [`Created::Refused`].
    fn create(&self, packing: Packing, now: Wall) -> Answer<'_, Created>;

    /// Opens a packet for up to [`OPENERS`] at once, in order, each as if alone and all in one commit. More are cut off.
    fn open(&self, packet_id: PacketId, openers: Vec<Opener>, now: Wall) -> Answer<'_, Opens>;

    /// The packet of this name.
    fn find(&self, packet_id: PacketId) -> Answer<'_, Option<Packet>>;

    /// The share that `user_id` has of a packet.
    fn share(&self, packet_id: PacketId, user_id: UserId) -> Answer<'_, Option<Share>>;

    /// Up to `limit` shares of a packet by rank, from the first after `after` (0: from the beginning).
    fn shares(&self, packet_id: PacketId, after: u32, limit: usize) -> Answer<'_, Vec<Share>>;

    /// Gives back what is left of up to `limit` packets whose time is over, the longest over first. Gives those packets.
    fn sweep(&self, limit: usize, now: Wall) -> Answer<'_, Vec<Packet>>;

    /// Takes up to `limit` shares whose booking is due, the longest due first, until `until`.
    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Share>>;

    /// Takes workers' words, in order; each gets its answer.
    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>>;

    /// Dead letters: up to `limit` shares whose booking was given up, the longest dead first.
    fn dead(&self, limit: usize) -> Answer<'_, Vec<Share>>;

    /// Takes a person's word on dead letters, in order; each gets its answer. Those that are not dead are left alone.
    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>>;

    /// Up to `limit` shares of all packets by number, from the first after `after`: for reconciliation, page by page. A page
    /// is of one moment, two pages are not.
    fn scan_shares(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Share>>;

    /// Up to `limit` packets by name, from the first after `after`: for audits, page by page.
    fn scan(&self, after: Option<PacketId>, limit: usize) -> Answer<'_, Vec<Packet>>;

    /// What is in it. Asked about once a second: its cost must not grow with what is done.
    fn totals(&self) -> Answer<'_, Totals>;

    /// Whether packets can be opened now, as far as is known. Cheap; for health checks.
    fn writable(&self) -> bool;
}

/// Money that comes in from outside: somebody has paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    /// Whose account.
    pub payer: UserId,
    /// The payment's own number: the same is the same money.
    pub idempotency_key: IdempotencyKey,
    /// How much, in fen.
    pub amount_fen: u64,
}

/// An account: money that was paid in and is in no packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// All that was ever paid in, in fen.
    pub deposited_fen: u64,
    /// What may be put into packets, in fen.
    pub balance_fen: u64,
}

/// What came of a deposit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deposited {
    /// It counts.
    Done(Account),
    /// It counted before.
    Already(Account),
    /// The key belongs to a different amount.
    KeyConflict,
    /// More than a ledger can hold, or nothing at all.
    Refused,
}

/// What came of making a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// A new packet, paid for.
    Funded(Packet),
    /// The same packet, made before.
    Already(Packet),
    /// The name belongs to a different packet.
    KeyConflict,
    /// The account has less than that.
    Unfunded,
    /// Its terms make no packet.
    Refused,
}

impl Created {
    /// The code that a client gets for it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Funded(_) | Self::Already(_) => Code::Ok,
            Self::KeyConflict => Code::KeyConflict,
            Self::Unfunded => Code::Unfunded,
            Self::Refused => Code::BadRequest,
        }
    }
}

/// Somebody who opens a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Who.
    pub user_id: UserId,
    /// Their own key for this; the same key never opens two packets.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// What came of opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A new share.
    Share(Share),
    /// The share that they have already.
    Already(Share),
    /// Nothing is left.
    SoldOut,
    /// Its time is over.
    Expired,
    /// The key belongs to another packet.
    KeyConflict,
    /// There is no such packet.
    NoSuchPacket,
}

impl Opened {
    /// The code that a client gets for it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Share(_) => Code::Ok,
            Self::Already(_) => Code::AlreadyClaimed,
            Self::SoldOut => Code::SoldOut,
            Self::Expired => Code::Expired,
            Self::KeyConflict => Code::KeyConflict,
            Self::NoSuchPacket => Code::NotFound,
        }
    }
}

impl From<Closed> for Opened {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::SoldOut => Self::SoldOut,
            Closed::Expired => Self::Expired,
        }
    }
}

/// What came of opening a packet for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opens {
    /// The packet after all of them; nothing where there is none.
    pub packet: Option<Packet>,
    /// What each got, in their order.
    pub each: Vec<Opened>,
}

/// The decision about making a packet, before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Making {
    /// Debit the account and write this.
    Fund(Packet),
    /// Answer with what stands.
    Stand(Created),
}

/// Rules on `packing`, given the packet of that name and what its payer has.
pub fn judge_create(packing: &Packing, under_name: Option<&Packet>, balance_fen: u64, now: Wall) -> Making {
    if let Some(packet) = under_name {
        let (old, new) = (&packet.packing, packing);
        // The seed is ours and drawn anew for every call: it does not belong to what was asked for.
        let same = (&old.activity_id, &old.payer, old.lasts_ms) == (&new.activity_id, &new.payer, new.lasts_ms)
            && (old.terms.total_fen, old.terms.count, old.terms.mode)
                == (new.terms.total_fen, new.terms.count, new.terms.mode);
        let stands = if same { Created::Already(packet.clone()) } else { Created::KeyConflict };
        return Making::Stand(stands);
    }
    if packing.terms.check().is_err() {
        Making::Stand(Created::Refused)
    } else if balance_fen < packing.terms.total_fen {
        Making::Stand(Created::Unfunded)
    } else {
        Making::Fund(Packet::fund(packing.clone(), now))
    }
}

/// The decision about one opener, before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Write both.
    Take(Packet, Share),
    /// Answer with this; nothing changes.
    Stand(Opened),
}

/// Rules on `opener` of `packet`, given the share under their number and the packet under their key.
pub fn judge_open(
    opener: &Opener,
    packet: &Packet,
    under_number: Option<&Share>,
    under_key: Option<&PacketId>,
    now: Wall,
) -> Opening {
    if under_key.is_some_and(|other| other != packet.id()) {
        return Opening::Stand(Opened::KeyConflict);
    }
    if let Some(share) = under_number {
        // Anything else under that number is a collision of the hash.
        let theirs = share.user_id == opener.user_id && share.packet_id == *packet.id();
        return Opening::Stand(if theirs { Opened::Already(share.clone()) } else { Opened::KeyConflict });
    }
    match packet.open(&opener.user_id, opener.idempotency_key.clone(), now) {
        Ok((packet, share)) => Opening::Take(packet, share),
        Err(closed) => Opening::Stand(closed.into()),
    }
}

/// What a store holds, in sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All that was ever paid in, in fen.
    pub deposited_fen: u64,
    /// What is in accounts.
    pub balances_fen: u64,
    /// What is in packets and nobody's yet.
    pub left_fen: u64,
    /// What openers have got.
    pub opened_fen: u64,
    /// What went back to payers; a part of the balances, or of packets made of it since.
    pub refunded_fen: u64,
    /// Packets by phase, those that there are.
    pub packets: Vec<(Phase, u64)>,
    /// Shares by the state of their booking, those that there are.
    pub shares: Vec<(State, u64)>,
    /// When the oldest share was opened whose booking is still open.
    pub oldest_open: Option<Wall>,
}

impl Totals {
    /// Whether no fen is missing and none too many.
    pub fn add_up(&self) -> bool {
        let parts = [self.balances_fen, self.left_fen, self.opened_fen].map(u128::from);
        u128::from(self.deposited_fen) == parts.iter().sum::<u128>()
    }

    /// Packets in `phase`.
    pub fn packets_in(&self, phase: Phase) -> u64 {
        self.packets.iter().find(|(p, _)| *p == phase).map_or(0, |(_, n)| *n)
    }

    /// Shares whose booking is in `state`.
    pub fn shares_in(&self, state: State) -> u64 {
        self.shares.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n)
    }

    /// All shares.
    pub fn all_shares(&self) -> u64 {
        self.shares.iter().map(|(_, n)| n).sum()
    }
}

/// The error for a record that is not what was written.
pub(in crate::redpacket) fn damaged(what: &str, name: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable { reason: format!("the record of {what} {name} is damaged") }
}
