//! Facts about a session, past tense.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outcome::RunOutcome;
use super::spec::{SessionSpec, Trust};
use super::state::Ended;
use crate::diagnosis::FailureReport;
use crate::diagnosis::evidence::HangEvidence;
use crate::failover::Takeover;
use crate::group::GroupEvent;
use crate::id::{Attempt, ProcessKey, RunId, Seq};
use crate::limits::QUEUED_TOGETHER_BYTES_MAX;
use crate::log::{BlobRef, Chunk};
use crate::runtime::{ExitStatus, StopStep, StopWhy};
use crate::time::WallTime;

/// A fact on the journal lane, with its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionEvent {
    /// When.
    pub at: WallTime,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// The session exists.
    Created(Box<SessionSpec>),
    /// Runs were queued together.
    RunsQueued(Vec<NewRun>),
    /// Some of the runs that are queued together, too large in all for one record: all of them are queued by the last.
    RunsQueuedInParts {
        /// Which part, from 0. What came of an earlier sequence is void then.
        part: u32,
        /// Whether it is the last.
        is_last: bool,
        /// Its runs.
        runs: Vec<NewRun>,
    },
    /// A process is about to be started.
    RuntimeLaunching(ProcessKey),
    /// It exists.
    RuntimeSpawned {
        /// Which.
        process: ProcessKey,
        /// Its pid.
        pid: i32,
    },
    /// It answers.
    RuntimeReady(ProcessKey),
    /// It stopped answering.
    RuntimeUnresponsive {
        /// Which.
        process: ProcessKey,
        /// Since when, and what it does meanwhile.
        hang: HangEvidence,
    },
    /// It answers again.
    RuntimeRecovered(ProcessKey),
    /// Its end was asked for, or the next rung of the ladder was reached.
    RuntimeStopping {
        /// Which.
        process: ProcessKey,
        /// Who wanted it.
        why: StopWhy,
        /// The rung.
        step: StopStep,
    },
    /// It has ended: the one death of this process.
    RuntimeExited {
        /// Which.
        process: ProcessKey,
        /// How.
        status: ExitStatus,
        /// Why, unless it ended as it should.
        report: Option<Box<FailureReport>>,
        /// What follows.
        then: AfterExit,
    },
    /// All that it wrote is in the log.
    RuntimeDrained {
        /// Which.
        process: ProcessKey,
        /// The report with what was found late, when something was.
        report: Option<Box<FailureReport>>,
    },
    /// The session has another owner.
    TakenOver(Box<Takeover>),
    /// The session is to be given to another node: nothing new is begun here.
    HandOverAsked {
        /// How long what runs may still take, in milliseconds.
        grace_ms: u64,
    },
    /// A run lost its process without its fault and waits again, first in the queue: its next attempt begins anew.
    RunWaitsAgain {
        /// Which.
        run: RunId,
    },
    /// The wait before a restart is over, or a restart was asked for: the next process may be launched.
    RestartDue,
    /// A person asked for a restart: what was queued before is settled, the count of restarts begins anew.
    RestartAsked,
    /// What runs was interrupted; what waited then will not be run.
    Interrupted,
    /// The runtime is to rest: what waited then will not be run, and nothing but a later wish starts it again.
    RestAsked,
    /// A run is to be ended, and its program was interrupted for it.
    RunEnding {
        /// Which.
        run: RunId,
        /// Why.
        why: EndingWhy,
    },
    /// Runs that ended long ago are forgotten, and their output with them. What they had put into the notebook stays there.
    RunsForgotten {
        /// Which.
        runs: Vec<RunId>,
        /// How many runs had ended by then: those that are forgotten are counted all the same.
        ended: Ended,
    },
    /// A program asked its user something.
    QuestionAsked {
        /// The run that asks.
        run: RunId,
        /// What it asks.
        prompt: String,
        /// Whether the answer must not be shown.
        password: bool,
    },
    /// Somebody answered, or the question has gone.
    QuestionAnswered {
        /// The run that asked.
        run: RunId,
    },
    /// The notebook is about to be written to this path, which is claimed: a crash before the next fact is settled by
    /// looking whether the file holds these bytes.
    PathClaimed {
        /// Absolute, links resolved.
        path: String,
        /// SHA-256 of the bytes, in hex.
        sha256: String,
    },
    /// The write did not succeed: the claim is given back, the session stays where it was.
    PathReleased {
        /// The path.
        path: String,
    },
    /// The session's notebook is this file from now on.
    PathChanged {
        /// Absolute, links resolved.
        path: String,
        /// Why.
        why: PathWhy,
    },
    /// Somebody vouched for the notebook, or took it back.
    TrustChanged(Trust),
    /// Something of a group of runners.
    Group(GroupEvent),
    /// The end of the session was asked for, or its work is done: nothing new is taken.
    Closing(StopWhy),
    /// All work is settled and the runtime is gone: what is left is the last save.
    Settled,
    /// The session has ended.
    Closed {
        /// The notebook that could not be saved, and why.
        save_problem: Option<String>,
    },
}

