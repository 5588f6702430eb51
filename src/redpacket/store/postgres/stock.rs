//! Stock in buckets, and the sums.
//!
//! A gift's stock is split so that writers take from different rows. What is left is spread evenly over the buckets each
//! time that the total changes; a writer whose bucket is empty takes from another.

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use super::rows;
use crate::redpacket::ledger::transfer::Share;
use crate::redpacket::ledger::{Stats, Stock, share};
use crate::redpacket::model::{GiftId, State};

/// Buckets of a gift: as many as writers are likely to meet there.
pub(super) const BUCKETS: u32 = 8;

static KNOWN: Sql = Sql { text: "SELECT total FROM gift WHERE gift_id = $1", types: &[Type::TEXT] };

static INTRODUCE: Sql =
    Sql { text: "INSERT INTO gift (gift_id, total) VALUES ($1, 0) ON CONFLICT DO NOTHING", types: &[Type::TEXT] };

static LOCK: Sql =
    Sql { text: "SELECT total, taken, given FROM gift WHERE gift_id = $1 FOR UPDATE", types: &[Type::TEXT] };

static ISSUED: Sql =
    Sql { text: "SELECT idx, issued FROM bucket WHERE gift_id = $1 ORDER BY idx FOR UPDATE", types: &[Type::TEXT] };

/// Before the gift, as whoever holds the store anew takes the fence before the buckets.
static EPOCH: Sql = Sql { text: "SELECT epoch FROM fence FOR SHARE", types: &[] };

static TOTAL: Sql = Sql {
    text: "UPDATE gift SET total = $2, taken = $3, given = $4 WHERE gift_id = $1",
    types: &[Type::TEXT, Type::INT8, Type::INT8, Type::INT8],
};

static SPREAD: Sql = Sql {
    text: "INSERT INTO bucket (gift_id, idx, quota, epoch) \
           SELECT $1, s.*, $4 FROM unnest($2::smallint[], $3::bigint[]) AS s \
           ON CONFLICT (gift_id, idx) DO UPDATE SET quota = excluded.quota",
    types: &[Type::TEXT, Type::INT2_ARRAY, Type::INT8_ARRAY, Type::INT8],
};

/// One statement, so that all sums are of one moment.
static STATS: Sql = Sql {
    text: "WITH t AS (SELECT sum(accepted)::bigint, sum(delivering)::bigint, sum(retry_wait)::bigint, \
             sum(delivered)::bigint, sum(dead)::bigint, sum(compensated)::bigint FROM tally), \
           oldest AS (SELECT min(created) FROM outbox), \
           stock AS (SELECT g.gift_id, greatest(g.total + g.taken - g.given, 0) AS total, \
             sum(b.issued)::bigint AS issued FROM gift g JOIN bucket b USING (gift_id) GROUP BY g.gift_id) \
           SELECT t.*, oldest.*, stock.* FROM t CROSS JOIN oldest LEFT JOIN stock ON true ORDER BY stock.gift_id",
    types: &[],
};

/// Sets what the configuration gives of a gift.
pub(super) struct Provision {
    pub(super) gift: GiftId,
    pub(super) total: u64,
}

impl Errand for Provision {
    type Out = ();

    async fn run(&self, line: &Line) -> Result<(), Fault> {
        let (gift, total) = (self.gift.as_str(), i64::try_from(self.total).unwrap_or(i64::MAX));
        // Every process says at its start what most of the time is so already: that takes no lock.
        let known = line.ask(&KNOWN, &[&gift]).await?.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
        if known == Some(total) && total > 0 {
            return Ok(());
        }
        line.say("BEGIN").await?;
        let mut pile = Pile::lock(line, gift).await?;
        pile.share.base = self.total;
        pile.put(line).await?;
        line.say("COMMIT").await
    }
}

/// A gift's stock, locked until the transaction ends.
pub(super) struct Pile<'a> {
    gift: &'a str,
    epoch: i64,
    pub(super) share: Share,
    issued: Vec<(i16, i64)>,
}

