//! Rows of small tables: `(table, key)` → a value with a revision. For claims of paths, node records, settings.

use std::collections::VecDeque;

use outlive_core::id::Revision;
use tokio::sync::broadcast;

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its key in its table.
    pub key: String,
    /// Rises with each write of any row, so that a deleted and rewritten row never has an old revision.
    pub revision: Revision,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a watch reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A row is there (at first) or was written (later).
    Put(Row),
    /// A row was deleted.
    Deleted {
        /// Its key.
        key: String,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// All rows that were there at the start have been reported.
    Current,
    /// Changes were missed: scan again.
    Gap,
}

impl Change {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Put(row) => Some(&row.key),
            Self::Deleted { key, .. } => Some(key),
            Self::Current | Self::Gap => None,
        }
    }

    fn revision(&self) -> Revision {
        match self {
            Self::Put(row) => row.revision,
            Self::Deleted { revision, .. } => *revision,
            Self::Current | Self::Gap => Revision::default(),
        }
    }
}

/// A change of some table, as engines broadcast it.
#[derive(Clone, Debug)]
pub struct TableEvent {
    /// The table.
    pub table: String,
    /// What happened to it; [`Change::Gap`] when nobody knows.
    pub change: Change,
}

/// The rows of a table whose keys begin with a prefix: first those that are there, then `Current`, then each change.
#[derive(Debug)]
pub struct TableWatch {
    table: String,
    prefix: String,
    first: VecDeque<Change>,
    /// Changes up to here are in `first` already.
    snapshot: Revision,
    live: broadcast::Receiver<TableEvent>,
}

impl TableWatch {
    /// `live` must have been subscribed before `rows` were read; `snapshot` is the store's revision at the reading.
    #[must_use]
    pub fn new(
        table: &str,
        prefix: &str,
        rows: Vec<Row>,
        snapshot: Revision,
        live: broadcast::Receiver<TableEvent>,
    ) -> Self {
        let first = rows.into_iter().map(Change::Put).chain([Change::Current]).collect();
        Self { table: table.to_owned(), prefix: prefix.to_owned(), first, snapshot, live }
    }

    /// The next change; `None` when the engine has gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        if let Some(change) = self.first.pop_front() {
            return Some(change);
        }
        loop {
            match self.live.recv().await {
                Ok(event) => {
                    let is_new = event.change.revision() > self.snapshot
                        && event.change.key().is_some_and(|key| key.starts_with(&self.prefix));
                    if event.table == self.table && (is_new || event.change == Change::Gap) {
                        return Some(event.change);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Some(Change::Gap),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
