//! What every session's task shares: the seams, the budgets, the counters, and the registry of what is open here.

mod index;
mod registry;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::id::{ProcessKey, SessionId};
use outlive_store::Engine;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budgets;
use crate::causes::Causes;
use crate::cluster::follow::ClusterBus;
use crate::cluster::{self, Cluster};
use crate::metrics::Metrics;
use crate::seams::{Bus, Clock, Files, FoundShim, Identity, Runtimes};

pub(crate) use index::SESSIONS;
pub use index::{Indexed, Presence};
pub use registry::{Entered, Found, PathHolder, PathSlot, Reservation};

/// How many refused shims `doctor` remembers.
const REFUSED_MAX: usize = 32;
/// How many damaged notebooks `doctor` remembers.
const DAMAGED_MAX: usize = 32;

/// The world as a node sees it.
#[derive(Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Logs, tables, blobs.
    pub engine: Arc<dyn Engine>,
    /// Live tails.
    pub bus: Arc<dyn Bus>,
    /// Processes.
    pub runtimes: Arc<dyn Runtimes>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// What makes this node one of several; `None`: it is alone.
    pub cluster: Option<cluster::Settings>,
}

/// The seams and the registry.
pub struct Context {
    /// Who this node is.
    pub who: Identity,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Logs, tables, blobs.
    pub engine: Arc<dyn Engine>,
    /// Live tails.
    pub bus: Arc<dyn Bus>,
    /// Processes.
    pub runtimes: Arc<dyn Runtimes>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// The other nodes; `None`: it is alone.
    pub cluster: Option<Arc<Cluster>>,
    /// How much of what there may be.
    pub budgets: Budgets,
    /// What is counted.
    pub metrics: Metrics,
    /// Owner of every session's task.
    pub tasks: TaskTracker,
    /// Ends every session's task; processes go on.
    pub stop: CancellationToken,
    /// The groups that are in memory, by their names.
    groups: Mutex<HashMap<String, SessionId>>,
    /// What became of the user's own matchers.
    pub causes: OnceLock<Causes>,
    registry: Mutex<registry::Registry>,
    /// Of several nodes: what stands in the rows of the sessions that are open here.
    listed: Mutex<HashMap<SessionId, index::Shown>>,
    /// Rows are to be brought up to date before it is time to.
    list_now: Notify,
    /// What was said of shims that were refused, the latest last; at most [`REFUSED_MAX`].
    refused: Mutex<VecDeque<String>>,
    /// Notebooks that their logs could not give, and what became of them, the latest last; at most [`DAMAGED_MAX`].
    damaged: Mutex<VecDeque<(SessionId, String)>>,
    /// How many sessions had lost their row when the node started.
    unlisted: AtomicUsize,
}

impl Context {
    /// A node without sessions.
    pub fn new(who: Identity, seams: Seams, budgets: Budgets) -> Self {
        let Seams { clock, engine, bus, runtimes, files, cluster } = seams;
        let me = Member { node: who.node, boot: who.boot };
        let cluster = cluster.map(|settings| Arc::new(Cluster::new(me, settings)));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let bus = match &cluster {
            Some(_) => {
                let (engine, clock) = (Arc::clone(&engine), Arc::clone(&clock));
                Arc::new(ClusterBus::over(bus, engine, clock, tasks.clone(), stop.clone()))
            }
            None => bus,
        };
        Self {
            who,
            clock,
            engine,
            bus,
            runtimes,
            files,
            cluster,
            budgets,
            metrics: Metrics::default(),
            tasks,
            stop,
            groups: Mutex::default(),
            causes: OnceLock::new(),
            registry: Mutex::default(),
            listed: Mutex::default(),
            list_now: Notify::new(),
            refused: Mutex::default(),
            damaged: Mutex::default(),
            unlisted: AtomicUsize::new(0),
        }
    }

    /// Of several nodes this one's name.
    pub fn name(&self) -> Option<String> {
        self.cluster.as_ref().map(|cluster| cluster.settings.name.clone())
    }

    /// The group in memory that has this name.
    pub fn group_named(&self, name: &str) -> Option<SessionId> {
        self.groups.lock().expect("nothing panics while it holds the groups").get(name).copied()
    }

    /// A group is in memory from now on.
    pub fn name_group(&self, name: &str, id: SessionId) {
        self.groups.lock().expect("nothing panics while it holds the groups").insert(name.to_owned(), id);
    }

    /// A group has ended.
    pub fn unname_group(&self, name: &str, id: SessionId) {
        let mut groups = self.groups.lock().expect("nothing panics while it holds the groups");
        if groups.get(name) == Some(&id) {
            groups.remove(name);
        }
    }

    /// Tells a shim that nobody knows it, and remembers that for `doctor`.
    pub fn refuse(&self, shim: &FoundShim, reason: &str) {
        self.note_refused(shim.identity.process, shim.identity.session, reason);
        self.runtimes.refuse(shim, reason);
    }

    /// Remembers for `doctor` that a shim was refused.
    pub fn note_refused(&self, process: ProcessKey, session: SessionId, reason: &str) {
        tracing::warn!(%process, reason, "a shim is refused");
        let mut refused = self.refused.lock().expect("nothing panics while it holds the refused");
        if refused.len() == REFUSED_MAX {
            refused.pop_front();
        }
        refused.push_back(format!("{process} of session {session}: {reason}"));
    }

    /// Remembers for `doctor` that a session goes on with another notebook than its log should have given.
    pub fn note_damage(&self, session: SessionId, what: &str) {
        let mut damaged = self.damaged.lock().expect("nothing panics while it holds the damaged");
        damaged.retain(|(other, _)| *other != session);
        if damaged.len() == DAMAGED_MAX {
            damaged.pop_front();
        }
        damaged.push_back((session, what.to_owned()));
    }

    /// The sessions of which that was noted since the daemon's start.
    pub fn damaged(&self) -> Vec<(SessionId, String)> {
        self.damaged.lock().expect("nothing panics while it holds the damaged").iter().cloned().collect()
    }

    /// So many sessions had lost their row and were listed again by their logs.
    pub fn found_unlisted(&self, sessions: usize) {
        self.unlisted.store(sessions, Ordering::Relaxed);
    }

    /// How many had when the node started.
    pub fn unlisted(&self) -> usize {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// Waits so many milliseconds. Whether the node goes on: it may end meanwhile, which is not waited for.
    pub(crate) async fn pause(&self, ms: u64) -> bool {
        let over = self.clock.now().tick + Duration::from_millis(ms);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = self.clock.until(over) => true,
        }
    }

    /// The shims that were refused since the daemon's start, the latest last.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().expect("nothing panics while it holds the refused").iter().cloned().collect()
    }
}
