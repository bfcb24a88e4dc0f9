//! The numbered records of one process: each is kept until the daemon has stored it.
//!
//! ```text
//! append ──► front (memory) ──► spool (disk) ──► back (memory, only when the disk refuses)
//!            │  ▲                  │                │
//!            │  └──────────────────┴────────────────┘  moved up as acknowledgements make room
//!            └ sent in order, at most SHIM_WINDOW_RECORDS_MAX and SHIM_WINDOW_BYTES_MAX unacknowledged
//! ```
//! Invariant: numbers have no holes, and front, spool and back hold `first_unacknowledged ..= last` in order. Tests:
//! `any_reader_sees_every_record_once`.

mod spool;

use std::collections::VecDeque;
use std::path::Path;

use bytes::Bytes;
use outlive_core::id::Src;
use outlive_core::limits::{SHIM_WINDOW_BYTES_MAX, SHIM_WINDOW_RECORDS_MAX};
use outlive_core::time::WallTime;
use outlive_protocol::frame;
use outlive_protocol::shim::{FromShim, Notice, Numbered};
use outlive_protocol::shim_codec::{encode_from_shim, kind};
use spool::Spool;

/// Records that are not stored yet.
#[derive(Debug)]
pub(crate) struct Journal {
    last: Src,
    acknowledged: Src,
    /// The last record with output among them.
    output_acknowledged: Src,
    /// The last record that was handed to the connection of now.
    sent: Src,
    /// Sent and not acknowledged, in bytes.
    sent_bytes: u64,
    front: VecDeque<Bytes>,
    front_bytes: u64,
    spool: Spool,
    spooled: u64,
    back: VecDeque<Bytes>,
    /// Blobs named by records since everything was last acknowledged, in bytes: they are on the same disk.
    blob_bytes: u64,
    memory_bytes_max: u64,
    spool_bytes_max: u64,
}

impl Journal {
    pub(crate) fn new(directory: &Path, memory_bytes_max: u64, spool_bytes_max: u64) -> Self {
        Self {
            last: Src(0),
            acknowledged: Src(0),
            output_acknowledged: Src(0),
            sent: Src(0),
            sent_bytes: 0,
            front: VecDeque::new(),
            front_bytes: 0,
            spool: Spool::new(directory, spool_bytes_max),
            spooled: 0,
            back: VecDeque::new(),
            blob_bytes: 0,
            memory_bytes_max,
            spool_bytes_max,
        }
    }

    /// Numbers a record and keeps it. Always possible: the limit is kept by not reading when [`Self::is_full`].
    pub(crate) fn append(&mut self, at: WallTime, notice: Notice) -> Src {
        let src = self.last.next();
        let record = FromShim::Record(Numbered { src, at, notice });
        let frame = encode_from_shim(&record)
            .expect("output is split before it is numbered, so a record fits a frame");
        self.last = src;
        let frame = Bytes::from(frame);
        let is_front_last = self.spooled == 0 && self.back.is_empty();
        if is_front_last
            && (self.front.is_empty() || self.front_bytes + frame.len() as u64 <= self.memory_bytes_max)
        {
            self.front_bytes += frame.len() as u64;
            self.front.push_back(frame);
        } else if self.back.is_empty() && !self.spool.is_full() {
            match self.spool.push(&frame) {
                Ok(()) => self.spooled += 1,
                Err(error) => {
                    tracing::warn!(%error, "the spool refuses a record; the program will wait");
                    self.back.push_back(frame);
                }
            }
        } else {
            self.back.push_back(frame);
        }
        src
    }

    /// Counts a blob that a record to come names.
    pub(crate) const fn count_blob(&mut self, bytes: u64) {
        self.blob_bytes += bytes;
    }

    /// Whether output should not be read for now.
    pub(crate) fn is_full(&self) -> bool {
        let over_memory = self.front_bytes >= self.memory_bytes_max;
        !self.back.is_empty()
            || (over_memory && self.spool.is_full())
            || self.spool.waiting_bytes() + self.blob_bytes >= self.spool_bytes_max.max(self.memory_bytes_max)
    }

    /// The last number that was given.
    pub(crate) const fn last(&self) -> Src {
        self.last
    }

    /// The last number that a daemon was done with.
    pub(crate) const fn acknowledged(&self) -> Src {
        self.acknowledged
    }

    /// The last record with output that a daemon was done with: that one it must have stored.
    pub(crate) const fn output_acknowledged(&self) -> Src {
        self.output_acknowledged
    }

    /// Looks at the free disk again when it was low.
    pub(crate) fn recheck_disk(&mut self) {
        self.spool.recheck_disk();
    }

