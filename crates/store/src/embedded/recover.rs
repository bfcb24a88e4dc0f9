//! Opening a session's log after whatever happened to its files.
//!
//! The log is what can be read from its beginning to the first damage. A frame that the end of the last file cuts off
//! was never acknowledged as synced: it is dropped and said. Anything else behind the first damage is put aside into
//! files beside the log before the log is cut, and said. Nothing is removed silently, and nothing here panics.
//!
//! Invariant: after recovery the log is readable from its start to its end, and the next position is above that of
//! every record that was dropped (tests/embedded_damage.rs). What a loss of power took without a trace was never
//! synced, so no claim is among it and no fencing token is given out twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use outlive_core::id::{Position, SessionId};
use outlive_core::limits::SEGMENT_MARK_BYTES;
use outlive_core::log::Lane;

use super::segment::{self, BadFrame, FORMAT, Frames, Head, KIND_HEAD, Next, Stored, Survey};
use crate::engine::Dropped;
use crate::error::{ReadError, Unavailable};

/// What recovery has said about a session, one JSON object a line.
const REPORTS: &str = "recovered.jsonl";

/// What a segment holds of the document lane: trimming looks into no other.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Documents {
    first: Option<Position>,
    bytes: u64,
}

impl Documents {
    /// Notes a record of this lane.
    pub(super) fn note(&mut self, lane: Lane, position: Position, bytes: u64) {
        if lane == Lane::Document {
            self.first.get_or_insert(position);
            self.bytes += bytes;
        }
    }

    /// How many bytes of records before `before` there are, at most.
    pub(super) fn before(&self, before: Position) -> u64 {
        self.first.filter(|first| *first < before).map_or(0, |_| self.bytes)
    }
}

/// A segment of an open log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// Every position in it is above this one.
    pub(super) after: Position,
    pub(super) bytes: u64,
    pub(super) documents: Documents,
    /// Now and then a record's offset, with the position before it: where a reader may start.
    pub(super) marks: Vec<(Position, u64)>,
}

impl Segment {
    /// Makes a new segment's file, with its head.
    pub(super) fn create(
        directory: &Path,
        number: u64,
        session: SessionId,
        previous: Position,
        after: Position,
    ) -> io::Result<(Self, File)> {
        let path = directory.join(segment::file_name(number));
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        let head = Head { format: FORMAT, session, previous, after }.encode();
        if let Err(error) = file.write_all(&head) {
            // Without its head it would be found damaged. If this fails too, it is repaired at the next opening.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok((
            Self {
                number,
                path,
                after,
                bytes: head.len() as u64,
                documents: Documents::default(),
                marks: Vec::new(),
            },
            file,
        ))
    }

    /// Notes a record that follows `before`, so that readers can start there.
    pub(super) fn mark(&mut self, before: Position, offset: u64) {
        if self.marks.last().is_none_or(|(_, last)| offset - last >= SEGMENT_MARK_BYTES) {
            self.marks.push((before, offset));
        }
    }

    /// Where a reader that has `after` may start.
    pub(super) fn offset_for(&self, after: Position) -> u64 {
        let marks = self.marks.partition_point(|(before, _)| *before <= after);
        marks.checked_sub(1).map_or(0, |i| self.marks[i].1)
    }
}

/// A log as it was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segments: Vec<Segment>,
    pub(super) last: Position,
    /// The last record that is there; below `last` after a repair.
    pub(super) last_good: Position,
    pub(super) last_control: Position,
    /// The number of the next segment.
    pub(super) next_number: u64,
}

/// Where and how a segment's good part ends.
struct Damage {
    segment: usize,
    offset: u64,
    what: String,
    cut: Cut,
}

/// How a segment's bad part looks.
#[derive(PartialEq, Eq)]
enum Cut {
    /// The file ends within a frame.
    Short,
    /// There is something that is no frame, or a frame that does not belong here.
    Wrong,
}

/// Reads a session's log from its files, and repairs what must be repaired.
pub(super) fn open(directory: &Path, session: SessionId) -> Result<Found, ReadError> {
    let failed = |source| Unavailable::new(format!("read the log of session {session}"), source);
    let numbers = segment_numbers(directory).map_err(failed)?;
    let mut found = Found { next_number: numbers.last().map_or(1, |n| n + 1), ..Found::default() };
    let paths: Vec<_> = numbers.iter().map(|n| directory.join(segment::file_name(*n))).collect();
    for (i, (number, path)) in numbers.iter().zip(&paths).enumerate() {
        let damage = scan(&mut found, *number, path, session, i).map_err(|error| match error {
            ScanError::Io(source) => ReadError::Unavailable(failed(source)),
            ScanError::Newer(format) => ReadError::Corrupt {
                position: found.last,
                what: format!("{} has format {format}; upgrade this program", path.display()),
            },
        })?;
        found.last_good = found.last;
        if let Some(damage) = damage {
            repair(directory, session, &mut found, &paths, &damage)
                .map_err(|source| Unavailable::new(format!("repair the log of session {session}"), source))?;
            break;
        }
    }
    Ok(found)
}

