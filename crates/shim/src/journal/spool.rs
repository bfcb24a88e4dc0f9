//! Records that found no room in memory, in files that are written at the end and read from the start.
//!
//! A file is removed when it has been read, so a daemon that is a little behind for a week costs no disk. Nothing is
//! synced: the files serve this process only, and a record that must survive the machine is the engine's.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use outlive_core::limits::{DISK_RESERVE_BYTES, FRAME_BYTES_MAX};
use outlive_protocol::frame::{self, FrameError, HEADER_BYTES};

/// A spool file is closed at this size, in bytes.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;
/// The free disk is looked at again after so many bytes.
const RESERVE_CHECK_BYTES: u64 = 1 << 20;

/// Frames on disk, first in, first out.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    segments: VecDeque<Segment>,
    next_segment: u64,
    /// Read from disk and not yet taken.
    read_ahead: BytesMut,
    /// Written and not yet taken, in bytes.
    waiting_bytes: u64,
    bytes_max: u64,
    /// Written since the free disk was looked at, in bytes.
    unchecked_bytes: u64,
    is_disk_low: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    written: u64,
    read: u64,
}

/// A spool could not give back what was put into it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("reading the spool failed: {0}")]
    Read(#[from] io::Error),
    #[error("the spool is damaged: {0}")]
    Damaged(#[from] FrameError),
    #[error("the spool ends within a record")]
    CutOff,
}

impl Spool {
    pub(super) fn new(directory: &Path, bytes_max: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            segments: VecDeque::new(),
            next_segment: 1,
            read_ahead: BytesMut::new(),
            waiting_bytes: 0,
            bytes_max,
            unchecked_bytes: RESERVE_CHECK_BYTES,
            is_disk_low: false,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting_bytes == 0
    }

    pub(super) const fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Whether nothing more should be put into it.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting_bytes >= self.bytes_max || self.is_disk_low
    }

    /// Writes one frame at the end.
    ///
    /// # Errors
    /// As write(2); then the frame is not in it, and what was before stays readable.
    pub(super) fn push(&mut self, frame: &[u8]) -> io::Result<()> {
        self.check_reserve(frame.len() as u64);
        if self.segments.back().is_none_or(|segment| segment.written >= SEGMENT_BYTES_MAX) {
            let path = self.directory.join(format!("spool-{}", self.next_segment));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            self.next_segment += 1;
            self.segments.push_back(Segment { path, file, written: 0, read: 0 });
        }
        let segment = self.segments.back_mut().expect("one was just made if there was none");
        // At its own offset: after a write that failed half-way the next one overwrites the half.
        segment.file.write_all_at(frame, segment.written)?;
        segment.written += frame.len() as u64;
        self.waiting_bytes += frame.len() as u64;
        Ok(())
    }

    /// Takes the first frame, header included; `None` when it is empty.
    ///
    /// # Errors
    /// When the disk fails or somebody else wrote to the files.
    pub(super) fn pop(&mut self) -> Result<Option<Bytes>, SpoolError> {
        if self.is_empty() {
            return Ok(None);
        }
        loop {
            if let Some(found) = frame::split(&self.read_ahead)? {
                let bytes = self.read_ahead.split_to(found.frame_bytes).freeze();
                self.waiting_bytes -= bytes.len() as u64;
                if self.is_empty() {
                    self.reset();
                }
                return Ok(Some(bytes));
            }
            if self.read_ahead.len() >= FRAME_BYTES_MAX + HEADER_BYTES || !self.read_more()? {
                return Err(SpoolError::CutOff);
            }
        }
    }

    /// Reads on; whether there was anything to read.
    fn read_more(&mut self) -> io::Result<bool> {
        while let Some(segment) = self.segments.front_mut() {
            let left = usize::try_from(segment.written - segment.read).unwrap_or(usize::MAX);
            if left == 0 {
                if self.segments.len() == 1 {
                    return Ok(false);
                }
                self.remove_first();
                continue;
            }
            let old = self.read_ahead.len();
            self.read_ahead.resize(old + left.min(READ_BYTES), 0);
            let result = segment.file.read_at(&mut self.read_ahead[old..], segment.read);
            let count = *result.as_ref().unwrap_or(&0);
            self.read_ahead.truncate(old + count);
            segment.read += count as u64;
            result?;
            return Ok(count > 0);
        }
        Ok(false)
    }

    fn remove_first(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            let _already_gone = fs::remove_file(&segment.path);
        }
    }

    /// Everything was taken: gives the disk back.
    fn reset(&mut self) {
        while !self.segments.is_empty() {
            self.remove_first();
        }
        self.read_ahead = BytesMut::new();
        self.unchecked_bytes = RESERVE_CHECK_BYTES;
        self.is_disk_low = false;
    }

    fn check_reserve(&mut self, bytes: u64) {
        self.unchecked_bytes += bytes;
        if self.unchecked_bytes >= RESERVE_CHECK_BYTES {
            self.unchecked_bytes = 0;
            self.is_disk_low = rustix::fs::statvfs(&self.directory)
                .is_ok_and(|status| status.f_bavail.saturating_mul(status.f_frsize) < DISK_RESERVE_BYTES);
        }
    }

    /// Looks at the free disk again when it was low.
    pub(super) fn recheck_disk(&mut self) {
        if self.is_disk_low {
            self.check_reserve(RESERVE_CHECK_BYTES);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(directory: &Path) -> Vec<String> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out_in_order_and_its_files_go() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path(), 1 << 30);
        let frame = |n: u32| frame::encode(1, 0, &[&n.to_le_bytes(), &vec![7; 300_000]]).unwrap();
        let mut taken = 0;
        for put in 0..200 {
            spool.push(&frame(put)).unwrap();
            // A reader that falls behind by half.
            if put % 2 == 1 {
                assert_eq!(spool.pop().unwrap().unwrap(), frame(taken));
                taken += 1;
            }
        }
        // 60 MB were written, 30 MB are waiting: files that were read are gone.
        assert!(frames(directory.path()).len() <= 3, "{:?}", frames(directory.path()));
        while let Some(bytes) = spool.pop().unwrap() {
            assert_eq!(bytes, frame(taken));
            taken += 1;
        }
        assert_eq!(taken, 200);
        assert_eq!(frames(directory.path()), Vec::<String>::new());
        assert!(spool.is_empty());
    }

    #[test]
    fn it_is_full_at_its_limit_and_not_after_it_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path(), 100);
        assert!(!spool.is_full());
        spool.push(&frame::encode(1, 0, &[&[0; 200]]).unwrap()).unwrap();
        assert!(spool.is_full());
        spool.pop().unwrap();
        assert!(!spool.is_full());
    }
}
