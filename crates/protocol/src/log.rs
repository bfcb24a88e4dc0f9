//! The bytes of a log record: a kind and a body, the same in every engine.
//!
//! A record without chunks is JSON. A record with bytes in it is `json_len u32 LE | JSON | raw bytes`, where the raw
//! bytes are the inline chunks one after the other, and the JSON says how long each is. So a log can be read by a
//! person, and output is never escaped or copied into JSON.
//!
//! Kind bytes are given once and never used again for something else; one that is unknown here is kept as
//! [`Record::Unknown`] and skipped. Golden bytes: `tests/golden/`.

use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Attempt, Position, ProcessKey, RunId, Seq};
use outlive_core::limits::RECORD_BYTES_MAX;
use outlive_core::log::{BlobRef, Chunk, ChunkKind, Fenced, FencedBody, Payload, Record};
use outlive_core::log::{RunRecord, Source};
use outlive_core::session::RunOutcome;
use outlive_core::session::event::SessionEvent;
use outlive_core::time::WallTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The kind bytes of log records.
pub mod kind {
    /// A change of ownership, JSON.
    pub const CONTROL: u8 = 0x01;
    /// A durable wish, JSON.
    pub const REQUEST: u8 = 0x02;
    /// Session events, JSON.
    pub const JOURNAL: u8 = 0x10;
    /// A document update: JSON, raw bytes.
    pub const DOCUMENT: u8 = 0x11;
    /// An attempt begins, JSON.
    pub const RUN_OPEN: u8 = 0x20;
    /// Output of a run: JSON, raw bytes.
    pub const RUN_DATA: u8 = 0x21;
    /// A checkpoint of a run, JSON.
    pub const RUN_CHECKPOINT: u8 = 0x22;
    /// A remark on a run, JSON.
    pub const RUN_NOTE: u8 = 0x23;
    /// The end of a run, JSON.
    pub const RUN_END: u8 = 0x24;
    /// Output of no open run: JSON, raw bytes.
    pub const RUNTIME: u8 = 0x30;
}

/// A record as bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    /// One of [`kind`].
    pub kind: u8,
    /// At most [`RECORD_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
}

