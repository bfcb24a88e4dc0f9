//! Everything in memory: for tests and the simulation. It ends with its process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::limits::{TABLE_VALUE_BYTES_MAX, TABLE_WATCH_CHANGES_MAX};
use outlive_core::log::{BlobRef, Entry, Lane, Record};
use outlive_protocol::log::{Encoded, decode, encode};
use tokio::sync::{broadcast, watch};

use crate::blob;
use crate::engine::{BlobStamp, Dropped, Durability, Engine, Guard, LaneFilter, Page, ReadLimit, Usage};
use crate::error::{AppendError, BlobError, ReadError, TableError, Unavailable};
use crate::table::{Change, Row, TableEvent, TableWatch};

/// An engine without a disk. Clones share one content, so that two nodes of a simulation can share a store.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<TableEvent>,
    /// Where shims put blobs, if there are any.
    spool: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: BTreeMap<SessionId, Log>,
    tables: BTreeMap<(String, String), Row>,
    revision: Revision,
    /// How often a blob was put.
    puts: u64,
}

#[derive(Debug, Default)]
struct Log {
    records: Vec<Stored>,
    last_control: Position,
    head: watch::Sender<Position>,
    blobs: BTreeMap<String, Blob>,
}

#[derive(Debug)]
struct Blob {
    content: Vec<u8>,
    stamp: BlobStamp,
}

/// Kept as bytes, so that every test that uses this engine uses the codec as well.
#[derive(Debug)]
struct Stored {
    position: Position,
    lane: Lane,
    encoded: Encoded,
}

impl Default for Memory {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(TABLE_WATCH_CHANGES_MAX);
        Self { inner: Arc::default(), changes, spool: None }
    }
}

impl Memory {
    /// The same content, for a node whose shims put their blobs under this folder first.
    #[must_use]
    pub fn spooling(&self, spool: PathBuf) -> Self {
        Self { spool: Some(spool), ..self.clone() }
    }

    /// What a loss of power does: forgets the records behind `last`. Positions are not given out again.
    pub fn lose_behind(&self, session: SessionId, last: Position) {
        let mut inner = self.lock();
        let Some(log) = inner.sessions.get_mut(&session) else { return };
        log.records.retain(|stored| stored.position <= last);
        let controls = log.records.iter().rev().filter(|stored| stored.lane == Lane::Control);
        log.last_control = controls.map(|stored| stored.position).next().unwrap_or_default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Runs `write` on the tables and tells the watchers, in one step.
    fn change_row(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        change: impl FnOnce(Revision) -> Change,
    ) -> Result<Revision, TableError> {
        let mut inner = self.lock();
        let at = (table.to_owned(), key.to_owned());
        let current = inner.tables.get(&at).map_or(Revision::default(), |row| row.revision);
        if current != expected {
            return Err(TableError::Conflict { current });
        }
        let revision = inner.revision.next();
        inner.revision = revision;
        let change = change(revision);
        match &change {
            Change::Put(row) => drop(inner.tables.insert(at, row.clone())),
            Change::Deleted { .. } | Change::Current | Change::Gap => drop(inner.tables.remove(&at)),
        }
        // Nobody may be watching.
        let _ = self.changes.send(TableEvent { table: table.to_owned(), change });
        Ok(revision)
    }
}

impl Inner {
    fn put_blob(&mut self, session: SessionId, sha256: String, content: Vec<u8>) {
        self.puts += 1;
        let blob = Blob { content, stamp: BlobStamp { stored: self.puts, spooled: 0 } };
        self.sessions.entry(session).or_default().blobs.insert(sha256, blob);
    }

