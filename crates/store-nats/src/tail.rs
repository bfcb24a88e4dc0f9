//! The end of a followed log, in memory, for its readers.
//!
//! Invariant: it holds every record behind `from` up to `through`. So it is filled by pages alone, which have no holes,
//! and never by what the server tells live.

use std::collections::VecDeque;

use outlive_core::id::Position;
use outlive_core::limits::NATS_TAIL_BYTES_MAX;
use outlive_store::{LaneFilter, Page, ReadLimit};

use crate::record::Read;

/// The last records of a log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    from: Position,
    through: Position,
    records: VecDeque<Read>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn through(&self) -> Position {
        self.through
    }

    /// What a reader finds here; nothing when it has to look elsewhere, or when there is no more than it has.
    pub(crate) fn page(&self, after: Position, lanes: &LaneFilter, limit: ReadLimit) -> Option<Page> {
        if after < self.from || after >= self.through {
            return None;
        }
        let start = self.records.partition_point(|read| read.entry.position <= after);
        let records = self.records.range(start..);
        Some(page(records, after, self.through, lanes, limit))
    }

    /// Takes a page that was read behind `after` and reaches to `through`.
    pub(crate) fn extend(&mut self, after: Position, through: Position, records: &[Read]) {
        if after != self.through {
            self.records.clear();
            self.bytes = 0;
            self.from = after;
        }
        self.through = through;
        for read in records {
            self.bytes += read.bytes;
            self.records.push_back(read.clone());
        }
        while self.bytes > NATS_TAIL_BYTES_MAX
            && let Some(first) = self.records.pop_front()
        {
            self.bytes -= first.bytes;
            self.from = first.entry.position;
        }
    }
}

/// The wanted ones of these records, as many as the limit allows.
pub(crate) fn page<'a>(
    records: impl IntoIterator<Item = &'a Read>,
    after: Position,
    through: Position,
    lanes: &LaneFilter,
    limit: ReadLimit,
) -> Page {
    let mut page = Page { entries: Vec::new(), through: after };
    let mut bytes = 0;
    for read in records {
        if lanes.wants(read.entry.lane) {
            bytes += read.bytes;
            let full = page.entries.len() >= limit.records || bytes > limit.bytes;
            if full && !page.entries.is_empty() {
                return page;
            }
            page.entries.push(read.entry.clone());
        }
        page.through = read.entry.position;
    }
    page.through = page.through.max(through);
    page
}

#[cfg(test)]
mod tests {
    use outlive_core::log::{Entry, Lane, Record};

    use super::*;

    fn read(position: u64, bytes: usize) -> Read {
        let entry =
            Entry { position: Position(position), lane: Lane::Journal, record: Record::Unknown { kind: 1 } };
        Read { entry, bytes }
    }

    fn positions(tail: &Tail, after: u64) -> Option<(Vec<u64>, u64)> {
        let page = tail.page(Position(after), &LaneFilter::All, ReadLimit::default())?;
        Some((page.entries.iter().map(|entry| entry.position.0).collect(), page.through.0))
    }

    #[test]
    fn it_answers_what_it_has_and_nothing_else() {
        let mut tail = Tail::default();
        tail.extend(Position(10), Position(14), &[read(11, 5), read(14, 5)]);
        tail.extend(Position(14), Position(20), &[read(17, 5)]);
        assert_eq!(positions(&tail, 10), Some((vec![11, 14, 17], 20)));
        assert_eq!(positions(&tail, 14), Some((vec![17], 20)));
        assert_eq!(positions(&tail, 18), Some((vec![], 20)), "nothing of ours stands there");
        assert_eq!(positions(&tail, 9), None, "11 may not be the first behind 9");
        assert_eq!(positions(&tail, 20), None, "more may be stored by now");
    }

    #[test]
    fn a_page_that_does_not_fit_behind_it_begins_it_anew() {
        let mut tail = Tail::default();
        tail.extend(Position(10), Position(11), &[read(11, 5)]);
        tail.extend(Position(20), Position(21), &[read(21, 5)]);
        assert_eq!(positions(&tail, 10), None, "what is between 11 and 20 is unknown");
        assert_eq!(positions(&tail, 20), Some((vec![21], 21)));
    }

    #[test]
    fn it_is_bounded() {
        let mut tail = Tail::default();
        for n in 0..100 {
            tail.extend(Position(n), Position(n + 1), &[read(n + 1, NATS_TAIL_BYTES_MAX / 4)]);
        }
        assert_eq!(tail.records.len(), 4);
        assert_eq!(positions(&tail, 95), None);
        assert_eq!(positions(&tail, 96), Some((vec![97, 98, 99, 100], 100)));
    }
}
