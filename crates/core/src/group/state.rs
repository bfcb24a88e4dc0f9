//! What a group is at a moment: the fold of its facts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::TaskEndingWhy;
use super::spec::{GroupSpec, NewTask};
use crate::diagnosis::FailureReport;
use crate::id::{Attempt, Generation, Incarnation, ProcessKey, RunId, RuntimeId, Seq};
use crate::log::BlobRef;
use crate::runtime::restart::RestartHistory;
use crate::runtime::runner::{Greeting, Phase};
use crate::session::RunOutcome;
use crate::session::state::{Ended, Health, Life, Runtime, Status, Wanted};
use crate::time::WallTime;

/// A group.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// What it was made with.
    pub spec: GroupSpec,
    /// Rises with every fact.
    pub generation: Generation,
    /// Whether it takes work.
    pub life: Life,
    /// Its members, as in the specification.
    pub members: Vec<Member>,
    /// Its tasks; those that ended long ago are forgotten.
    pub tasks: BTreeMap<RunId, Task>,
    /// The tasks in the order in which they were queued first.
    pub order: VecDeque<RunId>,
    /// How many were ever queued.
    pub queued: u32,
    /// Those that wait, first to be given first.
    pub queue: VecDeque<RunId>,
    /// How many have ended in which way.
    pub ended: Ended,
    /// Its failures, oldest first; the oldest of many are forgotten.
    pub reports: VecDeque<FailureReport>,
    /// Since when no member has been ready; `None` while one is.
    pub unready_since: Option<WallTime>,
    /// The restarts of the whole group that still count, for `one_for_all`.
    pub history: RestartHistory,
}

/// A member.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// Which.
    pub id: RuntimeId,
    /// Its process.
    pub runtime: Runtime,
    /// How far it is.
    pub phase: Phase,
    /// What its present process said of itself.
    pub greeting: Option<Greeting>,
    /// The tasks that it has.
    pub running: BTreeSet<RunId>,
}

impl Member {
    /// The process that is current, or was last.
    #[must_use]
    pub const fn process(&self) -> ProcessKey {
        ProcessKey { runtime: self.id, incarnation: self.runtime.incarnation }
    }

    /// Whether it can be given a task now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && matches!(self.runtime.status, Status::Ready(Health::Responsive))
    }
}

/// A task.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// As it was queued.
    pub new: NewTask,
    /// Its place among all tasks of the group.
    pub index: u32,
    /// Where it stands.
    pub state: TaskState,
    /// The attempt that counts; 0 before the first.
    pub attempt: Attempt,
    /// The last state that an attempt has saved, and the last chunk that it covers.
    pub checkpoint: Option<(Seq, Option<BlobRef>)>,
    /// When it was queued.
    pub queued_at: WallTime,
    /// When its attempt began.
    pub started_at: Option<WallTime>,
    /// When it ended.
    pub ended_at: Option<WallTime>,
}

/// Where a task stands.
#[derive(Clone, PartialEq, Debug)]
pub enum TaskState {
    /// It waits.
    Queued,
    /// A runner has it.
    Running {
        /// Which.
        process: ProcessKey,
        /// It is being ended, for this reason, since then.
        ending: Option<(TaskEndingWhy, WallTime)>,
    },
    /// It has ended.
    Ended(RunOutcome),
}

impl Group {
    /// A group that was just made.
    #[must_use]
    pub fn new(spec: GroupSpec) -> Self {
        let at = spec.created_at;
        let members = spec.members.iter().map(|member| Member {
            id: member.runtime,
            runtime: Runtime {
                wanted: Wanted::Up,
                incarnation: Incarnation(0),
                status: Status::Down,
                since: at,
                pid: None,
                launched_at: at,
                history: RestartHistory::default(),
            },
            phase: Phase::Connecting,
            greeting: None,
            running: BTreeSet::new(),
        });
        Self {
            members: members.collect(),
            spec,
            generation: Generation(1),
            life: Life::Open,
            tasks: BTreeMap::new(),
            order: VecDeque::new(),
            queued: 0,
            queue: VecDeque::new(),
            ended: Ended::default(),
            reports: VecDeque::new(),
            unready_since: Some(at),
            history: RestartHistory::default(),
        }
    }

    /// A member and its place.
    #[must_use]
    pub fn member(&self, id: RuntimeId) -> Option<(usize, &Member)> {
        self.members.iter().enumerate().find(|(_, member)| member.id == id)
    }

    /// Whether every task has ended.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.members.iter().all(|member| member.running.is_empty())
    }
}
