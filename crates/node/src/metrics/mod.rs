//! What a node counts, for the person who operates it: [`render`] gives it in Prometheus' text format.
//!
//! Counters are kept where something happens; what is there at a moment is looked up when somebody asks. One of each
//! for each node: several may run in one process.

pub mod cluster;
pub mod memory;
mod render;
mod zombies;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use outlive_core::diagnosis::CauseCode;
use outlive_core::session::event::Happened;
use outlive_core::session::{Fact, RunOutcome};

pub use render::render;
#[cfg(test)]
pub(crate) use zombies::sessions as zombie_sessions;

/// Why a session that was due was not evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// The store did not take what has to be kept.
    Store,
    /// Somebody came and left again while it was looked at.
    Visited,
}

impl Skipped {
    const ALL: [Self; 2] = [Self::Store, Self::Visited];

    const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Visited => "visited",
        }
    }
}

/// The counters of one node.
#[derive(Default, Debug)]
pub struct Metrics {
    opened: Counter,
    woken: Counter,
    ended: Counter,
    evictions: Evictions,
    rested: Counter,
    /// Tasks that ended, by how.
    tasks: Mutex<BTreeMap<&'static str, u64>>,
    /// Processes of groups that were started anew.
    restarts: Counter,
    failures: Mutex<BTreeMap<CauseCode, u64>>,
    /// What it counts as one of several nodes.
    pub cluster: cluster::ClusterMetrics,
    /// What all sessions take up on the disk, and when that was measured.
    stored: Mutex<Option<render::Stored>>,
}

/// Evictions: `scheduled` is the sum of the others and of those that are due at the moment.
#[derive(Default, Debug)]
struct Evictions {
    scheduled: Counter,
    done: Counter,
    cancelled: Counter,
    skipped: [Counter; Skipped::ALL.len()],
}

#[derive(Default, Debug)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// A session was made, or its notebook opened.
    pub fn session_opened(&self) {
        self.opened.add();
    }

    /// A dormant session came back.
    pub fn session_woken(&self) {
        self.woken.add();
    }

    /// A session ended.
    pub fn session_ended(&self) {
        self.ended.add();
    }

    /// A session has a deadline.
    pub fn eviction_scheduled(&self) {
        self.evictions.scheduled.add();
    }

    /// It left memory.
    pub fn eviction_done(&self) {
        self.evictions.done.add();
    }

    /// How many sessions were in memory and are not any more.
    #[must_use]
    pub fn sessions_left(&self) -> u64 {
        self.evictions.done.get() + self.ended.get()
    }

    /// Somebody came before its deadline, or while it left.
    pub fn eviction_cancelled(&self) {
        self.evictions.cancelled.add();
    }

    /// It could not leave.
    pub fn eviction_skipped(&self, why: Skipped) {
        self.evictions.skipped[why as usize].add();
    }

    /// An idle kernel was stopped because a budget is exceeded.
    pub fn kernel_rested(&self) {
        self.rested.add();
    }

    /// A task of a group has ended.
    pub fn task_ended(&self, outcome: &RunOutcome) {
        let name = match outcome {
            RunOutcome::Succeeded => "succeeded",
            RunOutcome::Raised { .. } => "raised",
            RunOutcome::Failed { .. } => "failed",
            RunOutcome::TimedOut { .. } => "timed_out",
            RunOutcome::Unserved { .. } => "unserved",
            RunOutcome::Cancelled { .. } => "cancelled",
        };
        *self.tasks.lock().expect("nothing panics while it holds the tasks").entry(name).or_default() += 1;
    }

    /// A runner was started anew.
    pub fn runner_restarted(&self) {
        self.restarts.add();
    }

    /// Something has become a fact.
    pub fn happened(&self, fact: &Fact) {
        if let Fact::Journal(event) = fact
            && let Happened::RuntimeExited { report: Some(report), .. } = &event.what
        {
            let mut failures = self.failures.lock().expect("nothing panics while it holds the failures");
            *failures.entry(report.cause().code).or_default() += 1;
        }
    }
}
