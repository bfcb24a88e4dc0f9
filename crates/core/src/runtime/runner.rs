//! What a runner is told and says about itself (docs/design/runner-protocol.md).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{STALL_CHUNK_MS, STALL_FIRST_CHUNK_MS, STALL_LOAD_MS};

/// Whether a runner has a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    /// It speaks the runner protocol on descriptors 3 and 4.
    #[default]
    Protocol,
    /// It speaks nothing: it is supervised, ready as soon as it runs, and serves no tasks.
    Nothing,
}

/// How long a runner may make no progress, in milliseconds; `None` is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Watchdogs {
    /// From its start, or its last progress, to ready.
    pub load_ms: Option<u64>,
    /// From a task to its first frame.
    pub first_chunk_ms: Option<u64>,
    /// From one frame of a task to the next.
    pub between_chunks_ms: Option<u64>,
}

impl Default for Watchdogs {
    fn default() -> Self {
        Self {
            load_ms: Some(STALL_LOAD_MS),
            first_chunk_ms: Some(STALL_FIRST_CHUNK_MS),
            between_chunks_ms: Some(STALL_CHUNK_MS),
        }
    }
}

/// What a runner says of itself first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Greeting {
    /// The tasks that it has handlers for.
    pub tasks: BTreeSet<String>,
    /// What else it can serve, for instance `chat`.
    pub capabilities: BTreeSet<String>,
    /// How many tasks it takes at a time; at least 1.
    pub concurrency: u32,
    /// Those of its tasks that say the same again, chunk for chunk, when they are begun anew with the same input and state.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exact: BTreeSet<String>,
    /// What it is made with, for instance `outlive-python 0.1.0`.
    #[serde(default)]
    pub sdk: Option<String>,
}

/// How far a runner is that is not ready yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has said nothing yet.
    #[default]
    Connecting,
    /// It loads what it needs.
    Loading,
    /// It has loaded all, and tries it.
    WarmingUp,
    /// It takes tasks.
    Ready,
    /// It finishes what it has, and takes nothing new.
    ShuttingDown,
}

/// How much of something is done.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// So much, in a unit of the runner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<f64>,
    /// Of so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A task as its runner gets it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskOrder {
    /// The handler's name.
    pub task: String,
    /// Its input.
    pub input: serde_json::Value,
    /// The idempotency key of the work: the same for each attempt.
    pub key: String,
    /// What an earlier attempt has saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Saved>,
    /// What it says first is known already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// What an earlier attempt has said behind the state that this one begins with: this one says it again, and it is dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replay {
    /// So many chunks.
    pub chunks: u64,
    /// Their digest, in hex.
    pub sha256: String,
}

/// A state that an earlier attempt has saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The last chunk that it covers.
    pub seq: crate::id::Seq,
    /// The file that holds it, absolute.
    pub file: String,
}
