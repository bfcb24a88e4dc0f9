//! Which records of a log count. One pure function for readers, owners, recovery, every engine's tests and the
//! simulation, so that what a stale owner manages to write is void for everybody.
//!
//! - A control record counts iff it names the last control record that counted; a Claim also iff its epoch is the
//!   next, Release and Close iff their claim is current. A claim is current until the next control record counts.
//! - A fenced record counts iff its claim is current at its position, and, on a run's lane, iff it fits the run (see
//!   [`run`]).
//! - A journal record that says word for word what the one before it said, under the same claim, is a retry whose
//!   answer was late: it does not count again.
//! - A request always counts.
//!
//! A record that does not count is [`Verdict::Void`] (expected: stale, retried, unknown) or [`Verdict::Alarm`] (its
//! writer lost something and must send again; nothing that a correct owner writes raises one).
//!
//! Invariants (tests/fold.rs): at most one claim is current; a run has at most one End; folding page by page, with
//! overlaps or with a filter that leaves out other runs' lanes, gives the same.

pub mod run;

use std::collections::BTreeMap;

pub use run::{Checkpoint, Ended, Resume, RunFold};

use super::record::{Control, ControlChange, Entry, Fenced, FencedBody, Lane, Record};
use crate::id::{Attempt, BootId, Epoch, NodeId, Position, ProcessKey, RunId, Seq, Src};
use crate::session::SessionEvent;

/// A claim that counts: who owns the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The fencing token: every fenced record carries it.
    pub position: Position,
    /// Which claim of the session this is.
    pub epoch: Epoch,
    /// The owner.
    pub node: NodeId,
    /// The owner's start.
    pub boot: BootId,
}

/// Whose the session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ownership {
    /// Nobody has claimed it yet.
    #[default]
    Unclaimed,
    /// Somebody owns it.
    Claimed(Claim),
    /// It was given away.
    Released {
        /// To whom; `None`: to anybody.
        to: Option<NodeId>,
    },
    /// It has ended.
    Closed,
}

/// What the fold says of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It counts, and this is what it does.
    Counted(Effect),
    /// It does not count, and that is as it should be.
    Void(VoidWhy),
    /// It does not count, and its writer has lost something: the owner sends again.
    Alarm(AlarmWhy),
}

/// What a record that counts does. What is in the record is not repeated here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The session has this owner now.
    Claimed(Claim),
    /// The session was given away.
    Released {
        /// To whom.
        to: Option<NodeId>,
    },
    /// The session has ended.
    Closed,
    /// Session events.
    Journal,
    /// A document update.
    Document,
    /// Output of no open run.
    Runtime,
    /// A wish.
    Request,
    /// An attempt has begun.
    Opened {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// So much of the output is kept.
        base: Seq,
        /// So much there was. Equal to `base` when the attempt continues.
        truncated_from: Seq,
    },
    /// Output has been added.
    Appended {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: Attempt,
        /// The first chunk that is new.
        first: Seq,
        /// So many of the record's chunks at its beginning are there already.
        skip: u64,
        /// So many are new.
        n: u64,
    },
    /// The run can be continued from here.
    Checkpointed {
        /// The run.
        run: RunId,
        /// The last chunk that is covered.
        seq: Seq,
    },
    /// A remark.
    Noted {
        /// The run.
        run: RunId,
    },
    /// The run has ended, for good.
    Ended {
        /// The run.
        run: RunId,
        /// The attempt that ended.
        attempt: Attempt,
        /// The last chunk.
        last_seq: Seq,
    },
}

/// Why a record does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoidWhy {
    /// A record at or before this position has been folded already.
    Folded,
    /// Its claim is not current: a stale owner wrote it.
    StaleClaim,
    /// A control record that does not name the last one that counted, or whose epoch is not the next.
    LostRace,
    /// Its kind does not belong to its lane.
    WrongLane,
    /// Its kind is unknown to this version.
    UnknownKind,
    /// The run has ended.
    RunEnded,
    /// It belongs to an attempt that is not the current one.
    WrongAttempt,
    /// It is there already.
    Retry,
}

