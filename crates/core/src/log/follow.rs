//! What a reader of one run is told, whether it comes at the start, late, again, or stays while the owner dies.
//!
//! A reader brings a cursor. The run's state so far says how much of what it has is still true ([`RunFold::resume`]).
//! Then the log is folded from its start, and [`Follower::push`] says of each effect what the reader must be given:
//! output that a known later attempt cut off is left out, so a late reader sees the final text once, and only an
//! attempt that begins while it reads shows as a reset.
//!
//! Invariant: what a reader has after the same log is the same, whatever its cursor was and however often it came
//! back (tests/fold.rs).

use super::fold::{Effect, Resume, RunFold};
use crate::id::{Attempt, Cursor, RunId, Seq};

/// What a reader is to be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Forget what stands behind this chunk.
    Reset {
        /// The last chunk that stays.
        keep: Seq,
    },
    /// Chunks of the record that had this effect.
    Take {
        /// The attempt that made them: with the sequence number it is the reader's cursor.
        attempt: Attempt,
        /// The number of the first that is taken.
        first: Seq,
        /// So many of the record's chunks at its beginning are left out.
        skip: u64,
        /// So many are taken.
        n: u64,
    },
    /// The run has ended and so does the reading.
    End,
}

/// A reader of one run.
#[derive(Clone, Debug)]
pub struct Follower {
    run: RunId,
    known: RunFold,
    cursor: Cursor,
}

impl Follower {
    /// A reader with this cursor, of a run whose state is `known`, and what it must be told first. The effects that
    /// follow must be those of the whole log, from its start.
    #[must_use]
    pub fn new(run: RunId, known: RunFold, cursor: Cursor) -> (Self, Resume) {
        let resume = known.resume(cursor);
        let cursor = Cursor { attempt: cursor.attempt.min(known.attempt()), seq: resume.keep };
        (Self { run, known, cursor }, resume)
    }

    /// What the reader has when it has taken every step so far.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What the next effect means for the reader.
    pub fn push(&mut self, effect: &Effect) -> Step {
        match *effect {
            Effect::Opened { run, attempt, base, .. } if run == self.run => {
                if attempt <= self.known.attempt() {
                    return Step::Nothing;
                }
                self.cursor.attempt = attempt;
                if base >= self.cursor.seq {
                    return Step::Nothing;
                }
                self.cursor.seq = base;
                Step::Reset { keep: base }
            }
            Effect::Appended { run, attempt, first, skip, n } if run == self.run => {
                let last = Seq(first.0 + n - 1);
                let upto = self.known.surviving(attempt, last);
                let from = first.max(self.cursor.seq.next());
                if from > upto {
                    return Step::Nothing;
                }
                self.cursor = Cursor { attempt, seq: upto };
                Step::Take { attempt, first: from, skip: skip + (from.0 - first.0), n: upto.0 - from.0 + 1 }
            }
            Effect::Ended { run, .. } if run == self.run => Step::End,
            Effect::Opened { .. }
            | Effect::Appended { .. }
            | Effect::Ended { .. }
            | Effect::Claimed(_)
            | Effect::Released { .. }
            | Effect::Closed
            | Effect::Journal
            | Effect::Document
            | Effect::Runtime
            | Effect::Request
            | Effect::Checkpointed { .. }
            | Effect::Noted { .. } => Step::Nothing,
        }
    }
}
