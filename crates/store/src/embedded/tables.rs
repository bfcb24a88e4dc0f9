//! Tables in one redb file. Each write is one durable commit; a watch begins under the lock that writes take.
//!
//! ```text
//!  open ─ a write fails ─► closed and opened again at once: what was not acknowledged is not there, reads go on
//!   ▲                        │                   │ that fails too
//!   │  a write succeeds      ▼                   ▼
//!   └───────────────────── refusing writes ◄── closed: tried again [`TABLES_RETRY_MS`] later, at the next use
//! ```
//! A file that is damaged when the engine starts is put aside, never removed, and empty tables begin; what they held is
//! made again from the logs, above this. Invariant: a disk that is full damages nothing (tests/embedded_tables.rs).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use outlive_core::id::Revision;
use outlive_core::limits::{
    TABLE_CACHE_BYTES, TABLE_VALUE_BYTES_MAX, TABLE_WATCH_CHANGES_MAX, TABLES_ASIDE_MAX, TABLES_RETRY_MS,
};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, WriteTransaction,
};
use tokio::sync::broadcast;

use super::OpenError;
use crate::engine::TablesState;
use crate::error::{TableError, Unavailable};
use crate::table::{Change, Row, TableEvent, TableWatch};

/// (table, key) → (revision, value).
const ROWS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("rows");
/// `revision`: the last one that was given.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
/// `probe`: written to see whether something can be.
const PROBE: &str = "probe";
/// redb's first page, and how it begins: the number comes last when a file is made.
const FIRST_PAGE_BYTES: u64 = 4_096;
const MAGIC_BYTES: usize = 9;
/// What is behind the table file's name when it is put aside, before a number.
const ASIDE: &str = ".damaged-";

/// The tables of one engine.
pub(super) struct Tables {
    path: PathBuf,
    database: RwLock<Place>,
    /// Held from the commit to the telling of it, so that watchers hear of changes in their order.
    changes: Mutex<broadcast::Sender<TableEvent>>,
}

/// The file, and what is wrong with it.
struct Place {
    /// Nothing while the file cannot be opened.
    database: Option<Database>,
    refusal: Option<Refusal>,
    /// How many writes have failed.
    failed: u64,
}

/// Why rows are not written at present.
struct Refusal {
    why: String,
    /// Not tried again before.
    again: Instant,
}

impl Refusal {
    fn now(why: String) -> Self {
        Self { why, again: now() + Duration::from_millis(TABLES_RETRY_MS) }
    }

    fn error(&self) -> TableError {
        Unavailable::new("use its tables", io::Error::other(self.why.clone())).into()
    }
}

#[expect(clippy::disallowed_methods, reason = "how long ago something was tried; nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}

/// Why the file is not open.
enum Unopened {
    InUse,
    Damaged(String),
    /// It may work later.
    Later(io::Error),
}

impl From<StorageError> for Unopened {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error)
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Later(error)
            }
            StorageError::PreviousIo => Self::Later(io::Error::other(error)),
            damaged => Self::Damaged(damaged.to_string()),
        }
    }
}

impl From<DatabaseError> for Unopened {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            DatabaseError::Storage(error) => error.into(),
            damaged => Self::Damaged(damaged.to_string()),
        }
    }
}

impl Unopened {
    fn refusal(&self, path: &Path) -> Refusal {
        let path = path.display();
        let why = match self {
            Self::InUse => format!("{path} is in use by another process"),
            Self::Damaged(what) => {
                format!(
                    "{path} is damaged ({what}); start the daemon again, and it is made anew from the logs"
                )
            }
            Self::Later(error) => format!("open {path}: {error}"),
        };
        tracing::error!(why, "the tables cannot be used");
        Refusal::now(why)
    }
}

