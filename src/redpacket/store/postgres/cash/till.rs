//! The sums: what a transaction adds to them, written by the statement that does the rest, and what they come to.

use tokio_postgres::types::ToSql;

use super::rows::{paid, phase};
use crate::redpacket::ledger::cash::Totals;
use crate::redpacket::model::State;
use crate::redpacket::model::cash::Phase;
use crate::redpacket::store::postgres::fault::Fault;
use crate::redpacket::store::postgres::line::{Line, Sql};
use crate::redpacket::store::postgres::pool::Errand;
use crate::redpacket::store::postgres::rows;

/// The end of a statement: adds the first twelve parameters (a [`Change`] and the slot) to the till, after `$from` has
/// done its part. The till comes last, so that nobody holds a row of it while they wait for another.
macro_rules! counted {
    ($before:expr, $from:literal, $gives:literal) => {
        concat!(
            $before,
            " UPDATE till t SET deposited_fen = t.deposited_fen + $1, balances_fen = t.balances_fen + $2, \
             left_fen = t.left_fen + $3, opened_fen = t.opened_fen + $4, refunded_fen = t.refunded_fen + $5, \
             funded = t.funded + $6, open = t.open + $7, exhausted = t.exhausted + $8, expired = t.expired + $9, \
             refunded = t.refunded + $10, accepted = t.accepted + $11 FROM (",
            $from,
            ") m WHERE t.slot = $12 RETURNING ",
            $gives
        )
    };
}
pub(super) use counted;

/// The types of these parameters, and of those that follow.
macro_rules! counted_types {
    ($($more:expr),* $(,)?) => {
        &[
            Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8,
            Type::INT8, Type::INT8, Type::INT2, $($more),*
        ]
    };
}
pub(super) use counted_types;

/// What a transaction changes in the sums.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) deposited: i64,
    pub(super) balances: i64,
    pub(super) left: i64,
    pub(super) opened: i64,
    pub(super) refunded: i64,
    /// By phase: how many more packets.
    pub(super) phases: [i64; Phase::ALL.len()],
    /// How many more shares that nobody has tried to book.
    pub(super) accepted: i64,
}

impl Change {
    /// `by` more packets are in `of`.
    pub(super) fn packets(&mut self, of: Phase, by: i64) {
        if let Some(sum) = usize::try_from(phase(of)).ok().and_then(|at| self.phases.get_mut(at)) {
            *sum += by;
        }
    }

    /// The first parameters of a statement that counts, and those that follow.
    pub(super) fn params<'a>(&'a self, slot: &'a i16, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let Self { deposited, balances, left, opened, refunded, phases, accepted } = self;
        let mut all: Vec<&(dyn ToSql + Sync)> = vec![deposited, balances, left, opened, refunded];
        all.extend(phases.iter().map(|n| n as &(dyn ToSql + Sync)));
        all.extend_from_slice(&[accepted, slot]);
        all.extend_from_slice(more);
        all
    }
}

/// One statement, so that all sums are of one moment.
static TOTALS: Sql = Sql {
    text: "WITH t AS (SELECT sum(deposited_fen)::bigint, sum(balances_fen)::bigint, sum(left_fen)::bigint, \
             sum(opened_fen)::bigint, sum(refunded_fen)::bigint, sum(funded)::bigint, sum(open)::bigint, \
             sum(exhausted)::bigint, sum(expired)::bigint, sum(refunded)::bigint, sum(accepted)::bigint, \
             sum(delivering)::bigint, sum(retry_wait)::bigint, sum(delivered)::bigint, sum(dead)::bigint, \
             sum(compensated)::bigint FROM till), \
           oldest AS (SELECT min(created) FROM booking) SELECT t.*, oldest.* FROM t CROSS JOIN oldest",
    types: &[],
};

/// Reads the sums.
pub(super) struct Sums;

impl Errand for Sums {
    type Out = Totals;

    async fn run(&self, line: &Line) -> Result<Totals, Fault> {
        let rows = line.ask(&TOTALS, &[]).await?;
        let row = rows.first().ok_or_else(|| Fault::Refused("the till is empty".into()))?;
        let sum =
            |column| -> Result<u64, Fault> { Ok(paid(row.try_get::<_, Option<i64>>(column)?.unwrap_or_default())) };
        let mut totals = Totals {
            deposited_fen: sum(0)?,
            balances_fen: sum(1)?,
            left_fen: sum(2)?,
            opened_fen: sum(3)?,
            refunded_fen: sum(4)?,
            oldest_open: row.try_get::<_, Option<i64>>(16)?.map(rows::wall),
            ..Totals::default()
        };
        for (of, column) in Phase::ALL.into_iter().zip(5..) {
            let count = sum(column)?;
            totals.packets.extend((count > 0).then_some((of, count)));
        }
        for (of, column) in State::ALL.into_iter().zip(10..) {
            let count = sum(column)?;
            totals.shares.extend((count > 0).then_some((of, count)));
        }
        Ok(totals)
    }
}
