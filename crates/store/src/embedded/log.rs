//! One session's open log: the only writer of its segments, and what readers read.
//!
//! ```text
//!  append ─► write(2) ─► waiting ─► [fsync, if Synced or behind one that is] ─► head moves ─► readers see it
//! ```
//! A record that nobody has to wait for is visible at once; the flusher makes it durable within `FSYNC_MS`. Behind a
//! record that waits for its fsync everything waits, so readers never see what is not acknowledged, in order.
//!
//! Invariants: the head never passes a Synced record before its fsync; a frame that was written in part is cut off
//! before the next append; after a failed fsync nothing is appended until the log has been renewed ([`super::renew`]),
//! because what the kernel still holds of the file may not be what is on the disk (`renew::tests`).

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::id::{Position, SessionId};
use outlive_core::limits::{SEGMENT_BYTES_MAX, TAIL_CACHE_BYTES_MAX, TRIM_BYTES_MIN};
use outlive_core::log::{Entry, Lane, Record};
use outlive_protocol::log::Encoded;
use tokio::sync::{oneshot, watch};

use super::recover::{self, Segment};
use super::segment::{self, Frames};
use crate::engine::{Durability, Guard};
use crate::error::{AppendError, ReadError, Unavailable};

/// One session's open log.
#[derive(Debug)]
pub(super) struct SessionLog {
    pub(super) session: SessionId,
    pub(super) directory: PathBuf,
    pub(super) head: watch::Sender<Position>,
    pub(super) state: Mutex<State>,
    pub(super) fsync: Fsync,
    /// Held while the log is renewed.
    pub(super) renewing: Mutex<()>,
}

/// Makes a segment's content durable: fdatasync(2), or what a test puts in its place.
#[derive(Clone)]
pub(super) struct Fsync(pub(super) Arc<SyncFile>);

pub(super) type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

impl std::fmt::Debug for Fsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fsync")
    }
}

/// What the lock protects. Held for one write(2) at most, never over an await.
#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: Vec<Segment>,
    /// The last position that was written, acknowledged or not.
    pub(super) last: Position,
    last_control: Position,
    next_number: u64,
    /// The last segment, open for appending.
    file: Option<Arc<File>>,
    pub(super) life: Life,
    /// Written and not yet acknowledged, in order; the first one waits for an fsync.
    waiting: VecDeque<Waiting>,
    pub(super) unsynced: Unsynced,
    tail: Tail,
    frame: Vec<u8>,
}

/// Whether the log can be appended to.
#[derive(Debug)]
pub(super) enum Life {
    /// It can.
    Open,
    /// A write was cut short and could not be cut off: do it before the next one.
    TailBroken,
    /// An fsync failed: not before it is renewed.
    Suspect,
    /// Records that were acknowledged are lost: not before somebody has read what is there and claimed it.
    Behind,
    /// It was dropped or closed: look it up again.
    Gone,
}

/// What the next fsync must cover.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Segments by their numbers.
    pub(super) files: Vec<(u64, Arc<File>)>,
    /// Directories with a new entry.
    pub(super) directories: Vec<PathBuf>,
}

#[derive(Debug)]
struct Waiting {
    position: Position,
    durability: Durability,
    done: oneshot::Sender<Result<(), SyncFailed>>,
}

/// The end of the log, for live readers.
#[derive(Debug)]
struct Tail {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    /// Every record above this one is in `entries`.
    after: Position,
}

/// An fsync failed after a record was written.
#[derive(Debug)]
pub(super) struct SyncFailed;

/// What became of an append.
pub(super) enum Appended {
    /// It is acknowledged.
    Now(Position),
    /// It is acknowledged when this answers.
    After(Position, oneshot::Receiver<Result<(), SyncFailed>>),
    /// This log is dropped or closed; nothing was written.
    Gone,
}

