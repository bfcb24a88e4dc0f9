//! The stored record of one failure: what died, why, what it interrupted, what happens next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::evidence::Evidence;
use crate::id::{ProcessKey, ReportId, RunId, SessionId};
use crate::runtime::ExitStatus;
use crate::time::WallTime;

/// One failure, as it is stored and delivered to every run and client that it concerns.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FailureReport {
    /// Its own id: a death has exactly one report, however many runs it ended.
    pub id: ReportId,
    /// The session it happened in.
    pub session: SessionId,
    /// The process that died; `None` when none was ever started.
    pub process: Option<ProcessKey>,
    /// What died, in the user's words, for instance `kernel python3 (pid 4711)`.
    pub subject: String,
    /// When its end was seen.
    pub at: WallTime,
    /// How long it had lived, in milliseconds.
    pub lived_ms: Option<u64>,
    /// What wait(2) said; `None` when nothing was ever spawned.
    pub status: Option<ExitStatus>,
    /// Ranked, at least one: the first is the cause.
    pub causes: Vec<Cause>,
    /// The runs that were running, then those that were queued.
    pub interrupted: Vec<RunId>,
    /// What Outlive does next.
    pub next: NextStep,
    /// The facts it was drawn from.
    pub evidence: Evidence,
}

impl FailureReport {
    /// The cause that ranks first.
    ///
    /// # Panics
    /// Never: a report is made with at least one cause (`diagnose` falls back to `unknown`).
    #[must_use]
    pub fn cause(&self) -> &Cause {
        self.causes.first().expect("a report has at least one cause")
    }
}

/// What happens after a failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum NextStep {
    /// Nothing is started again by itself.
    Nothing,
    /// It is started again after a wait.
    Restart {
        /// The wait in milliseconds.
        after_ms: u64,
        /// Which restart within the period this is, from 1.
        nth: u32,
        /// How many are allowed.
        of: u32,
    },
    /// It died too often within the period: Outlive gives up.
    GiveUp {
        /// The reason, for people.
        reason: String,
    },
}