impl<'a> Pile<'a> {
    /// Locks it, and makes it where there is none.
    pub(super) async fn lock(line: &Line, gift: &'a str) -> Result<Self, Fault> {
        let epoch = line.ask(&EPOCH, &[]).await?.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
        let epoch = epoch.ok_or_else(|| Fault::Refused("the fence is gone".into()))?;
        line.ask(&INTRODUCE, &[&gift]).await?;
        let rows = line.ask(&LOCK, &[&gift]).await?;
        let row = rows.first().ok_or_else(|| Fault::Refused("the gift is gone".into()))?;
        let share = Share { base: rows::count(row, 0)?, taken: rows::count(row, 1)?, given: rows::count(row, 2)? };
        let rows = line.ask(&ISSUED, &[&gift]).await?;
        let issued = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Fault>>()?;
        Ok(Self { gift, epoch, share, issued })
    }

    /// What is left of it.
    pub(super) fn left(&self) -> u64 {
        let issued = self.issued.iter().map(|(_, n)| u64::try_from(*n).unwrap_or_default()).sum();
        Stock { total: self.share.total(), issued }.left()
    }

    /// Writes what changed, and spreads what is left.
    pub(super) async fn put(&self, line: &Line) -> Result<(), Fault> {
        let Share { base, taken, given } = self.share;
        let [base, taken, given, total] =
            [base, taken, given, self.share.total()].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let (buckets, quotas): (Vec<i16>, Vec<i64>) = spread(&self.issued, total).into_iter().unzip();
        line.ask(&TOTAL, &[&self.gift, &base, &taken, &given]).await?;
        line.ask(&SPREAD, &[&self.gift, &buckets, &quotas, &self.epoch]).await?;
        Ok(())
    }
}

/// The quota of each bucket: what it gave, and its part of what is left.
fn spread(issued: &[(i16, i64)], total: i64) -> Vec<(i16, i64)> {
    let given = |idx: i16| issued.iter().find(|(i, _)| *i == idx).map_or(0, |(_, n)| *n);
    let left = u64::try_from(total.saturating_sub(issued.iter().map(|(_, n)| n).sum())).unwrap_or_default();
    let part = |idx: u32| i64::try_from(share(left, idx, BUCKETS)).unwrap_or(i64::MAX);
    (0..BUCKETS).map(|idx| (idx as i16, given(idx as i16).saturating_add(part(idx)))).collect()
}

/// Reads the sums.
pub(super) struct Sums;

impl Errand for Sums {
    type Out = Stats;

    async fn run(&self, line: &Line) -> Result<Stats, Fault> {
        let rows = line.ask(&STATS, &[]).await?;
        let first = rows.first().ok_or_else(|| Fault::Refused("the tally is empty".into()))?;
        let mut counts = [0; 6];
        for (column, count) in counts.iter_mut().enumerate() {
            *count = u64::try_from(first.try_get::<_, Option<i64>>(column)?.unwrap_or_default()).unwrap_or_default();
        }
        let oldest = first.try_get::<_, Option<i64>>(6)?.map(rows::wall);
        let mut stock = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some(gift) = row.try_get::<_, Option<&str>>(7)?.and_then(|text| GiftId::parse(text).ok()) else {
                continue;
            };
            stock.push((gift, Stock { total: rows::count(row, 8)?, issued: rows::count(row, 9)? }));
        }
        let count = |state: State| {
            usize::try_from(rows::state(state)).ok().and_then(|at| counts.get(at)).copied().unwrap_or_default()
        };
        Ok(Stats::counting(count, oldest, stock))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// I1: the quotas add up to the total, and no bucket has given more than its own.
        #[test]
        fn buckets_add_up(given in prop::collection::vec(0i64..1_000, 8), total in 0i64..20_000) {
            let issued: Vec<(i16, i64)> = (0i16..).zip(given.iter().copied()).collect();
            let all: i64 = given.iter().sum();
            let quotas = spread(&issued, total);
            prop_assert_eq!(quotas.iter().map(|(_, q)| q).sum::<i64>(), total.max(all));
            prop_assert!(quotas.iter().zip(&given).all(|((_, quota), given)| quota >= given));
        }
    }
}
