//! What is only read: one order, and all orders page by page.

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
        let limit = rows::limit(self.limit);
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