    /// Whether everything is stored.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.last
    }

    /// Forgets what is stored. `false` when `through` was never sent: the daemon means somebody else.
    pub(crate) fn acknowledge(&mut self, through: Src) -> bool {
        if through > self.last || through.0 - self.acknowledged.0.min(through.0) > self.front.len() as u64 {
            return false;
        }
        while self.acknowledged < through {
            let frame = self.front.pop_front().expect("counted above");
            self.front_bytes -= frame.len() as u64;
            self.acknowledged = self.acknowledged.next();
            if frame[frame::KIND_AT] == kind::OUTPUT {
                self.output_acknowledged = self.acknowledged;
            }
            if self.acknowledged <= self.sent {
                self.sent_bytes -= frame.len() as u64;
            }
        }
        self.sent = self.sent.max(self.acknowledged);
        if self.is_acknowledged() {
            self.blob_bytes = 0;
        }
        self.refill();
        true
    }

    /// A new connection: everything that is not acknowledged is sent again.
    pub(crate) const fn rewind(&mut self) {
        self.sent = self.acknowledged;
        self.sent_bytes = 0;
    }

    /// The next frame to send, unless the window is closed or there is none.
    pub(crate) fn next_to_send(&mut self) -> Option<Bytes> {
        let in_flight = usize::try_from(self.sent.0 - self.acknowledged.0).unwrap_or(usize::MAX);
        if in_flight >= SHIM_WINDOW_RECORDS_MAX {
            return None;
        }
        if in_flight == self.front.len() {
            self.refill();
        }
        let frame = self.front.get(in_flight)?.clone();
        let bytes = frame.len() as u64;
        if in_flight > 0 && self.sent_bytes + bytes > SHIM_WINDOW_BYTES_MAX {
            return None;
        }
        self.sent = self.sent.next();
        self.sent_bytes += bytes;
        Some(frame)
    }

    /// Moves records up from disk while memory has room.
    fn refill(&mut self) {
        self.spool.recheck_disk();
        while self.front.is_empty() || self.front_bytes < self.memory_bytes_max {
            let frame = if self.spooled > 0 {
                match self.spool.pop() {
                    Ok(Some(frame)) => {
                        self.spooled -= 1;
                        frame
                    }
                    // Our own file in our own directory: nothing can go on that promises no record is lost.
                    Ok(None) => panic!("the spool holds {} records less than were put into it", self.spooled),
                    Err(error) => panic!("{error}"),
                }
            } else if let Some(frame) = self.back.pop_front() {
                frame
            } else {
                return;
            };
            self.front_bytes += frame.len() as u64;
            self.front.push_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::log::{Chunk, ChunkKind};
    use outlive_protocol::frame::Decoder;
    use outlive_protocol::shim_codec::decode_from_shim;

    use super::*;

    fn output(bytes: usize) -> Notice {
        let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(1), vec![b'x'; bytes]);
        Notice::Output { run: None, chunks: vec![chunk] }
    }

    fn src_of(frame: &Bytes) -> Src {
        let mut decoder = Decoder::default();
        decoder.feed(frame);
        match decode_from_shim(&decoder.next_frame().unwrap().unwrap()).unwrap() {
            Some(FromShim::Record(record)) => record.src,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_reader_sees_every_record_once() {
        // D1, D4: connections that break at odd places, acknowledgements that lag, memory for three records.
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), 3_000, 1 << 20);
        let mut stored = Src(0);
        for round in 0_u64..60 {
            for _ in 0..(round % 7) {
                journal.append(WallTime(1), output(900));
            }
            journal.rewind();
            let mut seen = stored;
            while let Some(frame) = journal.next_to_send() {
                seen = seen.next();
                assert_eq!(src_of(&frame), seen, "in order and without holes after {stored}");
                if seen.0.is_multiple_of(3) {
                    break;
                }
            }
            if round % 2 == 0 {
                stored = seen;
                assert!(journal.acknowledge(stored));
            }
        }
        while stored < journal.last() {
            let frame = journal.next_to_send().or_else(|| {
                journal.rewind();
                journal.next_to_send()
            });
            stored = src_of(&frame.expect("what is not stored is sent"));
            assert!(journal.acknowledge(stored));
        }
        assert!(journal.is_acknowledged());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the spool gave its disk back");
    }

    #[test]
    fn memory_then_disk_then_the_program_waits() {
        // D4
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), 2_000, 10_000);
        let mut count = 0;
        while !journal.is_full() {
            journal.append(WallTime(1), output(500));
            count += 1;
            assert!(journal.front_bytes <= 2_000);
            assert!(count < 100, "never full");
        }
        assert!(count > 15, "memory and spool were used: {count}");
        // What must be said is said all the same, and after the rest.
        let exit = journal.append(WallTime(2), output(10));
        while let Some(frame) = journal.next_to_send() {
            let src = src_of(&frame);
            assert!(journal.acknowledge(src));
            if src == exit {
                break;
            }
        }
        assert!(journal.is_acknowledged() && !journal.is_full());
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), 2_000, 10_000);
        journal.append(WallTime(1), output(1));
        assert!(!journal.acknowledge(Src(2)));
        assert!(journal.acknowledge(Src(1)));
        assert!(journal.acknowledge(Src(0)), "an old one changes nothing");
    }

    #[test]
    fn no_more_than_the_window_is_in_flight() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), 1 << 30, 1 << 30);
        for _ in 0..SHIM_WINDOW_RECORDS_MAX + 10 {
            journal.append(WallTime(1), output(1));
        }
        let mut sent = 0;
        while journal.next_to_send().is_some() {
            sent += 1;
        }
        assert_eq!(sent, SHIM_WINDOW_RECORDS_MAX);
        assert!(journal.acknowledge(Src(1)) && journal.next_to_send().is_some());
    }

    #[test]
    fn no_more_bytes_than_the_window_are_in_flight() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path(), 1 << 30, 1 << 30);
        for _ in 0..100 {
            journal.append(WallTime(1), output(250_000));
        }
        let fly = |journal: &mut Journal| {
            let frames: Vec<_> = std::iter::from_fn(|| journal.next_to_send()).collect();
            let bytes: usize = frames.iter().map(Bytes::len).sum();
            (frames.len() as u64, bytes as u64)
        };
        let (sent, bytes) = fly(&mut journal);
        assert!(bytes <= SHIM_WINDOW_BYTES_MAX && bytes + 300_000 > SHIM_WINDOW_BYTES_MAX, "{bytes} bytes");
        assert!(journal.acknowledge(Src(3)));
        assert_eq!(fly(&mut journal).0, 3, "as many more as were acknowledged");
        // A new connection hears them again; what is stored was acknowledged by its Hello before it was sent.
        journal.rewind();
        assert!(journal.acknowledge(Src(sent + 1)));
        assert_eq!(fly(&mut journal).0, sent);
    }
}
