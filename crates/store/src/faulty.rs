//! Any engine, made to fail on order: what a network and a crash do to a store, without either.
//!
//! A plan is asked before each operation. It may be a script, or draw from a seeded generator; the same answers give
//! the same faults. A torn tail is what [`crate::Memory::lose_behind`] makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::{BlobRef, Lane, Record};
use tokio::sync::watch;

use crate::engine::{BlobStamp, Dropped, Durability, Engine, Guard, LaneFilter, Page, ReadLimit, Usage};
use crate::error::{AppendError, BlobError, ReadError, TableError, Unavailable};
use crate::table::{Row, TableWatch};

/// An operation that is about to be done.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Operation<'a> {
    /// An append.
    Append {
        /// Of which session.
        session: SessionId,
        /// To which lane.
        lane: Lane,
        /// What.
        record: &'a Record,
    },
    /// A read of a log.
    Read {
        /// Of which session.
        session: SessionId,
    },
    /// A read of a table.
    TableRead,
    /// A write of a table.
    TableWrite,
}

/// What goes wrong with an operation. A fault that makes no sense for it is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It is done, and its answer is lost: `Unknown`.
    LostAck,
    /// It is not done, and nobody can tell: `Unknown`.
    LostRequest,
    /// It is refused: `Unavailable`.
    Unavailable,
    /// A record is stored twice, as a retry in the network would do. Answered with the first position.
    Duplicate,
    /// A record is stored although its guard does not hold, as NATS before 2.11 did.
    DoubleAdmit,
    /// It is done after a while.
    Delay(Duration),
}

type Plan = Box<dyn FnMut(Operation<'_>) -> Fault + Send>;

/// An engine with faults.
pub struct Faulty<E> {
    inner: E,
    plan: Mutex<Plan>,
}

impl<E: Engine> Faulty<E> {
    /// `inner`, with the faults that `plan` gives.
    pub fn new(inner: E, plan: impl FnMut(Operation<'_>) -> Fault + Send + 'static) -> Self {
        Self { inner, plan: Mutex::new(Box::new(plan)) }
    }

    /// The engine without faults.
    pub fn inner(&self) -> &E {
        &self.inner
    }

    /// The fault of an operation; a delay has passed when this returns.
    async fn fault(&self, operation: Operation<'_>) -> Fault {
        let fault = {
            // A plan that panicked has failed its test already.
            let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            plan(operation)
        };
        if let Fault::Delay(delay) = fault {
            #[expect(
                clippy::disallowed_methods,
                reason = "the fault is the delay; tests run in paused time"
            )]
            tokio::time::sleep(delay).await;
        }
        fault
    }

    async fn read_fault(&self, operation: Operation<'_>) -> Result<(), Unavailable> {
        match self.fault(operation).await {
            Fault::Unavailable | Fault::LostAck | Fault::LostRequest => Err(ordered("read")),
            Fault::None | Fault::Duplicate | Fault::DoubleAdmit | Fault::Delay(_) => Ok(()),
        }
    }

    /// Runs a write of a table with a fault.
    async fn table_write<T>(
        &self,
        write: impl Future<Output = Result<T, TableError>> + Send,
    ) -> Result<T, TableError> {
        match self.fault(Operation::TableWrite).await {
            Fault::Unavailable => Err(ordered("write a table").into()),
            Fault::LostRequest => Err(TableError::Unknown),
            Fault::LostAck => {
                // Stored or refused: the caller does not hear of it.
                let _ = write.await;
                Err(TableError::Unknown)
            }
            Fault::None | Fault::Duplicate | Fault::DoubleAdmit | Fault::Delay(_) => write.await,
        }
    }
}

fn ordered(what: &str) -> Unavailable {
    Unavailable::new(what, io::Error::other("a fault was ordered"))
}

#[async_trait]
impl<E: Engine> Engine for Faulty<E> {
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        durability: Durability,
    ) -> Result<Position, AppendError> {
        let append = |guard| self.inner.append(session, lane, guard, record, durability);
        match self.fault(Operation::Append { session, lane, record }).await {
            Fault::None | Fault::Delay(_) => append(guard).await,
            Fault::Unavailable => Err(ordered("append").into()),
            Fault::LostRequest => Err(AppendError::Unknown),
            Fault::LostAck => {
                // Stored or refused: the caller does not hear of it.
                let _ = append(guard).await;
                Err(AppendError::Unknown)
            }
            Fault::Duplicate => {
                let first = append(guard).await;
                // On the control lane the second is refused, as it should be.
                let _ = append(guard).await;
                first
            }
            Fault::DoubleAdmit => match append(guard).await {
                Err(AppendError::Conflict { last_control }) => match guard {
                    Guard::Claim(_) => append(Guard::Claim(last_control)).await,
                    Guard::Previous(_) => append(Guard::Previous(last_control)).await,
                    Guard::None => append(Guard::None).await,
                },
                other => other,
            },
        }
    }

    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        self.read_fault(Operation::Read { session }).await?;
        self.inner.read(session, after, lanes, limit).await
    }

    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        self.inner.head(session).await
    }

    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError> {
        self.inner.sessions().await
    }

    async fn dropped(&self, session: SessionId) -> Result<Vec<Dropped>, ReadError> {
        self.inner.dropped(session).await
    }

    async fn all_dropped(&self) -> Result<Vec<(SessionId, Dropped)>, ReadError> {
        self.inner.all_dropped().await
    }

    async fn trim(
        &self,
        session: SessionId,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<u64, ReadError> {
        self.inner.trim(session, lanes, before).await
    }

    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable> {
        self.inner.drop_session(session).await
    }

    async fn close_session(&self, session: SessionId) {
        self.inner.close_session(session).await;
    }

    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError> {
        self.inner.usage(session).await
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        self.read_fault(Operation::TableRead).await?;
        self.inner.get(table, key).await
    }

    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        self.table_write(self.inner.put_if(table, key, expected, value)).await
    }

    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        self.table_write(self.inner.delete_if(table, key, expected)).await
    }

    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        self.read_fault(Operation::TableRead).await?;
        self.inner.scan(table, prefix).await
    }

    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        self.read_fault(Operation::TableRead).await?;
        self.inner.watch(table, prefix).await
    }

    async fn blob_directory(&self, session: SessionId) -> Result<Option<PathBuf>, BlobError> {
        self.inner.blob_directory(session).await
    }

    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError> {
        self.inner.put_blob(session, blob, file).await
    }

    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        self.inner.put_blob_bytes(session, bytes, mime).await
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        self.inner.get_blob(session, sha256).await
    }

    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        self.inner.old_blobs(session, age).await
    }

    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        self.inner.remove_blobs(session, listed).await
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        self.inner.flush().await
    }
}
