//! The store that all nodes share, as each of them reaches it: over a network that loses questions and answers.
//!
//! The content is that of [`Memory`], which passes the suite of every engine. What is added is the way there and back:
//! a question arrives after a while, or never, or when nobody waits for it any more; so does its answer.

mod reached;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use outlive_core::id::{Position, Revision, SessionId};
use outlive_core::log::{Entry, Lane};
use outlive_core::time::Tick;
use outlive_store::{Change, Durability, Engine as _, LaneFilter, Memory, ReadLimit, Row, TableEvent};
use tokio::sync::{broadcast, watch};

use crate::schedule::{Life, Place};
use crate::world::World;
pub use reached::Reached;
pub(crate) use words::short;

/// How long a node waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Changes of tables that a slow watcher may be behind.
const CHANGES: usize = 256;

/// What goes wrong with the store. Numbers are times in a thousand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// It is done, and its answer is lost.
    pub lost_answer: u64,
    /// It is not done, and nobody can tell.
    pub lost_question: u64,
    /// Nobody can tell, and it is done later.
    pub late: u64,
    /// It is refused.
    pub unavailable: u64,
    /// A record is stored twice.
    pub twice: u64,
    /// A claim is stored although another one was quicker.
    pub double_admitted: u64,
    /// A reader is given what was there some time ago first, and is told late that there is more.
    pub lagging: u64,
    /// A change of a table is not told; that something is missing is.
    pub gap: u64,
    /// How long a question or an answer takes, in microseconds.
    pub slow_us: u64,
}

/// A record as it was stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// When.
    pub at: Tick,
    /// By whom.
    pub by: Life,
    /// Where it belongs.
    pub lane: Lane,
    /// Whether its writer knows that it is there.
    pub is_acknowledged: bool,
    /// What it must be: as durable as this.
    pub durability: Durability,
}

