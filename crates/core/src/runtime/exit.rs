//! How a process ended.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnosis::Evidence;
use crate::id::ProcessKey;
use crate::time::WallTime;

/// What wait(2) said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ExitStatus {
    /// The process called exit.
    Code {
        /// 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number on this machine.
        number: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// Nobody could wait for it (its shim was killed).
    Unknown,
}

impl ExitStatus {
    /// Exit code 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code { code: 0 })
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code } => write!(f, "exit code {code}"),
            Self::Signal { number, core_dumped } => {
                write!(f, "{}", signal_name(*number))?;
                if *core_dumped { f.write_str(" (core dumped)") } else { Ok(()) }
            }
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// A signal's name, as in signal(7); numbers as on Linux x86-64 and arm64.
#[must_use]
pub fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(number)
        .ok()
        .and_then(|n| n.checked_sub(1))
        .and_then(|i| NAMES.get(i))
        .map_or_else(|| format!("signal {number}"), |name| (*name).to_owned())
}

/// The one report of the one death of a process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExitReport {
    /// Which process.
    pub process: ProcessKey,
    /// Its pid; `None` when it was never spawned.
    pub pid: Option<i32>,
    /// When it was spawned (or the spawn was tried).
    pub started_at: WallTime,
    /// When its end was seen.
    pub exited_at: WallTime,
    /// How it ended.
    pub status: ExitStatus,
    /// All that was gathered about it.
    pub evidence: Evidence,
}
