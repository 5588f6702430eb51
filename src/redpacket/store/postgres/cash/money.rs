//! Money that comes in, and packets that are made of it.
//!
//! Rows are locked in one order everywhere: accounts, packets, shares and their queue, the till. Two who do the same thing at
//! the same moment meet at the name of it: the second finds nothing inserted, undoes what it did, and looks again.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::first;
use super::rows::{self, fen, packet_columns, paid};
use super::till::{Change, counted, counted_types};
use crate::base::clock::Wall;
use crate::redpacket::ledger::cash::{Account, Created, Deposit, Deposited, MAX_PAID_FEN, Making, judge_create};
use crate::redpacket::model::UserId;
use crate::redpacket::model::cash::{Packet, Packing, Phase};
use crate::redpacket::store::postgres::fault::Fault;
use crate::redpacket::store::postgres::line::{Line, Sql};
use crate::redpacket::store::postgres::pool::Errand;
use crate::redpacket::store::postgres::rows::at;

/// A deposit from which on no other is made meanwhile, so that the ledger's bound holds to the fen: 2.8 trillion yuan. Ours.
const LARGE_FEN: u64 = 1 << 48;
/// The sum from which on every deposit is large.
const NEAR_FEN: u64 = 1 << 62;

/// The advisory lock's key: `deposit` in ASCII. Deposits share it; a large one has it alone.
static SHARED: Sql = Sql { text: "SELECT pg_advisory_xact_lock_shared(28259031251642740)", types: &[] };

static ALONE: Sql = Sql { text: "SELECT pg_advisory_xact_lock(28259031251642740)", types: &[] };

static ACCOUNT: Sql = Sql { text: "SELECT deposited, balance FROM account WHERE payer = $1", types: &[Type::TEXT] };

static KNOWN: Sql = Sql {
    text: "SELECT (SELECT amount FROM deposit WHERE payer = $1 AND idempotency_key = $2), \
             (SELECT sum(deposited_fen)::bigint FROM till)",
    types: &[Type::TEXT, Type::TEXT],
};

static DEPOSIT: Sql = Sql {
    text: counted!(
        "WITH made AS ( \
           INSERT INTO deposit (payer, idempotency_key, amount) VALUES ($13, $14, $15) ON CONFLICT DO NOTHING RETURNING payer, amount \
         ), paid AS ( \
           INSERT INTO account AS a (payer, deposited, balance) SELECT payer, amount, amount FROM made \
           ON CONFLICT (payer) DO UPDATE SET deposited = a.deposited + excluded.deposited, \
             balance = a.balance + excluded.balance \
           RETURNING a.deposited, a.balance \
         )",
        "SELECT * FROM paid",
        "m.deposited, m.balance"
    ),
    types: counted_types![Type::TEXT, Type::TEXT, Type::INT8],
};

static LOCK_ACCOUNT: Sql =
    Sql { text: "SELECT balance FROM account WHERE payer = $1 FOR NO KEY UPDATE", types: &[Type::TEXT] };

static UNDER_NAME: Sql =
    Sql { text: concat!("SELECT ", packet_columns!(), " FROM packet WHERE packet_id = $1"), types: &[Type::TEXT] };

static CREATE: Sql = Sql {
    text: counted!(
        "WITH paid AS ( \
           UPDATE account SET balance = balance - $16 WHERE payer = $15 \
         ), made AS ( \
           INSERT INTO packet (packet_id, activity_id, payer, total, count, mode, seed, lasts, phase, left_fen, left_count, \
             refund, ends, created, updated) \
           VALUES ($13, $14, $15, $16, $17, $18, $19, $20, 0, $16, $17, 0, $21, $22, $22) \
           ON CONFLICT DO NOTHING RETURNING packet_id \
         )",
        "SELECT packet_id FROM made",
        "m.packet_id"
    ),
    types: counted_types![
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::INT4,
        Type::INT2,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT8,
    ],
};

fn account(row: &Row) -> Result<Account, Fault> {
    Ok(Account { deposited_fen: paid(row.try_get(0)?), balance_fen: paid(row.try_get(1)?) })
}

/// One account.
pub(super) struct Look(pub(super) UserId);

impl Errand for Look {
    type Out = Option<Account>;

    async fn run(&self, line: &Line) -> Result<Option<Account>, Fault> {
        line.ask(&ACCOUNT, &[&self.0.as_str()]).await?.first().map(account).transpose()
    }
}

