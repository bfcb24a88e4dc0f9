//! Which node has which session, as the table of sessions says: in memory, and at most a moment behind. A hint: who
//! acts on it is told by the log whether it was right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::failover::plan::{Orphan, Urgency};
use outlive_core::id::{NodeId, SessionId};
use outlive_core::limits::{LISTING_PERIOD_MS, STORE_RETRY_MS};
use outlive_store::{Change, TableWatch};
use tokio::sync::{Notify, watch};

use super::Cluster;
use crate::context::{Context, Indexed, Presence, SESSIONS};
use crate::session::with_sources;

/// What is known of a session without its log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Where it stands.
    pub presence: Presence,
    /// Who has it open.
    pub owner: Option<Member>,
    /// Whether it has a live kernel.
    pub has_kernel: bool,
    /// Whether it works by itself: a group or a command.
    works: Works,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Works {
    ByItself,
    WhenAsked,
}

impl From<&Indexed> for Listed {
    fn from(row: &Indexed) -> Self {
        let works = match row.view.kind.as_str() {
            "runners" | "command" => Works::ByItself,
            _ => Works::WhenAsked,
        };
        Self { presence: row.presence, owner: row.owner, has_kernel: row.has_kernel, works }
    }
}

impl Listed {
    /// As somebody sees it who may take it over.
    #[must_use]
    pub fn orphan(&self, session: SessionId, is_watched: bool) -> Orphan {
        let urgency = match (is_watched, self.works) {
            (true, _) => Urgency::Watched,
            (false, Works::ByItself) => Urgency::Works,
            (false, Works::WhenAsked) => Urgency::Waits,
        };
        Orphan { session, owner: self.owner, has_kernel: self.has_kernel, urgency }
    }
}

/// All sessions of a cluster.
#[derive(Debug)]
pub struct Directory {
    rows: Mutex<Rows>,
    /// Whether all rows are here and each change comes.
    armed: watch::Sender<bool>,
    /// There are sessions that were given away, or are open and nobody's.
    unowned: Notify,
    /// There are sessions that have another owner than before.
    moved: Notify,
    /// Rises with each change.
    changes: watch::Sender<u64>,
}

#[derive(Default, Debug)]
struct Rows {
    all: BTreeMap<SessionId, Listed>,
    unowned: BTreeSet<SessionId>,
    moved: BTreeSet<SessionId>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            armed: watch::Sender::new(false),
            unowned: Notify::new(),
            moved: Notify::new(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Directory {
    /// Whether all rows are here and each change comes, live.
    #[must_use]
    pub fn armed(&self) -> watch::Receiver<bool> {
        self.armed.subscribe()
    }

    /// Rises with each change that has come.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().expect("nothing panics while it holds the rows")
    }

    /// What is known of a session.
    #[must_use]
    pub fn get(&self, session: SessionId) -> Option<Listed> {
        self.rows().all.get(&session).cloned()
    }

    /// The open sessions that are so, in order of their ids.
    #[must_use]
    pub fn open(&self, is_so: impl Fn(&Listed) -> bool) -> Vec<(SessionId, Listed)> {
        let rows = self.rows();
        let open = rows.all.iter().filter(|(_, row)| row.presence == Presence::Open && is_so(row));
        open.map(|(id, row)| (*id, row.clone())).collect()
    }

    /// How many sessions each node has open.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<NodeId, u64> {
        let mut counts = BTreeMap::new();
        for owner in self.rows().all.values().filter_map(|row| row.owner) {
            *counts.entry(owner.node).or_default() += 1;
        }
        counts
    }

    /// The sessions that are open and have become nobody's since the last call; waits for the first. Cancel-safe.
    pub async fn unowned(&self) -> BTreeSet<SessionId> {
        loop {
            let unowned = std::mem::take(&mut self.rows().unowned);
            if !unowned.is_empty() {
                return unowned;
            }
            self.unowned.notified().await;
        }
    }

    /// The sessions that have got another owner since the last call; waits for the first. Cancel-safe.
    pub async fn moved(&self) -> BTreeSet<SessionId> {
        loop {
            let moved = std::mem::take(&mut self.rows().moved);
            if !moved.is_empty() {
                return moved;
            }
            self.moved.notified().await;
        }
    }

    fn put(&self, session: SessionId, row: Listed) {
        let mut rows = self.rows();
        if rows.all.get(&session).is_some_and(|before| before.owner.is_some() && before.owner != row.owner) {
            rows.moved.insert(session);
            self.moved.notify_one();
        }
        if row.presence == Presence::Open && row.owner.is_none() {
            rows.unowned.insert(session);
            self.unowned.notify_one();
        }
        rows.all.insert(session, row);
    }

    fn remove(&self, session: SessionId) {
        self.rows().all.remove(&session);
    }

    /// Takes one change. `first` are the rows that were there at the start, as far as they are told yet.
    fn take(&self, change: Change, first: &mut Option<BTreeSet<SessionId>>) -> Taken {
        match change {
            Change::Put(row) => {
                let Ok(id) = row.key.parse() else { return Taken::Change };
                if let Some(first) = first {
                    first.insert(id);
                }
                match serde_json::from_slice::<Indexed>(&row.value) {
                    Ok(row) => self.put(id, Listed::from(&row)),
                    Err(error) => {
                        tracing::warn!(session = %id, %error, "a row of the sessions is not understood")
                    }
                }
            }
            Change::Deleted { key, .. } => {
                if let Ok(id) = key.parse() {
                    self.remove(id);
                }
            }
            Change::Current => {
                if let Some(there) = first.take() {
                    self.rows().all.retain(|id, _| there.contains(id));
                }
                return Taken::Current;
            }
            Change::Gap => return Taken::Gap,
        }
        Taken::Change
    }
}

/// What a change has made of the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// One row is another.
    Change,
    /// All rows are here.
    Current,
    /// Some changes were missed.
    Gap,
}

async fn follow(cluster: &Cluster, mut changes: TableWatch) {
    let mut first = Some(BTreeSet::new());
    while let Some(change) = changes.next().await {
        let taken = cluster.directory.take(change, &mut first);
        cluster.directory.changes.send_modify(|changes| *changes += 1);
        match taken {
            Taken::Change => {}
            Taken::Current => drop(cluster.directory.armed.send_replace(true)),
            Taken::Gap => return,
        }
    }
}

/// Keeps the directory of a clustered node current until the node ends.
pub(crate) async fn keep_current(context: Arc<Context>, cluster: Arc<Cluster>) {
    loop {
        match context.engine.watch(SESSIONS, "").await {
            Ok(changes) => tokio::select! {
                biased;
                () = context.stop.cancelled() => return,
                () = follow(&cluster, changes) => {
                    tracing::info!("changes of the sessions' table were missed: it is read again");
                }
            },
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "the table of sessions cannot be watched");
                if !context.pause(STORE_RETRY_MS).await {
                    return;
                }
            }
        }
    }
}

/// Brings the rows of the sessions here up to date now and then, and when a kernel has come to life, so that other nodes
/// list them as they are.
pub(crate) async fn keep_listed(context: Arc<Context>) {
    loop {
        let next = context.clock.now().tick + Duration::from_millis(LISTING_PERIOD_MS);
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            () = context.is_to_list() => {}
            () = context.clock.until(next) => {}
        }
        for handle in context.handles() {
            let view = handle.view.borrow().clone();
            if let Err(error) = context.refresh(&view).await {
                tracing::debug!(session = %handle.id, error = %with_sources(&error), "its row is refreshed later");
                break;
            }
        }
    }
}
