//! Packets and shares as rows; the numbers of phases and modes are part of the schema.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::base::clock::Wall;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::ledger::cash::damaged;
use crate::redpacket::model::cash::{Booking, Mode, Packet, Packing, Phase, Seed, Share, Terms};
use crate::redpacket::model::{ActivityId, IdempotencyKey, OrderNo, PacketId, Resolution, Settlement, UserId};
use crate::redpacket::store::postgres::fault::Fault;
use crate::redpacket::store::postgres::line::Sql;
use crate::redpacket::store::postgres::moves::{Queued, Statements, statements};
use crate::redpacket::store::postgres::rows;

/// The columns that [`packet`] reads.
macro_rules! packet_columns {
    () => {
        "packet_id, activity_id, payer, total, count, mode, seed, lasts, phase, left_fen, left_count, refund, created, updated"
    };
}
pub(super) use packet_columns;

/// The columns that [`share`] reads, of `share o LEFT JOIN booking q`.
macro_rules! share_columns {
    () => {
        concat!(
            "o.order_no, o.packet_id, o.user_id, o.idempotency_key, o.rank, o.amount, o.created, ",
            crate::redpacket::store::postgres::rows::booking_columns!()
        )
    };
}
pub(super) use share_columns;

static SHARES: Statements =
    statements!(share_columns, rows: "share", queue: "booking", dead: "dead_share", tally: "till");

/// Fen as a column: no sum of a ledger is more than that holds.
pub(super) fn fen(fen: u64) -> i64 {
    i64::try_from(fen).unwrap_or(i64::MAX)
}

/// A column as fen. The tables allow none below zero.
pub(super) fn paid(column: i64) -> u64 {
    u64::try_from(column).unwrap_or_default()
}

pub(super) const fn mode(mode: Mode) -> i16 {
    match mode {
        Mode::DoubleMean => 0,
        Mode::PreSplit => 1,
        Mode::Fixed => 2,
    }
}

pub(super) const fn phase(phase: Phase) -> i16 {
    match phase {
        Phase::Funded => 0,
        Phase::Open => 1,
        Phase::Exhausted => 2,
        Phase::Expired => 3,
        Phase::Refunded => 4,
    }
}

/// A count as a column: no packet has more shares than that holds.
pub(super) fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The packet in a row.
pub(super) fn packet(row: &Row) -> Result<Packet, Fault> {
    let name: &str = row.try_get(0)?;
    let wrong = || Fault::Damaged(damaged("packet", name));
    let number = |column| -> Result<u64, Fault> { u64::try_from(row.try_get::<_, i64>(column)?).map_err(|_| wrong()) };
    let many = |column| -> Result<u32, Fault> { u32::try_from(row.try_get::<_, i32>(column)?).map_err(|_| wrong()) };
    let (mode_said, phase_said): (i16, i16) = (row.try_get(5)?, row.try_get(8)?);
    let seed: &[u8] = row.try_get(6)?;
    let terms = Terms {
        total_fen: number(3)?,
        count: many(4)?,
        mode: Mode::ALL.into_iter().find(|m| mode(*m) == mode_said).ok_or_else(wrong)?,
        seed: Seed::new(seed.try_into().map_err(|_| wrong())?),
    };
    terms.check().map_err(|_| wrong())?;
    Ok(Packet {
        packing: Packing {
            packet_id: PacketId::parse(name).map_err(|_| wrong())?,
            activity_id: ActivityId::parse(row.try_get(1)?).map_err(|_| wrong())?,
            payer: UserId::parse(row.try_get(2)?).map_err(|_| wrong())?,
            terms,
            lasts_ms: row.try_get::<_, i64>(7)?.cast_unsigned(),
        },
        phase: Phase::ALL.into_iter().find(|p| phase(*p) == phase_said).ok_or_else(wrong)?,
        left_fen: number(9)?,
        left_count: many(10)?,
        refund_fen: number(11)?,
        created: rows::wall(row.try_get(12)?),
        updated: rows::wall(row.try_get(13)?),
    })
}

/// The share in a row.
pub(super) fn share(row: &Row) -> Result<Share, Fault> {
    let order_no = rows::number(row, 0)?;
    let wrong = || Fault::Damaged(StoreError::Damaged { order_no });
    let key: Option<&str> = row.try_get(3)?;
    Ok(Share {
        order_no,
        packet_id: PacketId::parse(row.try_get(1)?).map_err(|_| wrong())?,
        user_id: UserId::parse(row.try_get(2)?).map_err(|_| wrong())?,
        idempotency_key: key.map(IdempotencyKey::parse).transpose().map_err(|_| wrong())?,
        rank: u32::try_from(row.try_get::<_, i32>(4)?).map_err(|_| wrong())?,
        amount_fen: u64::try_from(row.try_get::<_, i64>(5)?).map_err(|_| wrong())?,
        opened: rows::wall(row.try_get(6)?),
        booking: rows::booking(row, order_no, 7)?,
    })
}

impl Queued for Share {
    const LOGGED: bool = false;

    fn statements() -> &'static Statements {
        &SHARES
    }

    fn read(row: &Row) -> Result<Self, Fault> {
        share(row)
    }

    fn order_no(&self) -> OrderNo {
        self.order_no
    }

    fn created(&self) -> Wall {
        self.opened
    }

    fn booking(&self) -> Booking {
        self.booking
    }

    fn settled(&self, word: &Settlement, now: Wall) -> Option<Self> {
        self.booking.settle(word.attempt, word.verdict, now).map(|booking| self.booked(booking))
    }

    fn resolved(&self, resolution: Resolution, now: Wall) -> Option<Self> {
        self.booking.resolve(resolution, now).map(|booking| self.booked(booking))
    }
}
