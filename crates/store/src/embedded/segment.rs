//! One segment file of a session's log: `NNNNNNNN.seg`.
//!
//! ```text
//!  frame: head    {"format":1,"session":"…","previous":41,"after":41}
//!  frame: record  position u64 LE | lane u8 [| run id, 16 bytes] | the record's body
//!  frame: record  …
//! ```
//! `previous` is the last position in the segment before (0: this is the first), so that a missing piece is seen;
//! every position in this file is above `after`, which is higher than `previous` after a repair.
//! A frame is that of [`outlive_protocol::frame`]; its kind byte is the record's. The file is only appended to, then
//! closed for good at `SEGMENT_BYTES_MAX`; trimming replaces a closed one as a whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use outlive_core::id::{Position, RunId, SessionId};
use outlive_core::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, RECORD_BYTES_MAX};
use outlive_core::log::Lane;
use outlive_protocol::frame::{self, FrameError, FrameRef, HEADER_BYTES};
use outlive_protocol::log::Encoded;
use serde::{Deserialize, Serialize};

/// The version of this file format.
pub(super) const FORMAT: u32 = 1;
/// The kind of a segment's first frame; the log's kinds are below.
pub(super) const KIND_HEAD: u8 = 0x7e;
/// How much of a file is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;
/// Position, lane and run id in front of a record's body, in bytes, at most.
const PREFIX_BYTES_MAX: usize = 8 + 1 + 16;

const _: () =
    assert!(RECORD_BYTES_MAX + PREFIX_BYTES_MAX <= BATCH_BYTES_MAX && BATCH_BYTES_MAX <= FRAME_BYTES_MAX);

/// A segment's first frame.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
    pub(super) session: SessionId,
    pub(super) previous: Position,
    pub(super) after: Position,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("numbers and ids have JSON");
        frame::encode(KIND_HEAD, 0, &[&json]).expect("a head is shorter than a frame")
    }
}

/// A record as it stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    pub(super) position: Position,
    pub(super) lane: Lane,
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Reads a record's frame; `None` when it is none.
    pub(super) fn parse(frame: &FrameRef<'a>) -> Option<Self> {
        let (position, rest) = frame.body.split_first_chunk()?;
        let (&tag, rest) = rest.split_first()?;
        let (lane, body) = match tag {
            0 => (Lane::Control, rest),
            1 => (Lane::Journal, rest),
            2 => (Lane::Document, rest),
            3 => {
                let (id, body) = rest.split_first_chunk()?;
                (Lane::Run(RunId::from_uuid(uuid::Uuid::from_bytes(*id))), body)
            }
            4 => (Lane::Runtime, rest),
            5 => (Lane::Requests, rest),
            _ => return None,
        };
        Some(Self { position: Position(u64::from_le_bytes(*position)), lane, kind: frame.kind, body })
    }
}

/// Makes a record's frame in `out`, whose former content is lost.
pub(super) fn encode_record(out: &mut Vec<u8>, position: Position, lane: Lane, record: &Encoded) {
    out.clear();
    let run;
    let (tag, id): (u8, &[u8]) = match lane {
        Lane::Control => (0, &[]),
        Lane::Journal => (1, &[]),
        Lane::Document => (2, &[]),
        Lane::Run(id) => {
            run = *id.as_uuid().as_bytes();
            (3, &run)
        }
        Lane::Runtime => (4, &[]),
        Lane::Requests => (5, &[]),
    };
    frame::encode_into(out, record.kind, 0, &[&position.0.to_le_bytes(), &[tag], id, &record.body])
        .expect("an encoded record and its prefix fit a frame");
}

/// The frames of a file from an offset to its end.
#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    buffer: Vec<u8>,
    /// Where in `buffer` the next frame begins.
    start: usize,
    /// Where in the file the next frame begins.
    offset: u64,
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A whole frame and where it begins.
    Frame(u64, FrameRef<'a>),
    /// The file ends where a frame ends.
    End,
    /// No whole frame, though bytes follow.
    Bad(BadFrame),
}

/// Why no whole frame follows.
#[derive(Debug)]
pub(super) enum BadFrame {
    /// The file ends within it.
    Cut,
    /// It is damaged.
    Damaged(FrameError),
}

impl Frames {
    pub(super) fn new(mut file: File, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, buffer: Vec::new(), start: 0, offset })
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next_frame(&mut self) -> io::Result<Next<'_>> {
        let mut wanted = HEADER_BYTES;
        let bytes = loop {
            // The frame is split twice when it is there: once to find its length, once to hand it out. Only the
            // header is looked at until enough bytes have come, so the checksum is computed once.
            let rest = &self.buffer[self.start..];
            if rest.len() >= wanted {
                match rest.first_chunk() {
                    Some(len) if wanted == HEADER_BYTES => {
                        wanted += (u32::from_le_bytes(*len) as usize).min(FRAME_BYTES_MAX);
                        if rest.len() >= wanted {
                            break wanted;
                        }
                    }
                    _ => break wanted,
                }
            }
            if !self.fill()? {
                let rest = self.buffer.len() - self.start;
                match rest {
                    0 => return Ok(Next::End),
                    _ => break rest,
                }
            }
        };
        let (start, offset) = (self.start, self.offset);
        match frame::split(&self.buffer[start..start + bytes]) {
            Ok(Some(frame)) => {
                self.start += frame.frame_bytes;
                self.offset += frame.frame_bytes as u64;
                Ok(Next::Frame(offset, frame))
            }
            Ok(None) => Ok(Next::Bad(BadFrame::Cut)),
            Err(error) => Ok(Next::Bad(BadFrame::Damaged(error))),
        }
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + READ_BYTES, 0);
        let n = self.file.read(&mut self.buffer[held..])?;
        self.buffer.truncate(held + n);
        Ok(n > 0)
    }
}

/// What still can be recognised in bytes that do not begin with a whole frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Survey {
    /// Whole records.
    pub(super) records: u64,
    /// The highest position that a record has or that a head speaks of.
    pub(super) highest: Position,
}

impl Survey {
    /// Looks for whole frames at every offset.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at + HEADER_BYTES <= bytes.len() {
            let rest = &bytes[at..];
            // Most offsets are ruled out by version and flags before a checksum is computed.
            let plausible = rest[4] == frame::VERSION && rest[6] == 0 && rest[7] == 0;
            let Some(Ok(Some(frame))) = plausible.then(|| frame::split(rest)) else {
                at += 1;
                continue;
            };
            at += frame.frame_bytes;
            if frame.kind == KIND_HEAD {
                let after =
                    serde_json::from_slice(frame.body).map_or(Position::default(), |head: Head| head.after);
                self.highest = self.highest.max(after);
            } else if let Some(stored) = Stored::parse(&frame) {
                self.records += 1;
                self.highest = self.highest.max(stored.position);
            }
        }
    }
}

/// The name of the n-th segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.seg")
}

/// The number of a segment by its file's name.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".seg")?;
    (number.len() >= 8 && number.bytes().all(|b| b.is_ascii_digit())).then(|| number.parse().ok())?
}
