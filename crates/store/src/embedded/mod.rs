//! Everything in one directory, without a service: the default.
//!
//! ```text
//!  DIRECTORY/                         0700
//!    tables.redb                      0600  tables
//!    tables.redb.damaged-1 …                what was found damaged, and put aside
//!    sessions/SESSION-ID/
//!      00000001.seg, 00000002.seg …   0600  the log (see `segment`)
//!      recovered.jsonl                      what recovery had to leave out, one object a line
//!      00000002.aside …                     and what was left out
//!      blobs/SHA256                         large payloads
//! ```
//! A session's log is opened, and repaired if need be, at its first use, and read whole for that. Appends are written
//! on the caller's thread (a write(2) of a record into the page cache takes microseconds), fsyncs are made by one
//! thread of the engine's (`flusher`), everything else that blocks runs on tokio's blocking threads.
//!
//! Two daemons on one directory exclude each other above this; the table file's lock is the second belt.

mod blobs;
mod flusher;
mod log;
mod read;
mod recover;
mod renew;
mod segment;
mod tables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::{BlobRef, Lane, Record};
use outlive_protocol::log::encode;
use tokio::sync::{OnceCell, watch};
use tokio::task::spawn_blocking;

use self::flusher::Flusher;
use self::log::{Appended, Fsync, SessionLog, create_directory};
use self::read::PageFill;
use self::tables::Tables;
use crate::blob;
use crate::engine::{
    BlobStamp, Dropped, Durability, Engine, Guard, LaneFilter, Page, ReadLimit, TablesState, Usage,
};
use crate::error::{AppendError, BlobError, ReadError, TableError, Unavailable};
use crate::table::{Row, TableWatch};

/// Why a directory cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It may work later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Another process has it open.
    #[error("{} is in use by another process; stop that daemon first, or give this one its own directory", path.display())]
    InUse {
        /// The table file.
        path: PathBuf,
    },
}

type Logs = HashMap<SessionId, Arc<OnceCell<Arc<SessionLog>>>>;

/// The engine in a directory.
pub struct Embedded {
    sessions: PathBuf,
    tables: Arc<Tables>,
    logs: Mutex<Logs>,
    flusher: Flusher,
    fsync: Fsync,
}

impl Embedded {
    /// Opens, or makes, a store in `directory`. Blocks for some milliseconds. Logs are looked at when they are used.
    ///
    /// # Errors
    /// [`OpenError`]; `InUse` when another process has it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, Fsync(Arc::new(File::sync_data)))
    }

    fn open_with(directory: &Path, fsync: Fsync) -> Result<Self, OpenError> {
        let sessions = directory.join("sessions");
        let failed = |source| Unavailable::new(format!("use the directory {}", directory.display()), source);
        create_directory(&sessions).map_err(failed)?;
        for path in [directory, &sessions] {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let tables = Arc::new(Tables::open(&directory.join("tables.redb"))?);
        let flusher =
            Flusher::start().map_err(|source| Unavailable::new("start the fsync thread", source))?;
        Ok(Self { sessions, tables, logs: Mutex::default(), flusher, fsync })
    }

    fn directory(&self, session: SessionId) -> PathBuf {
        self.sessions.join(session.to_string())
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().expect("no holder of this lock panics")
    }

    /// The open log of a session; opens it at the first use.
    async fn log(&self, session: SessionId) -> Result<Arc<SessionLog>, ReadError> {
        let cell = Arc::clone(self.logs().entry(session).or_default());
        let directory = self.directory(session);
        let fsync = self.fsync.clone();
        let open = || async move {
            blocking("read a session's log", move || {
                SessionLog::open(directory, session, fsync).map(Arc::new)
            })
            .await?
        };
        cell.get_or_try_init(open).await.cloned()
    }

    /// The log, for somebody who has to know all of it: after a failed fsync it is renewed first.
    async fn certain_log(&self, session: SessionId) -> Result<Arc<SessionLog>, ReadError> {
        let log = self.log(session).await?;
        if log.is_undetermined() {
            self.renew(&log).await?;
        }
        Ok(log)
    }

    async fn renew(&self, log: &Arc<SessionLog>) -> Result<(), Unavailable> {
        let log = Arc::clone(log);
        blocking("make a session's log durable", move || log.renew()).await?
    }

    /// Forgets a session's log, in one step with ending it, so that there are never two writers of one.
    fn forget(&self, session: SessionId) {
        let mut logs = self.logs();
        if let Some(log) = logs.remove(&session).as_ref().and_then(|cell| cell.get()) {
            log.retire();
        }
    }

    async fn on_tables<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, TableError> {
        let tables = Arc::clone(&self.tables);
        blocking("use the tables", move || work(&tables)).await?
    }
}

