//! What has happened in a group, beside what happens in every session.

use serde::{Deserialize, Serialize};

use super::spec::{GroupSpec, NewTask};
use crate::diagnosis::FailureReport;
use crate::id::{ProcessKey, RunId, RuntimeId};
use crate::runtime::runner::{Greeting, Phase};
use crate::session::state::Ended;

/// A fact about a group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupEvent {
    /// It was made.
    Created(Box<GroupSpec>),
    /// A task waits.
    TaskQueued(Box<NewTask>),
    /// A task is about to be given to a runner: its next attempt, which is opened after this, is this process's.
    TaskGiven {
        /// Which.
        run: RunId,
        /// To whom.
        process: ProcessKey,
    },
    /// A runner has said what it can do.
    Greeted {
        /// Which.
        process: ProcessKey,
        /// What.
        greeting: Greeting,
    },
    /// A runner entered a phase.
    Entered {
        /// Which.
        process: ProcessKey,
        /// The phase.
        phase: Phase,
    },
    /// A member is to be up from now on; the count of its restarts begins anew.
    StartAsked {
        /// Which.
        member: RuntimeId,
    },
    /// A member is to be down from now on.
    StopAsked {
        /// Which.
        member: RuntimeId,
    },
    /// The wait before a member's restart is over.
    RestartDue {
        /// Which.
        member: RuntimeId,
    },
    /// A member of a `one_for_all` group died: the others are to end too, and what follows its end follows theirs.
    AllDown {
        /// Which died.
        member: RuntimeId,
    },
    /// A task is to be ended, and its runner was told.
    TaskEnding {
        /// Which.
        run: RunId,
        /// Why.
        why: TaskEndingWhy,
    },
    /// A task that was being ended did not end in time: it is settled without its runner, which gets nothing new and is
    /// stopped as soon as it has no other task.
    CancelIgnored {
        /// Which.
        run: RunId,
    },
    /// A task lost its runner and waits again, first in the queue: its next attempt begins at its last checkpoint.
    TaskWaitsAgain {
        /// Which.
        run: RunId,
        /// How it lost its runner.
        #[serde(default, skip_serializing_if = "RunnerLost::is_own")]
        lost: RunnerLost,
    },
    /// A runner did something that it must not, and goes on.
    Noted {
        /// What.
        report: Box<FailureReport>,
    },
    /// Ended tasks are forgotten, oldest first.
    TasksForgotten {
        /// Which.
        runs: Vec<RunId>,
        /// How all that have ended so far did: their ends leave the log.
        ended: Ended,
    },
}

/// How a task lost its runner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerLost {
    /// It ended. The task may be why.
    #[default]
    Ended,
    /// Its node was lost.
    WithNode,
    /// Its node gives its work away.
    HandedOver,
}

impl RunnerLost {
    /// Whether the runner ended by itself.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self, Self::Ended)
    }
}

/// Why a task is being ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEndingWhy {
    /// Somebody cancelled it.
    Cancelled,
    /// It took too long.
    TimedOut,
}
