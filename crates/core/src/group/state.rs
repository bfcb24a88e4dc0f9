//! What a group is at a moment: the fold of its facts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::TaskEndingWhy;
use super::spec::{GroupSpec, MemberSpec, NewTask};
use crate::diagnosis::FailureReport;
use crate::failover::Takeover;
use crate::id::{Attempt, Generation, ProcessKey, ReportId, RunId, RuntimeId, Seq};
use crate::limits::RUNNER_CONCURRENCY_MAX;
use crate::log::BlobRef;
use crate::runtime::restart::RestartHistory;
use crate::runtime::runner::{Greeting, Phase};
use crate::session::HandOver;
use crate::session::RunOutcome;
use crate::session::event::AfterExit;
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
    /// How many of them there are of each name: there are few names and may be many tasks.
    pub waiting: BTreeMap<String, usize>,
    /// How many have ended in which way.
    pub ended: Ended,
    /// Its failures, oldest first; the oldest of many are forgotten.
    pub reports: VecDeque<FailureReport>,
    /// The member of a `one_for_all` group that died, until all are started again.
    pub falling: Option<Falling>,
    /// The tasks that are known, by their idempotency keys.
    pub keys: BTreeMap<String, RunId>,
    /// The restarts of the whole group that still count, for `one_for_all`.
    pub history: RestartHistory,
    /// How it came to its latest owners, oldest first; of many the first are forgotten.
    pub takeovers: VecDeque<Takeover>,
    /// It is to be given to another node.
    pub hand_over: Option<HandOver>,
}

/// The first death of a `one_for_all` group.
#[derive(Clone, PartialEq, Debug)]
pub struct Falling {
    /// Who died.
    pub first: RuntimeId,
    /// What follows, for all.
    pub then: AfterExit,
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
    /// Since when it takes no tasks; `None` while it does.
    pub unready_since: Option<WallTime>,
    /// Its last failure.
    pub last_report: Option<Box<FailureReport>>,
    /// A task of its present process did not end when it was told to: the process gets nothing new, and ends.
    pub ignores_cancel: bool,
}

impl Member {
    fn new(spec: &MemberSpec, at: WallTime) -> Self {
        Self {
            id: spec.runtime,
            runtime: Runtime::new(Wanted::Up, at),
            phase: Phase::Connecting,
            greeting: None,
            running: BTreeSet::new(),
            unready_since: Some(at),
            last_report: None,
            ignores_cancel: false,
        }
    }

    /// The process that is current, or was last.
    #[must_use]
    pub const fn process(&self) -> ProcessKey {
        ProcessKey { runtime: self.id, incarnation: self.runtime.incarnation }
    }

    /// Whether it takes tasks.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.greeting.is_some()
            && self.phase == Phase::Ready
            && self.runtime.status == Status::Ready(Health::Responsive)
            && !self.ignores_cancel
    }

    /// How many tasks its process takes at a time.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        let said = self.greeting.as_ref().map_or(0, |greeting| greeting.concurrency);
        said.clamp(1, RUNNER_CONCURRENCY_MAX) as usize
    }

    /// Whether it takes tasks and has room for one.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.is_ready() && self.running.len() < self.concurrency()
    }

    /// Whether its present process, or the last, has a handler of that name; `None` before it has said so.
    #[must_use]
    pub fn has_handler(&self, task: &str) -> Option<bool> {
        let tasks = &self.greeting.as_ref()?.tasks;
        // One that fails while it is made ready greets with nothing, only to say why it fails.
        (!tasks.is_empty() || self.phase == Phase::Ready).then(|| tasks.contains(task))
    }

    /// Whether its present process says the same again of a task that is begun anew.
    #[must_use]
    pub fn replays(&self, task: &str) -> bool {
        self.greeting.as_ref().is_some_and(|greeting| greeting.exact.contains(task))
    }

    /// The last report, when it is about the end of the present process.
    #[must_use]
    pub fn present_report(&self) -> Option<&FailureReport> {
        self.last_report.as_deref().filter(|report| report.process == Some(self.process()))
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
    /// How many of its attempts ended because of their node, and how many of these nodes were lost.
    pub excused: Excused,
    /// The process that has its attempt, or had it last.
    pub given: Option<ProcessKey>,
    /// Whether all that was said behind that state is said again by a runner that replays exactly.
    pub is_exact: bool,
    /// The last state that an attempt has saved, and the last chunk that it covers.
    pub checkpoint: Option<(Seq, Option<BlobRef>)>,
    /// The report of the death that it was told of, in its present attempt.
    pub told: Option<ReportId>,
    /// When it was queued.
    pub queued_at: WallTime,
    /// Since when it has waited, the last time.
    pub waits_since: WallTime,
    /// When its attempt began.
    pub started_at: Option<WallTime>,
    /// When it ended.
    pub ended_at: Option<WallTime>,
}

/// The attempts of a task whose ends say nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Excused {
    /// All of them.
    pub attempts: u64,
    /// Those whose node was lost.
    pub nodes_lost: u64,
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
        Self {
            members: spec.members.iter().map(|member| Member::new(member, at)).collect(),
            spec,
            generation: Generation(1),
            life: Life::Open,
            tasks: BTreeMap::new(),
            order: VecDeque::new(),
            queued: 0,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            ended: Ended::default(),
            reports: VecDeque::new(),
            falling: None,
            keys: BTreeMap::new(),
            history: RestartHistory::default(),
            takeovers: VecDeque::new(),
            hand_over: None,
        }
    }

    /// Somebody has claimed it: what its owner before meant to do with it is over.
    pub fn claimed(&mut self) {
        self.hand_over = None;
    }

    /// A member and its place.
    #[must_use]
    pub fn member(&self, id: RuntimeId) -> Option<(usize, &Member)> {
        self.members.iter().enumerate().find(|(_, member)| member.id == id)
    }

    /// What people call a member.
    #[must_use]
    pub fn name(&self, id: RuntimeId) -> &str {
        self.spec.members.iter().find(|member| member.runtime == id).map_or("a runner", |member| &member.name)
    }

    /// The task that this one is, when it is known already: by its id, or by its idempotency key.
    #[must_use]
    pub fn known(&self, new: &NewTask) -> Option<RunId> {
        if self.tasks.contains_key(&new.id) { Some(new.id) } else { self.keys.get(&new.key).copied() }
    }

    /// Whether every task has ended.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.members.iter().all(|member| member.running.is_empty())
    }
}
