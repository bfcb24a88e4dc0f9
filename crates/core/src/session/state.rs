//! What a session is at a moment: the fold of its facts.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::event::{EndingWhy, NewRun, OnRaise};
use super::handover::HandOver;
use super::outcome::{CancelWhy, RunOutcome};
use super::spec::{SessionSpec, StartWhen, Trust, Workload};
use crate::diagnosis::FailureReport;
use crate::diagnosis::evidence::{HangEvidence, NodeLostEvidence};
use crate::failover::Takeover;
use crate::id::{Attempt, Generation, Incarnation, ProcessKey, RunId};
use crate::runtime::restart::RestartHistory;
use crate::runtime::{ExitStatus, StopStep, StopWhy};
use crate::time::WallTime;

/// A session.
#[derive(Clone, PartialEq, Debug)]
pub struct Session {
    /// What it was created with.
    pub spec: SessionSpec,
    /// Rises with every fact.
    pub generation: Generation,
    /// Whether it takes work.
    pub life: Life,
    /// Its runtime.
    pub runtime: Runtime,
    /// Its notebook's file; `None` while it is untitled, and for sessions without a notebook.
    pub path: Option<String>,
    /// The path that the notebook is about to be written to.
    pub claiming: Option<Claiming>,
    /// Whether somebody has vouched for the notebook.
    pub trust: Trust,
    /// Its runs, but for those that are forgotten.
    pub runs: BTreeMap<RunId, Run>,
    /// How many there ever were.
    pub queued: u32,
    /// Those of a sequence of parts whose last has not come.
    pub arriving: Vec<NewRun>,
    /// How many times something was queued.
    pub batches: u32,
    /// The runs in the order in which they were queued first.
    pub order: Vec<RunId>,
    /// Those that wait, first to be run first.
    pub queue: VecDeque<RunId>,
    /// Those of the queue that will not be run, and why: what they waited behind failed or was interrupted. They are
    /// settled before anything else happens.
    pub dropped: VecDeque<(RunId, CancelWhy)>,
    /// The one that runs.
    pub running: Option<RunId>,
    /// How many runs have ended in which way.
    pub ended: Ended,
    /// A question that waits for an answer.
    pub question: Option<Question>,
    /// Its failures, oldest first.
    pub reports: Vec<FailureReport>,
    /// How it came to its latest owners, oldest first; of many the first are forgotten.
    pub takeovers: VecDeque<Takeover>,
    /// It is to be given to another node.
    pub hand_over: Option<HandOver>,
}

/// A path that is claimed and not written yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claiming {
    /// Absolute, links resolved.
    pub path: String,
    /// SHA-256 of the bytes that are written, in hex.
    pub sha256: String,
}

/// Whether a session takes work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Life {
    /// It does.
    Open,
    /// It is ending: work is settled, the runtime stopped.
    Closing(StopWhy),
    /// Only the last save is left.
    Saving(StopWhy),
    /// It has ended.
    Closed {
        /// Who wanted it.
        why: StopWhy,
        /// When.
        at: WallTime,
        /// The notebook that could not be saved, and why.
        save_problem: Option<String>,
    },
}

/// A runtime.
#[derive(Clone, PartialEq, Debug)]
pub struct Runtime {
    /// Whether it is to be up.
    pub wanted: Wanted,
    /// How many processes it has had.
    pub incarnation: Incarnation,
    /// What it is doing.
    pub status: Status,
    /// When it entered this status.
    pub since: WallTime,
    /// Its pid, while it has a process.
    pub pid: Option<i32>,
    /// When its processes were launched.
    pub launched_at: WallTime,
    /// The restarts that still count.
    pub history: RestartHistory,
    /// Its last process ended because its node is not the session's any more.
    pub displaced: Option<Displaced>,
}

/// Why a process ended that had done nothing to deserve it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Displaced {
    /// Its node was lost.
    Lost(NodeLostEvidence),
    /// Its node gave its session away.
    Drained,
}

/// Whether a runtime is to be up. What it does is its [`Status`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// It is started as soon as it can be.
    Up,
    /// The next run starts it.
    Down,
}

/// What a runtime is doing.
#[derive(Clone, PartialEq, Debug)]
pub enum Status {
    /// Nothing yet, or about to be launched again.
    Down,
    /// Started, not ready.
    Launching,
    /// Ready.
    Ready(Health),
    /// On its way out.
    Stopping {
        /// Who wanted it.
        why: StopWhy,
        /// The rung.
        step: StopStep,
    },
    /// It has ended; what it wrote is still being read.
    Draining {
        /// How it ended.
        status: ExitStatus,
        /// What follows.
        then: super::event::AfterExit,
    },
    /// It has ended, nothing follows by itself.
    Exited(ExitStatus),
    /// It is started again soon.
    Backoff {
        /// The wait in milliseconds.
        after_ms: u64,
    },
    /// It died too often.
    GaveUp {
        /// The reason.
        reason: String,
    },
}

/// Whether a ready runtime answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Health {
    /// It does.
    Responsive,
    /// It does not.
    Unresponsive(HangEvidence),
}

/// How many runs have ended in which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Did what they were asked.
    pub succeeded: u32,
    /// Raised, failed or took too long.
    pub failed: u32,
    /// Were not run, or not to the end.
    pub cancelled: u32,
}

