//! The runner protocol: what a supervisor and a runner say to each other over descriptors 3 and 4. The format is described in
//! `docs/design/runner-protocol.md`.
//!
//! A frame is a JSON object on one line of at most [`RUNNER_LINE_BYTES_MAX`] bytes; a field `bytes` says how many raw
//! bytes follow, at most [`RUNNER_BYTES_MAX`], and a newline after them.

mod codec;
mod json;

use outlive_core::id::{Attempt, RunId};
#[cfg(doc)]
use outlive_core::limits::{RUNNER_BYTES_MAX, RUNNER_LINE_BYTES_MAX};
use outlive_core::runtime::runner::{Phase, Progress, Saved};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use codec::{Decoder, Frame, RunnerCodecError, Violation, encode};
pub use json::{Json, is_json};

/// The newest version that is spoken.
pub const VERSION: u32 = 1;

/// From the supervisor to a runner. Raw bytes, where a frame has them, stand beside it in [`Framed`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToRunner {
    /// The first frame.
    Hello {
        /// [`VERSION`] of the supervisor.
        version: u32,
        /// The member's name.
        runner: String,
        /// Which process of the member this is.
        incarnation: u64,
        /// Longest line.
        line_max: usize,
        /// Longest run of raw bytes.
        bytes_max: usize,
    },
    /// Do this.
    Task {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// The handler's name.
        task: String,
        /// The idempotency key of the work.
        key: String,
        /// The input, unless it stands in the raw bytes, as JSON.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
        input: Option<Value>,
        /// What an earlier attempt has saved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<Saved>,
    },
    /// Stop it.
    Cancel {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Answer this.
    Ping {
        /// With this.
        n: u64,
    },
    /// Finish or give up what runs, and end.
    Shutdown {
        /// SIGTERM follows after so many milliseconds.
        grace_ms: u64,
        /// Its tasks go on elsewhere: one that saves its state stops with the next that it saves, and says `stopped`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hand_over: bool,
    },
}

/// From a runner to its supervisor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum FromRunner {
    /// The first frame.
    Hello {
        /// The version that it speaks.
        version: u32,
        /// The tasks that it has handlers for.
        tasks: Vec<String>,
        /// What else it can serve.
        #[serde(default)]
        capabilities: Vec<String>,
        /// How many tasks it takes at a time.
        #[serde(default = "one")]
        concurrency: u32,
        /// Those of its tasks that are replayed exactly.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        exact: Vec<String>,
        /// What it is made with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sdk: Option<String>,
    },
    /// It is so far.
    State {
        /// The phase; `connecting` is nothing that a runner says.
        state: Phase,
        /// How much of it is done.
        #[serde(flatten)]
        progress: Progress,
    },
    /// The answer to a ping.
    Pong {
        /// The same number.
        n: u64,
    },
    /// A piece of a task's output: exactly one of `text`, `json` and raw bytes.
    Chunk {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// Text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Any JSON value; `null` is one.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
        json: Option<Json>,
        /// What raw bytes are, as a MIME type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mime: Option<String>,
    },
    /// How far a task is.
    Progress {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// So far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A task can be continued from here; the state stands here or in the raw bytes.
    Checkpoint {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// The state.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
        state: Option<Json>,
    },
    /// Terminal: the task succeeded; the value stands here or in the raw bytes, as JSON.
    Result {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// What it returned.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::present")]
        value: Option<Json>,
    },
    /// Terminal: the task raised.
    Error {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// What.
        exception: Exception,
    },
    /// Terminal: the task stopped because it was told to.
    Cancelled {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// It has stopped at the last state that it saved, or before it did anything, because the runner was told to hand over:
    /// the task waits again, and goes on from there elsewhere. Nothing of it is done twice.
    Stopped {
        /// The run.
        id: RunId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// The runner ends because of this.
    LastWords {
        /// What.
        exception: Exception,
        /// The task in which it was raised.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RunId>,
        /// The thread that alone ended of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<String>,
    },
    /// Nothing follows.
    End,
}

const fn one() -> u32 {
    1
}

/// An exception.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exception {
    /// Its type, qualified where it is not a builtin.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its message.
    #[serde(default)]
    pub message: String,
    /// How the language shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repr: Option<String>,
    /// The traceback as the language prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<Exception>>,
}

/// A frame with its raw bytes, empty when it has none.
#[derive(Clone, PartialEq, Debug)]
pub struct Framed<T> {
    /// The frame.
    pub frame: T,
    /// What stood behind it; `None` when it had no field `bytes`.
    pub bytes: Option<Vec<u8>>,
}
