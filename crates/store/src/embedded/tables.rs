//! Tables in one redb file. Each write is one durable commit; a watch begins under the lock that writes take.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use outlive_core::id::Revision;
use outlive_core::limits::{TABLE_CACHE_BYTES, TABLE_VALUE_BYTES_MAX, TABLE_WATCH_CHANGES_MAX};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableDefinition, WriteTransaction};
use tokio::sync::broadcast;

use super::OpenError;
use crate::error::{TableError, Unavailable};
use crate::table::{Change, Row, TableEvent, TableWatch};

/// (table, key) → (revision, value).
const ROWS: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("rows");
/// `revision`: the last one that was given.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";

/// The tables of one engine.
pub(super) struct Tables {
    database: Database,
    /// Held from the commit to the telling of it, so that watchers hear of changes in their order.
    changes: Mutex<broadcast::Sender<TableEvent>>,
}

impl Tables {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let io_failed =
            |source| OpenError::Unavailable(Unavailable::new(format!("open {}", path.display()), source));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io_failed)?;
        // redb says that it may panic on a file that something else has damaged.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let file = FileBackend::new(file)?;
            Builder::new().set_cache_size(TABLE_CACHE_BYTES).create_with_backend(file)
        }));
        let damaged = |what: String| OpenError::TablesDamaged { path: path.to_owned(), what };
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(OpenError::InUse { path: path.to_owned() });
            }
            Ok(Err(error)) => return Err(damaged(error.to_string())),
            Err(_) => return Err(damaged("its structure is broken".to_owned())),
        };
        let tables = Self { database, changes: Mutex::new(broadcast::channel(TABLE_WATCH_CHANGES_MAX).0) };
        // So that reading never meets a table that is not there. Nothing is written when they are.
        if tables.revision().is_err() {
            tables
                .commit(|write| {
                    write.open_table(ROWS)?;
                    write.open_table(COUNTERS)?;
                    Ok(())
                })
                .map_err(|error| damaged(error.to_string()))?;
        }
        Ok(tables)
    }

    pub(super) fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        let read = || -> Result<_, redb::Error> {
            let rows = self.database.begin_read()?.open_table(ROWS)?;
            let row = rows.get((table, key))?;
            Ok(row.map(|row| {
                let (revision, value) = row.value();
                Row { key: key.to_owned(), revision: Revision(revision), value: value.to_vec() }
            }))
        };
        read().map_err(|error| unavailable("read a table", error))
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
        let revision = self.revision().map_err(|error| unavailable("read a table", error))?.next();
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

    /// Runs `write` in one durable transaction. An error before the commit has changed nothing.
    fn commit(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), TableError> {
        let prepare = || -> Result<_, redb::Error> {
            let mut transaction = self.database.begin_write()?;
            // After a crash the file is opened in the time of a read, not of a scan.
            transaction.set_quick_repair(true);
            write(&transaction)?;
            Ok(transaction)
        };
        let transaction = prepare().map_err(|error| unavailable("write a table", error))?;
        transaction.commit().map_err(|error| {
            tracing::error!(%error, "a commit to the tables failed");
            TableError::Unknown
        })
    }

    /// The rows under a prefix, and the revision of the store that they are of.
    fn snapshot(&self, table: &str, prefix: &str) -> Result<(Vec<Row>, Revision), TableError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
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
        };
        read().map_err(|error| unavailable("read a table", error))
    }

    fn revision(&self) -> Result<Revision, redb::Error> {
        let counters = self.database.begin_read()?.open_table(COUNTERS)?;
        Ok(Revision(counters.get(REVISION)?.map_or(0, |revision| revision.value())))
    }

    fn lock(&self) -> MutexGuard<'_, broadcast::Sender<TableEvent>> {
        self.changes.lock().expect("no holder of this lock panics")
    }
}

fn unavailable(what: &str, error: redb::Error) -> TableError {
    Unavailable::new(what, io::Error::other(error)).into()
}
