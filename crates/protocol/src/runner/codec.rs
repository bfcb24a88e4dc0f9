//! Frames to bytes and back, with every length checked before anything is allocated for it.

use std::borrow::Cow;
use std::marker::PhantomData;

use outlive_core::id::{Attempt, RunId};
use outlive_core::limits::{RUNNER_BYTES_MAX, RUNNER_LINE_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{Json, as_written};
use super::{Framed, FromRunner, ToRunner};

/// Why a frame cannot be sent. Nothing of it was: the channel lives.
#[derive(Debug, thiserror::Error)]
pub enum RunnerCodecError {
    /// The line is too long.
    #[error("a line of {size} bytes is over the limit of {max} bytes; send it as raw bytes")]
    LineTooLong {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// There are too many raw bytes.
    #[error("{size} raw bytes are over the limit of {max} bytes; send them in several frames")]
    TooManyBytes {
        /// How many there are.
        size: usize,
        /// The limit.
        max: usize,
    },
}

/// Why what came cannot be a frame. The stream cannot be trusted behind it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// No newline where there should be one.
    #[error("a line of more than {max} bytes (it begins with {start:?})")]
    LineTooLong {
        /// The limit in bytes.
        max: usize,
        /// Its beginning.
        start: String,
    },
    /// Bytes that are no text.
    #[error("a line that is not UTF-8 (it begins with {start:?})")]
    NotUtf8 {
        /// Its beginning.
        start: String,
    },
    /// Text that is no frame.
    #[error("a line that is not a frame: {why} (it begins with {start:?})")]
    NotAFrame {
        /// What does not fit.
        why: String,
        /// Its beginning.
        start: String,
    },
    /// A length that cannot be.
    #[error("a frame with \"bytes\": {bytes}, over the limit of {max}")]
    TooManyBytes {
        /// What it said.
        bytes: String,
        /// The limit.
        max: usize,
    },
    /// A length that is wrong.
    #[error("{bytes} raw bytes that are not followed by a newline")]
    NoNewline {
        /// What the frame said.
        bytes: usize,
    },
}

/// How much of a bad line is shown, in bytes.
const START_BYTES_MAX: usize = 80;

/// The bytes of a frame.
///
/// # Errors
/// [`RunnerCodecError`].
///
/// # Panics
/// Never: a frame is an object with string keys.
pub fn encode<T: Serialize>(framed: &Framed<T>) -> Result<Vec<u8>, RunnerCodecError> {
    let mut line = serde_json::to_vec(&framed.frame).expect("a frame has string keys");
    if let Some(bytes) = &framed.bytes {
        if bytes.len() > RUNNER_BYTES_MAX {
            return Err(RunnerCodecError::TooManyBytes { size: bytes.len(), max: RUNNER_BYTES_MAX });
        }
        line.pop();
        line.extend_from_slice(format!(",\"bytes\":{}}}", bytes.len()).as_bytes());
    }
    line.push(b'\n');
    if line.len() > RUNNER_LINE_BYTES_MAX {
        return Err(RunnerCodecError::LineTooLong { size: line.len(), max: RUNNER_LINE_BYTES_MAX });
    }
    if let Some(bytes) = &framed.bytes {
        line.extend_from_slice(bytes);
        line.push(b'\n');
    }
    Ok(line)
}

/// What one side says to the other.
pub trait Frame: Sized {
    /// Reads a line of the type `kind`; `None` when that is of a later version.
    ///
    /// # Errors
    /// When its fields are not what the type says.
    fn read(kind: &str, line: &str) -> Result<Option<Self>, serde_json::Error>;
}

impl Frame for ToRunner {
    fn read(_kind: &str, line: &str) -> Result<Option<Self>, serde_json::Error> {
        known(serde_json::from_str(line))
    }
}

impl Frame for FromRunner {
    fn read(kind: &str, line: &str) -> Result<Option<Self>, serde_json::Error> {
        // These come by the hundred thousand, and what they carry is kept as it was written.
        Ok(Some(match kind {
            "chunk" => {
                let Carrier { id, attempt, text, json, mime, .. } = serde_json::from_str(line)?;
                Self::Chunk { id, attempt, text, json, mime }
            }
            "checkpoint" => {
                let Carrier { id, attempt, state, .. } = serde_json::from_str(line)?;
                Self::Checkpoint { id, attempt, state }
            }
            "result" => {
                let Carrier { id, attempt, value, .. } = serde_json::from_str(line)?;
                Self::Result { id, attempt, value }
            }
            _ => return known(serde_json::from_str(line)),
        }))
    }
}

/// A frame of a task that carries something.
#[derive(Deserialize)]
struct Carrier {
    id: RunId,
    attempt: Attempt,
    #[serde(default)]
    text: Option<String>,
    #[serde(default, deserialize_with = "as_written")]
    json: Option<Json>,
    #[serde(default)]
    mime: Option<String>,
    #[serde(default, deserialize_with = "as_written")]
    state: Option<Json>,
    #[serde(default, deserialize_with = "as_written")]
    value: Option<Json>,
}

fn known<T>(read: Result<T, serde_json::Error>) -> Result<Option<T>, serde_json::Error> {
    match read {
        Ok(frame) => Ok(Some(frame)),
        Err(error) if error.to_string().starts_with("unknown variant") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes bytes as they come and gives frames.
///
/// It holds at most one line and what was pushed with its end, and one frame's raw bytes. After a [`Violation`] it
/// gives nothing more and holds nothing.
#[derive(Debug)]
pub struct Decoder<T> {
    /// What has come and is not taken yet.
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to here no newline was found, where that is beyond `start`.
    searched: usize,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Lines(PhantomData<T>),
    /// A frame whose raw bytes have not all come; `None` for one that is skipped.
    Bytes {
        frame: Option<T>,
        bytes: Vec<u8>,
        count: usize,
    },
    Broken,
}

impl<T> Default for Decoder<T> {
    fn default() -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, state: State::Lines(PhantomData) }
    }
}

impl<T: Frame> Decoder<T> {
    /// More bytes have come. Take all frames before giving it more.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Broken) {
            return;
        }
        self.buffer.drain(..self.start);
        self.searched = self.searched.saturating_sub(self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a part of a frame is held.
    #[must_use]
    pub fn is_within(&self) -> bool {
        matches!(self.state, State::Bytes { .. }) || self.start < self.buffer.len()
    }

    /// The next frame; `None` when more bytes are needed. Frames of an unknown type are skipped.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn next_frame(&mut self) -> Result<Option<Framed<T>>, Violation> {
        loop {
            let found = match std::mem::replace(&mut self.state, State::Lines(PhantomData)) {
                State::Lines(_) => self.line(),
                State::Bytes { frame, bytes, count } => self.rest(frame, bytes, count),
                State::Broken => {
                    self.state = State::Broken;
                    return Ok(None);
                }
            };
            match found {
                Ok(Step::Frame(framed)) => return Ok(Some(framed)),
                Ok(Step::Skipped) => {}
                Ok(Step::Wait) => return Ok(None),
                Err(violation) => {
                    *self = Self { state: State::Broken, ..Self::default() };
                    return Err(violation);
                }
            }
        }
    }

    fn line(&mut self) -> Result<Step<T>, Violation> {
        let from = self.searched.max(self.start);
        let found = self.buffer[from..].iter().position(|byte| *byte == b'\n');
        let end = found.map_or(self.buffer.len(), |length| from + length);
        let line = &self.buffer[self.start..end];
        // With its newline it would be longer than allowed.
        if line.len() >= RUNNER_LINE_BYTES_MAX {
            return Err(Violation::LineTooLong { max: RUNNER_LINE_BYTES_MAX, start: start_of(line) });
        }
        if found.is_none() {
            self.searched = end;
            return Ok(Step::Wait);
        }
        let (frame, count) = parse::<T>(line)?;
        self.start = end + 1;
        match count {
            Some(count) => self.rest(frame, Vec::new(), count),
            None => Ok(frame.map_or(Step::Skipped, |frame| Step::Frame(Framed { frame, bytes: None }))),
        }
    }

    /// The raw bytes of a frame, and the newline behind them. A length may lie: room is made for what has come.
    fn rest(&mut self, frame: Option<T>, mut bytes: Vec<u8>, count: usize) -> Result<Step<T>, Violation> {
        let here = &self.buffer[self.start..];
        let taken = here.len().min(count - bytes.len());
        if bytes.capacity() - bytes.len() < taken {
            bytes.reserve_exact(taken.max(bytes.len()).min(count - bytes.len()));
        }
        bytes.extend_from_slice(&here[..taken]);
        self.start += taken;
        match here.get(taken) {
            None => {
                self.state = State::Bytes { frame, bytes, count };
                Ok(Step::Wait)
            }
            Some(b'\n') => {
                self.start += 1;
                Ok(frame.map_or(Step::Skipped, |frame| Step::Frame(Framed { frame, bytes: Some(bytes) })))
            }
            Some(_) => Err(Violation::NoNewline { bytes: count }),
        }
    }
}

