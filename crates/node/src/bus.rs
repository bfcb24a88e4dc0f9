//! The live tails of sessions within one daemon.
//!
//! Each subscriber has a queue of its own, bounded by records and by bytes. One that falls behind is told how far, and
//! costs nothing until it comes to hear that: it reads on from the log.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::id::{Position, SessionId};
use outlive_core::limits::{WATCH_BYTES_MAX, WATCH_RECORDS_MAX};
use outlive_core::log::{Chunk, Entry, FencedBody, Payload, Record, RunRecord};
use outlive_protocol::http::Problem;
use outlive_store::LaneFilter;
use tokio::sync::{Notify, watch};

use crate::seams::Bus;

/// Something that is over when this is dropped.
pub type Held = Box<dyn Any + Send + Sync>;

/// Why nobody may watch anything here, if that is so.
pub type Severed = Option<Arc<Problem>>;

/// Publish and subscribe in memory.
#[derive(Debug)]
pub struct LocalBus {
    topics: Arc<Topics>,
    severed: watch::Sender<Severed>,
}

impl Default for LocalBus {
    fn default() -> Self {
        Self { topics: Arc::default(), severed: watch::Sender::new(None) }
    }
}

/// The subscribers of each session, by the numbers of their subscriptions.
#[derive(Default, Debug)]
struct Topics(Mutex<Subscribers>);

#[derive(Default, Debug)]
struct Subscribers {
    by_session: HashMap<SessionId, BTreeMap<u64, Arc<Queue>>>,
    last: u64,
}

impl Topics {
    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.0.lock().expect("nothing panics while it holds the topics")
    }

    fn each(&self, session: SessionId, tell: impl Fn(&Queue)) {
        for queue in self.lock().by_session.get(&session).into_iter().flat_map(BTreeMap::values) {
            tell(queue);
        }
    }
}

impl Bus for LocalBus {
    fn publish(&self, session: SessionId, entry: Arc<Entry>) {
        let bytes = bytes(&entry);
        self.topics.each(session, |queue| queue.push(&entry, bytes));
    }

    fn subscribe(&self, session: SessionId, lanes: LaneFilter) -> Tail {
        let queue = Arc::new(Queue { lanes, waiting: Mutex::default(), told: Notify::new() });
        let mut topics = self.topics.lock();
        topics.last += 1;
        let number = topics.last;
        topics.by_session.entry(session).or_default().insert(number, Arc::clone(&queue));
        Tail { queue, session, number, topics: Arc::clone(&self.topics), held: None }
    }

    fn moved(&self, session: SessionId) {
        self.topics.each(session, Queue::moved);
    }

    fn close(&self, session: SessionId) {
        self.topics.each(session, |queue| queue.end(Cut::Closed));
    }

    fn fail(&self, session: SessionId, why: Problem) {
        let why = Arc::new(why);
        self.topics.each(session, |queue| queue.end(Cut::Failed(Arc::clone(&why))));
    }

    fn sever(&self, why: Problem) {
        self.severed.send_replace(Some(Arc::new(why)));
    }

    fn mend(&self) {
        self.severed.send_replace(None);
    }

    fn severed(&self) -> watch::Receiver<Severed> {
        self.severed.subscribe()
    }
}

/// Why a subscriber is not given the next entry.
#[derive(Clone, PartialEq, Debug)]
pub enum Cut {
    /// It has missed so many. The log has them.
    Lagged(u64),
    /// What it hears from now on comes from another writer, or another way: what lies between is in the log.
    Moved,
    /// The task that wrote here has ended.
    Closed,
    /// Nothing can be heard, for this reason.
    Failed(Arc<Problem>),
}

/// What one subscriber has not heard yet.
#[derive(Debug)]
struct Queue {
    lanes: LaneFilter,
    waiting: Mutex<Waiting>,
    told: Notify,
}

#[derive(Default, Debug)]
struct Waiting {
    entries: VecDeque<(Arc<Entry>, usize)>,
    bytes: usize,
    /// What it wanted up to here it has.
    passed: Position,
    /// What it is told first. While it has not heard of that, it misses what comes.
    cut: Option<Cut>,
    /// Nothing more will come, for this reason.
    end: Option<Cut>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds a queue")
    }

    fn push(&self, entry: &Arc<Entry>, bytes: usize) {
        let mut waiting = self.lock();
        if waiting.end.is_some() {
            return;
        }
        if !self.lanes.wants(entry.lane) {
            // Nobody is woken for it.
            if waiting.entries.is_empty() && waiting.cut.is_none() {
                waiting.passed = entry.position;
            }
            return;
        }
        let fits = waiting.entries.is_empty()
            || (waiting.entries.len() < WATCH_RECORDS_MAX && waiting.bytes + bytes <= WATCH_BYTES_MAX);
        match &mut waiting.cut {
            None if fits => {
                waiting.bytes += bytes;
                waiting.entries.push_back((Arc::clone(entry), bytes));
            }
            None => {
                let missed = waiting.forget() + 1;
                waiting.cut = Some(Cut::Lagged(missed));
            }
            Some(Cut::Lagged(missed)) => *missed += 1,
            Some(Cut::Moved | Cut::Closed | Cut::Failed(_)) => {}
        }
        drop(waiting);
        self.told.notify_one();
    }

    fn moved(&self) {
        let mut waiting = self.lock();
        waiting.forget();
        waiting.cut.get_or_insert(Cut::Moved);
        drop(waiting);
        self.told.notify_one();
    }

    fn end(&self, why: Cut) {
        self.lock().end.get_or_insert(why);
        self.told.notify_one();
    }
}

