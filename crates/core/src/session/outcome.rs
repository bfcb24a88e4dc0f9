//! How a run ended. Exactly one for each run: the first End that counts in its log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnosis::CauseCode;
use crate::id::ReportId;

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunOutcome {
    /// It did what it was asked.
    Succeeded,
    /// Its own code raised; the process lives on.
    Raised {
        /// The exception's type.
        ename: String,
        /// The exception's message.
        evalue: String,
    },
    /// Its process died, hung or could not be started.
    Failed {
        /// The first cause.
        code: CauseCode,
        /// The cause in one sentence.
        summary: String,
        /// The report that explains it; shared by all runs that one death ended.
        report: ReportId,
    },
    /// It took longer than its limit.
    TimedOut {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// No runner took it: none was ready in time, or none will be.
    Unserved {
        /// Why, for people.
        reason: String,
    },
    /// It was not run, or not to its end, because of a wish or an earlier failure.
    Cancelled {
        /// Why.
        why: CancelWhy,
    },
}

impl RunOutcome {
    /// Whether it did what it was asked.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded)
    }
}

/// Why a run was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelWhy {
    /// Somebody cancelled it.
    User,
    /// A run before it in the same batch failed.
    EarlierFailure,
    /// What ran before it was interrupted, and it with it.
    Interrupted,
    /// The process it waited for was stopped.
    Stopped,
    /// Its node handed its work over, and what it needed could not go along: the memory of its process.
    NodeDrained,
}
