//! Stock that comes from other homes and goes to them: the numbers of the transfers, kept with the stock in one transaction.
//!
//! Whoever moves a gift's stock locks the fence (as a reader), the gift and its buckets, in the order of everybody else. Tried
//! again after a lost connection, an errand finds its own number and says what it said.

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use super::rows;
use super::stock::Pile;
use crate::redpacket::ledger::transfer::{self, Giving, Latest, Transfer};
use crate::redpacket::model::GiftId;

/// Directions; part of the schema.
const GIVEN: i16 = 0;
const TAKEN: i16 = 1;

static LATEST: Sql = Sql {
    text: "SELECT number, amount FROM transfer WHERE way = $1 AND home = $2 AND gift_id = $3",
    types: &[Type::INT2, Type::TEXT, Type::TEXT],
};

static NOTE: Sql = Sql {
    text: "INSERT INTO transfer (way, home, gift_id, number, amount) VALUES ($1, $2, $3, $4, $5) \
           ON CONFLICT (way, home, gift_id) DO UPDATE SET number = excluded.number, amount = excluded.amount",
    types: &[Type::INT2, Type::TEXT, Type::TEXT, Type::INT8, Type::INT8],
};

async fn latest(line: &Line, way: i16, home: &str, gift: &GiftId) -> Result<Latest, Fault> {
    let rows = line.ask(&LATEST, &[&way, &home, &gift.as_str()]).await?;
    let Some(row) = rows.first() else { return Ok(Latest::default()) };
    Ok(Latest { number: rows::count(row, 0)?, amount: rows::count(row, 1)? })
}

async fn note(line: &Line, way: i16, transfer: &Transfer, amount: u64) -> Result<(), Fault> {
    let column = |n| i64::try_from(n).map_err(|_| Fault::Refused("no such transfer can be kept".into()));
    let (number, amount) = (column(transfer.number)?, column(amount)?);
    line.ask(&NOTE, &[&way, &transfer.with, &transfer.gift.as_str(), &number, &amount]).await?;
    Ok(())
}

/// Takes stock off for another home.
pub(super) struct Give {
    pub(super) to: Transfer,
    pub(super) most: u64,
}

impl Errand for Give {
    type Out = Option<u64>;

    async fn run(&self, line: &Line) -> Result<Option<u64>, Fault> {
        let Transfer { with, gift, number } = &self.to;
        line.say("BEGIN").await?;
        let mut pile = Pile::lock(line, gift.as_str()).await?;
        let given = match transfer::give(latest(line, GIVEN, with, gift).await?, *number, self.most, pile.left()) {
            Giving::New(amount) => {
                note(line, GIVEN, &self.to, amount).await?;
                pile.share.given = pile.share.given.saturating_add(amount);
                pile.put(line).await?;
                Some(amount)
            }
            Giving::Again(amount) => Some(amount),
            Giving::Nothing => Some(0),
            Giving::Stale => None,
        };
        // Where nothing was given, a gift that nobody knew stays unknown.
        line.say(if matches!(given, Some(1..)) { "COMMIT" } else { "ROLLBACK" }).await?;
        Ok(given)
    }
}

/// Adds what another home gave.
pub(super) struct Take {
    pub(super) from: Transfer,
    pub(super) amount: u64,
}

impl Errand for Take {
    type Out = bool;

    async fn run(&self, line: &Line) -> Result<bool, Fault> {
        let Transfer { with, gift, number } = &self.from;
        line.say("BEGIN").await?;
        let mut pile = Pile::lock(line, gift.as_str()).await?;
        let is_new = transfer::take(latest(line, TAKEN, with, gift).await?, *number);
        if is_new {
            note(line, TAKEN, &self.from, self.amount).await?;
            pile.share.taken = pile.share.taken.saturating_add(self.amount);
            pile.put(line).await?;
        }
        line.say(if is_new { "COMMIT" } else { "ROLLBACK" }).await?;
        Ok(is_new)
    }
}

/// Reads the number of the next transfer from a home.
pub(super) struct Turn {
    pub(super) home: String,
    pub(super) gift: GiftId,
}

impl Errand for Turn {
    type Out = u64;

    async fn run(&self, line: &Line) -> Result<u64, Fault> {
        Ok(latest(line, TAKEN, &self.home, &self.gift).await?.number + 1)
    }
}