    fn rows(&self, table: &str, prefix: &str) -> Vec<Row> {
        self.tables
            .range((table.to_owned(), prefix.to_owned())..)
            .take_while(|((t, key), _)| t == table && key.starts_with(prefix))
            .map(|(_, row)| row.clone())
            .collect()
    }
}

#[async_trait]
impl Engine for Memory {
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        _durability: Durability,
    ) -> Result<Position, AppendError> {
        let encoded = encode(record)?;
        let mut inner = self.lock();
        let last_control = inner.sessions.get(&session).map_or(Position::default(), |log| log.last_control);
        guard.check(lane, last_control)?;
        let log = inner.sessions.entry(session).or_default();
        let position = log.head.borrow().next();
        log.records.push(Stored { position, lane, encoded });
        if lane == Lane::Control {
            log.last_control = position;
        }
        log.head.send_replace(position);
        Ok(position)
    }

    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let inner = self.lock();
        let mut page = Page { entries: Vec::new(), through: after };
        let Some(log) = inner.sessions.get(&session) else { return Ok(page) };
        let mut bytes = 0;
        let start = log.records.partition_point(|stored| stored.position <= after);
        for Stored { position, lane, encoded } in &log.records[start..] {
            if lanes.wants(*lane) {
                bytes += encoded.body.len();
                let full = page.entries.len() >= limit.records || bytes > limit.bytes;
                if full && !page.entries.is_empty() {
                    return Ok(page);
                }
                let record = decode(encoded.kind, &encoded.body).map_err(|error| ReadError::Corrupt {
                    position: page.through,
                    what: error.to_string(),
                })?;
                page.entries.push(Entry { position: *position, lane: *lane, record });
            }
            page.through = *position;
        }
        page.through = page.through.max(*log.head.borrow());
        Ok(page)
    }

    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        Ok(self.lock().sessions.entry(session).or_default().head.subscribe())
    }

    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError> {
        let inner = self.lock();
        let written = |log: &Log| *log.head.borrow() > Position::default();
        Ok(inner.sessions.iter().filter(|(_, log)| written(log)).map(|(id, _)| *id).collect())
    }

    async fn dropped(&self, _session: SessionId) -> Result<Vec<Dropped>, ReadError> {
        Ok(Vec::new())
    }

    async fn all_dropped(&self) -> Result<Vec<(SessionId, Dropped)>, ReadError> {
        Ok(Vec::new())
    }

    async fn trim(
        &self,
        session: SessionId,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<u64, ReadError> {
        let mut inner = self.lock();
        let Some(log) = inner.sessions.get_mut(&session) else {
            return Ok(0);
        };
        let mut freed = 0;
        log.records.retain(|stored| {
            let goes =
                stored.lane != Lane::Control && lanes.contains(&stored.lane) && stored.position < before;
            if goes {
                freed += stored.encoded.body.len() as u64;
            }
            !goes
        });
        Ok(freed)
    }

    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable> {
        self.lock().sessions.remove(&session);
        Ok(())
    }

    async fn close_session(&self, _session: SessionId) {}

    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError> {
        let inner = self.lock();
        let Some(log) = inner.sessions.get(&session) else { return Ok(Usage::default()) };
        Ok(Usage {
            log_bytes: log.records.iter().map(|stored| stored.encoded.body.len() as u64).sum(),
            blob_bytes: log.blobs.values().map(|blob| blob.content.len() as u64).sum(),
        })
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        Ok(self.lock().tables.get(&(table.to_owned(), key.to_owned())).cloned())
    }

    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        if value.len() > TABLE_VALUE_BYTES_MAX {
            return Err(TableError::TooLarge { size: value.len(), max: TABLE_VALUE_BYTES_MAX });
        }
        self.change_row(table, key, expected, |revision| {
            Change::Put(Row { key: key.to_owned(), revision, value: value.to_vec() })
        })
    }

    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        if expected == Revision::default() {
            let current = self.get(table, key).await?.map_or(Revision::default(), |row| row.revision);
            return Err(TableError::Conflict { current });
        }
        let key_owned = key.to_owned();
        self.change_row(table, key, expected, |revision| Change::Deleted { key: key_owned, revision })?;
        Ok(())
    }

    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        Ok(self.lock().rows(table, prefix))
    }

    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        let inner = self.lock();
        let live = self.changes.subscribe();
        Ok(TableWatch::new(table, prefix, inner.rows(table, prefix), inner.revision, live))
    }

    async fn blob_directory(&self, session: SessionId) -> Result<Option<PathBuf>, BlobError> {
        Ok(self.spool.as_ref().map(|spool| spool.join(session.to_string())))
    }

    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError> {
        blob::check_name(&blob.sha256)?;
        let content = blob::read_checked(blob, file)?;
        self.lock().put_blob(session, blob.sha256.clone(), content);
        Ok(())
    }

    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        let blob = blob::reference(bytes, mime);
        self.lock().put_blob(session, blob.sha256.clone(), bytes.to_vec());
        Ok(blob)
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        blob::check_name(sha256)?;
        let inner = self.lock();
        let blob = inner.sessions.get(&session).and_then(|log| log.blobs.get(sha256));
        let blob = blob.ok_or_else(|| BlobError::Missing { sha256: sha256.to_owned() })?;
        let failed = |error| Unavailable::new("make a temporary file", error);
        let mut file = tempfile::tempfile().map_err(failed)?;
        file.write_all(&blob.content).and_then(|()| file.rewind()).map_err(failed)?;
        Ok(file)
    }

    /// Nothing is old here: it never lives that long.
    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        let inner = self.lock();
        let log = inner.sessions.get(&session).filter(|_| age.is_zero());
        let blobs = log.into_iter().flat_map(|log| &log.blobs);
        Ok(blobs.map(|(sha256, blob)| (sha256.clone(), blob.stamp)).collect())
    }

    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        listed.keys().try_for_each(|sha256| blob::check_name(sha256))?;
        let mut inner = self.lock();
        let Some(log) = inner.sessions.get_mut(&session) else { return Ok(0) };
        let mut freed = 0;
        log.blobs.retain(|sha256, blob| {
            let goes = listed.get(sha256) == Some(&blob.stamp);
            if goes {
                freed += blob.content.len() as u64;
            }
            !goes
        });
        Ok(freed)
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}
