//! What counts within one run.
//!
//! ```text
//!              Open{attempt: last + 1, base ≤ head}          Data{first = head + 1}
//!  not open ───────────────────────────────────────► open ──────────────────────────► open, head moves on
//!     │                                               │ ▲ Open of the next attempt: the output is cut to its base
//!     │ End{attempt: 0, last_seq: 0}                  │ End{last_seq = head}
//!     └───────────────────────► ended ◄───────────────┘   nothing counts after it
//! ```
//! A Data that overlaps the head counts with what is new in it: a writer that coalesced more chunks into a retry
//! loses nothing, and a reader is given nothing twice.

use super::{AlarmWhy, Effect, Verdict, VoidWhy};
use crate::id::{Attempt, Cursor, RunId, Seq};
use crate::log::chunk::BlobRef;
use crate::log::record::RunRecord;
use crate::session::RunOutcome;

/// One run's state, without its output.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunFold {
    /// The base of each attempt's Open; the first is attempt 1's.
    bases: Vec<Seq>,
    head: Seq,
    checkpoint: Option<Checkpoint>,
    ended: Option<Ended>,
}

/// From where a run can be continued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The last chunk that it covers.
    pub seq: Seq,
    /// What the program needs.
    pub blob: Option<BlobRef>,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The attempt that ended; 0 when none was begun.
    pub attempt: Attempt,
    /// How.
    pub outcome: RunOutcome,
}

/// How a reader goes on after a reconnect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// So much of what it has is still true; it goes on with the chunk after this one.
    pub keep: Seq,
    /// Whether it has more than that and must be told to forget the rest.
    pub reset: bool,
}

impl RunFold {
    /// The current attempt; 0 before the first.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt(self.bases.len() as u64)
    }

    /// The last chunk that there is; 0 when there is none.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// The last checkpoint within the output that is kept.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// How the run ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// How much of the first `seq` chunks, as they were in `attempt`, no later attempt has cut off.
    #[must_use]
    pub fn surviving(&self, attempt: Attempt, seq: Seq) -> Seq {
        let seen = usize::try_from(attempt.0).unwrap_or(usize::MAX);
        self.bases.iter().skip(seen).copied().fold(seq, Seq::min)
    }

    /// How much of what a reader has is still true. A cursor of an attempt that the log does not have keeps nothing.
    #[must_use]
    pub fn keep(&self, cursor: Cursor) -> Seq {
        if cursor.attempt > self.attempt() {
            return Seq::default();
        }
        self.surviving(cursor.attempt, cursor.seq).min(self.head)
    }

    /// How a reader with this cursor goes on.
    #[must_use]
    pub fn resume(&self, cursor: Cursor) -> Resume {
        let keep = self.keep(cursor);
        Resume { keep, reset: keep < cursor.seq }
    }

    /// The cursor of a reader that has everything.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { attempt: self.attempt(), seq: self.head }
    }

    /// Takes the next record whose claim is current.
    pub(super) fn push(&mut self, run: RunId, record: &RunRecord) -> Verdict {
        if self.ended.is_some() {
            return Verdict::Void(VoidWhy::RunEnded);
        }
        match record {
            RunRecord::Open { attempt, base, at: _ } => self.open(run, *attempt, *base),
            RunRecord::Data { attempt, first, chunks } => {
                self.data(run, *attempt, *first, chunks.len() as u64)
            }
            RunRecord::Checkpoint { attempt, seq, blob } => {
                let standing = self.checkpoint.as_ref().map_or(Seq::default(), |checkpoint| checkpoint.seq);
                if *attempt != self.attempt() {
                    Verdict::Void(VoidWhy::WrongAttempt)
                } else if *seq > self.head {
                    Verdict::Alarm(AlarmWhy::Hole { head: self.head, found: *seq })
                } else if *seq < standing {
                    Verdict::Void(VoidWhy::Retry)
                } else {
                    self.checkpoint = Some(Checkpoint { seq: *seq, blob: blob.clone() });
                    Verdict::Counted(Effect::Checkpointed { run, seq: *seq })
                }
            }
            RunRecord::Note { .. } => Verdict::Counted(Effect::Noted { run }),
            RunRecord::End { attempt, outcome, last_seq, report: _, execution_count: _, at: _ } => {
                if *attempt != self.attempt() {
                    return Verdict::Void(VoidWhy::WrongAttempt);
                }
                if *last_seq != self.head {
                    return Verdict::Alarm(AlarmWhy::EndNotAtHead { head: self.head, last_seq: *last_seq });
                }
                self.ended = Some(Ended { attempt: *attempt, outcome: outcome.clone() });
                Verdict::Counted(Effect::Ended { run, attempt: *attempt, last_seq: *last_seq })
            }
        }
    }

    fn open(&mut self, run: RunId, attempt: Attempt, base: Seq) -> Verdict {
        if attempt != self.attempt().next() {
            let retry = attempt == self.attempt();
            return Verdict::Void(if retry { VoidWhy::Retry } else { VoidWhy::WrongAttempt });
        }
        if base > self.head {
            return Verdict::Alarm(AlarmWhy::BaseBeyondHead { head: self.head, base });
        }
        let truncated_from = self.head;
        self.bases.push(base);
        self.head = base;
        // A checkpoint of output that was cut off says nothing about what comes instead.
        self.checkpoint.take_if(|checkpoint| checkpoint.seq > base);
        Verdict::Counted(Effect::Opened { run, attempt, base, truncated_from })
    }

    fn data(&mut self, run: RunId, attempt: Attempt, first: Seq, chunks: u64) -> Verdict {
        if attempt != self.attempt() || attempt == Attempt::default() {
            return Verdict::Void(VoidWhy::WrongAttempt);
        }
        let next = self.head.next();
        if first > next {
            return Verdict::Alarm(AlarmWhy::Hole { head: self.head, found: first });
        }
        let skip = next.0 - first.0;
        let Some(n) = chunks.checked_sub(skip).filter(|n| *n > 0) else {
            return Verdict::Void(VoidWhy::Retry);
        };
        self.head = Seq(self.head.0 + n);
        Verdict::Counted(Effect::Appended { run, attempt, first: next, skip, n })
    }
}
