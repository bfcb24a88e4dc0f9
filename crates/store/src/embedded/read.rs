//! Reading a session's log from its segments, and trimming them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use outlive_core::id::Position;
use outlive_core::limits::READ_SCAN_BYTES_MAX;
use outlive_core::log::{Entry, Lane};
use outlive_protocol::frame::encode_into;
use outlive_protocol::log::decode;

use super::log::SessionLog;
use super::recover::{Documents, Segment};
use super::segment::{BadFrame, Frames, KIND_HEAD, Next, Stored};
use crate::engine::{LaneFilter, Page, ReadLimit};
use crate::error::{ReadError, Unavailable};

/// How much of a trimmed segment is written at once, in bytes.
const WRITE_BYTES: usize = 256 << 10;

/// What a read returns, while it is being filled.
pub(super) struct PageFill<'a> {
    page: Page,
    bytes: usize,
    lanes: &'a LaneFilter,
    limit: ReadLimit,
}

impl<'a> PageFill<'a> {
    pub(super) fn new(after: Position, lanes: &'a LaneFilter, limit: ReadLimit) -> Self {
        Self { page: Page { entries: Vec::new(), through: after }, bytes: 0, lanes, limit }
    }

    /// Whether a record of this size still fits; the first one always does.
    fn fits(&self, bytes: usize) -> bool {
        self.page.entries.is_empty()
            || (self.page.entries.len() < self.limit.records && self.bytes + bytes <= self.limit.bytes)
    }

    /// Takes a record that is in memory; false when the page is full.
    pub(super) fn take(&mut self, entry: Entry, bytes: usize) -> bool {
        let position = entry.position;
        if self.lanes.wants(entry.lane) {
            if !self.fits(bytes) {
                return false;
            }
            self.bytes += bytes;
            self.page.entries.push(entry);
        }
        self.page.through = position;
        true
    }

    /// Takes a record from a file; false when the page is full.
    fn take_stored(&mut self, stored: &Stored<'_>) -> Result<bool, ReadError> {
        let Stored { position, lane, kind, body } = *stored;
        if !self.lanes.wants(lane) {
            self.page.through = position;
            return Ok(true);
        }
        if !self.fits(body.len()) {
            return Ok(false);
        }
        let record = decode(kind, body).map_err(|error| self.corrupt(error.to_string()))?;
        Ok(self.take(Entry { position, lane, record }, body.len()))
    }

    fn corrupt(&self, what: String) -> ReadError {
        ReadError::Corrupt { position: self.page.through, what }
    }

    /// The page of a read that has looked at everything up to `head`.
    pub(super) fn finish(mut self, head: Position) -> Page {
        self.page.through = self.page.through.max(head);
        self.page
    }

    /// The page of a read that has stopped before the head.
    pub(super) fn stop(self) -> Page {
        self.page
    }
}

/// Reads a page from the files of a log. Blocks.
pub(super) fn from_disk(
    log: &SessionLog,
    after: Position,
    lanes: &LaneFilter,
    limit: ReadLimit,
) -> Result<Page, ReadError> {
    let head = *log.head.borrow();
    let mut fill = PageFill::new(after, lanes, limit);
    let failed = |source| Unavailable::new(format!("read the log of session {}", log.session), source);
    let Some((mut frames, later)) = log.segments_after(after).map_err(failed)? else {
        return Ok(fill.finish(head));
    };
    let mut later = later.into_iter();
    let mut scanned = 0;
    loop {
        let (what, frame) = match frames.next_frame().map_err(failed)? {
            Next::Frame(_, frame) if frame.kind == KIND_HEAD => continue,
            Next::Frame(_, frame) => {
                (String::new(), Stored::parse(&frame).map(|stored| (stored, frame.frame_bytes)))
            }
            Next::End => match later.next() {
                Some(path) => {
                    frames = File::open(path).and_then(|file| Frames::new(file, 0)).map_err(failed)?;
                    continue;
                }
                None => return Ok(fill.finish(head)),
            },
            // What is being written just now may be there in part; nobody has been told of it.
            Next::Bad(_) if fill.page.through >= head => return Ok(fill.stop()),
            Next::Bad(BadFrame::Cut) => ("a segment ends within a record".to_owned(), None),
            Next::Bad(BadFrame::Damaged(error)) => (error.to_string(), None),
        };
        let Some((stored, bytes)) = frame else { return Err(fill.corrupt(what)) };
        if stored.position <= after {
            continue;
        }
        if stored.position > head {
            return Ok(fill.finish(head));
        }
        if !fill.take_stored(&stored)? {
            return Ok(fill.stop());
        }
        scanned += bytes;
        if scanned > READ_SCAN_BYTES_MAX {
            return Ok(fill.stop());
        }
    }
}

/// Held while a log is trimmed: one at a time.
static TRIMMING: Mutex<()> = Mutex::new(());

/// Removes the records of these lanes before `before` from the closed segments of a log. Blocks. Returns the bytes freed.
pub(super) fn trim(log: &SessionLog, lanes: &BTreeSet<Lane>, before: Position) -> io::Result<u64> {
    let may_hold = |segment: &Segment| {
        segment.after < before
            && (lanes.iter().any(|lane| *lane != Lane::Document) || segment.documents.before(before) > 0)
    };
    // Of one log too, also one that was closed and opened again meanwhile: the copies have the same names.
    let _alone = TRIMMING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut freed = 0;
    for segment in log.closed_segments().iter().filter(|segment| may_hold(segment)) {
        let temporary = segment.path.with_extension("trim");
        let copied = copy_without(segment, &temporary, lanes, before);
        match copied {
            Ok(trimmed) if trimmed.bytes < segment.bytes => {
                let now = trimmed.bytes;
                if log.replace_segment(&temporary, trimmed)? {
                    freed += segment.bytes - now;
                }
            }
            Ok(_) => fs::remove_file(&temporary)?,
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
        }
    }
    Ok(freed)
}

/// Writes a segment without some of its records. Its last record stays: the next segment's head names it.
fn copy_without(
    segment: &Segment,
    to: &Path,
    lanes: &BTreeSet<Lane>,
    before: Position,
) -> io::Result<Segment> {
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", segment.path.display()));
    let mut copy =
        Segment { bytes: 0, documents: Documents::default(), marks: Vec::new(), ..segment.clone() };
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
    let mut frames = Frames::new(File::open(&segment.path)?, 0)?;
    let mut last = segment.after;
    let mut bytes = Vec::new();
    // A record that goes unless it turns out to be the last.
    let mut going = None;
    loop {
        let frame = match frames.next_frame()? {
            Next::End => break,
            Next::Bad(_) => return Err(damaged()),
            Next::Frame(_, frame) => frame,
        };
        bytes.clear();
        encode_into(&mut bytes, frame.kind, frame.flags, &[frame.body])
            .expect("what was a frame is one again");
        going = None;
        if frame.kind != KIND_HEAD {
            let stored = Stored::parse(&frame).ok_or_else(damaged)?;
            if lanes.contains(&stored.lane) && stored.position < before {
                going = Some((stored.lane, stored.position));
                continue;
            }
            copy.mark(last, copy.bytes);
            copy.documents.note(stored.lane, stored.position, bytes.len() as u64);
            last = stored.position;
        }
        file.write_all(&bytes)?;
        copy.bytes += bytes.len() as u64;
    }
    if let Some((lane, position)) = going {
        copy.mark(last, copy.bytes);
        copy.documents.note(lane, position, bytes.len() as u64);
        file.write_all(&bytes)?;
        copy.bytes += bytes.len() as u64;
    }
    file.into_inner()?.sync_all()?;
    Ok(copy)
}