/// Why a record has no bytes, or bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The caller's fault: split it, or put its content into a blob.
    #[error("a record of {size} bytes is over the limit of {max} bytes; split it or use a blob")]
    TooLarge {
        /// The record's size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A record that was read with an unknown kind cannot be written again.
    #[error("a record of the unknown kind {kind} cannot be written; upgrade this program")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// The JSON part is not what its kind says.
    #[error("a record of kind {kind} is damaged or from a newer version: its JSON does not fit")]
    Json {
        /// The kind byte.
        kind: u8,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The lengths in a record do not add up.
    #[error("a record of kind {kind} is damaged: {what}")]
    Lengths {
        /// The kind byte.
        kind: u8,
        /// What does not add up.
        what: &'static str,
    },
}

/// The bytes of a record.
///
/// # Errors
/// [`CodecError::TooLarge`], [`CodecError::UnknownKind`].
pub fn encode(record: &Record) -> Result<Encoded, CodecError> {
    let (kind, body) = match record {
        Record::Control(control) => (kind::CONTROL, json(kind::CONTROL, control)?),
        Record::Request(request) => (kind::REQUEST, json(kind::REQUEST, request)?),
        Record::Fenced(fenced) => encode_fenced(fenced)?,
        Record::Unknown { kind } => return Err(CodecError::UnknownKind { kind: *kind }),
    };
    if body.len() > RECORD_BYTES_MAX {
        return Err(CodecError::TooLarge { size: body.len(), max: RECORD_BYTES_MAX });
    }
    Ok(Encoded { kind, body })
}

/// Reads a record back. An unknown kind is no error: see [`Record::Unknown`].
///
/// # Errors
/// [`CodecError::Json`], [`CodecError::Lengths`].
pub fn decode(kind: u8, body: &[u8]) -> Result<Record, CodecError> {
    let fenced = |claim, source, body| Record::Fenced(Fenced { claim, source, body });
    Ok(match kind {
        kind::CONTROL => Record::Control(parse(kind, body)?),
        kind::REQUEST => Record::Request(parse(kind, body)?),
        kind::JOURNAL => {
            let Under::<Vec<SessionEvent>> { claim, source, body } = parse(kind, body)?;
            fenced(claim, source, FencedBody::Journal(body))
        }
        kind::DOCUMENT => {
            let (Under::<()> { claim, source, .. }, raw) = split_json(kind, body)?;
            fenced(claim, source, FencedBody::Document(raw.to_vec()))
        }
        kind::RUN_OPEN => {
            let Under::<OpenBody> { claim, source, body: OpenBody { attempt, base, at } } =
                parse(kind, body)?;
            fenced(claim, source, FencedBody::Run(RunRecord::Open { attempt, base, at }))
        }
        kind::RUN_DATA => {
            let (Under::<DataBody> { claim, source, body }, raw) = split_json(kind, body)?;
            let DataBody { attempt, first, chunks } = body;
            let chunks = join_chunks(kind, chunks, raw)?;
            fenced(claim, source, FencedBody::Run(RunRecord::Data { attempt, first, chunks }))
        }
        kind::RUN_CHECKPOINT => {
            let Under::<CheckpointBody> { claim, source, body } = parse(kind, body)?;
            let CheckpointBody { attempt, seq, blob } = body;
            fenced(claim, source, FencedBody::Run(RunRecord::Checkpoint { attempt, seq, blob }))
        }
        kind::RUN_NOTE => {
            let Under::<String> { claim, source, body: text } = parse(kind, body)?;
            fenced(claim, source, FencedBody::Run(RunRecord::Note { text }))
        }
        kind::RUN_END => {
            let Under::<EndBody> { claim, source, body } = parse(kind, body)?;
            let EndBody { attempt, outcome, last_seq, report, execution_count, at } = body;
            let end = RunRecord::End { attempt, outcome, last_seq, report, execution_count, at };
            fenced(claim, source, FencedBody::Run(end))
        }
        kind::RUNTIME => {
            let (Under::<RuntimeBody> { claim, source, body }, raw) = split_json(kind, body)?;
            let RuntimeBody { process, origin, chunks } = body;
            let chunks = join_chunks(kind, chunks, raw)?;
            fenced(claim, source, FencedBody::Runtime { process, origin, chunks })
        }
        kind => Record::Unknown { kind },
    })
}

fn encode_fenced(fenced: &Fenced) -> Result<(u8, Vec<u8>), CodecError> {
    let Fenced { claim, source, body } = fenced;
    let (claim, source) = (*claim, *source);
    Ok(match body {
        FencedBody::Journal(events) => {
            (kind::JOURNAL, json(kind::JOURNAL, &Under { claim, source, body: events })?)
        }
        FencedBody::Document(bytes) => {
            (kind::DOCUMENT, json_then(kind::DOCUMENT, &Under { claim, source, body: () }, [&bytes[..]])?)
        }
        FencedBody::Run(record) => encode_run(claim, source, record)?,
        FencedBody::Runtime { process, origin, chunks } => {
            let body = RuntimeBody { process: *process, origin: *origin, chunks: chunk_heads(chunks) };
            (kind::RUNTIME, json_then(kind::RUNTIME, &Under { claim, source, body }, inline_bytes(chunks))?)
        }
    })
}

fn encode_run(
    claim: Position,
    source: Option<Source>,
    record: &RunRecord,
) -> Result<(u8, Vec<u8>), CodecError> {
    Ok(match record {
        RunRecord::Open { attempt, base, at } => {
            let body = OpenBody { attempt: *attempt, base: *base, at: *at };
            (kind::RUN_OPEN, json(kind::RUN_OPEN, &Under { claim, source, body })?)
        }
        RunRecord::Data { attempt, first, chunks } => {
            let body = DataBody { attempt: *attempt, first: *first, chunks: chunk_heads(chunks) };
            (kind::RUN_DATA, json_then(kind::RUN_DATA, &Under { claim, source, body }, inline_bytes(chunks))?)
        }
        RunRecord::Checkpoint { attempt, seq, blob } => {
            let body = CheckpointBody { attempt: *attempt, seq: *seq, blob: blob.clone() };
            (kind::RUN_CHECKPOINT, json(kind::RUN_CHECKPOINT, &Under { claim, source, body })?)
        }
        RunRecord::Note { text } => {
            (kind::RUN_NOTE, json(kind::RUN_NOTE, &Under { claim, source, body: text })?)
        }
        RunRecord::End { attempt, outcome, last_seq, report, execution_count, at } => {
            let body = EndBody {
                attempt: *attempt,
                outcome: outcome.clone(),
                last_seq: *last_seq,
                report: report.clone(),
                execution_count: *execution_count,
                at: *at,
            };
            (kind::RUN_END, json(kind::RUN_END, &Under { claim, source, body })?)
        }
    })
}

/// The JSON of a fenced record: its fencing token, what it accounts for, and the rest by kind.
#[derive(Serialize, Deserialize)]
struct Under<T> {
    claim: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    body: T,
}

#[derive(Serialize, Deserialize)]
struct OpenBody {
    attempt: Attempt,
    base: Seq,
    at: WallTime,
}

#[derive(Serialize, Deserialize)]
struct DataBody {
    attempt: Attempt,
    first: Seq,
    chunks: Vec<ChunkHead>,
}

#[derive(Serialize, Deserialize)]
struct CheckpointBody {
    attempt: Attempt,
    seq: Seq,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<BlobRef>,
}

#[derive(Serialize, Deserialize)]
struct EndBody {
    attempt: Attempt,
    outcome: RunOutcome,
    last_seq: Seq,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<Box<FailureReport>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution_count: Option<u32>,
    at: WallTime,
}

#[derive(Serialize, Deserialize)]
struct RuntimeBody {
    process: ProcessKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<RunId>,
    chunks: Vec<ChunkHead>,
}

/// A chunk without its inline bytes, as it stands in the JSON of a record.
#[derive(Serialize, Deserialize)]
pub(crate) struct ChunkHead {
    kind: ChunkKind,
    at: WallTime,
    body: ChunkPlace,
}

/// Where a chunk's bytes are.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChunkPlace {
    /// So many of the raw bytes, after those of the chunks before.
    Inline(usize),
    /// Beside the log.
    Blob(BlobRef),
}

