//! One connection: made with the settings that everything here relies on, and given up at the first doubt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::fault::Fault;
use super::place::Place;
use super::tls::Tls;
use crate::base::entropy::Rng;
use crate::base::task::{Task, spawn};

/// Slots of the tally; as many as the schema has.
const SLOTS: u64 = 32;
/// How much longer than the server's own limit an answer is waited for: a server that is stopped says nothing at all.
const GRACE: Duration = Duration::from_millis(500);

/// The same for what is done once, such as making tables.
const LONG: Duration = Duration::from_mins(1);

/// A statement with the types of its parameters. Prepared once on each connection.
pub(super) struct Sql {
    pub(super) text: &'static str,
    pub(super) types: &'static [Type],
}

/// A connection to the database.
pub(super) struct Line {
    client: Client,
    limit: Duration,
    /// Which row of the tally its statements count in.
    pub(super) slot: i16,
    prepared: Mutex<Vec<(&'static Sql, Statement)>>,
    /// Carries the octets; ends with the connection.
    _carrier: Task,
}

impl Line {
    /// Connects, within the time that the place allows for each host.
    pub(super) async fn dial(place: &Place) -> Result<Self, Fault> {
        let dial = async {
            Ok::<_, tokio_postgres::Error>(if let Some(tls) = &place.tls {
                let (client, connection) = place.config.connect(Tls(Arc::clone(tls))).await?;
                (client, spawn("postgres-line", async { drop(connection.await) }))
            } else {
                let (client, connection) = place.config.connect(NoTls).await?;
                (client, spawn("postgres-line", async { drop(connection.await) }))
            })
        };
        // The client's own limit ends with the socket; a server that stands still takes that and never says a word.
        let (client, carrier) = match timeout(place.dial_limit(), dial).await {
            Ok(done) => done.map_err(|e| Fault::at_the_door(&e))?,
            Err(_) => return Err(Fault::Unreachable("the server does not answer".into())),
        };
        let slot = Rng::from_os().below(SLOTS) as i16;
        let prepared = Mutex::new(Vec::new());
        let line = Self { client, limit: place.statement_limit, slot, prepared, _carrier: carrier };
        line.settle_in().await.map_err(|fault| match fault {
            // Nothing of consequence was sent yet.
            Fault::Lost(reason) | Fault::Undone(reason) => Fault::Unreachable(reason),
            other => other,
        })?;
        Ok(line)
    }

    /// What every statement relies on: how long it may take, that a commit is durable, and that a statement sees what was
    /// committed before it began. Plans: made once (planning some of the statements costs more than running them), and by
    /// index only. Without knowing the numbers, the planner takes a lease for a tenth of all orders and reads the whole
    /// table for it.
    async fn settle_in(&self) -> Result<(), Fault> {
        let limit = self.limit.as_millis();
        self.say(&format!(
            "SET search_path = redpacket; SET statement_timeout = {limit}; SET lock_timeout = {limit}; \
             SET idle_in_transaction_session_timeout = '10s'; SET default_transaction_isolation = 'read committed'; \
             SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; \
             SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; SET client_min_messages = warning"
        ))
        .await?;
        let row = self.within(self.client.query_one("SHOW synchronous_commit", &[])).await?;
        if row.try_get::<_, &str>(0)? == "off" {
            tracing::warn!("the server has synchronous_commit = off; it is on for our connections");
            self.say("SET synchronous_commit = on").await?;
        }
        Ok(())
    }

    /// Runs statements without parameters.
    pub(super) async fn say(&self, sql: &str) -> Result<(), Fault> {
        self.within(self.client.batch_execute(sql)).await
    }

    /// Runs statements that may take long, such as those that make tables: 60 s.
    pub(super) async fn wait(&self, sql: &str) -> Result<(), Fault> {
        match timeout(LONG, self.client.batch_execute(sql)).await {
            Ok(done) => done.map_err(Fault::from),
            Err(_) => Err(Fault::Lost("the server does not answer".into())),
        }
    }

    /// Runs a prepared statement.
    pub(super) async fn ask(&self, sql: &'static Sql, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Fault> {
        let statement = self.prepare(sql).await?;
        self.within(self.client.query(&statement, params)).await
    }

    /// Runs a statement once; for what is asked at the start.
    pub(super) async fn look(&self, sql: &str) -> Result<Vec<Row>, Fault> {
        self.within(self.client.query(sql, &[])).await
    }

    async fn prepare(&self, sql: &'static Sql) -> Result<Statement, Fault> {
        let mut prepared = self.prepared.lock().await;
        if let Some((_, statement)) = prepared.iter().find(|(of, _)| std::ptr::eq(*of, sql)) {
            return Ok(statement.clone());
        }
        let statement = self.within(self.client.prepare_typed(sql.text, sql.types)).await?;
        prepared.push((sql, statement.clone()));
        Ok(statement)
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fault> {
        match timeout(self.limit + GRACE, work).await {
            Ok(done) => done.map_err(Fault::from),
            Err(_) => Err(Fault::Lost("the server does not answer".into())),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