/// Whether nothing was ever written: the file is empty, or there was no room for the first page when it was made.
fn is_unbegun(file: &File) -> io::Result<bool> {
    let mut content = BufReader::new(file);
    let mut first = Vec::new();
    content.by_ref().take(FIRST_PAGE_BYTES).read_to_end(&mut first)?;
    let magic = first.len().min(MAGIC_BYTES);
    if first[..magic].iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    loop {
        let rest = content.fill_buf()?;
        let read = rest.len();
        if read == 0 || rest.iter().any(|byte| *byte != 0) {
            return Ok(read == 0);
        }
        content.consume(read);
    }
}

/// Opens the file, or makes it; with `check`, looks at every page of it first.
fn open_file(path: &Path, check: bool) -> Result<Database, Unopened> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(Unopened::Later)?;
    let is_new = is_unbegun(&file).map_err(Unopened::Later)?;
    if is_new {
        file.set_len(0).map_err(Unopened::Later)?;
    }
    let open = || -> Result<Database, Unopened> {
        let mut database =
            Builder::new().set_cache_size(TABLE_CACHE_BYTES).create_with_backend(FileBackend::new(file)?)?;
        if check && !is_new && !database.check_integrity()? {
            tracing::warn!(path = %path.display(), "the table file was not as it should be, and is repaired");
        }
        // So that reading never meets a table that is not there. Nothing is written when they are.
        if revision(&database).is_err() {
            write_durably(&database, |write| {
                write.open_table(ROWS)?;
                write.open_table(COUNTERS)?;
                Ok(())
            })
            .map_err(|not_written| match not_written.reason() {
                redb::Error::Io(error) => StorageError::Io(error).into(),
                redb::Error::PreviousIo => StorageError::PreviousIo.into(),
                damaged => Unopened::Damaged(damaged.to_string()),
            })?;
        }
        Ok(database)
    };
    // redb says that it may panic on a file that something else has damaged.
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(Unopened::Damaged("its structure is broken".to_owned())))
}

/// Puts a damaged table file aside, beside the older ones, of which the oldest go beyond [`TABLES_ASIDE_MAX`].
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let mut older = aside(path)?;
    let next = older.last().map_or(1, |(number, _)| number + 1);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{ASIDE}{next}"));
    let place = path.with_file_name(name);
    fs::rename(path, &place)?;
    older.truncate((older.len() + 1).saturating_sub(TABLES_ASIDE_MAX));
    for (_, oldest) in older {
        fs::remove_file(oldest)?;
    }
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(place)
}

