//! Packets that are opened, and what is given back of them: the packet's row is locked, everything is decided on what was
//! committed before that, and one statement writes all of it.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};

use super::first;
use super::rows::{self, fen, packet_columns};
use super::till::{Change, counted, counted_types};
use crate::base::clock::Wall;
use crate::redpacket::ledger::cash::{OPENERS, Opened, Opener, Opening, Opens, judge_open};
use crate::redpacket::model::cash::{Packet, Share};
use crate::redpacket::model::{IdempotencyKey, OrderNo, PacketId, UserId};
use crate::redpacket::store::postgres::fault::Fault;
use crate::redpacket::store::postgres::line::{Line, Sql};
use crate::redpacket::store::postgres::moves::Queued;
use crate::redpacket::store::postgres::pool::Errand;
use crate::redpacket::store::postgres::rows::{at, limit};

static LOCK: Sql = Sql {
    text: concat!("SELECT ", packet_columns!(), " FROM packet WHERE packet_id = $1 FOR NO KEY UPDATE"),
    types: &[Type::TEXT],
};

static BY_KEY: Sql = Sql {
    text: "SELECT o.user_id, o.idempotency_key, o.packet_id FROM unnest($1::text[], $2::text[]) AS k(user_id, key) \
           JOIN share o ON o.user_id = k.user_id COLLATE \"C\" AND o.idempotency_key = k.key COLLATE \"C\"",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

/// Shares in the order of their keys, where two packets' openers may meet.
static OPEN: Sql = Sql {
    text: counted!(
        "WITH made AS ( \
           INSERT INTO share (order_no, packet_id, user_id, idempotency_key, rank, amount, created, due, updated) \
           SELECT order_no, $13, user_id, idempotency_key, rank, amount, $14, $14, $14 \
           FROM unnest($15::bytea[], $16::text[], $17::text[], $18::integer[], $19::bigint[]) \
             AS w(order_no, user_id, idempotency_key, rank, amount) ORDER BY user_id, idempotency_key \
           ON CONFLICT DO NOTHING RETURNING order_no \
         ), queued AS ( \
           INSERT INTO booking (order_no, due, created, updated) SELECT order_no, $14, $14, $14 FROM made \
         ), left_over AS ( \
           UPDATE packet SET phase = $20, left_fen = $21, left_count = $22, updated = $14 WHERE packet_id = $13 \
         )",
        "SELECT count(*) AS n FROM made",
        "m.n"
    ),
    types: counted_types![
        Type::TEXT,
        Type::INT8,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2,
        Type::INT8,
        Type::INT4,
    ],
};

static OVER: Sql = Sql {
    text: concat!(
        "SELECT ",
        packet_columns!(),
        " FROM packet WHERE phase < 2 AND ends <= $1 ORDER BY ends, packet_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED"
    ),
    types: &[Type::INT8, Type::INT8],
};

static LOCK_ACCOUNTS: Sql = Sql {
    text: "SELECT FROM account WHERE payer = ANY($1) ORDER BY payer FOR NO KEY UPDATE",
    types: &[Type::TEXT_ARRAY],
};

static REFUND: Sql = Sql {
    text: counted!(
        "WITH w AS MATERIALIZED ( \
           SELECT * FROM unnest($13::text[], $14::text[], $15::bigint[]) AS w(packet_id, payer, refund) \
         ), back AS ( \
           UPDATE packet p SET phase = 4, left_fen = 0, refund = w.refund, updated = $16 FROM w \
           WHERE p.packet_id = w.packet_id COLLATE \"C\" \
         ), paid AS ( \
           UPDATE account a SET balance = a.balance + n.fen \
           FROM (SELECT payer, sum(refund)::bigint AS fen FROM w GROUP BY payer) n WHERE a.payer = n.payer COLLATE \"C\" \
         )",
        "SELECT count(*) AS n FROM w",
        "m.n"
    ),
    types: counted_types![Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::INT8],
};

/// Those who open one packet.
pub(super) struct Open {
    pub(super) packet_id: PacketId,
    pub(super) openers: Vec<Opener>,
    pub(super) now: Wall,
}

impl Errand for Open {
    type Out = Opens;

    async fn run(&self, line: &Line) -> Result<Opens, Fault> {
        let openers = self.openers.get(..OPENERS).unwrap_or(&self.openers);
        line.say("BEGIN").await?;
        let before = line.ask(&LOCK, &[&self.packet_id.as_str()]).await?;
        let Some(before) = before.first().map(rows::packet).transpose()? else {
            line.say("ROLLBACK").await?;
            let each = openers.iter().map(|_| Opened::NoSuchPacket).collect();
            return Ok(Opens { packet: None, each });
        };
        let mut known = Known::read(line, &before, openers).await?;
        let (mut packet, mut made, mut each) = (before.clone(), Vec::new(), Vec::with_capacity(openers.len()));
        for opener in openers {
            each.push(match known.judge(opener, &packet, self.now) {
                Opening::Stand(opened) => opened,
                Opening::Take(left, share) => {
                    packet = left;
                    known.learn(&share);
                    made.push(share.clone());
                    Opened::Share(share)
                }
            });
        }
        if made.is_empty() {
            line.say("ROLLBACK").await?;
        } else {
            write(line, &before, &packet, &made, self.now).await?;
            line.say("COMMIT").await?;
        }
        Ok(Opens { packet: Some(packet), each })
    }
}

/// What the openers of a packet have already.
struct Known {
    shares: HashMap<OrderNo, Share>,
    keys: HashMap<(UserId, IdempotencyKey), PacketId>,
}

impl Known {
    /// Reads it, after the packet's lock is held: a statement sees what was committed before it began.
    async fn read(line: &Line, packet: &Packet, openers: &[Opener]) -> Result<Self, Fault> {
        let numbers: Vec<OrderNo> = openers.iter().map(|opener| packet.number(&opener.user_id)).collect();
        let numbers: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        let found = line.ask(&Share::statements().read, &[&numbers]).await?;
        let shares = found.iter().map(|row| rows::share(row).map(|s| (s.order_no, s))).collect::<Result<_, _>>()?;
        let named = openers.iter().filter_map(|o| Some((o.user_id.as_str(), o.idempotency_key.as_ref()?.as_str())));
        let (users, named): (Vec<&str>, Vec<&str>) = named.unzip();
        let mut keys = HashMap::new();
        if !named.is_empty() {
            for row in line.ask(&BY_KEY, &[&users, &named]).await? {
                let (user, key) = (UserId::parse(row.try_get(0)?), IdempotencyKey::parse(row.try_get(1)?));
                if let (Ok(user), Ok(key), Ok(packet)) = (user, key, PacketId::parse(row.try_get(2)?)) {
                    keys.insert((user, key), packet);
                }
            }
        }
        Ok(Self { shares, keys })
    }

    fn judge(&self, opener: &Opener, packet: &Packet, now: Wall) -> Opening {
        let under_key = opener.idempotency_key.clone().and_then(|key| self.keys.get(&(opener.user_id.clone(), key)));
        judge_open(opener, packet, self.shares.get(&packet.number(&opener.user_id)), under_key, now)
    }

    fn learn(&mut self, share: &Share) {
        if let Some(key) = &share.idempotency_key {
            self.keys.insert((share.user_id.clone(), key.clone()), share.packet_id.clone());
        }
        self.shares.insert(share.order_no, share.clone());
    }
}

async fn write(line: &Line, before: &Packet, after: &Packet, made: &[Share], now: Wall) -> Result<(), Fault> {
    let (name, now) = (before.id().as_str(), at(now));
    let numbers: Vec<&[u8]> = made.iter().map(|s| s.order_no.bytes().as_slice()).collect();
    let users: Vec<&str> = made.iter().map(|s| s.user_id.as_str()).collect();
    let keys: Vec<Option<&str>> = made.iter().map(|s| s.idempotency_key.as_ref().map(IdempotencyKey::as_str)).collect();
    let ranks: Vec<i32> = made.iter().map(|s| rows::count(s.rank)).collect();
    let amounts: Vec<i64> = made.iter().map(|s| fen(s.amount_fen)).collect();
    let (phase, left_fen, left_count) = (rows::phase(after.phase), fen(after.left_fen), rows::count(after.left_count));
    let opened = fen(before.left_fen.saturating_sub(after.left_fen));
    let shares = i64::try_from(made.len()).unwrap_or(i64::MAX);
    let mut change = Change { left: -opened, opened, accepted: shares, ..Change::default() };
    change.packets(before.phase, -1);
    change.packets(after.phase, 1);
    let more: [&(dyn ToSql + Sync); 10] =
        [&name, &now, &numbers, &users, &keys, &ranks, &amounts, &phase, &left_fen, &left_count];
    let rows = line.ask(&OPEN, &change.params(&line.slot, &more)).await?;
    if first(&rows)?.try_get::<_, i64>(0)? == shares {
        Ok(())
    } else {
        Err(Fault::Undone("an opener's key opened another packet meanwhile".into()))
    }
}

/// What is left of packets whose time is over.
pub(super) struct Sweep {
    pub(super) limit: usize,
    pub(super) now: Wall,
}

impl Errand for Sweep {
    type Out = Vec<Packet>;

    /// Whoever holds a packet's row at the moment is opening it: the next sweep has it. After a commit whose outcome was not
    /// known, what that gave back is not found again, and not told.
    async fn run(&self, line: &Line) -> Result<Vec<Packet>, Fault> {
        line.say("BEGIN").await?;
        let over = line.ask(&OVER, &[&at(self.now), &limit(self.limit)]).await?;
        let mut change = Change::default();
        let mut swept = Vec::with_capacity(over.len());
        for row in &over {
            let before = rows::packet(row);
            let after = before.as_ref().ok().and_then(|before| Some((before.phase, before.refund(self.now)?)));
            let Some((phase, after)) = after else {
                // It must not block the others.
                tracing::error!(?before, "a packet that is over cannot be given back");
                continue;
            };
            let refund = fen(after.refund_fen);
            change.balances += refund;
            change.left -= refund;
            change.refunded += refund;
            change.packets(phase, -1);
            change.packets(after.phase, 1);
            swept.push(after);
        }
        if swept.is_empty() {
            line.say("ROLLBACK").await?;
            return Ok(swept);
        }
        let names: Vec<&str> = swept.iter().map(|p| p.id().as_str()).collect();
        let payers: Vec<&str> = swept.iter().map(|p| p.packing.payer.as_str()).collect();
        let refunds: Vec<i64> = swept.iter().map(|p| fen(p.refund_fen)).collect();
        line.ask(&LOCK_ACCOUNTS, &[&payers]).await?;
        let now = at(self.now);
        line.ask(&REFUND, &change.params(&line.slot, &[&names, &payers, &refunds, &now])).await?;
        line.say("COMMIT").await?;
        Ok(swept)
    }
}