enum Step<T> {
    Frame(Framed<T>),
    Skipped,
    Wait,
}

/// What every frame has.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    bytes: Option<&'a RawValue>,
}

/// The frame, unless its type is unknown, and how many raw bytes follow.
fn parse<T: Frame>(line: &[u8]) -> Result<(Option<T>, Option<usize>), Violation> {
    let text = std::str::from_utf8(line).map_err(|_| Violation::NotUtf8 { start: start_of(line) })?;
    let not_a_frame = |why: String| Violation::NotAFrame { why, start: start_of(line) };
    if !text.trim_start().starts_with('{') {
        return Err(not_a_frame("it is no JSON object".to_owned()));
    }
    let head: Head<'_> = serde_json::from_str(text).map_err(|error| not_a_frame(error.to_string()))?;
    let count = head.bytes.map(|bytes| {
        let count = bytes.get().parse().ok().filter(|count| *count <= RUNNER_BYTES_MAX);
        count.ok_or_else(|| Violation::TooManyBytes {
            bytes: start_of(bytes.get().as_bytes()),
            max: RUNNER_BYTES_MAX,
        })
    });
    let count = count.transpose()?;
    let frame = T::read(&head.kind, text).map_err(|error| not_a_frame(error.to_string()))?;
    Ok((frame, count))
}

fn start_of(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(START_BYTES_MAX)]).into_owned()
}