/// What the flusher must do for a log after an append.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Flush {
    /// Nothing: it knows already.
    Known,
    /// Within `FSYNC_MS`.
    Soon,
    /// Somebody waits.
    Now,
}

impl SessionLog {
    /// Opens the log of a session, repaired if need be. Reads all of it: call it off the async threads.
    pub(super) fn open(directory: PathBuf, session: SessionId, fsync: Fsync) -> Result<Self, ReadError> {
        let found = recover::open(&directory, session)?;
        let head = watch::Sender::new(found.last);
        let state = Mutex::new(State::new(found));
        Ok(Self { session, directory, head, state, fsync, renewing: Mutex::default() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of a log's lock panics")
    }

    /// Appends one record. `record` is what `encoded` says.
    pub(super) fn append(
        &self,
        lane: Lane,
        guard: Guard,
        encoded: &Encoded,
        record: &Record,
        durability: Durability,
    ) -> Result<(Appended, Flush), AppendError> {
        let mut state = self.lock();
        match state.life {
            Life::Open => {}
            Life::TailBroken => state.cut_tail().map_err(|source| self.unavailable(source))?,
            Life::Suspect => {
                let source = io::Error::other("an fsync failed, and writing the log anew failed too");
                return Err(self.unavailable(source));
            }
            Life::Behind if lane == Lane::Control => {}
            Life::Behind => {
                let what =
                    "the disk lost records that were acknowledged; restart the daemon to go on without them";
                return Err(AppendError::Corrupt { what: what.to_owned() });
            }
            Life::Gone => return Ok((Appended::Gone, Flush::Known)),
        }
        guard.check(lane, state.last_control)?;
        let position = state.last.next();
        let mut frame = std::mem::take(&mut state.frame);
        segment::encode_record(&mut frame, position, lane, encoded);
        let written = self.write(&mut state, &frame, (lane, position));
        state.frame = frame;
        let flush = written.map_err(|source| self.unavailable(source))?;
        let state = &mut *state;
        state.last = position;
        if lane == Lane::Control {
            state.last_control = position;
            // Whoever claims has read what is there.
            state.life = Life::Open;
        }
        state.tail.push(Entry { position, lane, record: record.clone() }, encoded.body.len());
        if state.waiting.is_empty() && durability == Durability::Written {
            self.head.send_replace(position);
            return Ok((Appended::Now(position), flush));
        }
        let (done, wait) = oneshot::channel();
        state.waiting.push_back(Waiting { position, durability, done });
        Ok((Appended::After(position, wait), Flush::Now))
    }

    /// Makes everything that was written so far durable and acknowledges it. Blocks; called by the flusher alone.
    pub(super) fn sync(&self) -> Result<(), Unavailable> {
        let (unsynced, upto) = {
            let mut state = self.lock();
            if matches!(state.life, Life::Suspect) {
                drop(state);
                return self.renew();
            }
            (std::mem::take(&mut state.unsynced), state.last)
        };
        let mut files = unsynced.files.iter();
        let result = files.try_for_each(|(_, file)| (self.fsync.0)(file)).and_then(|()| {
            unsynced.directories.iter().try_for_each(|directory| self.sync_directory(directory))
        });
        let Err(source) = result else {
            self.lock().acknowledge(upto, &self.head);
            return Ok(());
        };
        tracing::error!(session = %self.session, %source, "an fsync failed; the log is written anew");
        {
            let mut state = self.lock();
            if matches!(state.life, Life::Gone) {
                state.fail_waiting();
                return Err(self.not_durable(source));
            }
            state.life = Life::Suspect;
            // Whatever a second fsync of the same file says, it says nothing about what the first one lost.
            state.unsynced.files.splice(..0, unsynced.files);
            state.unsynced.directories.extend(unsynced.directories);
        }
        self.renew()
    }

    pub(super) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        match File::open(directory) {
            Ok(directory) => directory.sync_all(),
            // The session was dropped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn not_durable(&self, source: io::Error) -> Unavailable {
        Unavailable::new(format!("make the log of session {} durable", self.session), source)
    }

    /// No append after this; what was written is still synced and acknowledged.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.life = Life::Gone;
        state.file = None;
        // A reader that still holds this log reads the rest from the disk.
        state.tail = Tail { entries: VecDeque::new(), bytes: 0, after: state.last };
    }

    /// Closes the segment that is appended to, if enough of a document can go from it: closed ones can be trimmed.
    pub(super) fn close_for_trim(
        &self,
        lanes: &BTreeSet<Lane>,
        before: Position,
    ) -> Result<Flush, Unavailable> {
        let mut state = self.lock();
        let goes = |segment: &Segment| segment.documents.before(before) >= TRIM_BYTES_MIN;
        let open = lanes.contains(&Lane::Document) && matches!(state.life, Life::Open);
        if !open || !state.segments.last().is_some_and(goes) {
            return Ok(Flush::Known);
        }
        self.start_segment(&mut state).map_err(|source| {
            Unavailable::new(format!("trim the log of session {}", self.session), source)
        })?;
        Ok(Flush::Soon)
    }

    /// Records behind `after` from memory; `None` when some of them are on the disk alone.
    pub(super) fn read_tail(&self, after: Position, head: Position) -> Option<Vec<(Entry, usize)>> {
        let state = self.lock();
        (state.tail.after <= after).then(|| {
            let from = state.tail.entries.partition_point(|(entry, _)| entry.position <= after);
            let upto = state.tail.entries.partition_point(|(entry, _)| entry.position <= head);
            state.tail.entries.range(from.min(upto)..upto).cloned().collect()
        })
    }

    /// The segment that holds what follows `after`, open at a frame before it, and the paths of those behind it.
    /// Opened under the lock, so that a trim cannot come between a file and the offset in it.
    pub(super) fn segments_after(&self, after: Position) -> io::Result<Option<(Frames, Vec<PathBuf>)>> {
        let state = self.lock();
        let first = state.segments.partition_point(|segment| segment.after <= after).saturating_sub(1);
        let Some(segment) = state.segments.get(first) else { return Ok(None) };
        let frames = Frames::new(File::open(&segment.path)?, segment.offset_for(after))?;
        Ok(Some((frames, state.segments[first + 1..].iter().map(|segment| segment.path.clone()).collect())))
    }

    /// The segments that nothing is appended to any more.
    pub(super) fn closed_segments(&self) -> Vec<Segment> {
        let state = self.lock();
        state.segments.split_last().map_or_else(Vec::new, |(_, closed)| closed.to_vec())
    }

    /// Puts a trimmed segment in its place; false when the log is not open any more.
    pub(super) fn replace_segment(&self, temporary: &Path, trimmed: Segment) -> io::Result<bool> {
        let mut state = self.lock();
        let number = trimmed.number;
        let place = state.segments.iter().position(|segment| segment.number == number);
        let (Some(place), true) = (place, matches!(state.life, Life::Open)) else {
            fs::remove_file(temporary)?;
            return Ok(false);
        };
        fs::rename(temporary, &trimmed.path)?;
        state.segments[place] = trimmed;
        state.unsynced.directories.push(self.directory.clone());
        Ok(true)
    }

    fn unavailable(&self, source: io::Error) -> AppendError {
        Unavailable::new(format!("append to the log of session {}", self.session), source).into()
    }

    /// Writes one frame, all of it or nothing.
    fn write(
        &self,
        state: &mut State,
        frame: &[u8],
        (lane, position): (Lane, Position),
    ) -> io::Result<Flush> {
        let full = state.segments.last().is_none_or(|s| s.bytes + frame.len() as u64 > SEGMENT_BYTES_MAX);
        if full {
            self.start_segment(state)?;
        }
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => {
                let segment = state.segments.last().expect("started above, if there was none");
                let file = Arc::new(OpenOptions::new().append(true).open(&segment.path)?);
                state.file = Some(Arc::clone(&file));
                file
            }
        };
        if let Err(error) = (&*file).write_all(frame) {
            state.life = Life::TailBroken;
            // When this fails too, the next append tries again.
            let _ = state.cut_tail();
            return Err(error);
        }
        let before = state.last;
        let segment = state.segments.last_mut().expect("started above, if there was none");
        segment.mark(before, segment.bytes);
        segment.documents.note(lane, position, frame.len() as u64);
        segment.bytes += frame.len() as u64;
        let number = segment.number;
        let known = state.unsynced.files.iter().any(|(_, unsynced)| Arc::ptr_eq(unsynced, &file));
        if known {
            return Ok(Flush::Known);
        }
        state.unsynced.files.push((number, file));
        Ok(Flush::Soon)
    }

