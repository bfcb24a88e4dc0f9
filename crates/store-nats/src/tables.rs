//! Tables: the last message of a row's subject is the row, its sequence the revision.
//!
//! A sequence is never given twice, so a row that was deleted and written again never has an old revision. The deletion is
//! a message too, kept for a day, so that whoever was cut off learns of it.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use outlive_core::id::Revision;
use outlive_core::limits::{NATS_CROWDED_TRIES, NATS_DELETED_SECONDS, TABLE_VALUE_BYTES_MAX};
use outlive_store::{Change, Row, TableError, TableWatch, Unavailable};

use crate::api::{self, ApiError, Stored, code};
use crate::nats::Inner;
use crate::row;
use crate::wire::CallError;

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const TTL: &str = "Nats-TTL";
const READ: &str = "read a table";
const WRITE: &str = "write a table";

/// The rows of a table as they were at some moment.
pub(crate) struct Snapshot {
    pub(crate) rows: Vec<Row>,
    pub(crate) revision: Revision,
}

impl Inner {
    pub(crate) async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        let stored = self.stored_row(table, key).await?;
        Ok(stored.map(|stored| row::row(&stored)).transpose().map_err(unreadable)?.flatten())
    }

    async fn stored_row(&self, table: &str, key: &str) -> Result<Option<Stored>, TableError> {
        let (stream, subject) = (self.layout.table_stream(), self.layout.row(table, key));
        // A replica may lag behind what this node itself has written.
        let stored = match self.replicas {
            1 => self.wire.direct_last(&stream, &subject).await,
            _ => self.wire.leader_last(&stream, &subject).await,
        };
        stored.map_err(unreadable)
    }

    pub(crate) async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        if value.len() > TABLE_VALUE_BYTES_MAX {
            return Err(TableError::TooLarge { size: value.len(), max: TABLE_VALUE_BYTES_MAX });
        }
        self.write_row(table, key, expected, Some(value)).await
    }

    pub(crate) async fn delete_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
    ) -> Result<(), TableError> {
        if expected == Revision::default() {
            let current = self.get(table, key).await?.map_or(Revision::default(), |row| row.revision);
            return Err(TableError::Conflict { current });
        }
        self.write_row(table, key, expected, None).await.map(drop)
    }

    /// One compare-and-swap. "No row" is no message, or that of a deletion: which, the server's refusal says.
    async fn write_row(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: Option<&[u8]>,
    ) -> Result<Revision, TableError> {
        let subject = self.layout.row(table, key);
        let payload = bytes::Bytes::from(row::payload(key, value));
        let mut sequence = expected.0;
        for _ in 0..NATS_CROWDED_TRIES {
            let mut headers = HeaderMap::new();
            headers.insert(EXPECTED, sequence.to_string());
            if value.is_none() {
                headers.insert(TTL, format!("{NATS_DELETED_SECONDS}s"));
            }
            match self.wire.call(subject.clone(), Some(headers), payload.clone()).await {
                Ok(answer) => match api::acknowledged(&answer) {
                    Ok(position) => return Ok(Revision(position.0)),
                    Err(error) if error.is(code::WRONG_LAST) || error.is(code::CROWDED) => {}
                    Err(ApiError::Odd(what)) => {
                        tracing::warn!(table, what, "a write of a row was answered in an unknown way");
                        return Err(TableError::Unknown);
                    }
                    Err(error) => return Err(error.into_unavailable(WRITE).into()),
                },
                Err(CallError::Lost(_)) => return Err(TableError::Unknown),
                Err(error @ (CallError::NotSent(_) | CallError::Nobody)) => {
                    return Err(ApiError::from(error).into_unavailable(WRITE).into());
                }
            }
            // Refused: who stands there, a row, a deletion or nobody?
            let there = self.stored_row(table, key).await?;
            let row = there.as_ref().map(row::row).transpose().map_err(unreadable)?.flatten();
            let current = row.map_or(Revision::default(), |row| row.revision);
            if current != expected {
                return Err(TableError::Conflict { current });
            }
            sequence = there.map_or(0, |there| there.position.0);
        }
        let why = std::io::Error::other("other writes of this row are always in the way");
        Err(Unavailable::new(WRITE, why).into())
    }

    pub(crate) async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        Ok(self.snapshot(table, prefix).await.map_err(unreadable)?.rows)
    }

    /// What is told of tables is heard before the rows are read, so nothing falls between the two.
    pub(crate) async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        let live = self.feed.listen(self, table).await.map_err(unreadable)?;
        let Snapshot { rows, revision } = self.snapshot(table, prefix).await.map_err(unreadable)?;
        Ok(TableWatch::new(table, prefix, rows, revision, live))
    }

    async fn snapshot(&self, table: &str, prefix: &str) -> Result<Snapshot, ApiError> {
        let mut rows = BTreeMap::new();
        let take = |stored: Stored| {
            match row::change(&stored)? {
                Change::Put(row) if row.key.starts_with(prefix) => drop(rows.insert(row.key.clone(), row)),
                Change::Deleted { key, .. } => drop(rows.remove(&key)),
                Change::Put(_) | Change::Current | Change::Gap => {}
            }
            Ok(())
        };
        let last = self.whole(&self.layout.table_stream(), &self.layout.table(table), take).await?;
        Ok(Snapshot { rows: rows.into_values().collect(), revision: Revision(last.0) })
    }
}

fn unreadable(error: ApiError) -> TableError {
    error.into_unavailable(READ).into()
}
