//! What can come in, what goes out.

use super::event::{NewRun, PathWhy};
use super::outcome::RunOutcome;
use super::spec::Trust;
use crate::diagnosis::evidence::{Evidence, HangEvidence};
use crate::failover::Takeover;
use crate::id::{Attempt, Incarnation, ProcessKey, ReportId, RunId};
use crate::runtime::{ExitReport, StopStep, StopWhy};

/// What a session is told. One at a time, by its own task.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// Run this, in this order, all or nothing.
    Queue(Vec<NewRun>),
    /// Interrupt what runs, and do not run what waits behind it.
    Interrupt,
    /// End one run.
    Cancel(RunId),
    /// Answer a run's question.
    Answer {
        /// The run that asked.
        run: RunId,
        /// What to say.
        value: String,
    },
    /// Start the runtime anew, then run this.
    Restart(Vec<NewRun>),
    /// End the session.
    Stop {
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// Stop the runtime, settle what waits, and keep the session; the next run starts it again. For `Eviction` only
    /// where nothing is lost by it.
    Rest {
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// The notebook is about to be written to this path, which is claimed.
    ClaimPath {
        /// Absolute, links resolved.
        path: String,
        /// SHA-256 of the bytes that will be written, in hex.
        sha256: String,
    },
    /// The claimed path could not be written.
    ReleasePath {
        /// The path.
        path: String,
    },
    /// The notebook has this path from now on: it was claimed and written, or the file was renamed.
    TakePath {
        /// Absolute, links resolved.
        path: String,
        /// Why.
        why: PathWhy,
    },
    /// Somebody vouches for the notebook, or takes it back.
    Trust(Trust),
    /// This node has taken the session over: it is recorded, with what goes on and what is lost.
    TakenOver(Box<Takeover>),
    /// Give everything away: nothing new is begun, what runs may take so long, then the process is stopped. Goes on until
    /// [`super::can_release`].
    HandOver {
        /// How long what runs may still take, in milliseconds.
        grace_ms: u64,
    },
    /// Something about a process.
    Process(ProcessKey, ProcessInput),
    /// A timer has run out.
    Timer(Timer),
    /// The last save is done, or impossible for this reason.
    Saved {
        /// The reason, when it is impossible.
        problem: Option<String>,
    },
}

/// What is said about a process.
#[derive(Clone, PartialEq, Debug)]
pub enum ProcessInput {
    /// It exists.
    Spawned {
        /// Its pid.
        pid: i32,
    },
    /// It answers.
    Ready,
    /// A run has ended, all its output is in the log.
    RunFinished {
        /// Which.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// How.
        outcome: RunOutcome,
        /// The kernel's count.
        execution_count: Option<u32>,
    },
    /// It asks its user something.
    InputRequested {
        /// The run that asks.
        run: RunId,
        /// What it asks.
        prompt: String,
        /// Whether the answer must not be shown.
        password: bool,
        /// Whether somebody is attached who can answer.
        attended: bool,
    },
    /// Heartbeats are missing.
    Unresponsive(HangEvidence),
    /// Heartbeats are back.
    Responsive,
    /// A rung of the ladder was reached.
    Stopping {
        /// Who wanted it.
        why: StopWhy,
        /// The rung.
        step: StopStep,
    },
    /// It has ended or was never started. Any number of these may come; the first counts.
    Exited {
        /// The report of its end.
        report: Box<ExitReport>,
        /// The id for the failure report, should one be made.
        id: ReportId,
    },
    /// All that it wrote is in the log.
    Drained(Box<Evidence>),
}

/// A deadline of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// A run's time limit.
    RunLimit(RunId, Attempt),
    /// How long an interrupted run may take to react.
    EndingGrace(RunId, Attempt),
    /// The wait before a restart.
    Backoff(Incarnation),
    /// How long what runs may still take before it is given away.
    HandOver,
}

/// What an input is answered with.
pub type Decision = super::decision::Decision<Effect>;

/// Something to do in the world.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Start this process.
    Launch(ProcessKey),
    /// Give a run to the process.
    Execute {
        /// To whom.
        process: ProcessKey,
        /// Which run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// Its source.
        code: String,
    },
    /// Interrupt the process.
    Interrupt(ProcessKey),
    /// Pass an answer on.
    Answer {
        /// To whom.
        process: ProcessKey,
        /// The run that asked.
        run: RunId,
        /// What to say.
        value: String,
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
    /// Save the notebook for the last time, then say [`Input::Saved`].
    SaveFinally,
    /// Give the path back and end the session's task.
    Finish,
}

/// Why an input was refused. A refused input changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// The session has ended or is ending.
    #[error("the session has ended")]
    Closed,
    /// No such run in this session.
    #[error("the session has no run {0}")]
    NoSuchRun(RunId),
    /// The run has ended already.
    #[error("run {0} has ended")]
    RunEnded(RunId),
    /// Nothing is running.
    #[error("nothing is running")]
    NothingRuns,
    /// The runtime is down and is not started again by itself.
    #[error("the runtime is down: {0}")]
    RuntimeDown(String),
    /// Too much is queued.
    #[error("{queued} runs are queued; at most {max} can be")]
    QueueFull {
        /// How many there are.
        queued: usize,
        /// How many there may be.
        max: usize,
    },
    /// Nobody asked this.
    #[error("run {0} does not ask anything")]
    NoQuestion(RunId),
    /// The session has no notebook.
    #[error("the session has no notebook")]
    NoNotebook,
    /// The notebook is being written to another path already.
    #[error("the notebook is being saved as {0}")]
    PathBeingTaken(String),
    /// Nothing was claimed there, so nothing of this notebook was written there.
    #[error("the notebook was not being saved as {0}")]
    PathNotClaimed(String),
    /// An eviction found work, or somebody who wants it.
    #[error("the session works")]
    Works,
    /// A command's session runs its command and nothing else.
    #[error("this session runs one command; start another session for more")]
    CommandOnly,
}