/// The JSON part of a list of chunks; [`inline_bytes`] is the other part.
pub(crate) fn chunk_heads(chunks: &[Chunk]) -> Vec<ChunkHead> {
    chunks
        .iter()
        .map(|chunk| ChunkHead {
            kind: chunk.kind.clone(),
            at: chunk.at,
            body: match &chunk.payload {
                Payload::Inline(bytes) => ChunkPlace::Inline(bytes.len()),
                Payload::Blob(blob) => ChunkPlace::Blob(blob.clone()),
            },
        })
        .collect()
}

/// The raw part of a list of chunks, in order.
pub(crate) fn inline_bytes(chunks: &[Chunk]) -> impl Iterator<Item = &[u8]> + Clone {
    chunks.iter().filter_map(|chunk| match &chunk.payload {
        Payload::Inline(bytes) => Some(&bytes[..]),
        Payload::Blob(_) => None,
    })
}

/// Puts both parts of a list of chunks together again. Every raw byte must belong to a chunk.
pub(crate) fn join_chunks(kind: u8, heads: Vec<ChunkHead>, mut raw: &[u8]) -> Result<Vec<Chunk>, CodecError> {
    let mut chunks = Vec::with_capacity(heads.len());
    for ChunkHead { kind: chunk_kind, at, body } in heads {
        let payload = match body {
            ChunkPlace::Inline(len) => {
                let (bytes, rest) = raw.split_at_checked(len).ok_or(CodecError::Lengths {
                    kind,
                    what: "a chunk is longer than the bytes that came",
                })?;
                raw = rest;
                Payload::Inline(bytes.into())
            }
            ChunkPlace::Blob(blob) => Payload::Blob(blob),
        };
        chunks.push(Chunk { kind: chunk_kind, at, payload });
    }
    if raw.is_empty() {
        Ok(chunks)
    } else {
        Err(CodecError::Lengths { kind, what: "bytes are left over after the last chunk" })
    }
}

/// A body that is JSON alone.
pub(crate) fn json(kind: u8, value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    serde_json::to_vec(value).map_err(|source| CodecError::Json { kind, source })
}

/// A body that is `json_len u32 LE | JSON | raw bytes`.
pub(crate) fn json_then<'a>(
    kind: u8,
    value: &impl Serialize,
    raw: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, CodecError> {
    let mut body = vec![0; 4];
    serde_json::to_writer(&mut body, value).map_err(|source| CodecError::Json { kind, source })?;
    let json_bytes = body.len() - 4;
    let json_len = u32::try_from(json_bytes)
        .map_err(|_| CodecError::TooLarge { size: json_bytes, max: RECORD_BYTES_MAX })?;
    body[..4].copy_from_slice(&json_len.to_le_bytes());
    for part in raw {
        body.extend_from_slice(part);
    }
    Ok(body)
}

/// Reads a body that is JSON alone.
pub(crate) fn parse<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(body).map_err(|source| CodecError::Json { kind, source })
}

/// Reads a body that is `json_len u32 LE | JSON | raw bytes`.
pub(crate) fn split_json<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<(T, &[u8]), CodecError> {
    let cut = CodecError::Lengths { kind, what: "it ends before its JSON does" };
    let Some((len, rest)) = body.split_first_chunk::<4>() else { return Err(cut) };
    let Some((head, raw)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else { return Err(cut) };
    Ok((parse(kind, head)?, raw))
}