/// What the writer of a record has lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlarmWhy {
    /// Data or a checkpoint beyond the head: what stands between is missing.
    Hole {
        /// The last chunk that there is.
        head: Seq,
        /// The chunk that the record speaks of.
        found: Seq,
    },
    /// An End that does not stand at the head.
    EndNotAtHead {
        /// The last chunk that there is.
        head: Seq,
        /// What the End says.
        last_seq: Seq,
    },
    /// An Open whose base is beyond the head.
    BaseBeyondHead {
        /// The last chunk that there is.
        head: Seq,
        /// What the Open says.
        base: Seq,
    },
}

/// The state of a log, without its contents.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fold {
    position: Position,
    ownership: Ownership,
    epoch: Epoch,
    last_counted: Position,
    last_stored: Position,
    runs: BTreeMap<RunId, RunFold>,
    /// What stood before the first record of each run.
    before: BTreeMap<RunId, Standing>,
    acked: BTreeMap<ProcessKey, Src>,
    /// What the last journal record under the current claim said.
    said: Vec<SessionEvent>,
}

/// Whose a session was at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Standing {
    position: Position,
    ownership: Ownership,
    epoch: Epoch,
    last_counted: Position,
    last_stored: Position,
}

impl Standing {
    fn fold(self) -> Fold {
        let Self { position, ownership, epoch, last_counted, last_stored } = self;
        Fold { position, ownership, epoch, last_counted, last_stored, ..Fold::default() }
    }
}

impl Fold {
    /// Takes the next record in log order. A record that was folded before is void, so pages may overlap.
    pub fn push(&mut self, entry: &Entry) -> Verdict {
        if entry.position <= self.position {
            return Verdict::Void(VoidWhy::Folded);
        }
        let before = self.standing();
        self.position = entry.position;
        if entry.lane == Lane::Control {
            self.last_stored = entry.position;
        }
        let verdict = match (&entry.record, entry.lane) {
            (Record::Control(control), Lane::Control) => self.push_control(entry.position, control),
            (Record::Fenced(fenced), lane) => self.push_fenced(lane, fenced),
            (Record::Request(_), Lane::Requests) => Verdict::Counted(Effect::Request),
            (Record::Unknown { .. }, _) => Verdict::Void(VoidWhy::UnknownKind),
            (Record::Control(_) | Record::Request(_), _) => Verdict::Void(VoidWhy::WrongLane),
        };
        if let (Verdict::Counted(_), Lane::Run(run)) = (&verdict, entry.lane) {
            self.before.entry(run).or_insert(before);
        }
        verdict
    }

    /// The fold as it stood before the first record of a run that counts, or as it stands if there is none yet: who
    /// reads that run alone goes on from there. It knows of no run and of no process.
    #[must_use]
    pub fn before(&self, run: RunId) -> Self {
        self.before.get(&run).copied().unwrap_or_else(|| self.standing()).fold()
    }

