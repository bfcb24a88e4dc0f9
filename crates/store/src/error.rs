//! What can go wrong, by operation. Each says whose fault it is and whether the outcome is known.

use std::io;

use outlive_core::id::{Position, Revision};
use outlive_protocol::log::CodecError;

/// The store cannot do something now. Nothing was changed; the same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("the store cannot {what} now; {remedy}, then try again")]
pub struct Unavailable {
    /// What was tried, in words that follow "cannot".
    pub what: String,
    /// What may help, in words that come before "then try again".
    pub remedy: &'static str,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl Unavailable {
    /// Keeps the reason with what was tried.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { what: what.into(), remedy: "free disk space or repair the disk", source: source.into() }
    }

    /// The same where something else may help.
    #[must_use]
    pub fn with_remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }
}

/// Why an append has no position.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The guard does not hold; nothing was stored. Re-read the control lane: still mine → retry, else fenced.
    #[error("the session's control lane is at {last_control}, not where this writer expects it")]
    Conflict {
        /// Where the control lane is now; 0 when it is empty.
        last_control: Position,
    },
    /// The record may be stored or not. Re-read before any retry.
    #[error("the store's answer was lost: the record may be stored or not")]
    Unknown,
    /// Nothing was stored; the same call may succeed later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The caller's fault; nothing was stored.
    #[error("a record of {size} bytes is over the limit of {max} bytes; split it or use a blob")]
    TooLarge {
        /// The record's size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The log cannot be read, so nothing can be added to it.
    #[error("the session's log is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
}

impl From<CodecError> for AppendError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::TooLarge { size, max } => Self::TooLarge { size, max },
            other @ (CodecError::UnknownKind { .. }
            | CodecError::Json { .. }
            | CodecError::Lengths { .. }) => Self::Corrupt { what: other.to_string() },
        }
    }
}

impl From<ReadError> for AppendError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            ReadError::Corrupt { position, what } => Self::Corrupt { what: format!("at {position}: {what}") },
        }
    }
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It may be readable later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What is stored cannot be understood.
    #[error(
        "the session's log is damaged after position {position}: {what}; see recovered.jsonl in its folder"
    )]
    Corrupt {
        /// The last position before the damage.
        position: Position,
        /// What was found.
        what: String,
    },
}

/// Why a table was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The row is not at the expected revision; nothing was changed.
    #[error("the row is at revision {current}, not at the expected one")]
    Conflict {
        /// The row's revision; 0 when there is none.
        current: Revision,
    },
    /// The row may be changed or not. Re-read before any retry.
    #[error("the store's answer was lost: the row may be changed or not")]
    Unknown,
    /// Nothing was changed; the same call may succeed later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The caller's fault; nothing was changed.
    #[error("a value of {size} bytes is over the limit of {max} bytes")]
    TooLarge {
        /// The value's size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
}

/// Why a blob was not put or found.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob in the session.
    #[error("the session has no blob {sha256}; it may have been removed with what named it")]
    Missing {
        /// The blob's name.
        sha256: String,
    },
    /// The caller's fault: the name is no SHA-256 in lower-case hexadecimal.
    #[error("{sha256:?} is no blob's name: 64 lower-case hexadecimal digits are expected")]
    BadName {
        /// What was given.
        sha256: String,
    },
    /// The content is not what its name says. Nothing was put.
    #[error("the content of blob {sha256} does not fit its name: {what}")]
    Mismatch {
        /// The blob's name.
        sha256: String,
        /// What does not fit.
        what: String,
    },
    /// It may work later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
