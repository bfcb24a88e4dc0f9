//! The records of a session's log. `protocol::log` gives them bytes.

use serde::{Deserialize, Serialize};

use super::chunk::{BlobRef, Chunk};
use crate::diagnosis::FailureReport;
use crate::id::{Attempt, BootId, Epoch, NodeId, Position, ProcessKey, RunId, Seq, Src};
use crate::session::RunOutcome;
use crate::session::event::SessionEvent;
use crate::time::WallTime;

/// A part of a session's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Who owns the session. Appended by compare-and-swap.
    Control,
    /// The session's events. Fenced.
    Journal,
    /// Updates and snapshots of the notebook document. Fenced.
    Document,
    /// One run's attempts and output. Fenced.
    Run(RunId),
    /// Output without an open run: start-up, late prints, comms. Fenced.
    Runtime,
    /// Cancel, interrupt, run, input: durable wishes of anybody. Not fenced.
    Requests,
}

/// A record as it is read back.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Its place in the session's one total order.
    pub position: Position,
    /// The lane it was appended to.
    pub lane: Lane,
    /// The record.
    pub record: Record,
}

/// What can stand in a log.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// On the control lane.
    Control(Control),
    /// On every other lane but requests.
    Fenced(Fenced),
    /// On the requests lane.
    Request(Request),
    /// A kind that this version does not know: kept and skipped.
    Unknown {
        /// The kind byte of its frame.
        kind: u8,
    },
}

/// A change of ownership. Counts iff `prev` names the previous control record that counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Control {
    /// The control record before this one; 0 for the first.
    pub prev: Position,
    /// What changes.
    pub change: ControlChange,
}

/// How ownership changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlChange {
    /// A node takes the session. Its position is the fencing token of all that the node writes.
    Claim {
        /// One more than the claim before.
        epoch: Epoch,
        /// The new owner.
        node: NodeId,
        /// The new owner's start.
        boot: BootId,
    },
    /// The owner gives the session away, to somebody named or to anybody.
    Release {
        /// The claim that ends.
        claim: Position,
        /// Who is meant to claim next.
        to: Option<NodeId>,
    },
    /// The session has ended; nothing more is expected.
    Close {
        /// The claim that ends.
        claim: Position,
    },
}

/// Which shim record a log record accounts for. The owner stores it in the same batch as what it derived, so that
/// after a crash everything up to the highest stored `through` is known to be in the log already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// The process whose shim sent it.
    pub process: ProcessKey,
    /// Every record of that shim up to this one is accounted for.
    pub through: Src,
}

/// A record that only the owner may write. Counts iff `claim` is current at its position.
#[derive(Clone, PartialEq, Debug)]
pub struct Fenced {
    /// Position of the Claim under which it is written: the fencing token.
    pub claim: Position,
    /// The shim records that this record accounts for.
    pub source: Option<Source>,
    /// What it says.
    pub body: FencedBody,
}

/// What the owner writes, by lane.
#[derive(Clone, PartialEq, Debug)]
pub enum FencedBody {
    /// Journal lane: facts about the session, in order.
    Journal(Vec<SessionEvent>),
    /// Document lane: an opaque update or snapshot (the notebook's JSON now, a CRDT's bytes later).
    Document(Vec<u8>),
    /// Run lane.
    Run(RunRecord),
    /// Runtime lane: output that belongs to no open run.
    Runtime {
        /// The process that wrote it.
        process: ProcessKey,
        /// The run that printed it, when it came after that run's End.
        origin: Option<RunId>,
        /// The output.
        chunks: Vec<Chunk>,
    },
}

/// A record of one run.
#[derive(Clone, PartialEq, Debug)]
pub enum RunRecord {
    /// An attempt begins; the output is cut back to `base`.
    Open {
        /// One more than the attempt before.
        attempt: Attempt,
        /// How much of the output so far is kept.
        base: Seq,
        /// When it began.
        at: WallTime,
    },
    /// Output.
    Data {
        /// The attempt that made it.
        attempt: Attempt,
        /// The sequence number of the first chunk.
        first: Seq,
        /// At least one chunk.
        chunks: Vec<Chunk>,
    },
    /// The run can be continued from here.
    Checkpoint {
        /// The attempt that made it.
        attempt: Attempt,
        /// The last chunk that it covers.
        seq: Seq,
        /// What the program needs to go on.
        blob: Option<BlobRef>,
    },
    /// A remark for people.
    Note {
        /// The remark.
        text: String,
    },
    /// The run has ended. The first End that counts is final.
    End {
        /// The attempt that ended.
        attempt: Attempt,
        /// How it ended.
        outcome: RunOutcome,
        /// The last chunk's number: End counts iff it is the head.
        last_seq: Seq,
        /// Why it failed, when it did because of its process.
        report: Option<Box<FailureReport>>,
        /// The kernel's count, when it gave one.
        execution_count: Option<u32>,
        /// When it ended.
        at: WallTime,
    },
}

/// A durable wish, from any node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// End this run, whether queued or running.
    Cancel {
        /// Which.
        run: RunId,
    },
    /// Interrupt what runs.
    Interrupt,
    /// Answer a run's question.
    Input {
        /// Which run asked.
        run: RunId,
        /// What to say.
        value: String,
    },
}
