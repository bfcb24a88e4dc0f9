//! A node's ways to the world, which can be shut: then nothing it asks the store is answered, and nobody hears it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::{BlobRef, Lane, Record};
use outlive_store::engine::{Dropped, Durability, Engine, Guard, LaneFilter, Page, ReadLimit, Usage};
use outlive_store::faulty::{Fault, Operation};
use outlive_store::{
    AppendError, BlobError, BlobStamp, Connection, Faulty, Heard, Memory, MemoryTransport, ReadError, Row,
    TableError, TableWatch, Topic, Transport, Unavailable,
};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

/// Whether a node is reached.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }
}

impl Gate {
    pub fn shut(&self) {
        self.0.send_replace(false);
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("we hold the sender");
    }
}

/// What goes wrong with a node's operations, as the test says at the moment.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<Plan>>);

type Plan = Box<dyn FnMut(Operation<'_>) -> Fault + Send>;

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Box::new(|_| Fault::None))))
    }
}

impl Faults {
    pub fn set(&self, plan: impl FnMut(Operation<'_>) -> Fault + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(plan);
    }
}

/// The store as one node reaches it.
pub struct GatedEngine {
    inner: Faulty<Memory>,
    gate: Gate,
    blobs: PathBuf,
}

impl GatedEngine {
    pub fn new(store: Memory, gate: Gate, faults: Faults, blobs: PathBuf) -> Self {
        let plan = move |operation: Operation<'_>| (faults.0.lock().unwrap())(operation);
        Self { inner: Faulty::new(store, plan), gate, blobs }
    }
}

#[async_trait]
impl Engine for GatedEngine {
    async fn append(
        &self,
        session: SessionId,
        lane: Lane,
        guard: Guard,
        record: &Record,
        durability: Durability,
    ) -> Result<Position, AppendError> {
        self.gate.pass().await;
        self.inner.append(session, lane, guard, record, durability).await
    }

    async fn read(
        &self,
        session: SessionId,
        after: Position,
        lanes: &LaneFilter,
        limit: ReadLimit,
    ) -> Result<Page, ReadError> {
        self.gate.pass().await;
        self.inner.read(session, after, lanes, limit).await
    }

    async fn head(&self, session: SessionId) -> Result<watch::Receiver<Position>, ReadError> {
        self.gate.pass().await;
        self.inner.head(session).await
    }

    async fn sessions(&self) -> Result<Vec<SessionId>, ReadError> {
        self.gate.pass().await;
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
        self.gate.pass().await;
        self.inner.trim(session, lanes, before).await
    }

    async fn drop_session(&self, session: SessionId) -> Result<(), Unavailable> {
        self.gate.pass().await;
        self.inner.drop_session(session).await
    }

    async fn close_session(&self, _session: SessionId) {
        // What one node lets go of is all that the others have.
    }

    async fn usage(&self, session: SessionId) -> Result<Usage, ReadError> {
        self.gate.pass().await;
        self.inner.usage(session).await
    }

    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, TableError> {
        self.gate.pass().await;
        self.inner.get(table, key).await
    }

    async fn put_if(
        &self,
        table: &str,
        key: &str,
        expected: Revision,
        value: &[u8],
    ) -> Result<Revision, TableError> {
        self.gate.pass().await;
        self.inner.put_if(table, key, expected, value).await
    }

    async fn delete_if(&self, table: &str, key: &str, expected: Revision) -> Result<(), TableError> {
        self.gate.pass().await;
        self.inner.delete_if(table, key, expected).await
    }

    async fn scan(&self, table: &str, prefix: &str) -> Result<Vec<Row>, TableError> {
        self.gate.pass().await;
        self.inner.scan(table, prefix).await
    }

    async fn watch(&self, table: &str, prefix: &str) -> Result<TableWatch, TableError> {
        self.gate.pass().await;
        self.inner.watch(table, prefix).await
    }

    async fn blob_directory(&self, session: SessionId) -> Result<Option<PathBuf>, BlobError> {
        let folder = self.blobs.join(session.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        Ok(Some(folder))
    }

    async fn put_blob(&self, session: SessionId, blob: &BlobRef, file: &Path) -> Result<(), BlobError> {
        self.gate.pass().await;
        self.inner.put_blob(session, blob, file).await
    }

    async fn put_blob_bytes(
        &self,
        session: SessionId,
        bytes: &[u8],
        mime: &str,
    ) -> Result<BlobRef, BlobError> {
        self.gate.pass().await;
        self.inner.put_blob_bytes(session, bytes, mime).await
    }

    async fn get_blob(&self, session: SessionId, sha256: &str) -> Result<File, BlobError> {
        self.gate.pass().await;
        self.inner.get_blob(session, sha256).await
    }

    async fn old_blobs(
        &self,
        session: SessionId,
        age: Duration,
    ) -> Result<BTreeMap<String, BlobStamp>, BlobError> {
        self.gate.pass().await;
        self.inner.old_blobs(session, age).await
    }

    async fn remove_blobs(
        &self,
        session: SessionId,
        listed: &BTreeMap<String, BlobStamp>,
    ) -> Result<u64, BlobError> {
        self.gate.pass().await;
        self.inner.remove_blobs(session, listed).await
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        self.gate.pass().await;
        self.inner.flush().await
    }
}

/// The way to the other nodes as one of them has it.
#[derive(Clone, Debug)]
pub struct GatedTransport {
    inner: MemoryTransport,
    gate: Gate,
    listeners: TaskTracker,
}

impl GatedTransport {
    pub fn new(inner: MemoryTransport, gate: Gate) -> Self {
        Self { inner, gate, listeners: TaskTracker::new() }
    }
}

impl Transport for GatedTransport {
    fn send(&self, topic: Topic, message: Bytes) {
        if self.gate.is_open() {
            self.inner.send(topic, message);
        }
    }

    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard> {
        let mut heard = self.inner.listen(topic);
        let (to, passed) = mpsc::channel(1_024);
        let gate = self.gate.clone();
        self.listeners.spawn(async move {
            while let Some(heard) = heard.recv().await {
                if gate.is_open() && to.send(heard).await.is_err() {
                    return;
                }
            }
        });
        passed
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.connection()
    }
}
