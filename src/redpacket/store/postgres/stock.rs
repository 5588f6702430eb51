//! Stock in buckets, and the sums.
//!
//! A gift's stock is split so that writers take from different rows. What is left is spread evenly over the buckets each
//! time that the total changes; a writer whose bucket is empty takes from another.

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use super::rows;
use crate::redpacket::ledger::{Stats, Stock, share};
use crate::redpacket::model::{GiftId, State};

/// Buckets of a gift: as many as writers are likely to meet there.
pub(super) const BUCKETS: u32 = 8;

static KNOWN: Sql = Sql { text: "SELECT total FROM gift WHERE gift_id = $1", types: &[Type::TEXT] };

static INTRODUCE: Sql =
    Sql { text: "INSERT INTO gift (gift_id, total) VALUES ($1, 0) ON CONFLICT DO NOTHING", types: &[Type::TEXT] };

static LOCK: Sql = Sql { text: "SELECT FROM gift WHERE gift_id = $1 FOR UPDATE", types: &[Type::TEXT] };

static ISSUED: Sql =
    Sql { text: "SELECT idx, issued FROM bucket WHERE gift_id = $1 ORDER BY idx FOR UPDATE", types: &[Type::TEXT] };

/// Before the gift, as whoever holds the store anew takes the fence before the buckets.
static EPOCH: Sql = Sql { text: "SELECT epoch FROM fence FOR SHARE", types: &[] };

static TOTAL: Sql = Sql { text: "UPDATE gift SET total = $2 WHERE gift_id = $1", types: &[Type::TEXT, Type::INT8] };

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
           stock AS (SELECT g.gift_id, g.total, sum(b.issued)::bigint AS issued \
             FROM gift g JOIN bucket b USING (gift_id) GROUP BY g.gift_id, g.total) \
           SELECT t.*, oldest.*, stock.* FROM t CROSS JOIN oldest LEFT JOIN stock ON true ORDER BY stock.gift_id",
    types: &[],
};

/// Sets a gift's total.
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
        let epoch = line.ask(&EPOCH, &[]).await?.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
        let epoch = epoch.ok_or_else(|| Fault::Refused("the fence is gone".into()))?;
        line.ask(&INTRODUCE, &[&gift]).await?;
        line.ask(&LOCK, &[&gift]).await?;
        let issued: Vec<(i16, i64)> = line
            .ask(&ISSUED, &[&gift])
            .await?
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, Fault>>()?;
        let (buckets, quotas): (Vec<i16>, Vec<i64>) = spread(&issued, total).into_iter().unzip();
        line.ask(&TOTAL, &[&gift, &total]).await?;
        line.ask(&SPREAD, &[&gift, &buckets, &quotas, &epoch]).await?;
        line.say("COMMIT").await
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
            let count = |column| -> Result<u64, Fault> {
                Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
            };
            stock.push((gift, Stock { total: count(8)?, issued: count(9)? }));
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
