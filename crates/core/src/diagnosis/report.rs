//! The stored record of one failure: what died, why, what it interrupted, what happens next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::diagnose;
use super::evidence::Evidence;
use crate::id::{ProcessKey, ReportId, RunId, SessionId};
use crate::runtime::{ExitReport, ExitStatus};
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
    /// The same as people call them, for instance `cell 3`.
    #[serde(default)]
    pub interrupted_names: Vec<String>,
    /// What Outlive does next.
    pub next: NextStep,
    /// The facts it was drawn from.
    pub evidence: Evidence,
}

/// What a report is made from. Ids and times come from the caller: core makes neither.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// The new report's id.
    pub id: ReportId,
    /// The session it happened in.
    pub session: SessionId,
    /// The process, when there was one.
    pub process: Option<ProcessKey>,
    /// What died, in the user's words.
    pub subject: String,
    /// When its end was seen.
    pub at: WallTime,
    /// How long it had lived, in milliseconds.
    pub lived_ms: Option<u64>,
    /// What wait(2) said; `None` when nothing was ever spawned.
    pub status: Option<ExitStatus>,
    /// What was gathered.
    pub evidence: Evidence,
    /// The runs that were running, then those that were queued.
    pub interrupted: Vec<RunId>,
    /// The same as people call them, for instance `cell 3`; may be left empty.
    pub interrupted_names: Vec<String>,
    /// What happens next.
    pub next: NextStep,
}

impl Failure {
    /// The failure that a process's one [`ExitReport`] tells of. `subject` is what died without its pid, for
    /// instance `kernel python3`. Nothing is interrupted and nothing is next until the caller says so.
    #[must_use]
    pub fn of_exit(id: ReportId, session: SessionId, subject: &str, exit: ExitReport) -> Self {
        let spawned = exit.pid.is_some();
        Self {
            id,
            session,
            process: Some(exit.process),
            subject: exit.pid.map_or_else(|| subject.to_owned(), |pid| format!("{subject} (pid {pid})")),
            at: exit.exited_at,
            lived_ms: spawned.then(|| exit.exited_at.0.saturating_sub(exit.started_at.0) / 1_000),
            status: spawned.then_some(exit.status),
            evidence: exit.evidence,
            interrupted: Vec::new(),
            interrupted_names: Vec::new(),
            next: NextStep::Nothing,
        }
    }
}

impl FailureReport {
    /// Diagnoses a failure.
    #[must_use]
    pub fn build(failure: Failure) -> Self {
        let Failure {
            id,
            session,
            process,
            subject,
            at,
            lived_ms,
            status,
            evidence,
            interrupted,
            interrupted_names,
            next,
        } = failure;
        let causes = diagnose(&evidence, status);
        Self {
            id,
            session,
            process,
            subject,
            at,
            lived_ms,
            status,
            causes,
            interrupted,
            interrupted_names,
            next,
            evidence,
        }
    }

    /// Adds evidence that came after the report was made and ranks the causes anew. The death stays the one it
    /// was: id, time, status and what it interrupted do not change. Adding the same evidence twice changes nothing.
    pub fn amend(&mut self, late: Evidence) {
        self.evidence.merge(late);
        self.causes = diagnose(&self.evidence, self.status);
    }

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
