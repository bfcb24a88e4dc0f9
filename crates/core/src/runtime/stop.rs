//! Why and how a process is stopped: ask, then SIGTERM to its group, then SIGKILL to all of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who wanted the end of a process. A stop is never reported as a crash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopWhy {
    /// A person or program asked.
    User,
    /// A restart was asked for.
    Restart,
    /// The session's work is done.
    Finished,
    /// Somebody wanted the runtime to rest; the session stays.
    Rest,
    /// The session was idle.
    Eviction,
    /// The node hands its work over.
    Drain,
    /// It hung, and the policy says to restart what hangs.
    Hung,
    /// It did not become ready in time.
    NeverReady,
    /// Its run took longer than its limit and did not react to the interrupt.
    Timeout,
    /// A sibling of its group died, and it is useless without it.
    Sibling,
    /// A watchdog saw no progress.
    Stalled,
    /// It broke the runner protocol, or closed its channel.
    Violation,
    /// A task of it did not end when it was cancelled.
    IgnoredCancel,
    /// The daemon does not know it, or lost its session to another owner.
    Disowned,
}

/// What kind of reason a stop has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StopKind {
    /// Somebody wished it: the end is what was wanted.
    Wish,
    /// Outlive ended what did not go on as it should.
    Verdict,
    /// Another process died.
    Consequence,
}

impl StopWhy {
    pub(crate) const fn kind(self) -> StopKind {
        match self {
            Self::User
            | Self::Restart
            | Self::Finished
            | Self::Rest
            | Self::Eviction
            | Self::Drain
            | Self::Disowned => StopKind::Wish,
            Self::Hung
            | Self::NeverReady
            | Self::Timeout
            | Self::Stalled
            | Self::Violation
            | Self::IgnoredCancel => StopKind::Verdict,
            Self::Sibling => StopKind::Consequence,
        }
    }
}

/// A rung of the ladder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopStep {
    /// The program was asked in its own protocol (`shutdown_request`; a command has none and skips this rung).
    Ask,
    /// SIGTERM to the process group.
    Term,
    /// SIGKILL to everything in the process's container.
    Kill,
}

/// How long each rung may take, in milliseconds. The last needs none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StopLadder {
    /// From asking to SIGTERM.
    pub ask_ms: u64,
    /// From SIGTERM to SIGKILL.
    pub term_ms: u64,
}

impl Default for StopLadder {
    fn default() -> Self {
        Self { ask_ms: crate::limits::STOP_ASK_MS, term_ms: crate::limits::STOP_TERM_MS }
    }
}
