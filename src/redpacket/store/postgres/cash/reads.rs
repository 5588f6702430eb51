//! What is only read: packets and shares, one by one and page by page.

use tokio_postgres::types::Type;

use super::first;
use super::rows::{self, packet_columns, share_columns};
use crate::redpacket::model::cash::{Packet, Share};
use crate::redpacket::model::{OrderNo, PacketId, UserId};
use crate::redpacket::store::postgres::fault::Fault;
use crate::redpacket::store::postgres::line::{Line, Sql};
use crate::redpacket::store::postgres::moves::Queued;
use crate::redpacket::store::postgres::pool::Errand;
use crate::redpacket::store::postgres::rows::limit;

static FIND: Sql =
    Sql { text: concat!("SELECT ", packet_columns!(), " FROM packet WHERE packet_id = $1"), types: &[Type::TEXT] };

static SHARES: Sql = Sql {
    text: concat!(
        "SELECT ",
        share_columns!(),
        " FROM (SELECT * FROM share WHERE packet_id = $1 AND rank > $2 ORDER BY rank LIMIT $3) o \
         LEFT JOIN booking q USING (order_no) ORDER BY o.rank"
    ),
    types: &[Type::TEXT, Type::INT4, Type::INT8],
};

static SCAN: Sql = Sql {
    text: concat!("SELECT ", packet_columns!(), " FROM packet WHERE packet_id > $1 ORDER BY packet_id LIMIT $2"),
    types: &[Type::TEXT, Type::INT8],
};

/// One statement, so that a page is of one moment.
static SCAN_SHARES: Sql = Sql {
    text: concat!(
        "SELECT ",
        share_columns!(),
        " FROM (SELECT * FROM share WHERE order_no > $1 ORDER BY order_no LIMIT $2) o \
         LEFT JOIN booking q USING (order_no) ORDER BY o.order_no"
    ),
    types: &[Type::BYTEA, Type::INT8],
};

static GRAB_KEY: Sql = Sql { text: "SELECT key FROM grab_key", types: &[] };

/// One packet by its name.
pub(super) struct Find(pub(super) PacketId);

impl Errand for Find {
    type Out = Option<Packet>;

    async fn run(&self, line: &Line) -> Result<Option<Packet>, Fault> {
        line.ask(&FIND, &[&self.0.as_str()]).await?.first().map(rows::packet).transpose()
    }
}

/// A user's share of a packet.
pub(super) struct Mine {
    pub(super) packet_id: PacketId,
    pub(super) user_id: UserId,
}

impl Errand for Mine {
    type Out = Option<Share>;

    async fn run(&self, line: &Line) -> Result<Option<Share>, Fault> {
        // The number is made of the packet's activity as well.
        let Some(packet) = Find(self.packet_id.clone()).run(line).await? else { return Ok(None) };
        let number = packet.number(&self.user_id);
        let number = number.bytes().as_slice();
        let found = line.ask(&Share::statements().read, &[&vec![number]]).await?;
        let share = found.first().map(rows::share).transpose()?;
        Ok(share.filter(|s| s.user_id == self.user_id && s.packet_id == self.packet_id))
    }
}

/// A page of a packet's shares.
pub(super) struct Shares {
    pub(super) packet_id: PacketId,
    pub(super) after: u32,
    pub(super) limit: usize,
}

impl Errand for Shares {
    type Out = Vec<Share>;

    async fn run(&self, line: &Line) -> Result<Vec<Share>, Fault> {
        let (name, after) = (self.packet_id.as_str(), rows::count(self.after));
        line.ask(&SHARES, &[&name, &after, &limit(self.limit)]).await?.iter().map(rows::share).collect()
    }
}

/// A page of all packets.
pub(super) struct Scan {
    pub(super) after: Option<PacketId>,
    pub(super) limit: usize,
}

impl Errand for Scan {
    type Out = Vec<Packet>;

    async fn run(&self, line: &Line) -> Result<Vec<Packet>, Fault> {
        // No name is empty.
        let after = self.after.as_ref().map_or("", PacketId::as_str);
        line.ask(&SCAN, &[&after, &limit(self.limit)]).await?.iter().map(rows::packet).collect()
    }
}

/// A page of all shares.
pub(super) struct ScanShares {
    pub(super) after: Option<OrderNo>,
    pub(super) limit: usize,
}

impl Errand for ScanShares {
    type Out = Vec<Share>;

    async fn run(&self, line: &Line) -> Result<Vec<Share>, Fault> {
        // Shorter than any number, so before all of them.
        let after: &[u8] = self.after.as_ref().map_or(&[], |no| no.bytes());
        line.ask(&SCAN_SHARES, &[&after, &limit(self.limit)]).await?.iter().map(rows::share).collect()
    }
}

/// What all processes on this database sign grabs with.
pub(super) struct GrabKey;

impl Errand for GrabKey {
    type Out = [u8; 32];

    async fn run(&self, line: &Line) -> Result<[u8; 32], Fault> {
        let rows = line.ask(&GRAB_KEY, &[]).await?;
        let key: &[u8] = first(&rows)?.try_get(0)?;
        key.try_into().map_err(|_| Fault::Refused("the key of grabs is not 32 bytes long".into()))
    }
}