/// Runs what blocks where blocking is allowed.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unavailable> {
    // It ends without an answer when it panics or the runtime shuts down.
    spawn_blocking(work).await.map_err(|error| Unavailable::new(what, io::Error::other(error)))
}

#[async_trait]
impl Engine for Embedded {
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        durability: Durability,
    ) -> Result<Position, AppendError> {
        let encoded = encode(record)?;
        loop {
            let log = self.log(session).await?;
            if log.is_suspect() {
                self.renew(&log).await?;
            }
            let (appended, flush) = log.append(lane, guard, &encoded, record, durability)?;
            self.flusher.note(&log, flush);
            match appended {
                Appended::Now(position) => return Ok(position),
                Appended::After(position, done) => {
                    let Ok(Ok(())) = done.await else { return Err(AppendError::Unknown) };
                    return Ok(position);
                }
                // Dropped or closed since it was looked up, and gone from where it was found: the next is another.
                Appended::Gone => {}
            }
        }
    }

    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        let log = self.certain_log(session).await?;
        let head = *log.head.borrow();
        if let Some(tail) = log.read_tail(after, head) {
            let mut fill = PageFill::new(after, lanes, limit);
            for (entry, bytes) in tail {
                if !fill.take(entry, bytes) {
                    return Ok(fill.stop());
                }
            }
            return Ok(fill.finish(head));
        }
        let lanes = lanes.clone();
        blocking("read a session's log", move || read::from_disk(&log, after, &lanes, limit)).await?
    }

    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        Ok(self.log(session).await?.head.subscribe())
    }

    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError> {
        let directory = self.sessions.clone();
        let list = move || -> io::Result<Vec<SessionId>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
                if let Some(id) =
                    id.filter(|_| recover::segment_numbers(&entry.path()).is_ok_and(|n| !n.is_empty()))
                {
                    found.push(id);
                }
            }
            found.sort_unstable();
            Ok(found)
        };
        let listed = blocking("list the sessions", list).await?;
        Ok(listed.map_err(|source| Unavailable::new("list the sessions", source))?)
    }

    async fn dropped(&self, session: SessionId) -> Result<Vec<Dropped>, ReadError> {
        let directory = self.directory(session);
        let reports = blocking("read what recovery said", move || recover::reports(&directory)).await?;
        Ok(reports.map_err(|source| Unavailable::new("read what recovery said", source))?)
    }

    async fn all_dropped(&self) -> Result<Vec<(SessionId, Dropped)>, ReadError> {
        let sessions = self.sessions.clone();
        let all = move || -> io::Result<Vec<(SessionId, Dropped)>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(sessions)? {
                let entry = entry?;
                if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                    found.extend(recover::reports(&entry.path())?.into_iter().map(|dropped| (id, dropped)));
                }
            }
            found.sort_by_key(|(id, _)| *id);
            Ok(found)
        };
        let found = blocking("read what recovery said", all).await?;
        Ok(found.map_err(|source| Unavailable::new("read what recovery said", source))?)
    }

    async fn trim(
        &self,
        session: SessionId,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<u64, ReadError> {
        let mut lanes = lanes.clone();
        lanes.remove(&Lane::Control);
        if lanes.is_empty() {
            return Ok(0);
        }
        let log = self.log(session).await?;
        self.flusher.note(&log, log.close_for_trim(&lanes, before)?);
        let trimmed = blocking("trim a session's log", move || read::trim(&log, &lanes, before)).await?;
        Ok(trimmed.map_err(|source| Unavailable::new("trim a session's log", source))?)
    }

    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable> {
        self.forget(session);
        let directory = self.directory(session);
        let removed = blocking("remove a session", move || match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        });
        removed.await?.map_err(|source| Unavailable::new(format!("remove session {session}"), source))
    }

    async fn close_session(&self, session: SessionId) {
        self.forget(session);
    }

    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError> {
        // By the sizes of the files: to open a log is to read all of it, and this is asked about every ended session.
        let directory = self.directory(session);
        let measure = move || -> io::Result<Usage> {
            Ok(Usage { log_bytes: recover::bytes(&directory)?, blob_bytes: blobs::bytes(&directory)? })
        };
        let measured = blocking("measure a session", measure).await?;
        Ok(measured.map_err(|source| Unavailable::new("measure a session", source))?)
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        let (table, key) = (table.to_owned(), key.to_owned());
        self.on_tables(move |tables| tables.get(&table, &key)).await
    }

    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        let (table, key, value) = (table.to_owned(), key.to_owned(), value.to_vec());
        self.on_tables(move |tables| tables.put_if(&table, &key, expected, &value)).await
    }

    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        let (table, key) = (table.to_owned(), key.to_owned());
        self.on_tables(move |tables| tables.delete_if(&table, &key, expected)).await
    }

    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        let (table, prefix) = (table.to_owned(), prefix.to_owned());
        self.on_tables(move |tables| tables.scan(&table, &prefix)).await
    }

    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        let (table, prefix) = (table.to_owned(), prefix.to_owned());
        self.on_tables(move |tables| tables.watch(&table, &prefix)).await
    }

    async fn tables(&self) -> TablesState {
        let tables = Arc::clone(&self.tables);
        blocking("look at the tables", move || tables.state()).await.unwrap_or_else(|error| TablesState {
            refused: Some(error.to_string()),
            ..TablesState::default()
        })
    }

    async fn blob_directory(&self, session: SessionId) -> Result<Option<PathBuf>, BlobError> {
        let directory = self.directory(session);
        Ok(Some(blocking("make a blob directory", move || blobs::directory(&directory)).await??))
    }

    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError> {
        let (directory, blob, file) = (self.directory(session), blob.clone(), file.to_owned());
        blocking("put a blob", move || blobs::put(&directory, &blob, || File::open(&file))).await?
    }

    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        let (directory, bytes) = (self.directory(session), bytes.to_vec());
        let mime = mime.to_owned();
        let put = move || {
            let blob = blob::reference(&bytes, &mime);
            blobs::put(&directory, &blob, || Ok(&bytes[..]))?;
            Ok(blob)
        };
        blocking("put a blob", put).await?
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        let (directory, sha256) = (self.directory(session), sha256.to_owned());
        blocking("get a blob", move || blobs::get(&directory, &sha256)).await?
    }

    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        let directory = self.directory(session);
        let old = blocking("list a session's blobs", move || blobs::old(&directory, age)).await?;
        Ok(old.map_err(|source| Unavailable::new("list a session's blobs", source))?)
    }

    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        let (directory, listed) = (self.directory(session), listed.clone());
        blocking("remove blobs", move || blobs::remove(&directory, &listed)).await?
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        let open: Vec<_> = self.logs().values().filter_map(|cell| cell.get().cloned()).collect();
        for log in open.iter().filter(|log| log.is_suspect()) {
            self.renew(log).await?;
        }
        let gone = |error| Unavailable::new("make the store durable", io::Error::other(error));
        self.flusher.barrier().await.map_err(gone)?
    }
}
