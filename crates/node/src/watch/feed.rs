//! The latest changes of a session's state, for all who watch it without its output.
//!
//! The session's task says once what each of its facts means for clients; a watcher is a number in that sequence. So a
//! thousand watchers cost a thousand numbers, nobody reads the log for them, and one who does not read holds nothing
//! up: it finds its place gone, is told of a gap and gets the present state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::id::Position;
use outlive_core::limits::{STATE_CHANGES_BYTES_MAX, STATE_CHANGES_MAX};
use outlive_protocol::http::StreamEvent;
use tokio::sync::watch;

/// What one record of the log has changed.
#[derive(Debug)]
pub(super) struct Change {
    /// Where the record stands.
    pub position: Position,
    /// What it means for clients, in order; never empty.
    pub events: Vec<StreamEvent>,
    bytes: usize,
}

/// The changes of one session, the latest of them at hand.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    /// How many changes there have been.
    count: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// The number of the first that is at hand.
    first: u64,
    /// What stands in the log up to here is not at hand.
    floor: Position,
}

impl Feed {
    /// Of a session whose log has this position now.
    #[must_use]
    pub fn new(floor: Position) -> Self {
        let ring = Ring { changes: VecDeque::new(), bytes: 0, first: 0, floor };
        Self { ring: Mutex::new(ring), count: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("nothing panics while it holds a ring")
    }

    /// Tells what a record has changed. The oldest changes go when there are too many.
    pub fn publish(&self, position: Position, events: Vec<StreamEvent>) {
        if events.is_empty() {
            return;
        }
        let bytes = events.iter().map(bytes).sum();
        let mut ring = self.ring();
        ring.changes.push_back(Arc::new(Change { position, events, bytes }));
        ring.bytes += bytes;
        while ring.changes.len() > 1
            && (ring.changes.len() > STATE_CHANGES_MAX || ring.bytes > STATE_CHANGES_BYTES_MAX)
        {
            let gone = ring.changes.pop_front().expect("more than one");
            ring.bytes -= gone.bytes;
            ring.first += 1;
            ring.floor = gone.position;
        }
        drop(ring);
        self.count.send_modify(|count| *count += 1);
    }

    /// The number of the next change.
    pub(super) fn head(&self) -> u64 {
        let ring = self.ring();
        ring.first + ring.changes.len() as u64
    }

    /// The number of the first change behind a position; `None` when that is not known any more.
    pub(super) fn behind(&self, position: Position) -> Option<u64> {
        let ring = self.ring();
        let told = ring.changes.iter().take_while(|change| change.position <= position).count();
        (position >= ring.floor).then_some(ring.first + told as u64)
    }

    /// The changes from this number on, or how many of them are not at hand any more.
    pub(super) fn since(&self, next: u64) -> Result<Vec<Arc<Change>>, u64> {
        let ring = self.ring();
        match next.checked_sub(ring.first) {
            Some(skip) => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                Ok(ring.changes.iter().skip(skip).map(Arc::clone).collect())
            }
            None => Err(ring.first - next + ring.changes.len() as u64),
        }
    }

    /// Wakes on each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// What an event holds in memory, about, in bytes.
fn bytes(event: &StreamEvent) -> usize {
    /// A run's view without its source.
    const BASE: usize = 512;
    let own = match event {
        StreamEvent::Run { run } => run.source.len(),
        // Rare, and of any size that evidence may have.
        StreamEvent::Report { .. } => serde_json::to_vec(event).map_or(0, |json| json.len()),
        _ => 0,
    };
    BASE + own
}

#[cfg(test)]
mod tests {
    use outlive_core::id::SessionId;
    use outlive_core::session::event::PathWhy;
    use uuid::Uuid;

    use super::*;

    fn changed(name: &str) -> Vec<StreamEvent> {
        let session = SessionId::from_uuid(Uuid::from_u128(1));
        vec![StreamEvent::PathChanged { session, path: name.to_owned(), why: PathWhy::Saved }]
    }

    #[test]
    fn a_place_is_found_again_until_it_is_gone() {
        let feed = Feed::new(Position(10));
        feed.publish(Position(11), Vec::new());
        assert_eq!((feed.head(), feed.behind(Position(10)), feed.behind(Position(9))), (0, Some(0), None));
        for position in 0..STATE_CHANGES_MAX as u64 {
            feed.publish(Position(20 + 2 * position), changed("a"));
        }
        assert_eq!(feed.behind(Position(10)), Some(0), "all are at hand");
        assert_eq!(feed.behind(Position(21)), Some(1), "between two");
        let next = feed.behind(Position(20)).unwrap();
        assert_eq!(feed.since(next).unwrap().len(), STATE_CHANGES_MAX - 1);
        for position in 0..10 {
            feed.publish(Position(10_000 + position), changed("b"));
        }
        assert_eq!(feed.behind(Position(37)), None, "the first ten are gone");
        assert_eq!(feed.behind(Position(38)), Some(10));
        assert_eq!(feed.since(next).unwrap_err(), STATE_CHANGES_MAX as u64 + 9, "so many were missed");
        assert_eq!(feed.since(feed.head()).unwrap().len(), 0);
    }

    #[test]
    fn what_is_at_hand_is_bounded_in_bytes_and_the_last_one_always_is() {
        let feed = Feed::new(Position(0));
        let many = |n: usize| (0..n).flat_map(|_| changed("a")).collect::<Vec<_>>();
        feed.publish(Position(1), many(1));
        feed.publish(Position(2), many(STATE_CHANGES_BYTES_MAX / 512 + 1));
        assert_eq!(feed.behind(Position(0)), None);
        assert_eq!(feed.since(1).unwrap().len(), 1);
    }
}