    fn start_segment(&self, state: &mut State) -> io::Result<()> {
        if state.segments.is_empty() {
            create_directory(&self.directory)?;
            state.unsynced.directories.extend(self.directory.parent().map(Path::to_owned));
        }
        let (segment, file) =
            Segment::create(&self.directory, state.next_number, self.session, state.last, state.last)?;
        state.next_number += 1;
        state.segments.push(segment);
        state.file = Some(Arc::new(file));
        state.unsynced.directories.push(self.directory.clone());
        Ok(())
    }
}

impl State {
    /// The state of a log as it was found.
    pub(super) fn new(found: recover::Found) -> Self {
        Self {
            segments: found.segments,
            last: found.last,
            last_control: found.last_control,
            next_number: found.next_number,
            file: None,
            life: Life::Open,
            waiting: VecDeque::new(),
            unsynced: Unsynced::default(),
            tail: Tail { entries: VecDeque::new(), bytes: 0, after: found.last },
            frame: Vec::new(),
        }
    }

    /// What was found takes the place of what was believed. Whoever waits is told what became of the record: it is
    /// there if nothing is missing.
    pub(super) fn replace(&mut self, found: recover::Found, head: &watch::Sender<Position>) {
        let is_whole = found.last_good >= self.last;
        let is_behind = found.last_good < *head.borrow();
        let waiting = std::mem::take(&mut self.waiting);
        *self = Self::new(found);
        self.waiting = waiting;
        if is_whole {
            self.acknowledge(self.last, head);
        } else {
            self.fail_waiting();
        }
        if is_behind {
            self.life = Life::Behind;
        }
        head.send_replace(self.last);
    }