/// The table files that were put aside, with their numbers, the oldest first.
fn aside(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let prefix = format!("{}{ASIDE}", path.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new("/")))? {
        let place = entry?.path();
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        if let Some(number) = name.strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
            found.push((number, place));
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl Tables {
    /// Opens the tables. A damaged file is put aside; one that cannot be opened now is opened later, when it is used.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut opened = open_file(path, true);
        if let Err(Unopened::Damaged(what)) = &opened {
            let put = put_aside(path)
                .map_err(|source| Unavailable::new(format!("put {} aside", path.display()), source))?;
            let aside = put.display();
            tracing::error!(what, %aside, "the table file is damaged and put aside; the sessions are found by their logs");
            opened = open_file(path, false);
        }
        let (database, refusal) = match opened {
            Ok(database) => (Some(database), None),
            Err(Unopened::InUse) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(unopened) => (None, Some(unopened.refusal(path))),
        };
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Place { database, refusal, failed: 0 }),
            changes: Mutex::new(broadcast::channel(TABLE_WATCH_CHANGES_MAX).0),
        })
    }

    pub(super) fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        self.read(|database| {
            let rows = database.begin_read()?.open_table(ROWS)?;
            let row = rows.get((table, key))?;
            Ok(row.map(|row| {
                let (revision, value) = row.value();
                Row { key: key.to_owned(), revision: Revision(revision), value: value.to_vec() }
            }))
        })
    }

    pub(super) fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        Ok(self.snapshot(table, prefix)?.0)
    }

    pub(super) fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        let live = self.lock().subscribe();
        let (rows, revision) = self.snapshot(table, prefix)?;
        Ok(TableWatch::new(table, prefix, rows, revision, live))
    }

    pub(super) fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        if value.len() > TABLE_VALUE_BYTES_MAX {
            return Err(TableError::TooLarge { size: value.len(), max: TABLE_VALUE_BYTES_MAX });
        }
        self.change(table, key, expected, Some(value))
    }

    pub(super) fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        if expected == Revision::default() {
            let current = self.get(table, key)?.map_or(Revision::default(), |row| row.revision);
            return Err(TableError::Conflict { current });
        }
        self.change(table, key, expected, None).map(drop)
    }

    /// How the tables are. If the last write failed, one is tried that changes nothing.
    pub(super) fn state(&self) -> TablesState {
        if self.place().refusal.is_some() {
            let _changes = self.lock();
            // Its failure is what is told.
            let _ = self.commit(|write| {
                write.open_table(COUNTERS)?.insert(PROBE, 0)?;
                Ok(())
            });
        }
        let put_aside = aside(&self.path).unwrap_or_default().into_iter().map(|(_, path)| path).collect();
        let place = self.place();
        let refused = place.refusal.as_ref().map(|refusal| refusal.why.clone());
        TablesState { refused, failed: place.failed, put_aside }
    }

    /// One compare-and-swap: writes `value`, or deletes the row. Durable, then told to the watchers.
    fn change(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: Option<&[u8]>,
    ) -> Result<Revision, TableError> {
        let changes = self.lock();
        let current = self.get(table, key)?.map_or(Revision::default(), |row| row.revision);
        if current != expected {
            return Err(TableError::Conflict { current });
        }
        let revision = self.read(revision)?.next();
        self.commit(|write| {
            let mut rows = write.open_table(ROWS)?;
            match value {
                Some(value) => drop(rows.insert((table, key), (revision.0, value))?),
                None => drop(rows.remove((table, key))?),
            }
            write.open_table(COUNTERS)?.insert(REVISION, revision.0)?;
            Ok(())
        })?;
        let key = key.to_owned();
        let change = match value {
            Some(value) => Change::Put(Row { key, revision, value: value.to_vec() }),
            None => Change::Deleted { key, revision },
        };
        // Nobody may be watching.
        let _ = changes.send(TableEvent { table: table.to_owned(), change });
        Ok(revision)
    }

    /// The rows under a prefix, and the revision of the store that they are of.
    fn snapshot(&self, table: &str, prefix: &str) -> Result<(Vec<Row>, Revision), TableError> {
        self.read(|database| {
            let transaction = database.begin_read()?;
            let revision =
                transaction.open_table(COUNTERS)?.get(REVISION)?.map_or(0, |revision| revision.value());
            let mut found = Vec::new();
            for row in transaction.open_table(ROWS)?.range((table, prefix)..)? {
                let (at, row) = row?;
                let (of, key) = at.value();
                if of != table || !key.starts_with(prefix) {
                    break;
                }
                let (revision, value) = row.value();
                found.push(Row { key: key.to_owned(), revision: Revision(revision), value: value.to_vec() });
            }
            Ok((found, Revision(revision)))
        })
    }

    /// Reads. A file that does not let itself be read is closed, and opened again when it is used next.
    fn read<T>(&self, read: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, TableError> {
        self.open_again()?;
        let place = self.place();
        let Some(database) = &place.database else { return Err(closed(&place)) };
        let error = match catch_unwind(AssertUnwindSafe(|| read(database))) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its structure is broken".to_owned(),
        };
        drop(place);
        Err(self.failed(error))
    }

    /// Runs `write` in one durable transaction. An error before the commit has changed nothing.
    fn commit(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), TableError> {
        self.open_again()?;
        let place = self.place();
        if let Some(refusal) = place.refusal.as_ref().filter(|refusal| now() < refusal.again) {
            return Err(refusal.error());
        }
        let Some(database) = &place.database else { return Err(closed(&place)) };
        let written = catch_unwind(AssertUnwindSafe(|| write_durably(database, write)));
        let refused_before = place.refusal.is_some();
        drop(place);
        match written {
            Ok(Ok(())) => {
                if refused_before {
                    self.place_mut().refusal = None;
                    tracing::info!("the tables can be written again");
                }
                Ok(())
            }
            Ok(Err(NotWritten::NotBegun(error))) => Err(self.failed(error.to_string())),
            Ok(Err(NotWritten::Perhaps(error))) => {
                drop(self.failed(error.to_string()));
                Err(TableError::Unknown)
            }
            Err(_) => {
                drop(self.failed("its structure is broken".to_owned()));
                Err(TableError::Unknown)
            }
        }
    }

    /// After a failure redb refuses everything until it is opened anew, which drops what was not acknowledged.
    fn failed(&self, error: String) -> TableError {
        tracing::error!(error, "the table file failed, and is opened anew");
        let mut place = self.place_mut();
        place.failed += 1;
        // It is closed before it is opened: it can be locked but once.
        let before = place.database.take();
        // What panicked in it may panic again.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(before)));
        let refusal = match open_file(&self.path, false) {
            Ok(database) => {
                place.database = Some(database);
                Refusal::now(error)
            }
            Err(unopened) => unopened.refusal(&self.path),
        };
        place.refusal.insert(refusal).error()
    }

    /// Opens the file if it is closed, and it is time to try.
    fn open_again(&self) -> Result<(), TableError> {
        if self.place().database.is_some() {
            return Ok(());
        }
        let mut place = self.place_mut();
        if place.database.is_some() {
            return Ok(());
        }
        if let Some(refusal) = place.refusal.as_ref().filter(|refusal| now() < refusal.again) {
            return Err(refusal.error());
        }
        match open_file(&self.path, false) {
            Ok(database) => {
                place.database = Some(database);
                Ok(())
            }
            Err(unopened) => Err(place.refusal.insert(unopened.refusal(&self.path)).error()),
        }
    }

    fn place(&self) -> RwLockReadGuard<'_, Place> {
        self.database.read().expect("no holder of this lock panics")
    }

    fn place_mut(&self) -> RwLockWriteGuard<'_, Place> {
        self.database.write().expect("no holder of this lock panics")
    }

    fn lock(&self) -> MutexGuard<'_, broadcast::Sender<TableEvent>> {
        self.changes.lock().expect("no holder of this lock panics")
    }
}