impl Ended {
    pub(crate) fn count(&mut self, outcome: &RunOutcome) {
        match outcome {
            RunOutcome::Succeeded => self.succeeded += 1,
            RunOutcome::Raised { .. }
            | RunOutcome::Failed { .. }
            | RunOutcome::TimedOut { .. }
            | RunOutcome::Unserved { .. } => self.failed += 1,
            RunOutcome::Cancelled { .. } => self.cancelled += 1,
        }
    }
}

/// A question that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The run that asks.
    pub run: RunId,
    /// What it asks.
    pub prompt: String,
    /// Whether the answer must not be shown.
    pub password: bool,
}

/// A run.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// As it was queued.
    pub new: NewRun,
    /// Its place among the session's runs.
    pub index: u32,
    /// Runs queued together share a number; of a run that was queued again while it waited, the last.
    pub batch: u32,
    /// The earliest process that may run it.
    pub from: Incarnation,
    /// Where it stands.
    pub state: RunState,
    /// The attempt that counts; 0 before the first.
    pub attempt: Attempt,
    /// The kernel's count.
    pub execution_count: Option<u32>,
    /// When it was queued.
    pub queued_at: WallTime,
    /// Somebody interrupted it. What waited behind it has gone with that; what was asked for since is not taken
    /// along by the exception that the interrupt makes.
    pub interrupted: bool,
    /// When its attempt began.
    pub started_at: Option<WallTime>,
    /// When it ended.
    pub ended_at: Option<WallTime>,
}

impl Run {
    /// Whether it was begun, has ended, and takes along what waits behind it.
    #[must_use]
    pub fn takes_along(&self) -> bool {
        let RunState::Ended(outcome) = &self.state else { return false };
        self.started_at.is_some()
            && match outcome {
                RunOutcome::Succeeded => false,
                RunOutcome::Raised { .. } => self.new.on_raise == OnRaise::Stop && !self.interrupted,
                RunOutcome::Failed { .. }
                | RunOutcome::TimedOut { .. }
                | RunOutcome::Unserved { .. }
                | RunOutcome::Cancelled { .. } => true,
            }
    }
}

/// Where a run stands.
#[derive(Clone, PartialEq, Debug)]
pub enum RunState {
    /// Waiting.
    Queued,
    /// Given to this process.
    Running {
        /// Which.
        process: ProcessKey,
        /// It is being ended, for this reason, since then.
        ending: Option<(EndingWhy, WallTime)>,
    },
    /// Ended.
    Ended(RunOutcome),
}

impl Session {
    /// A session that was just created.
    #[must_use]
    pub fn new(spec: SessionSpec) -> Self {
        let created = spec.created_at;
        let path = match &spec.workload {
            Workload::Notebook { path, .. } => path.clone(),
            Workload::Command { .. } | Workload::Kernel => None,
        };
        let trust = spec.trust;
        let wanted = match (spec.start, trust) {
            (StartWhen::AtOnce, Trust::Trusted) => Wanted::Up,
            (StartWhen::AtOnce, Trust::Untrusted) | (StartWhen::FirstRun, _) => Wanted::Down,
        };
        Self {
            path,
            claiming: None,
            trust,
            spec,
            generation: Generation(1),
            life: Life::Open,
            runtime: Runtime::new(wanted, created),
            runs: BTreeMap::new(),
            queued: 0,
            arriving: Vec::new(),
            batches: 0,
            order: Vec::new(),
            queue: VecDeque::new(),
            dropped: VecDeque::new(),
            running: None,
            ended: Ended::default(),
            question: None,
            reports: Vec::new(),
            takeovers: VecDeque::new(),
            hand_over: None,
        }
    }

    /// The process that is current, or was last.
    #[must_use]
    pub const fn process(&self) -> ProcessKey {
        ProcessKey { runtime: self.spec.runtime, incarnation: self.runtime.incarnation }
    }

    /// Whether the session has a notebook.
    #[must_use]
    pub const fn is_notebook(&self) -> bool {
        matches!(self.spec.workload, Workload::Notebook { .. })
    }

    /// Whether the session runs one command and nothing else.
    #[must_use]
    pub const fn is_command(&self) -> bool {
        matches!(self.spec.workload, Workload::Command { .. })
    }

    /// How long one run may take, in milliseconds.
    #[must_use]
    pub const fn run_limit_ms(&self) -> Option<u64> {
        match &self.spec.workload {
            Workload::Notebook { cell_timeout_ms, .. } => *cell_timeout_ms,
            Workload::Command { timeout_ms } => *timeout_ms,
            Workload::Kernel => None,
        }
    }

    /// Whether the runtime has a process, or is about to.
    #[must_use]
    pub const fn has_process(&self) -> bool {
        self.runtime.has_process()
    }

    /// Whether the runtime has a process, or is about to, that can still do what it is asked.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.runtime.is_up()
    }

    /// Why the run that is running is being ended before its time, and since when; `None` when it is not.
    #[must_use]
    pub fn ending(&self) -> Option<(EndingWhy, WallTime)> {
        match self.runs.get(&self.running?)?.state {
            RunState::Running { ending, .. } => ending,
            RunState::Queued | RunState::Ended(_) => None,
        }
    }

    /// Whether a run that waits was queued for the present process or an earlier one; its loss is the run's.
    #[must_use]
    pub fn waits_for_present(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|run| run.from <= self.runtime.incarnation)
    }

    /// Whether every run has ended.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    /// The last report, when it is about the present process.
    #[must_use]
    pub fn present_report(&self) -> Option<&FailureReport> {
        self.reports.last().filter(|report| report.process == Some(self.process()))
    }
}