/// Why a notebook has another path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathWhy {
    /// An untitled notebook was saved for the first time.
    Saved,
    /// It was saved under another name.
    SavedAs,
    /// Its file was renamed by another program.
    Renamed,
}

/// Why a run is being ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndingWhy {
    /// Somebody cancelled it.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// It asked a question and nobody is there.
    NobodyToAsk,
}

/// What follows the end of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterExit {
    /// Nothing.
    Stay,
    /// Nothing by itself; the next run starts it again.
    Rest,
    /// A restart after a wait.
    Restart {
        /// The wait in milliseconds.
        after_ms: u64,
        /// Which restart of its series this is, from 1.
        nth: u32,
    },
    /// It died too often.
    GiveUp {
        /// The reason, for people.
        reason: String,
    },
}

/// A run as it is queued.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The notebook cell that it runs, by index among all cells when it was queued.
    pub cell: Option<usize>,
    /// The same cell by its id, which stays when cells are moved.
    #[serde(default)]
    pub cell_id: Option<String>,
    /// Its source, or the command line as a person would type it.
    pub source: String,
    /// What an exception of its own does to the runs behind it.
    pub on_raise: OnRaise,
}

impl NewRun {
    /// Whether it runs a cell of the notebook.
    #[must_use]
    pub const fn is_cell(&self) -> bool {
        self.cell.is_some() || self.cell_id.is_some()
    }

    /// What it takes in a record, in bytes of JSON.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        serde_json::to_vec(self).expect("a run is text and numbers").len()
    }
}

/// What an exception does to what waits behind the one that raised: to the runs that were queued together with it,
/// and of a cell to all cells that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRaise {
    /// They are cancelled.
    Stop,
    /// They are run (errors allowed, or the cell is tagged `raises-exception`).
    GoOn,
}

/// A fact and the lane that it goes to.
#[derive(Clone, PartialEq, Debug)]
pub enum Fact {
    /// On the journal lane.
    Journal(SessionEvent),
    /// On the run's lane: `Open`.
    RunOpened {
        /// Which.
        run: RunId,
        /// One more than before.
        attempt: Attempt,
        /// How much of the output is kept; `None` for all of it (continue at the head).
        base: Option<Seq>,
        /// When.
        at: WallTime,
    },
    /// On the run's lane: `Data` of the owner's own, behind all that the process has said.
    RunTold {
        /// Which.
        run: RunId,
        /// What.
        chunks: Vec<Chunk>,
    },
    /// On the run's lane: `Checkpoint`.
    RunCheckpointed {
        /// Which.
        run: RunId,
        /// The attempt that saved it.
        attempt: Attempt,
        /// The last chunk that it covers.
        seq: Seq,
        /// The state that was saved.
        blob: Option<BlobRef>,
    },
    /// On the run's lane: `End`.
    RunEnded {
        /// Which.
        run: RunId,
        /// How.
        outcome: RunOutcome,
        /// Why, when its process failed.
        report: Option<Box<FailureReport>>,
        /// The kernel's count.
        execution_count: Option<u32>,
        /// When.
        at: WallTime,
    },
}

impl Happened {
    /// These runs are queued together: in one fact, or in as many as they need.
    #[must_use]
    pub fn queued(runs: Vec<NewRun>) -> Vec<Self> {
        let mut parts: Vec<Vec<NewRun>> = vec![Vec::new()];
        let mut bytes = 0;
        for run in runs {
            let size = run.stored_bytes();
            if bytes + size > QUEUED_TOGETHER_BYTES_MAX && bytes > 0 {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            parts.last_mut().expect("there is one from the start").push(run);
        }
        let last = parts.len() - 1;
        if last == 0 {
            return parts.into_iter().map(Self::RunsQueued).collect();
        }
        let part = |(part, runs): (usize, _)| Self::RunsQueuedInParts {
            part: u32::try_from(part).unwrap_or(u32::MAX),
            is_last: part == last,
            runs,
        };
        parts.into_iter().enumerate().map(part).collect()
    }
}
