//! What the tests here have in common: engines, sessions, records.

use std::time::Duration;

use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Control, Entry, Fenced, FencedBody, Lane, Record};
use outlive_store::{AppendError, Durability, Engine, Guard, LaneFilter, ReadLimit};
use outlive_store_nats::testing::NatsServer;
use outlive_store_nats::{ConnectError, Nats, NatsTransport, Settings};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

/// More than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// An engine with a spool of its own, as a node has it.
pub struct Node {
    pub nats: Nats,
    pub settings: Settings,
    pub spool: TempDir,
}

impl Node {
    pub async fn on(servers: &str) -> Self {
        Self::with(servers, |_| {}).await
    }

    pub async fn replicated(servers: &str) -> Self {
        Self::with(servers, |settings| settings.replicas = 3).await
    }

    pub async fn with(servers: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let spool = TempDir::new().unwrap();
        let mut settings = settings(servers, &spool);
        // Servers that elect their leaders on a busy machine take a while.
        settings.wait = Some(PATIENCE);
        change(&mut settings);
        Self { nats: Nats::connect(settings.clone()).await.unwrap(), settings, spool }
    }

    pub async fn transport(&self) -> NatsTransport {
        NatsTransport::connect(&self.settings).await.unwrap()
    }

    pub async fn claim(
        &self,
        session: SessionId,
        previous: Position,
        epoch: u64,
    ) -> Result<Position, AppendError> {
        let record = claim(previous, epoch);
        let guard = Guard::Previous(previous);
        self.nats.append(session, Lane::Control, guard, &record, Durability::Synced).await
    }

    pub async fn claimed(&self) -> (SessionId, Position) {
        let session = session();
        (session, self.claim(session, Position(0), 1).await.unwrap())
    }

    pub async fn append(
        &self,
        session: SessionId,
        claim: Position,
        bytes: &[u8],
    ) -> Result<Position, AppendError> {
        let record = document(claim, bytes);
        self.nats.append(session, Lane::Document, Guard::Claim(claim), &record, Durability::Written).await
    }

    /// All records behind a position; waits while the store cannot be read.
    pub async fn all(&self, session: SessionId, mut after: Position) -> Vec<Entry> {
        let mut all = Vec::new();
        let read = async {
            loop {
                match self.nats.read(session, after, &LaneFilter::All, ReadLimit::default()).await {
                    Ok(page) if page.entries.is_empty() => return,
                    Ok(page) => {
                        all.extend(page.entries);
                        after = page.through;
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        timeout(PATIENCE, read).await.unwrap();
        all
    }

    /// The contents of the document lane, as numbers.
    pub async fn numbers(&self, session: SessionId) -> Vec<u32> {
        self.all(session, Position(0)).await.iter().filter_map(number).collect()
    }
}

/// Why there is no engine on these servers.
pub async fn refused(servers: &str, change: impl FnOnce(&mut Settings)) -> ConnectError {
    let spool = TempDir::new().unwrap();
    let mut settings = settings(servers, &spool);
    change(&mut settings);
    Nats::connect(settings).await.expect_err("it cannot be used")
}

/// A request of JetStream that somebody makes by hand.
pub async fn by_hand(server: &NatsServer, operation: &str, request: Value) -> Value {
    let client = async_nats::connect(server.url()).await.unwrap();
    let request = if request.is_null() { String::new() } else { request.to_string() };
    let answer = client.request(format!("$JS.API.{operation}"), request.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_null(), "{operation}: {answer}");
    answer
}

pub fn settings(servers: &str, spool: &TempDir) -> Settings {
    Settings { shards: 2, ..Settings::new(servers.split(','), spool.path()) }
}

pub fn session() -> SessionId {
    SessionId::from_uuid(Uuid::new_v4())
}

pub fn claim(previous: Position, epoch: u64) -> Record {
    let (node, boot) = (NodeId::from_uuid(Uuid::new_v4()), BootId::from_uuid(Uuid::new_v4()));
    let change = ControlChange::Claim { epoch: Epoch(epoch), node, boot };
    Record::Control(Control { prev: previous, change })
}

pub fn document(claim: Position, bytes: &[u8]) -> Record {
    Record::Fenced(Fenced { claim, source: None, body: FencedBody::Document(bytes.to_vec()) })
}

/// What [`document`] was made with, if it was four bytes.
pub fn number(entry: &Entry) -> Option<u32> {
    match &entry.record {
        Record::Fenced(Fenced { body: FencedBody::Document(bytes), .. }) => {
            Some(u32::from_le_bytes(bytes.as_slice().try_into().ok()?))
        }
        _ => None,
    }
}