impl Waiting {
    /// Lets go of what it holds, and says how many entries that was.
    fn forget(&mut self) -> u64 {
        self.bytes = 0;
        std::mem::take(&mut self.entries).len() as u64
    }
}

/// The live tail of one session, for one subscriber.
pub struct Tail {
    queue: Arc<Queue>,
    session: SessionId,
    number: u64,
    topics: Arc<Topics>,
    held: Option<Held>,
}

impl Tail {
    /// This tail, which holds something as long as it is there.
    #[must_use]
    pub fn holding(mut self, held: Held) -> Self {
        self.held = Some(held);
        self
    }

    /// The next entry of the lanes that were asked for. Cancel-safe.
    ///
    /// # Errors
    /// [`Cut`]; after `Closed` and `Failed` nothing follows.
    pub async fn recv(&mut self) -> Result<Arc<Entry>, Cut> {
        loop {
            {
                let mut waiting = self.queue.lock();
                if let Some((entry, bytes)) = waiting.entries.pop_front() {
                    waiting.bytes -= bytes;
                    return Ok(entry);
                }
                if let Some(cut) = waiting.cut.take() {
                    return Err(cut);
                }
                if let Some(end) = &waiting.end {
                    return Err(end.clone());
                }
            }
            self.queue.told.notified().await;
        }
    }

    /// There is nothing of its lanes up to here that it was not given.
    #[must_use]
    pub fn passed(&self) -> Position {
        self.queue.lock().passed
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut topics = self.topics.lock();
        if let Some(queues) = topics.by_session.get_mut(&self.session) {
            queues.remove(&self.number);
            if queues.is_empty() {
                topics.by_session.remove(&self.session);
            }
        }
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("session", &self.session).finish_non_exhaustive()
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
    use futures_util::FutureExt as _;
    use outlive_core::id::{Position, RunId, SessionId};
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

    fn all(bus: &LocalBus) -> Tail {
        bus.subscribe(session(), LaneFilter::All)
    }

    fn of_run(position: u64, run: u128) -> Arc<Entry> {
        let lane = Lane::Run(RunId::from_uuid(Uuid::from_u128(run)));
        Arc::new(Entry { lane, ..(*entry(position, 1)).clone() })
    }

    #[tokio::test]
    async fn a_subscriber_that_falls_behind_in_bytes_is_told_and_holds_nothing() {
        let bus = LocalBus::default();
        let (mut slow, mut fast) = (all(&bus), all(&bus));
        let large = WATCH_BYTES_MAX / 4;
        let mut kept = Vec::new();
        for n in 1..=10 {
            let entry = entry(n, large);
            bus.publish(session(), Arc::clone(&entry));
            assert_eq!(fast.recv().await.unwrap().position, Position(n));
            kept.push(Arc::downgrade(&entry));
        }
        assert!(kept.iter().all(|entry| entry.strong_count() == 0), "what was missed is held by nobody");
        assert_eq!(slow.recv().await.unwrap_err(), Cut::Lagged(10));
        bus.publish(session(), entry(11, 2 * WATCH_BYTES_MAX));
        assert_eq!(slow.recv().await.unwrap().position, Position(11), "one entry always fits");
    }

    #[tokio::test]
    async fn a_subscriber_hears_everything_in_order_and_then_the_end() {
        let bus = LocalBus::default();
        let mut tail = all(&bus);
        for n in 1..=WATCH_RECORDS_MAX as u64 {
            bus.publish(session(), entry(n, 1));
        }
        bus.close(session());
        for n in 1..=WATCH_RECORDS_MAX as u64 {
            assert_eq!(tail.recv().await.unwrap().position, Position(n));
        }
        assert_eq!(tail.recv().await.unwrap_err(), Cut::Closed);
        drop(tail);
        let mut tail = all(&bus);
        for n in 0..=WATCH_RECORDS_MAX as u64 {
            bus.publish(session(), entry(n, 1));
        }
        assert_eq!(tail.recv().await.unwrap_err(), Cut::Lagged(WATCH_RECORDS_MAX as u64 + 1));
        drop(tail);
        assert!(bus.topics.lock().by_session.is_empty(), "nobody is left to tell");
    }

    #[tokio::test]
    async fn what_others_print_wakes_nobody_and_is_not_read_again() {
        let bus = LocalBus::default();
        let lane = of_run(0, 7).lane;
        let mut tail = bus.subscribe(session(), LaneFilter::Only(vec![lane]));
        for n in 1..=2 * WATCH_RECORDS_MAX as u64 {
            bus.publish(session(), of_run(n, 8));
        }
        let behind = 2 * WATCH_RECORDS_MAX as u64;
        assert!(tail.recv().now_or_never().is_none(), "nothing of it was for this one");
        assert_eq!(tail.passed(), Position(behind));
        bus.publish(session(), of_run(behind + 1, 7));
        bus.publish(session(), of_run(behind + 2, 8));
        assert_eq!(tail.passed(), Position(behind), "it has not taken what stands before that");
        assert_eq!(tail.recv().await.unwrap().position, Position(behind + 1));
    }

    #[tokio::test]
    async fn another_writer_is_heard_only_by_who_has_been_told_of_it() {
        let bus = LocalBus::default();
        let mut tail = all(&bus);
        bus.publish(session(), entry(1, 1));
        bus.moved(session());
        bus.publish(session(), entry(3, 1));
        assert_eq!(tail.recv().await.unwrap_err(), Cut::Moved, "what came before and after is in the log");
        bus.publish(session(), entry(4, 1));
        assert_eq!(tail.recv().await.unwrap().position, Position(4));
        assert!(tail.recv().now_or_never().is_none());
    }
}
