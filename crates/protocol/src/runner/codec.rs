//! Frames to bytes and back, with every length checked before anything is allocated for it.

use outlive_core::limits::{RUNNER_BYTES_MAX, RUNNER_LINE_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Framed;

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

/// Takes bytes as they come and gives frames.
///
/// It holds at most one line and one frame's raw bytes. After a [`Violation`] it gives nothing more.
#[derive(Debug)]
pub struct Decoder<T> {
    /// What has come and is not taken yet.
    buffer: Vec<u8>,
    /// Up to here no newline was found.
    searched: usize,
    /// Where the next frame begins.
    start: usize,
    /// A frame whose raw bytes have not all come.
    pending: Option<(Option<T>, usize)>,
    is_broken: bool,
}

impl<T> Default for Decoder<T> {
    fn default() -> Self {
        Self { buffer: Vec::new(), searched: 0, start: 0, pending: None, is_broken: false }
    }
}

impl<T: DeserializeOwned> Decoder<T> {
    /// More bytes have come. Take all frames before giving it more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a part of a frame is held.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.pending.is_some() || self.start < self.buffer.len()
    }

    /// The next frame; `None` when more bytes are needed. Frames of an unknown type are skipped.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn next(&mut self) -> Result<Option<Framed<T>>, Violation> {
        loop {
            if self.is_broken {
                return Ok(None);
            }
            let found = match self.pending.take() {
                Some((frame, count)) => self.rest(frame, count),
                None => self.line(),
            };
            match found {
                Ok(Step::Frame(framed)) => return Ok(Some(framed)),
                Ok(Step::Skipped) => {}
                Ok(Step::Wait) => return Ok(None),
                Err(violation) => {
                    *self = Self { is_broken: true, ..Self::default() };
                    return Err(violation);
                }
            }
        }
    }

    fn line(&mut self) -> Result<Step<T>, Violation> {
        let from = self.searched.max(self.start);
        let Some(length) = memchr(&self.buffer[from..]) else {
            self.searched = self.buffer.len();
            let held = &self.buffer[self.start..];
            if held.len() >= RUNNER_LINE_BYTES_MAX {
                return Err(Violation::LineTooLong { max: RUNNER_LINE_BYTES_MAX, start: start_of(held) });
            }
            return Ok(Step::Wait);
        };
        let end = from + length;
        let line = &self.buffer[self.start..end];
        if line.len() >= RUNNER_LINE_BYTES_MAX {
            return Err(Violation::LineTooLong { max: RUNNER_LINE_BYTES_MAX, start: start_of(line) });
        }
        let parsed = parse::<T>(line)?;
        self.start = end + 1;
        self.searched = self.start;
        match parsed {
            (Some(frame), None) => Ok(Step::Frame(Framed { frame, bytes: None })),
            (None, None) => Ok(Step::Skipped),
            (frame, Some(count)) => self.rest(frame, count),
        }
    }

    /// The raw bytes of a frame, and the newline behind them.
    fn rest(&mut self, frame: Option<T>, count: usize) -> Result<Step<T>, Violation> {
        if self.buffer.len() - self.start < count + 1 {
            self.pending = Some((frame, count));
            return Ok(Step::Wait);
        }
        let end = self.start + count;
        if self.buffer[end] != b'\n' {
            return Err(Violation::NoNewline { bytes: count });
        }
        let bytes = self.buffer[self.start..end].to_vec();
        self.start = end + 1;
        self.searched = self.start;
        Ok(frame.map_or(Step::Skipped, |frame| Step::Frame(Framed { frame, bytes: Some(bytes) })))
    }
}

enum Step<T> {
    Frame(Framed<T>),
    Skipped,
    Wait,
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// The frame, unless its type is unknown, and how many raw bytes follow.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<(Option<T>, Option<usize>), Violation> {
    let text = std::str::from_utf8(line).map_err(|_| Violation::NotUtf8 { start: start_of(line) })?;
    let not_a_frame = |why: String| Violation::NotAFrame { why, start: start_of(line) };
    let value: Value = serde_json::from_str(text).map_err(|error| not_a_frame(error.to_string()))?;
    let Some(object) = value.as_object() else { return Err(not_a_frame("it is no JSON object".to_owned())) };
    if !object.get("type").is_some_and(Value::is_string) {
        return Err(not_a_frame("it has no type".to_owned()));
    }
    let bytes = match object.get("bytes") {
        None => None,
        Some(count) => {
            let fits = count.as_u64().and_then(|count| usize::try_from(count).ok());
            let fits = fits.filter(|count| *count <= RUNNER_BYTES_MAX);
            Some(fits.ok_or_else(|| Violation::TooManyBytes {
                bytes: start_of(count.to_string().as_bytes()),
                max: RUNNER_BYTES_MAX,
            })?)
        }
    };
    match serde_json::from_value(value) {
        Ok(frame) => Ok((Some(frame), bytes)),
        // Of a later version.
        Err(error) if error.to_string().starts_with("unknown variant") => Ok((None, bytes)),
        Err(error) => Err(not_a_frame(error.to_string())),
    }
}

fn start_of(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(START_BYTES_MAX)]).into_owned()
}
