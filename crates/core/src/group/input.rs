//! What can come in, what goes out.

use super::event::GroupEvent;
use super::spec::NewTask;
use crate::diagnosis::evidence::StallEvidence;
use crate::failover::Takeover;
use crate::id::{Attempt, Incarnation, ProcessKey, ReportId, RunId, RuntimeId};
use crate::runtime::runner::{Greeting, Phase, TaskOrder};
use crate::runtime::{StopStep, StopWhy};
use crate::session::event::Happened;
use crate::session::input::ProcessInput;
use crate::time::Now;

/// What a group is told. One at a time, by its own task.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// Do this.
    Submit(NewTask),
    /// End one task.
    Cancel(RunId),
    /// Start a member that is down, or all that are; one that is up is left alone.
    Start(Option<RuntimeId>),
    /// Stop a member, or all; the group stays, and tasks wait as they would for one that is not ready.
    Stop(Option<RuntimeId>, StopStep),
    /// Start a member anew, or all; their tasks end as cancelled, or wait again if they are idempotent.
    Restart(Option<RuntimeId>),
    /// End the group: everything is stopped, every task settled.
    Close {
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// This node has taken the group over: it is recorded, with what goes on and what is lost.
    TakenOver(Box<Takeover>),
    /// Give everything away: no task is given to anybody any more, runners are asked to stop at a step. Goes on until
    /// [`super::can_release`].
    HandOver,
    /// Something about a process, as of every process.
    Process(ProcessKey, ProcessInput),
    /// Something that only a runner says.
    Runner(ProcessKey, RunnerInput),
    /// A timer has run out.
    Timer(Timer),
    /// These ended tasks are to be forgotten.
    Forget(Vec<RunId>),
}

/// What is said about a runner.
#[derive(Clone, PartialEq, Debug)]
pub enum RunnerInput {
    /// What it can do.
    Greeted(Greeting),
    /// How far it is.
    Entered(Phase),
    /// A watchdog saw no progress.
    Stalled {
        /// In what.
        stall: StallEvidence,
        /// The task that stands still; `None` while loading.
        run: Option<RunId>,
    },
    /// It broke the protocol.
    Violated {
        /// What it did.
        what: String,
        /// Whether its channel cannot be used any more.
        is_fatal: bool,
        /// The id for the failure report, should one be made.
        id: ReportId,
    },
}

/// A deadline of a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// The wait before a member's restart.
    Backoff(RuntimeId, Incarnation),
    /// How long a task waits while nobody is ready.
    Wait(RunId),
    /// How long an attempt may run.
    Limit(RunId, Attempt),
    /// How long a cancelled task may take to end.
    CancelGrace(RunId, Attempt),
}

/// What an input is answered with.
pub type Decision = crate::session::decision::Decision<Effect>;

impl Decision {
    pub(super) fn event(self, now: Now, event: GroupEvent) -> Self {
        self.happened(now.wall, Happened::Group(event))
    }
}

/// Something to do in the world.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Start this process.
    Launch(ProcessKey),
    /// Give a task to a runner. The state of its checkpoint is in [`super::state::Task`]; whoever carries this out says in which
    /// file it is.
    Task {
        /// To whom.
        process: ProcessKey,
        /// Which.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// What to do; `checkpoint` is filled in by whoever carries this out.
        order: TaskOrder,
    },
    /// Tell a runner to stop a task.
    Cancel {
        /// Whom.
        process: ProcessKey,
        /// Which.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Stop the process by the ladder, beginning here.
    Stop {
        /// Which.
        process: ProcessKey,
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// End the group's task.
    Finish,
}

/// Why an input was refused. A refused input changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// The group has ended or is ending.
    #[error("the group has ended")]
    Closed,
    /// No such task in this group.
    #[error("the group has no task {0}")]
    NoSuchTask(RunId),
    /// The task has ended already.
    #[error("task {0} has ended")]
    TaskEnded(RunId),
    /// No such member.
    #[error("the group has no such member")]
    NoSuchMember,
    /// No member is ready, and the task must not wait, or none will ever be.
    #[error("no runner takes it: {0}")]
    NobodyReady(String),
    /// No member has a handler of that name.
    #[error("no runner of the group has a task {task:?}; it has {known}")]
    UnknownTask {
        /// What was asked for.
        task: String,
        /// What there is.
        known: String,
    },
    /// Too much is queued.
    #[error("{queued} tasks are queued; at most {max} can be")]
    QueueFull {
        /// How many there are.
        queued: usize,
        /// How many there may be.
        max: usize,
    },
}
