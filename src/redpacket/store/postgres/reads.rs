//! What is only read: one order, the dead letters, and all orders page by page.

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use super::rows::{self, ORDER_COLUMNS, order_columns};
use crate::redpacket::model::{Attempt, Order, OrderNo, Trail};

static FIND: Sql = Sql {
    text: concat!(
        "SELECT ",
        order_columns!(),
        " FROM orders o LEFT JOIN outbox q USING (order_no) WHERE o.order_no = $1"
    ),
    types: &[Type::BYTEA],
};

static DEAD: Sql = Sql {
    text: concat!(
        "SELECT ",
        order_columns!(),
        " FROM (SELECT order_no, died FROM dead ORDER BY died, order_no LIMIT $1) d \
         JOIN orders o USING (order_no) LEFT JOIN outbox q USING (order_no) ORDER BY d.died, d.order_no"
    ),
    types: &[Type::INT8],
};

/// One statement, so that a page is of one moment.
static SCAN: Sql = Sql {
    text: concat!(
        "SELECT ",
        order_columns!(),
        ", l.attempts, l.times, l.results FROM \
         (SELECT * FROM orders WHERE order_no > $1 ORDER BY order_no LIMIT $2) o LEFT JOIN outbox q USING (order_no), \
         LATERAL (SELECT array_agg(attempt ORDER BY attempt) AS attempts, array_agg(at ORDER BY attempt) AS times, \
         array_agg(result ORDER BY attempt) AS results FROM delivery_log g WHERE g.order_no = o.order_no) l \
         ORDER BY o.order_no"
    ),
    types: &[Type::BYTEA, Type::INT8],
};

/// One order by its number.
pub(super) struct Find(pub(super) OrderNo);

impl Errand for Find {
    type Out = Option<Order>;

    async fn run(&self, line: &Line) -> Result<Option<Order>, Fault> {
        let rows = line.ask(&FIND, &[&self.0.bytes().as_slice()]).await?;
        rows.first().map(rows::order).transpose()
    }
}

/// Dead letters, at most so many.
pub(super) struct Dead(pub(super) usize);

impl Errand for Dead {
    type Out = Vec<Order>;

    async fn run(&self, line: &Line) -> Result<Vec<Order>, Fault> {
        let limit = i64::try_from(self.0).unwrap_or(i64::MAX);
        line.ask(&DEAD, &[&limit]).await?.iter().map(rows::order).collect()
    }
}

/// A page of all orders.
pub(super) struct Scan {
    pub(super) after: Option<OrderNo>,
    pub(super) limit: usize,
}

impl Errand for Scan {
    type Out = Vec<Trail>;

    async fn run(&self, line: &Line) -> Result<Vec<Trail>, Fault> {
        // Shorter than any number, so before all of them.
        let after: &[u8] = self.after.as_ref().map_or(&[], |no| no.bytes());
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let rows = line.ask(&SCAN, &[&after, &limit]).await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            let attempts: Option<Vec<i64>> = row.try_get(ORDER_COLUMNS)?;
            let times: Option<Vec<i64>> = row.try_get(ORDER_COLUMNS + 1)?;
            let results: Option<Vec<i16>> = row.try_get(ORDER_COLUMNS + 2)?;
            let words = attempts.into_iter().flatten().zip(times.into_iter().flatten());
            let words = words.zip(results.into_iter().flatten()).map(|((attempt, at), result)| Attempt {
                attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
                at: rows::wall(at),
                failure: rows::failed(result),
            });
            page.push(Trail { order: rows::order(row)?, attempts: words.collect() });
        }
        Ok(page)
    }
}