/// Somebody else has found the file unusable just now.
fn closed(place: &Place) -> TableError {
    let why = place.refusal.as_ref().map_or("the table file is closed", |refusal| &refusal.why);
    Unavailable::new("use its tables", io::Error::other(why.to_owned())).into()
}

fn revision(database: &Database) -> Result<Revision, redb::Error> {
    let counters = database.begin_read()?.open_table(COUNTERS)?;
    Ok(Revision(counters.get(REVISION)?.map_or(0, |revision| revision.value())))
}

/// Why a transaction is not known to be durable.
enum NotWritten {
    /// It was not committed.
    NotBegun(redb::Error),
    /// The commit failed.
    Perhaps(redb::Error),
}

impl NotWritten {
    fn reason(self) -> redb::Error {
        match self {
            Self::NotBegun(error) | Self::Perhaps(error) => error,
        }
    }
}

fn write_durably(
    database: &Database,
    write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), NotWritten> {
    let prepare = || -> Result<_, redb::Error> {
        let mut transaction = database.begin_write()?;
        // After a crash the file is opened in the time of a read, not of a scan.
        transaction.set_quick_repair(true);
        write(&transaction)?;
        Ok(transaction)
    };
    let transaction = prepare().map_err(NotWritten::NotBegun)?;
    transaction.commit().map_err(|error| NotWritten::Perhaps(error.into()))
}
