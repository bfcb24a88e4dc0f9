//! What waits for one peer, bounded by bytes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use outlive_core::id::SessionId;
use outlive_core::limits::{PEER_INPUT_BYTES_MAX, PEER_QUEUE_BYTES_MAX};
use outlive_core::time::Tick;
use outlive_protocol::http::Problem;
use tokio::sync::{Notify, Semaphore};

use super::Outgoing;
use crate::seams::Clock;
use crate::session::handle::{Peer, ended};

/// What waits for one peer.
pub(super) struct Queue {
    pub session: SessionId,
    clock: Arc<dyn Clock>,
    waiting: Mutex<Waiting>,
    /// Something was put in.
    pub filled: Notify,
    /// What the peer may still send, in bytes.
    pub credit: Arc<Semaphore>,
}

struct Waiting {
    phase: Phase,
    /// With what each counts.
    frames: VecDeque<(Bytes, usize)>,
    bytes: usize,
    /// Since when something waits and nothing was taken.
    since: Option<Tick>,
    /// It counts as attached as long as this is here.
    attendance: Option<Peer>,
}

/// Where a peer's queue stands. See the page of [`super`].
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Phase {
    /// What is sent to it is put into the queue.
    Flowing,
    /// The queue was full and was emptied; nothing goes in until it reads.
    Behind { skipped: u64 },
    /// It has read so; the session puts everything in now.
    Told,
    /// It has left.
    Left,
    /// It was let go for this reason, which is the last that it is told.
    Cut { why: Box<Problem>, told: bool },
}

/// What is taken out of a queue.
pub(super) enum Taken {
    /// This.
    Next(Outgoing),
    /// There is nothing now.
    Nothing,
    /// There is nothing any more.
    Over,
}

impl Queue {
    /// An empty one.
    pub fn new(session: SessionId, clock: Arc<dyn Clock>, attendance: Peer) -> Self {
        let waiting = Waiting {
            phase: Phase::Flowing,
            frames: VecDeque::new(),
            bytes: 0,
            since: None,
            attendance: Some(attendance),
        };
        Self {
            session,
            clock,
            waiting: Mutex::new(waiting),
            filled: Notify::new(),
            credit: Arc::new(Semaphore::new(PEER_INPUT_BYTES_MAX)),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds a queue")
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.waiting().phase.clone()
    }

    /// Since when something waits that was not taken.
    pub fn waits_since(&self) -> Option<Tick> {
        self.waiting().since
    }

    /// Puts a frame in, or notes that it did not fit.
    pub fn push(&self, frame: Bytes) {
        let mut waiting = self.waiting();
        let bytes = frame.len();
        let full = waiting.bytes + bytes > PEER_QUEUE_BYTES_MAX && !waiting.frames.is_empty();
        match &mut waiting.phase {
            Phase::Flowing if full => {
                let skipped = waiting.frames.drain(..).map(|(frame, _)| frame.len() as u64).sum::<u64>();
                waiting.phase = Phase::Behind { skipped: skipped + bytes as u64 };
                waiting.bytes = 0;
            }
            Phase::Flowing => {
                waiting.frames.push_back((frame, bytes));
                waiting.bytes += bytes;
            }
            Phase::Behind { skipped } => *skipped += bytes as u64,
            // What the session puts in in a moment has it.
            Phase::Told | Phase::Left | Phase::Cut { .. } => return,
        }
        self.wake(&mut waiting);
    }

    /// All that a peer lacks that was told of a gap; none of it counts.
    pub fn refill(&self, frames: Vec<Bytes>) {
        let mut waiting = self.waiting();
        if waiting.phase == Phase::Told {
            waiting.phase = Phase::Flowing;
            waiting.frames.extend(frames.into_iter().map(|frame| (frame, 0)));
            self.wake(&mut waiting);
        }
    }

    fn wake(&self, waiting: &mut Waiting) {
        if waiting.since.is_none() {
            waiting.since = Some(self.clock.now().tick);
        }
        self.filled.notify_one();
    }

    /// What comes next for the peer.
    pub fn take(&self) -> Taken {
        let mut waiting = self.waiting();
        if let Some((frame, bytes)) = waiting.frames.pop_front() {
            waiting.bytes -= bytes;
            waiting.since = (!waiting.frames.is_empty()).then(|| self.clock.now().tick);
            return Taken::Next(Outgoing::Frame(frame));
        }
        waiting.since = None;
        match &mut waiting.phase {
            Phase::Flowing | Phase::Told => Taken::Nothing,
            Phase::Behind { skipped } => {
                let skipped = *skipped;
                waiting.phase = Phase::Told;
                Taken::Next(Outgoing::Gap { skipped })
            }
            Phase::Left | Phase::Cut { told: true, .. } => Taken::Over,
            Phase::Cut { why, told } => {
                *told = true;
                Taken::Next(Outgoing::Cut((**why).clone()))
            }
        }
    }

    /// Lets the peer go. What waits is still sent before the reason.
    pub fn cut(&self, problem: Problem) {
        self.end(Phase::Cut { why: Box::new(problem), told: false });
    }

    /// The peer has left.
    pub fn leave(&self) {
        self.end(Phase::Left);
    }

    fn end(&self, phase: Phase) {
        let mut waiting = self.waiting();
        waiting.attendance = None;
        if !matches!(waiting.phase, Phase::Left | Phase::Cut { .. }) {
            waiting.phase = phase;
            self.credit.close();
            self.filled.notify_one();
        }
    }

    /// Whether the peer was let go.
    pub fn is_cut(&self) -> bool {
        matches!(self.waiting().phase, Phase::Cut { .. })
    }

    /// Why nothing more is taken from the peer.
    pub fn why_cut(&self) -> Problem {
        match &self.waiting().phase {
            Phase::Cut { why, .. } => (**why).clone(),
            Phase::Flowing | Phase::Behind { .. } | Phase::Told | Phase::Left => ended(self.session),
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("session", &self.session).finish_non_exhaustive()
    }
}
