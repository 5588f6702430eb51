//! Under which epoch of the homes' file this handle decides, and for whom; and how the database is made to remember it.
//!
//! The epoch stands in the fence's one row, and once more beside every stock. Who holds the store anew locks the fence,
//! then every bucket; a claim locks the buckets that it takes from, and reads the epoch there: so a claim is committed
//! before the new holder, or sees it. Nothing is locked that was not before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use crate::config::homes::Sets;
use crate::redpacket::ledger::{Fenced, Hold, fence};

static LOCK: Sql = Sql { text: "SELECT epoch, sets FROM fence FOR UPDATE", types: &[] };

static WRITE: Sql = Sql { text: "UPDATE fence SET epoch = $1, sets = $2", types: &[Type::INT8, Type::INT8_ARRAY] };

/// In the order in which claims lock them.
static STAMP: Sql = Sql {
    text: "WITH locked AS MATERIALIZED ( \
             SELECT gift_id, idx FROM bucket ORDER BY gift_id, idx FOR NO KEY UPDATE \
           ) UPDATE bucket b SET epoch = $1 FROM locked l WHERE b.gift_id = l.gift_id AND b.idx = l.idx",
    types: &[Type::INT8],
};

/// Has the database held so.
pub(super) struct Fence {
    pub(super) hold: Hold,
    pub(super) take_over: bool,
}

impl Errand for Fence {
    type Out = Fenced;

    async fn run(&self, line: &Line) -> Result<Fenced, Fault> {
        line.say("BEGIN").await?;
        let stored = stored(line).await?;
        let ruling = fence(stored, self.hold, self.take_over);
        if ruling == Fenced::Held && stored != Some(self.hold) {
            let epoch = epoch(self.hold)?;
            let words = self.hold.sets.words().map(u64::cast_signed).to_vec();
            line.ask(&WRITE, &[&epoch, &words]).await?;
            line.ask(&STAMP, &[&epoch]).await?;
        }
        line.say("COMMIT").await?;
        Ok(ruling)
    }
}

async fn stored(line: &Line) -> Result<Option<Hold>, Fault> {
    let rows = line.ask(&LOCK, &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Refused("the fence is gone".into()))?;
    let epoch = row.try_get::<_, i64>(0)?.cast_unsigned();
    let words: Vec<i64> = row.try_get(1)?;
    let words: [i64; 4] = words.try_into().map_err(|_| Fault::Refused("the fence is damaged".into()))?;
    let sets = Sets::from_words(words.map(i64::cast_unsigned));
    Ok((epoch > 0).then_some(Hold { epoch, sets }))
}

/// As a column.
fn epoch(hold: Hold) -> Result<i64, Fault> {
    i64::try_from(hold.epoch).map_err(|_| Fault::Refused("no such epoch can be kept".into()))
}

/// What a handle holds, for those who write claims through it.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
    /// Whoever holds anew takes turns.
    pub(super) turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    hold: Option<Hold>,
    /// The epoch under which it is about to be held: the database may know before we do.
    coming: u64,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is held; nothing where it never was.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.state().hold
    }

    /// Whether a claim that the database refuses for that epoch makes sense again in a moment.
    pub(super) fn is_coming(&self, epoch: u64) -> bool {
        let state = self.state();
        epoch <= state.coming || state.hold.is_some_and(|hold| epoch <= hold.epoch)
    }

    /// It is about to be held so.
    pub(super) fn expect(&self, hold: Hold) -> Coming<'_> {
        self.state().coming = hold.epoch;
        Coming { held: self, hold }
    }
}

/// While it is about to be held; however that ends.
pub(super) struct Coming<'a> {
    held: &'a Held,
    hold: Hold,
}

impl Coming<'_> {
    /// It is.
    pub(super) fn came(self) {
        self.held.state().hold = Some(self.hold);
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.held.state().coming = 0;
    }
}