    /// Forgets a run, whose records are removed from the log.
    pub fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
        self.before.remove(&run);
    }

    fn standing(&self) -> Standing {
        let Self { position, ownership, epoch, last_counted, last_stored, .. } = *self;
        Standing { position, ownership, epoch, last_counted, last_stored }
    }

    /// The position of the last record that was folded.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whose the session is.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// The claim that is current.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        match self.ownership {
            Ownership::Claimed(claim) => Some(claim),
            Ownership::Unclaimed | Ownership::Released { .. } | Ownership::Closed => None,
        }
    }

    /// Whether the claim at this position is current.
    #[must_use]
    pub fn is_current(&self, claim: Position) -> bool {
        self.claim().is_some_and(|current| current.position == claim)
    }

    /// How many claims have counted; the next one must carry the next epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What the next control record must name as `prev`: the last control record that counted.
    #[must_use]
    pub fn control_prev(&self) -> Position {
        self.last_counted
    }

    /// What the next append must give the engine as its guard: the last control record that is stored. It differs
    /// from [`Self::control_prev`] only after an engine has admitted two control records in one place.
    #[must_use]
    pub fn control_guard(&self) -> Position {
        self.last_stored
    }

    /// A run that has at least one record which counts.
    #[must_use]
    pub fn run(&self, run: RunId) -> Option<&RunFold> {
        self.runs.get(&run)
    }

    /// Every run that has at least one record which counts, in order of their ids.
    pub fn runs(&self) -> impl Iterator<Item = (RunId, &RunFold)> {
        self.runs.iter().map(|(id, run)| (*id, run))
    }

    /// Up to where the records of a process's shim are accounted for; 0 when none is. What a shim sends again at or
    /// below this is discarded.
    #[must_use]
    pub fn acked(&self, process: ProcessKey) -> Src {
        self.acked.get(&process).copied().unwrap_or_default()
    }

    fn push_control(&mut self, position: Position, control: &Control) -> Verdict {
        if control.prev != self.last_counted {
            return Verdict::Void(VoidWhy::LostRace);
        }
        let (ownership, effect) = match control.change {
            ControlChange::Claim { epoch, node, boot } => {
                if epoch != self.epoch.next() {
                    return Verdict::Void(VoidWhy::LostRace);
                }
                self.epoch = epoch;
                let claim = Claim { position, epoch, node, boot };
                (Ownership::Claimed(claim), Effect::Claimed(claim))
            }
            ControlChange::Release { claim, .. } | ControlChange::Close { claim }
                if !self.is_current(claim) =>
            {
                return Verdict::Void(VoidWhy::StaleClaim);
            }
            ControlChange::Release { to, .. } => (Ownership::Released { to }, Effect::Released { to }),
            ControlChange::Close { .. } => (Ownership::Closed, Effect::Closed),
        };
        self.ownership = ownership;
        self.last_counted = position;
        self.said.clear();
        Verdict::Counted(effect)
    }

    fn push_fenced(&mut self, lane: Lane, fenced: &Fenced) -> Verdict {
        if !self.is_current(fenced.claim) {
            return Verdict::Void(VoidWhy::StaleClaim);
        }
        let verdict = match (&fenced.body, lane) {
            // Each event has its moment: nobody says the same twice.
            (FencedBody::Journal(events), Lane::Journal) if !events.is_empty() && *events == self.said => {
                Verdict::Void(VoidWhy::Retry)
            }
            (FencedBody::Journal(events), Lane::Journal) => {
                self.said.clone_from(events);
                Verdict::Counted(Effect::Journal)
            }
            (FencedBody::Document(_), Lane::Document) => Verdict::Counted(Effect::Document),
            (FencedBody::Runtime { .. }, Lane::Runtime) => Verdict::Counted(Effect::Runtime),
            (FencedBody::Run(record), Lane::Run(run)) => {
                let mut state = self.runs.remove(&run).unwrap_or_default();
                let verdict = state.push(run, record);
                // A run of which nothing counts is not there.
                if matches!(verdict, Verdict::Counted(_)) || state != RunFold::default() {
                    self.runs.insert(run, state);
                }
                verdict
            }
            (
                FencedBody::Journal(_)
                | FencedBody::Document(_)
                | FencedBody::Runtime { .. }
                | FencedBody::Run(_),
                Lane::Control
                | Lane::Journal
                | Lane::Document
                | Lane::Run(_)
                | Lane::Runtime
                | Lane::Requests,
            ) => Verdict::Void(VoidWhy::WrongLane),
        };
        if let (Verdict::Counted(_), Some(source)) = (&verdict, fenced.source) {
            let acked = self.acked.entry(source.process).or_default();
            *acked = source.through.max(*acked);
        }
        verdict
    }
}