/// What stands in the store, and what the checks want to know of it.
#[derive(Default)]
pub struct Store {
    /// What is there.
    pub truth: Memory,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    faults: Faults,
    /// Until then it answers nothing.
    silent_until: Tick,
    /// Everything that was ever stored and not removed since by somebody who may.
    stored: BTreeMap<(SessionId, Position), Stored>,
    heads: BTreeMap<(Life, SessionId), watch::Sender<Position>>,
    changes: BTreeMap<Life, broadcast::Sender<TableEvent>>,
    /// Of the last change of any table.
    revision: Revision,
    /// Changes go to a node in their order.
    told: BTreeMap<Life, Tick>,
    /// What a node says of one session arrives in the order in which it was said.
    asked: BTreeMap<(Life, SessionId), Tick>,
    /// Behind these positions something was lost with the power.
    torn: BTreeMap<SessionId, Vec<Position>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the store")
    }

    /// From now on this goes wrong.
    pub fn suffer(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// It answers nothing until then: a leader is elected.
    pub fn fall_silent(&self, until: Tick) {
        let mut inner = self.lock();
        inner.silent_until = inner.silent_until.max(until);
    }

    /// All that was stored and not removed.
    pub fn stored(&self) -> BTreeMap<(SessionId, Position), Stored> {
        self.lock().stored.clone()
    }

    /// The whole log of a session.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn log(&self, session: SessionId) -> Vec<Entry> {
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
        at_once(self.truth.read(session, Position(0), &LaneFilter::All, limit))
            .expect("it is in memory")
            .entries
    }

    /// Every session that has a log.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn sessions(&self) -> Vec<SessionId> {
        at_once(self.truth.sessions()).expect("it is in memory")
    }

    /// Every row of a table.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn rows(&self, table: &str) -> Vec<Row> {
        at_once(self.truth.scan(table, "")).expect("it is in memory")
    }

    /// Whether something behind this position was lost with the power.
    pub fn is_torn(&self, session: SessionId) -> bool {
        self.lock().torn.contains_key(&session)
    }

    /// The power fails: of each log's end, what need not be durable may be lost. Acknowledged or not.
    pub fn lose_power(&self, world: &World) {
        let now = world.schedule.now();
        let window = Duration::from_millis(outlive_core::limits::FSYNC_MS);
        for session in self.sessions() {
            let mut inner = self.lock();
            let mut last = None;
            let mut records = 0;
            for ((_, position), stored) in
                inner.stored.range((session, Position(0))..=(session, Position(u64::MAX))).rev()
            {
                let is_durable = stored.durability == Durability::Synced && stored.is_acknowledged;
                if is_durable || stored.at + window < now || world.seed.draw(("torn", session)).happens(300) {
                    last = Some(*position);
                    break;
                }
                records += 1;
            }
            if records == 0 {
                continue;
            }
            let last = last.unwrap_or_default();
            let gone: Vec<_> = inner
                .stored
                .range((session, last.next())..=(session, Position(u64::MAX)))
                .map(|(key, _)| *key)
                .collect();
            for key in gone {
                inner.stored.remove(&key);
            }
            inner.torn.entry(session).or_default().push(last);
            drop(inner);
            self.truth.lose_behind(session, last);
            world.tell(None, format_args!("the power took {records} records of {session} behind {last}"));
        }
    }

    /// A life is over: nobody waits for heads and changes any more.
    pub fn forget(&self, life: Life) {
        let mut inner = self.lock();
        inner.heads.retain(|(of, _), _| *of != life);
        inner.asked.retain(|(of, _), _| *of != life);
        inner.changes.remove(&life);
    }

    /// A node can be reached again: it is told what is new.
    pub fn rearm(&self, world: &Arc<World>, life: Life) {
        let sessions: Vec<_> =
            self.lock().heads.keys().filter(|(of, _)| *of == life).map(|(_, session)| *session).collect();
        for session in sessions {
            self.announce_to(world, life, session);
        }
        self.tell_gap(world, life);
    }

    fn tell_gap(&self, world: &Arc<World>, life: Life) {
        for table in ["sessions", "nodes", "paths", "trust", "groups", "names"] {
            self.tell_change(world, life, TableEvent { table: table.to_owned(), change: Change::Gap });
        }
    }

    fn announce(&self, world: &Arc<World>, session: SessionId) {
        let lives: Vec<_> =
            self.lock().heads.keys().filter(|(_, of)| *of == session).map(|(life, _)| *life).collect();
        for life in lives {
            self.announce_to(world, life, session);
        }
    }

    fn announce_to(&self, world: &Arc<World>, life: Life, session: SessionId) {
        let mut random = world.seed.draw(("head", life, session));
        if !world.wire.reaches(life.node) {
            return;
        }
        let lags = random.happens(self.lock().faults.lagging);
        let wait = if lags { random.millis(1..600) } else { random.micros(50..800) };
        let (schedule, world) = (world.schedule.clone(), Arc::clone(world));
        schedule.after(wait, Place::Node(life), move || {
            let head = at_once(world.store.truth.head(session)).expect("it is in memory");
            let position = *head.borrow();
            if let Some(head) = world.store.lock().heads.get(&(life, session)) {
                head.send_if_modified(|before| {
                    let is_new = position > *before;
                    *before = position.max(*before);
                    is_new
                });
            }
        });
    }

    /// Tells all nodes of a change of a table.
    fn tell(&self, world: &Arc<World>, event: &TableEvent) {
        let lives: Vec<_> = self.lock().changes.keys().copied().collect();
        for life in lives {
            let gap = self.lock().faults.gap;
            if !world.wire.reaches(life.node) {
                continue;
            }
            if world.seed.draw(("change", life)).happens(gap) {
                self.tell_gap(world, life);
            } else {
                self.tell_change(world, life, event.clone());
            }
        }
    }

    fn tell_change(&self, world: &Arc<World>, life: Life, event: TableEvent) {
        let wait = world.seed.draw(("tell", life)).micros(100..3_000);
        let mut inner = self.lock();
        let Some(to) = inner.changes.get(&life).cloned() else { return };
        let last = inner.told.entry(life).or_default();
        let at = (*last + Duration::from_nanos(1)).max(world.schedule.now() + wait);
        *last = at;
        drop(inner);
        // Nobody may be watching.
        world.schedule.at(at, Place::Node(life), move || drop(to.send(event)));
    }
}

/// The result of something that never waits.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("what is in memory is not waited for")
}
