//! The bytes of the shim protocol: one frame for each message, one kind byte for each message's name.
//!
//! A message is JSON; output is `json_len u32 LE | JSON | raw bytes` as in [`super::log`]. A kind that is unknown
//! here decodes to `None` and is skipped. Golden bytes: `tests/golden/`.

use outlive_core::id::{RunId, Src};
use outlive_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Frame, FrameError};
use crate::log::{
    ChunkHead, CodecError, chunk_heads, inline_bytes, join_chunks, json, json_then, parse, split_json,
};
use crate::shim::{FromShim, Notice, Numbered, StateNotice, ToShim};

/// The kind bytes of the shim link, apart from those of the log.
pub mod kind {
    /// [`super::ToShim::Hello`].
    pub const HELLO: u8 = 0x40;
    /// [`super::ToShim::Ack`].
    pub const ACK: u8 = 0x41;
    /// [`super::ToShim::Execute`].
    pub const EXECUTE: u8 = 0x42;
    /// [`super::ToShim::Interrupt`].
    pub const INTERRUPT: u8 = 0x43;
    /// [`super::ToShim::Input`].
    pub const INPUT: u8 = 0x44;
    /// [`super::ToShim::Stop`].
    pub const STOP: u8 = 0x45;
    /// [`super::ToShim::Goodbye`].
    pub const GOODBYE: u8 = 0x46;
    /// [`super::ToShim::Refuse`].
    pub const REFUSE: u8 = 0x47;
    /// [`super::ToShim::Task`].
    pub const TASK: u8 = 0x48;
    /// [`super::ToShim::CancelTask`].
    pub const CANCEL_TASK: u8 = 0x49;
    /// [`super::ToShim::Freeze`].
    pub const FREEZE: u8 = 0x4A;
    /// [`super::ToShim::Thaw`].
    pub const THAW: u8 = 0x4B;
    /// [`super::ToShim::Beat`].
    pub const BEAT: u8 = 0x4C;
    /// [`super::FromShim::Welcome`].
    pub const WELCOME: u8 = 0x60;
    /// [`super::FromShim::Wrong`].
    pub const WRONG: u8 = 0x61;
    /// [`super::FromShim::Record`] with output.
    pub const OUTPUT: u8 = 0x62;
    /// [`super::FromShim::Record`] without output.
    pub const STATE: u8 = 0x63;
}

/// Why a message cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum ShimCodecError {
    /// Too large for one frame: nothing has been sent, the connection lives.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The body is not what its kind says.
    #[error(transparent)]
    Body(#[from] CodecError),
}

/// One frame with this message.
///
/// # Errors
/// [`FrameError::TooLarge`], for instance for code over the frame limit.
pub fn encode_to_shim(message: &ToShim) -> Result<Vec<u8>, ShimCodecError> {
    let kind = match message {
        ToShim::Hello { .. } => kind::HELLO,
        ToShim::Ack { .. } => kind::ACK,
        ToShim::Execute { .. } => kind::EXECUTE,
        ToShim::Interrupt => kind::INTERRUPT,
        ToShim::Input { .. } => kind::INPUT,
        ToShim::Stop { .. } => kind::STOP,
        ToShim::Goodbye => kind::GOODBYE,
        ToShim::Refuse { .. } => kind::REFUSE,
        ToShim::Task { .. } => kind::TASK,
        ToShim::CancelTask { .. } => kind::CANCEL_TASK,
        ToShim::Freeze => kind::FREEZE,
        ToShim::Thaw => kind::THAW,
        ToShim::Beat => kind::BEAT,
    };
    Ok(frame::encode(kind, 0, &[&json(kind, message)?])?)
}

/// Reads a message; `None` when its kind is unknown here: skip it.
///
/// # Errors
/// [`CodecError`] when the body does not fit its kind.
pub fn decode_to_shim(frame: &Frame) -> Result<Option<ToShim>, ShimCodecError> {
    match frame.kind {
        kind::HELLO..=kind::BEAT => Ok(Some(parse(frame.kind, &frame.body)?)),
        _ => Ok(None),
    }
}

/// The JSON of a record with output.
#[derive(Serialize, Deserialize)]
struct OutputHead {
    src: Src,
    at: WallTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    chunks: Vec<ChunkHead>,
}

/// The JSON of a record without output.
#[derive(Serialize, Deserialize)]
struct StateBody<T> {
    src: Src,
    at: WallTime,
    state: T,
}

/// One frame with this message.
///
/// # Errors
/// [`FrameError::TooLarge`]: a shim splits output before it numbers it, so that this cannot happen to a record.
pub fn encode_from_shim(message: &FromShim) -> Result<Vec<u8>, ShimCodecError> {
    let (kind, body) = match message {
        FromShim::Welcome(welcome) => (kind::WELCOME, json(kind::WELCOME, welcome)?),
        FromShim::Wrong { reason } => (kind::WRONG, json(kind::WRONG, reason)?),
        FromShim::Record(Numbered { src, at, notice: Notice::Output { run, chunks } }) => {
            let head = OutputHead { src: *src, at: *at, run: *run, chunks: chunk_heads(chunks) };
            (kind::OUTPUT, json_then(kind::OUTPUT, &head, inline_bytes(chunks))?)
        }
        FromShim::Record(Numbered { src, at, notice: Notice::State(state) }) => {
            (kind::STATE, json(kind::STATE, &StateBody { src: *src, at: *at, state })?)
        }
    };
    Ok(frame::encode(kind, 0, &[&body])?)
}

/// Reads a message; `None` when its kind is unknown here: skip it.
///
/// # Errors
/// [`CodecError`] when the body does not fit its kind.
pub fn decode_from_shim(frame: &Frame) -> Result<Option<FromShim>, ShimCodecError> {
    let (kind, body) = (frame.kind, &frame.body[..]);
    Ok(Some(match kind {
        kind::WELCOME => FromShim::Welcome(parse(kind, body)?),
        kind::WRONG => FromShim::Wrong { reason: parse(kind, body)? },
        kind::OUTPUT => {
            let (OutputHead { src, at, run, chunks }, raw) = split_json(kind, body)?;
            let chunks = join_chunks(kind, chunks, raw)?;
            FromShim::Record(Numbered { src, at, notice: Notice::Output { run, chunks } })
        }
        kind::STATE => {
            let StateBody::<StateNotice> { src, at, state } = parse(kind, body)?;
            FromShim::Record(Numbered { src, at, notice: Notice::State(state) })
        }
        _ => return Ok(None),
    }))
}