/// Money from outside.
pub(super) struct Pay(pub(super) Deposit);

impl Errand for Pay {
    type Out = Deposited;

    async fn run(&self, line: &Line) -> Result<Deposited, Fault> {
        let large = self.0.amount_fen >= LARGE_FEN;
        match self.pay(line, large).await? {
            Some(deposited) => Ok(deposited),
            // Near the end of what a ledger can hold: again, and nobody else meanwhile.
            None => Ok(self.pay(line, true).await?.unwrap_or(Deposited::Refused)),
        }
    }
}

impl Pay {
    /// Nothing where it must be done alone, and was not.
    async fn pay(&self, line: &Line, alone: bool) -> Result<Option<Deposited>, Fault> {
        let Deposit { payer, idempotency_key, amount_fen } = &self.0;
        let (payer, key) = (payer.as_str(), idempotency_key.as_str());
        line.say("BEGIN").await?;
        line.ask(if alone { &ALONE } else { &SHARED }, &[]).await?;
        let known = line.ask(&KNOWN, &[&payer, &key]).await?;
        let known = first(&known)?;
        let sum = paid(known.try_get::<_, Option<i64>>(1)?.unwrap_or_default());
        let known = known.try_get::<_, Option<i64>>(0)?.map(paid);
        let stands = if known.is_some_and(|known| known == *amount_fen) {
            let account = line.ask(&ACCOUNT, &[&payer]).await?.first().map(account).transpose()?;
            Some(Deposited::Already(account.unwrap_or_default()))
        } else if known.is_some() {
            Some(Deposited::KeyConflict)
        } else if *amount_fen == 0 || sum.saturating_add(*amount_fen) > MAX_PAID_FEN {
            Some(Deposited::Refused)
        } else {
            None
        };
        if stands.is_some() || (sum >= NEAR_FEN && !alone) {
            line.say("ROLLBACK").await?;
            return Ok(stands);
        }
        let amount = fen(*amount_fen);
        let change = Change { deposited: amount, balances: amount, ..Change::default() };
        let rows = line.ask(&DEPOSIT, &change.params(&line.slot, &[&payer, &key, &amount])).await?;
        let account = account(first(&rows)?)?;
        line.say("COMMIT").await?;
        Ok(Some(Deposited::Done(account)))
    }
}

/// A packet that somebody wants.
pub(super) struct Make {
    pub(super) packing: Packing,
    pub(super) now: Wall,
}

impl Errand for Make {
    type Out = Created;

    async fn run(&self, line: &Line) -> Result<Created, Fault> {
        let (name, payer) = (self.packing.packet_id.as_str(), self.packing.payer.as_str());
        line.say("BEGIN").await?;
        let balance = line.ask(&LOCK_ACCOUNT, &[&payer]).await?;
        let balance = balance.first().map(|row| row.try_get(0).map(paid)).transpose()?.unwrap_or_default();
        let under_name = line.ask(&UNDER_NAME, &[&name]).await?.first().map(rows::packet).transpose()?;
        let packet = match judge_create(&self.packing, under_name.as_ref(), balance, self.now) {
            Making::Fund(packet) => packet,
            Making::Stand(created) => {
                line.say("ROLLBACK").await?;
                return Ok(created);
            }
        };
        write(line, &packet).await?;
        line.say("COMMIT").await?;
        Ok(Created::Funded(packet))
    }
}

async fn write(line: &Line, packet: &Packet) -> Result<(), Fault> {
    let Packing { packet_id, activity_id, payer, terms, lasts_ms } = &packet.packing;
    let (name, activity, payer) = (packet_id.as_str(), activity_id.as_str(), payer.as_str());
    let (total, count, mode) = (fen(terms.total_fen), rows::count(terms.count), rows::mode(terms.mode));
    let (seed, lasts) = (terms.seed.bytes().as_slice(), lasts_ms.cast_signed());
    let (ends, created) = (at(packet.expires()), at(packet.created));
    let mut change = Change { balances: -total, left: total, ..Change::default() };
    change.packets(Phase::Funded, 1);
    let more: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
        [&name, &activity, &payer, &total, &count, &mode, &seed, &lasts, &ends, &created];
    let made = line.ask(&CREATE, &change.params(&line.slot, &more)).await?;
    first(&made).map(drop)
}
