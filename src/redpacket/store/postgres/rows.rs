//! Orders as rows: where an order is open, what moves stands in the outbox, and its own row is from when it was accepted.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::Sql;
use super::moves::{Queued, Statements, statements};
use crate::base::clock::Wall;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::model::cash::Booking;
use crate::redpacket::model::{
    ActivityId, Claim, Failure, GiftId, IdempotencyKey, Order, OrderNo, PacketId, Resolution, RoleId, Settlement,
    State, UserId, ZoneId,
};

/// The columns that [`booking`] reads, of what is delivered (`o`) and its queue (`q`).
macro_rules! booking_columns {
    () => {
        "coalesce(q.state, o.state), coalesce(q.attempts, o.attempts), coalesce(q.spent, o.spent), \
         coalesce(q.due, o.due), CASE WHEN q.order_no IS NULL THEN o.failure ELSE q.failure END, \
         coalesce(q.updated, o.updated)"
    };
}
pub(super) use booking_columns;

/// The columns that [`order`] reads, of `orders o LEFT JOIN outbox q`.
macro_rules! order_columns {
    () => {
        concat!(
            "o.order_no, o.activity_id, o.packet_id, o.user_id, o.gift_id, o.zone_id, o.role_id, o.idempotency_key, \
             o.created, ",
            crate::redpacket::store::postgres::rows::booking_columns!()
        )
    };
}
pub(super) use order_columns;

/// How many columns these are.
pub(super) const ORDER_COLUMNS: usize = 15;

/// A time as a column; what lies past the year 292 million is its end.
pub(super) fn at(wall: Wall) -> i64 {
    i64::try_from(wall.0).unwrap_or(i64::MAX)
}

/// A column as a time.
pub(super) fn wall(at: i64) -> Wall {
    Wall(u64::try_from(at).unwrap_or_default())
}

/// How many rows at most, as a parameter.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A column as a number of things; below zero there are none.
pub(super) fn count(row: &Row, column: usize) -> Result<u64, Fault> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
}

/// A column as a state.
pub(super) fn stood(column: i16) -> Option<State> {
    State::ALL.into_iter().find(|s| state(*s) == column)
}

/// A state as a column; part of the schema.
pub(super) const fn state(state: State) -> i16 {
    match state {
        State::Accepted => 0,
        State::Delivering => 1,
        State::RetryWait => 2,
        State::Delivered => 3,
        State::Dead => 4,
        State::Compensated => 5,
    }
}

/// A failure as a column; part of the schema, and 0 is none.
pub(super) const fn failure(failure: Failure) -> i16 {
    match failure {
        Failure::Unreachable => 1,
        Failure::Timeout => 2,
        Failure::Unavailable => 3,
        Failure::Garbage => 4,
        Failure::Refused => 5,
    }
}

/// A column as a failure. What a newer release wrote was a failure all the same.
pub(super) fn failed(column: i16) -> Option<Failure> {
    let known = Failure::ALL.iter().find(|f| failure(**f) == column).copied();
    (column != 0).then(|| known.unwrap_or(Failure::Garbage))
}

/// The number in a column.
pub(super) fn number(row: &Row, column: usize) -> Result<OrderNo, Fault> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes = bytes.try_into().map_err(|_| Fault::Refused("an order number is not 17 bytes long".into()))?;
    Ok(OrderNo::from_bytes(bytes))
}

/// How far the delivery of `order_no` is, out of six columns from `at` on.
pub(super) fn booking(row: &Row, order_no: OrderNo, at: usize) -> Result<Booking, Fault> {
    let damaged = || Fault::Damaged(StoreError::Damaged { order_no });
    let count = |column| -> Result<u32, Fault> { u32::try_from(row.try_get::<_, i64>(column)?).map_err(|_| damaged()) };
    Ok(Booking {
        state: stood(row.try_get(at)?).ok_or_else(damaged)?,
        attempts: count(at + 1)?,
        spent: count(at + 2)?,
        due: wall(row.try_get(at + 3)?),
        failure: row.try_get::<_, Option<i16>>(at + 4)?.and_then(failed),
        updated: wall(row.try_get(at + 5)?),
    })
}

/// The order in a row.
pub(super) fn order(row: &Row) -> Result<Order, Fault> {
    let order_no = number(row, 0)?;
    let damaged = || Fault::Damaged(StoreError::Damaged { order_no });
    let text = |column| row.try_get::<_, &str>(column).map_err(|_| damaged());
    let key: Option<&str> = row.try_get(7)?;
    let claim = Claim {
        activity_id: ActivityId::parse(text(1)?).map_err(|_| damaged())?,
        packet_id: PacketId::parse(text(2)?).map_err(|_| damaged())?,
        user_id: UserId::parse(text(3)?).map_err(|_| damaged())?,
        gift_id: GiftId::parse(text(4)?).map_err(|_| damaged())?,
        zone_id: ZoneId::parse(text(5)?).map_err(|_| damaged())?,
        role_id: RoleId::parse(text(6)?).map_err(|_| damaged())?,
        idempotency_key: key.map(IdempotencyKey::parse).transpose().map_err(|_| damaged())?,
    };
    if claim.number() != order_no {
        return Err(damaged());
    }
    let created = wall(row.try_get(8)?);
    let Booking { state, attempts, spent, due, failure, updated } = booking(row, order_no, 9)?;
    Ok(Order { order_no, claim, state, attempts, spent, due, failure, created, updated })
}

static ORDERS: Statements = statements!(
    order_columns,
    rows: "orders", queue: "outbox", dead: "dead", tally: "tally", log: "delivery_log"
);

impl Queued for Order {
    const LOGGED: bool = true;

    fn statements() -> &'static Statements {
        &ORDERS
    }

    fn read(row: &Row) -> Result<Self, Fault> {
        order(row)
    }

    fn order_no(&self) -> OrderNo {
        self.order_no
    }

    fn created(&self) -> Wall {
        self.created
    }

    fn booking(&self) -> Booking {
        self.booking()
    }

    fn settled(&self, word: &Settlement, now: Wall) -> Option<Self> {
        self.settle(word.attempt, word.verdict, now)
    }

    fn resolved(&self, resolution: Resolution, now: Wall) -> Option<Self> {
        self.resolve(resolution, now)
    }
}
