//! The live tails of sessions within one daemon.
//!
//! Each subscriber has a queue of its own, bounded by records and by bytes. One that falls behind is told how far, and
//! costs nothing until it comes to hear that: it reads on from the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use outlive_core::id::SessionId;
use outlive_core::limits::{WATCH_BYTES_MAX, WATCH_RECORDS_MAX};
use outlive_core::log::{Chunk, Entry, FencedBody, Payload, Record, RunRecord};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use crate::seams::Bus;

/// Publish and subscribe in memory.
#[derive(Default, Debug)]
pub struct LocalBus {
    topics: Mutex<HashMap<SessionId, Vec<Weak<Queue>>>>,
}

impl LocalBus {
    fn topics(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Weak<Queue>>>> {
        self.topics.lock().expect("nothing panics while it holds the topics")
    }
}

impl Bus for LocalBus {
    fn publish(&self, session: SessionId, entry: Arc<Entry>) {
        let mut topics = self.topics();
        let Some(queues) = topics.get_mut(&session) else { return };
        let bytes = bytes(&entry);
        queues.retain(|queue| {
            let queue = queue.upgrade();
            queue.inspect(|queue| queue.push(&entry, bytes)).is_some()
        });
        if queues.is_empty() {
            topics.remove(&session);
        }
    }

    fn subscribe(&self, session: SessionId) -> Tail {
        let queue = Arc::new(Queue::default());
        let mut topics = self.topics();
        let queues = topics.entry(session).or_default();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        Tail(queue)
    }

    fn close(&self, session: SessionId) {
        for queue in self.topics().remove(&session).into_iter().flatten() {
            if let Some(queue) = queue.upgrade() {
                queue.lock().closed = true;
                queue.told.notify_one();
            }
        }
    }
}

/// What one subscriber has not heard yet.
#[derive(Default, Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    told: Notify,
}

#[derive(Default, Debug)]
struct Waiting {
    entries: VecDeque<(Arc<Entry>, usize)>,
    bytes: usize,
    /// How many it has missed; while it has not heard of that, it misses what comes too.
    missed: u64,
    /// Nothing more will come.
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds a queue")
    }

    fn push(&self, entry: &Arc<Entry>, bytes: usize) {
        let mut waiting = self.lock();
        let fits = waiting.entries.is_empty()
            || (waiting.entries.len() < WATCH_RECORDS_MAX && waiting.bytes + bytes <= WATCH_BYTES_MAX);
        if waiting.missed == 0 && fits {
            waiting.bytes += bytes;
            waiting.entries.push_back((Arc::clone(entry), bytes));
        } else {
            waiting.missed += waiting.entries.len() as u64 + 1;
            waiting.entries = VecDeque::new();
            waiting.bytes = 0;
        }
        drop(waiting);
        self.told.notify_one();
    }
}

/// The live tail of one session, for one subscriber.
#[derive(Debug)]
pub struct Tail(Arc<Queue>);

impl Tail {
    /// The next entry. Cancel-safe.
    ///
    /// # Errors
    /// `Lagged` with the number of entries that this subscriber has missed, once; `Closed` after the last.
    pub async fn recv(&mut self) -> Result<Arc<Entry>, RecvError> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some((entry, bytes)) = waiting.entries.pop_front() {
                    waiting.bytes -= bytes;
                    return Ok(entry);
                }
                match (std::mem::take(&mut waiting.missed), waiting.closed) {
                    (0, false) => {}
                    (0, true) => return Err(RecvError::Closed),
                    (missed, _) => return Err(RecvError::Lagged(missed)),
                }
            }
            self.0.told.notified().await;
        }
    }
}

/// What an entry holds in memory beside its frame, in bytes.
fn bytes(entry: &Entry) -> usize {
    let of = |chunk: &Chunk| match &chunk.payload {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Blob(_) => 0,
    };
    match &entry.record {
        Record::Fenced(fenced) => match &fenced.body {
            FencedBody::Document(bytes) => bytes.len(),
            FencedBody::Run(RunRecord::Data { chunks, .. }) | FencedBody::Runtime { chunks, .. } => {
                chunks.iter().map(of).sum()
            }
            _ => 0,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::id::{Position, SessionId};
    use outlive_core::log::{Fenced, Lane};
    use uuid::Uuid;

    use super::*;

    fn session() -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(1))
    }

    fn entry(position: u64, bytes: usize) -> Arc<Entry> {
        let body = FencedBody::Document(vec![0; bytes]);
        let record = Record::Fenced(Fenced { claim: Position(1), source: None, body });
        Arc::new(Entry { position: Position(position), lane: Lane::Document, record })
    }

    #[tokio::test]
    async fn a_subscriber_that_falls_behind_in_bytes_is_told_and_holds_nothing() {
        let bus = LocalBus::default();
        let (mut slow, mut fast) = (bus.subscribe(session()), bus.subscribe(session()));
        let large = WATCH_BYTES_MAX / 4;
        let mut kept = Vec::new();
        for n in 1..=10 {
            let entry = entry(n, large);
            bus.publish(session(), Arc::clone(&entry));
            assert_eq!(fast.recv().await.unwrap().position, Position(n));
            kept.push(Arc::downgrade(&entry));
        }
        assert!(kept.iter().all(|entry| entry.strong_count() == 0), "what was missed is held by nobody");
        assert_eq!(slow.recv().await.unwrap_err(), RecvError::Lagged(10));
        bus.publish(session(), entry(11, 2 * WATCH_BYTES_MAX));
        assert_eq!(slow.recv().await.unwrap().position, Position(11), "one entry always fits");
    }

    #[tokio::test]
    async fn a_subscriber_hears_everything_in_order_and_then_the_end() {
        let bus = LocalBus::default();
        let mut tail = bus.subscribe(session());
        for n in 1..=WATCH_RECORDS_MAX as u64 {
            bus.publish(session(), entry(n, 1));
        }
        bus.close(session());
        for n in 1..=WATCH_RECORDS_MAX as u64 {
            assert_eq!(tail.recv().await.unwrap().position, Position(n));
        }
        assert_eq!(tail.recv().await.unwrap_err(), RecvError::Closed);
        let mut tail = bus.subscribe(session());
        for n in 0..=WATCH_RECORDS_MAX as u64 {
            bus.publish(session(), entry(n, 1));
        }
        assert_eq!(tail.recv().await.unwrap_err(), RecvError::Lagged(WATCH_RECORDS_MAX as u64 + 1));
        drop(tail);
        bus.publish(session(), entry(1, 1));
        assert!(bus.topics().is_empty(), "nobody is left to tell");
    }
}
