//! Every change of every table in the order of revisions, for the watches of this node.
//!
//! One subscription for all, made at the first watch. The stream gives its sequences without holes, so a notice that is not
//! the next one shows what was lost, and it is fetched: the present state of each row that changed since. A hole that is
//! older than the marks of deleted rows are kept is told as a gap.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use outlive_core::id::Position;
use outlive_core::limits::{
    NATS_DELETED_SECONDS, NATS_TABLE_LOOK_MS, READ_BYTES_MAX, READ_RECORDS_MAX, TABLE_WATCH_CHANGES_MAX,
};
use outlive_store::{Change, TableEvent};
use serde_json::Value;
use tokio::sync::{OnceCell, broadcast, watch};
use tokio::time::{Instant, sleep_until};

use crate::api::{ApiError, Stored};
use crate::layout::Layout;
use crate::nats::Inner;
use crate::row;
use crate::wire::Wire;

/// A hole that may be older than this is not mended.
const MENDED: Duration = Duration::from_secs(NATS_DELETED_SECONDS / 2);

/// Where watches listen.
#[derive(Debug)]
pub(crate) struct Feed {
    told: broadcast::Sender<TableEvent>,
    tables: Arc<Mutex<BTreeSet<String>>>,
    begun: OnceCell<()>,
}

impl Default for Feed {
    fn default() -> Self {
        let told = broadcast::Sender::new(TABLE_WATCH_CHANGES_MAX);
        Self { told, tables: Arc::default(), begun: OnceCell::new() }
    }
}

impl Feed {
    /// Every change from now on.
    pub(crate) async fn listen(
        &self,
        inner: &Inner,
        table: &str,
    ) -> Result<broadcast::Receiver<TableEvent>, ApiError> {
        self.tables.lock().expect("no holder of this lock panics").insert(table.to_owned());
        self.begun.get_or_try_init(|| self.begin(inner)).await?;
        Ok(self.told.subscribe())
    }

    async fn begin(&self, inner: &Inner) -> Result<(), ApiError> {
        let notices = inner.wire.client().subscribe(inner.layout.live_tables()).await;
        let notices = notices.map_err(|error| ApiError::Odd(error.to_string()))?;
        let info = format!("STREAM.INFO.{}", inner.layout.table_stream());
        let last =
            inner.wire.api(&info, &Value::Null).await?["state"]["last_seq"].as_u64().unwrap_or_default();
        let follower = Follower {
            wire: inner.wire.clone(),
            layout: inner.layout.clone(),
            told: self.told.clone(),
            tables: Arc::clone(&self.tables),
            missed: inner.missed.subscribe(),
            last: Position(last),
            whole: Instant::now(),
        };
        inner.tasks.spawn(inner.stop.clone().run_until_cancelled_owned(follower.run(notices)));
        Ok(())
    }
}

/// The task that hears of changes and tells them.
struct Follower {
    wire: Wire,
    layout: Layout,
    told: broadcast::Sender<TableEvent>,
    tables: Arc<Mutex<BTreeSet<String>>>,
    missed: watch::Receiver<u64>,
    /// All up to here is told.
    last: Position,
    /// When that was known to be all there was.
    whole: Instant,
}

impl Follower {
    async fn run(mut self, mut notices: Subscriber) {
        loop {
            tokio::select! {
                biased;
                notice = notices.next() => {
                    let Some(notice) = notice else { return };
                    self.hear(notice).await;
                }
                changed = self.missed.changed() => {
                    if changed.is_err() { return }
                    self.mend().await;
                }
                () = sleep_until(Instant::now() + Duration::from_millis(NATS_TABLE_LOOK_MS)) => self.mend().await,
            }
        }
    }

    async fn hear(&mut self, notice: Message) {
        let stored = stored(notice);
        match stored {
            Some(stored) if stored.position == self.last.next() => self.tell(&stored),
            Some(stored) if stored.position <= self.last => {}
            Some(stored) => {
                self.mend().await;
                // The replica that was asked may not have it yet; the leader does.
                let (stream, subjects) = (self.layout.table_stream(), self.layout.tables());
                while self.last < stored.position {
                    match self.wire.leader_next(&stream, &subjects, self.last.next()).await {
                        Ok(Some(next)) => self.tell(&next),
                        Ok(None) | Err(_) => return,
                    }
                }
            }
            None => self.mend().await,
        }
    }

    /// Fetches what was not told. When that fails, the next look comes.
    async fn mend(&mut self) {
        if self.whole.elapsed() > MENDED {
            let tables = self.tables.lock().expect("no holder of this lock panics").clone();
            for table in tables {
                let _ = self.told.send(TableEvent { table, change: Change::Gap });
            }
            self.whole = Instant::now();
        }
        if let Err(error) = self.fetch().await {
            tracing::debug!(%error, "a look at the tables failed");
        }
    }

    async fn fetch(&mut self) -> Result<(), ApiError> {
        let (stream, subjects) = (self.layout.table_stream(), self.layout.tables());
        loop {
            let from = self.last.next();
            let batch = self.wire.batch(&stream, &subjects, from, READ_RECORDS_MAX, READ_BYTES_MAX).await?;
            batch.messages.iter().for_each(|stored| self.tell(stored));
            if !batch.more {
                self.whole = Instant::now();
                return Ok(());
            }
        }
    }

    fn tell(&mut self, stored: &Stored) {
        self.last = stored.position;
        let table = self.layout.table_of(&stored.subject);
        match (table, row::change(stored)) {
            // Nobody may be watching.
            (Some(table), Ok(change)) => drop(self.told.send(TableEvent { table, change })),
            (_, Ok(_)) => {}
            (_, Err(error)) => tracing::warn!(%error, "a row cannot be read"),
        }
    }
}

/// A notice of the server as the message that it tells of.
fn stored(notice: Message) -> Option<Stored> {
    let headers = notice.headers.as_ref()?;
    let header = |name: &str| headers.get_last(name).map(|value| value.as_str().to_owned());
    let position = Position(header("Nats-Sequence")?.parse().ok()?);
    Some(Stored { position, subject: header("Nats-Subject")?, headers: None, payload: notice.payload })
}
