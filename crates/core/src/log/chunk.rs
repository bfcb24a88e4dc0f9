//! One piece of a run's output.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// What a chunk holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkKind {
    /// Bytes written to standard output (UTF-8 for a kernel, anything for a command).
    Stdout,
    /// Bytes written to standard error.
    Stderr,
    /// Jupyter `display_data` content (JSON: data, metadata, transient).
    DisplayData,
    /// Jupyter `update_display_data` content.
    UpdateDisplayData,
    /// Jupyter `execute_result` content (JSON: execution_count, data, metadata).
    ExecuteResult,
    /// Jupyter `error` content (JSON: ename, evalue, traceback).
    Error,
    /// Jupyter `clear_output` content (JSON: wait).
    ClearOutput,
    /// JSON `{"execution_count": n}`: the kernel began to execute.
    Started,
    /// Jupyter `input_request` content (JSON: prompt, password): somebody has to answer.
    InputRequest,
    /// A piece of text of a task, UTF-8.
    Text,
    /// A piece of a task's output as JSON.
    Json,
    /// A piece of a task's output, any bytes.
    Bytes,
    /// JSON `{"done"?, "total"?, "message"?}`: how far a task is.
    Progress,
    /// The value that a task returned, JSON; the last chunk of a task that succeeded.
    Result,
    /// JSON `{"since": src, "reason": text}`: output was lost here, and this is where.
    Gap,
    /// Any other iopub message of a kernel (comm_open, comm_msg, comm_close, …): JSON `{"msg_type", "content"}`.
    Other,
}

/// A payload kept beside the log because it is large.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BlobRef {
    /// SHA-256 of the content, 64 lower-case hexadecimal digits; also its name.
    pub sha256: String,
    /// Length of the content in bytes.
    pub size: u64,
    /// What the content is, as a MIME type. Message contents are `application/json`.
    pub mime: String,
}

/// The content of a chunk: here, or in a blob.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// The bytes themselves, at most [`crate::limits::CHUNK_BYTES_MAX`].
    Inline(Arc<[u8]>),
    /// The bytes are in a blob of the session.
    Blob(BlobRef),
}

impl Payload {
    /// Length of the content in bytes, wherever it is.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.size,
        }
    }
}

/// One piece of output. Its sequence number is given by the owner when it is appended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Chunk {
    /// What it is.
    pub kind: ChunkKind,
    /// When the shim received it.
    pub at: WallTime,
    /// Its content.
    pub payload: Payload,
}

impl Chunk {
    /// A chunk whose content is held inline.
    #[must_use]
    pub fn inline(kind: ChunkKind, at: WallTime, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { kind, at, payload: Payload::Inline(bytes.into()) }
    }
}