/// The numbers of a session's segments, rising. A directory that is not there has none.
pub(super) fn segment_numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(segment::parse_file_name));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How long a session's log is, in bytes.
pub(super) fn bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for number in segment_numbers(directory)? {
        match fs::metadata(directory.join(segment::file_name(number))) {
            Ok(metadata) => bytes += metadata.len(),
            // Dropped just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// What recovery has said about a session so far.
pub(super) fn reports(directory: &Path) -> io::Result<Vec<Dropped>> {
    match fs::read_to_string(directory.join(REPORTS)) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

enum ScanError {
    Io(io::Error),
    Newer(u32),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads one segment and adds it to what was found.
fn scan(
    found: &mut Found,
    number: u64,
    path: &Path,
    session: SessionId,
    index: usize,
) -> Result<Option<Damage>, ScanError> {
    let mut frames = Frames::new(File::open(path)?, 0)?;
    let damage = |offset, what: String, cut| Ok(Some(Damage { segment: index, offset, what, cut }));
    let head: Head = match frames.next_frame()? {
        Next::Frame(_, frame) if frame.kind == KIND_HEAD => match serde_json::from_slice(frame.body) {
            Ok(head) => head,
            Err(error) => return damage(0, format!("its head is damaged: {error}"), Cut::Wrong),
        },
        Next::Frame(..) => return damage(0, "it does not begin with a head".into(), Cut::Wrong),
        Next::End | Next::Bad(BadFrame::Cut) => return damage(0, "its head is cut off".into(), Cut::Short),
        Next::Bad(BadFrame::Damaged(error)) => return damage(0, error.to_string(), Cut::Wrong),
    };
    if head.format > FORMAT {
        return Err(ScanError::Newer(head.format));
    }
    if head.session != session || head.previous != found.last || head.after < head.previous {
        return damage(
            0,
            "it does not follow what is there: records before it are missing".into(),
            Cut::Wrong,
        );
    }
    found.last = head.after;
    found.segments.push(Segment {
        number,
        path: path.to_owned(),
        after: head.after,
        bytes: 0,
        documents: Documents::default(),
        marks: Vec::new(),
    });
    let segment = found.segments.last_mut().expect("pushed in the line above");
    loop {
        segment.bytes = frames.offset();
        let bytes;
        let (offset, stored) = match frames.next_frame()? {
            Next::Frame(offset, frame) => {
                bytes = frame.frame_bytes as u64;
                (offset, Stored::parse(&frame))
            }
            Next::End => return Ok(None),
            Next::Bad(BadFrame::Cut) => {
                return damage(segment.bytes, "the file ends within a record".into(), Cut::Short);
            }
            Next::Bad(BadFrame::Damaged(error)) => {
                return damage(segment.bytes, error.to_string(), Cut::Wrong);
            }
        };
        let Some(stored) = stored.filter(|stored| stored.position > found.last) else {
            return damage(offset, "a frame that is no record, or out of order".into(), Cut::Wrong);
        };
        segment.mark(found.last, offset);
        segment.documents.note(stored.lane, stored.position, bytes);
        found.last = stored.position;
        if stored.lane == Lane::Control {
            found.last_control = stored.position;
        }
    }
}

/// Puts what cannot count aside, says so, and cuts the log behind its last good record.
fn repair(
    directory: &Path,
    session: SessionId,
    found: &mut Found,
    paths: &[PathBuf],
    damage: &Damage,
) -> io::Result<()> {
    let path = &paths[damage.segment];
    let later = &paths[damage.segment + 1..];
    let mut tail = Vec::new();
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(damage.offset))?;
    file.read_to_end(&mut tail)?;
    let mut bytes = tail.len() as u64;
    let mut survey = Survey::default();
    survey.add(&tail);
    for path in later {
        let content = fs::read(path)?;
        bytes += content.len() as u64;
        survey.add(&content);
    }
    if bytes > 0 {
        // A file system may leave zeros where a write was lost: as little as a cut frame they hold a record.
        let never_whole = damage.cut == Cut::Short || tail.iter().all(|byte| *byte == 0);
        let records = survey.records;
        let torn = never_whole && records == 0 && later.is_empty();
        let aside = if torn { Vec::new() } else { put_aside(directory, path, &tail, later)? };
        let what = format!("{} at byte {}: {}", name(path), damage.offset, damage.what);
        let aside = aside.iter().map(|path| name(path)).collect();
        report(directory, &Dropped { last_good: found.last, bytes, records, what, aside })?;
    }
    for path in later {
        fs::remove_file(path)?;
    }
    if damage.offset == 0 {
        fs::remove_file(path)?;
    } else {
        file.set_len(damage.offset)?;
        file.sync_all()?;
    }
    if bytes > 0 {
        // A lost record takes at least a byte: positions above this one were never given out.
        let after = Position(found.last.max(survey.highest).0.saturating_add(bytes));
        let (segment, file) = Segment::create(directory, found.next_number, session, found.last, after)?;
        file.sync_all()?;
        found.segments.push(segment);
        found.next_number += 1;
        found.last = after;
    }
    File::open(directory)?.sync_all()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Copies the bad part of a segment and all later segments to files that recovery does not read.
fn put_aside(directory: &Path, path: &Path, tail: &[u8], later: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let mut put = |path: &Path, content: &[u8]| -> io::Result<()> {
        let mut aside = path.with_extension("aside");
        for n in 1.. {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside) {
                Ok(mut file) => {
                    file.write_all(content)?;
                    file.sync_all()?;
                    break;
                }
                // From an earlier recovery, which may be all that is left of something.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    aside = path.with_extension(format!("aside-{n}"));
                }
                Err(error) => return Err(error),
            }
        }
        made.push(aside);
        Ok(())
    };
    if !tail.is_empty() {
        put(path, tail)?;
    }
    for path in later {
        put(path, &fs::read(path)?)?;
    }
    File::open(directory)?.sync_all()?;
    Ok(made)
}

fn report(directory: &Path, dropped: &Dropped) -> io::Result<()> {
    tracing::warn!(directory = %directory.display(), ?dropped, "a session's log was damaged and is cut");
    let mut line = serde_json::to_vec(dropped)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(REPORTS))?;
    file.write_all(&line)?;
    file.sync_all()
}