    /// Nobody knows whether what is waited for is stored.
    pub(super) fn fail_waiting(&mut self) {
        for waiting in self.waiting.drain(..) {
            // Whoever waited may have gone.
            let _ = waiting.done.send(Err(SyncFailed));
        }
    }

    /// Cuts off what a failed write left behind the last whole frame.
    fn cut_tail(&mut self) -> io::Result<()> {
        if let (Some(file), Some(segment)) = (&self.file, self.segments.last()) {
            file.set_len(segment.bytes)?;
        }
        self.life = Life::Open;
        Ok(())
    }

    /// Everything up to `synced` is durable: acknowledges it and what is written behind it, up to the next record
    /// that waits for an fsync.
    fn acknowledge(&mut self, synced: Position, head: &watch::Sender<Position>) {
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.durability == Durability::Synced && waiting.position > synced {
                self.waiting.push_front(waiting);
                break;
            }
            // The head moves before the writer is told, so that it can read what it wrote.
            head.send_replace(waiting.position);
            let _ = waiting.done.send(Ok(()));
        }
    }
}

impl Tail {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.bytes > TAIL_CACHE_BYTES_MAX && self.entries.len() > 1 {
            if let Some((gone, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
                self.after = gone.position;
            }
        }
    }
}

/// Makes a session's folder, for its owner alone.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
