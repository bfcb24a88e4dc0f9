//! What the fold says of every kind of record in every state of ownership and of a run, as one table to be read line
//! by line. `tests/fold.rs` holds the fold to a model; this says what it does.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fmt::Write as _;

use outlive_core::id::{
    Attempt, BootId, Epoch, Incarnation, NodeId, Position, ProcessKey, RunId, RuntimeId, Seq,
};
use outlive_core::log::fold::{Effect, Fold, Verdict};
use outlive_core::log::record::{ControlChange, Request};
use outlive_core::log::{Chunk, ChunkKind, Control, Entry, Fenced, FencedBody, Lane, Record, RunRecord};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use uuid::Uuid;

const OURS: u128 = 1;
const OTHER: u128 = 2;

fn run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(9))
}

fn node(n: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n))
}

/// A log that admits everything, and its fold.
#[derive(Clone, Default)]
struct Log {
    fold: Fold,
    /// Our last claim, current or not.
    claim: Position,
}

impl Log {
    fn push(&mut self, lane: Lane, record: Record) -> Verdict {
        let position = self.fold.position().next();
        let verdict = self.fold.push(&Entry { position, lane, record });
        if let Verdict::Counted(Effect::Claimed(claim)) = &verdict
            && claim.node == node(OURS)
        {
            self.claim = claim.position;
        }
        verdict
    }

    fn control(&self, change: ControlChange) -> Record {
        Record::Control(Control { prev: self.fold.control_prev(), change })
    }

    fn claim(&self, n: u128, epochs: u64) -> Record {
        let epoch = Epoch(self.fold.epoch().0 + epochs);
        self.control(ControlChange::Claim {
            epoch,
            node: node(n),
            boot: BootId::from_uuid(Uuid::from_u128(7)),
        })
    }

    fn ours(&self, body: FencedBody) -> Record {
        Record::Fenced(Fenced { claim: self.claim, source: None, body })
    }
}

fn open(attempt: u64, base: u64) -> RunRecord {
    RunRecord::Open { attempt: Attempt(attempt), base: Seq(base), at: WallTime(0) }
}

fn data(attempt: u64, first: u64, n: usize) -> RunRecord {
    let chunks = vec![Chunk::inline(ChunkKind::Stdout, WallTime(0), *b"x"); n];
    RunRecord::Data { attempt: Attempt(attempt), first: Seq(first), chunks }
}

fn checkpoint(attempt: u64, seq: u64) -> RunRecord {
    RunRecord::Checkpoint { attempt: Attempt(attempt), seq: Seq(seq), blob: None }
}

fn end(attempt: u64, last_seq: u64) -> RunRecord {
    let (attempt, last_seq, at) = (Attempt(attempt), Seq(last_seq), WallTime(0));
    RunRecord::End {
        attempt,
        outcome: RunOutcome::Succeeded,
        last_seq,
        report: None,
        execution_count: None,
        at,
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Counted(effect) => match effect {
            Effect::Claimed(claim) => {
                format!("counts: claimed by {}, epoch {}", claim.node.as_uuid().as_u128(), claim.epoch)
            }
            Effect::Opened { attempt, base, truncated_from, .. } => {
                format!("counts: attempt {attempt} begins, {base} kept of {truncated_from}")
            }
            Effect::Appended { first, skip, n, .. } => {
                format!("counts: {n} new from {first}, {skip} skipped")
            }
            Effect::Checkpointed { seq, .. } => format!("counts: can go on after {seq}"),
            Effect::Ended { attempt, last_seq, .. } => format!("counts: ended in {attempt} at {last_seq}"),
            Effect::Released { .. } => "counts: released".to_owned(),
            Effect::Closed
            | Effect::Journal
            | Effect::Document
            | Effect::Runtime
            | Effect::Request
            | Effect::Noted { .. } => "counts".to_owned(),
        },
        Verdict::Void(why) => format!("void: {why:?}"),
        Verdict::Alarm(why) => format!("ALARM: {why:?}"),
    }
}

type Case = (&'static str, Lane, Record);

/// Gives each record to each state, and writes one line a pair.
fn table(states: &[(&str, Log)], cases: impl Fn(&Log) -> Vec<Case>) -> String {
    let mut table = String::new();
    for (state, log) in states {
        writeln!(table, "{state}").unwrap();
        for (what, lane, record) in cases(log) {
            let said = log.clone().push(lane, record);
            writeln!(table, "  {what:<32}{}", verdict(&said)).unwrap();
        }
        writeln!(table).unwrap();
    }
    table
}

/// Who owns the session.
fn ownerships() -> Vec<(&'static str, Log)> {
    let after = |log: &Log, change: fn(&Log) -> Record| {
        let mut log = log.clone();
        let record = change(&log);
        log.push(Lane::Control, record);
        log
    };
    let unclaimed = Log::default();
    let ours = after(&unclaimed, |log| log.claim(OURS, 1));
    let released =
        after(&ours, |log| log.control(ControlChange::Release { claim: log.claim, to: Some(node(OTHER)) }));
    let closed = after(&ours, |log| log.control(ControlChange::Close { claim: log.claim }));
    let taken = after(&ours, |log| log.claim(OTHER, 1));
    let back = after(&taken, |log| log.claim(OURS, 1));
    vec![
        ("nobody's", unclaimed),
        ("ours", ours),
        ("released by us", released),
        ("closed by us", closed),
        ("taken from us", taken),
        ("ours again", back),
    ]
}

#[test]
fn who_may_write_what() {
    let table = table(&ownerships(), |log| {
        let process =
            ProcessKey { runtime: RuntimeId::from_uuid(Uuid::from_u128(3)), incarnation: Incarnation(1) };
        let stale = Control {
            prev: Position(log.fold.control_prev().0 + 1_000),
            change: ControlChange::Close { claim: log.claim },
        };
        let runtime = || FencedBody::Runtime { process, origin: None, chunks: Vec::new() };
        let release = ControlChange::Release { claim: log.claim, to: None };
        vec![
            ("claim of the next epoch", Lane::Control, log.claim(OTHER, 1)),
            ("claim of this epoch", Lane::Control, log.claim(OTHER, 0)),
            ("claim of the epoch after next", Lane::Control, log.claim(OTHER, 2)),
            ("our release", Lane::Control, log.control(release)),
            ("our close", Lane::Control, log.control(ControlChange::Close { claim: log.claim })),
            ("control after another control", Lane::Control, Record::Control(stale)),
            ("claim on the journal", Lane::Journal, log.claim(OTHER, 1)),
            ("our journal", Lane::Journal, log.ours(FencedBody::Journal(Vec::new()))),
            ("our document", Lane::Document, log.ours(FencedBody::Document(Vec::new()))),
            ("our runtime output", Lane::Runtime, log.ours(runtime())),
            ("our open of a run", Lane::Run(run()), log.ours(FencedBody::Run(open(1, 0)))),
            ("our end of a run never begun", Lane::Run(run()), log.ours(FencedBody::Run(end(0, 0)))),
            ("our journal on the document", Lane::Document, log.ours(FencedBody::Journal(Vec::new()))),
            ("our runtime output on a run", Lane::Run(run()), log.ours(runtime())),
            ("our run on the control lane", Lane::Control, log.ours(FencedBody::Run(open(1, 0)))),
            ("request", Lane::Requests, Record::Request(Request::Interrupt)),
            ("request on the journal", Lane::Journal, Record::Request(Request::Interrupt)),
            ("unknown kind", Lane::Journal, Record::Unknown { kind: 99 }),
        ]
    });
    insta::assert_snapshot!(table);
}

/// How far a run is, in a session that is ours.
fn progress() -> Vec<(&'static str, Log)> {
    let after = |records: &[RunRecord]| {
        let mut log = Log::default();
        let claim = log.claim(OURS, 1);
        log.push(Lane::Control, claim);
        for record in records {
            let record = log.ours(FencedBody::Run(record.clone()));
            assert!(matches!(log.push(Lane::Run(run()), record), Verdict::Counted(_)));
        }
        log
    };
    vec![
        ("not begun", after(&[])),
        ("attempt 1, nothing written", after(&[open(1, 0)])),
        ("attempt 1, 3 chunks", after(&[open(1, 0), data(1, 1, 3)])),
        ("attempt 1, 3 chunks, checkpoint 2", after(&[open(1, 0), data(1, 1, 3), checkpoint(1, 2)])),
        ("attempt 2 from 1, 3 chunks", after(&[open(1, 0), data(1, 1, 2), open(2, 1), data(2, 2, 2)])),
        ("ended in attempt 1 at 3", after(&[open(1, 0), data(1, 1, 3), end(1, 3)])),
        ("ended, never begun", after(&[end(0, 0)])),
    ]
}

#[test]
fn what_counts_in_a_run() {
    let table = table(&progress(), |log| {
        let on_run = |(what, record)| (what, Lane::Run(run()), log.ours(FencedBody::Run(record)));
        [
            ("open 1 from 0", open(1, 0)),
            ("open 2 from 0", open(2, 0)),
            ("open 2 from 3", open(2, 3)),
            ("open 2 from 4", open(2, 4)),
            ("open 3 from 0", open(3, 0)),
            ("data 1 at 1, 1 chunk", data(1, 1, 1)),
            ("data 1 at 3, 2 chunks", data(1, 3, 2)),
            ("data 1 at 4, 1 chunk", data(1, 4, 1)),
            ("data 1 at 4, empty", data(1, 4, 0)),
            ("data 1 at 5, 1 chunk", data(1, 5, 1)),
            ("data 2 at 4, 1 chunk", data(2, 4, 1)),
            ("data 0 at 1, 1 chunk", data(0, 1, 1)),
            ("checkpoint 1 at 1", checkpoint(1, 1)),
            ("checkpoint 1 at 3", checkpoint(1, 3)),
            ("checkpoint 1 at 4", checkpoint(1, 4)),
            ("checkpoint 2 at 3", checkpoint(2, 3)),
            ("note", RunRecord::Note { text: "a remark".to_owned() }),
            ("end 0 at 0", end(0, 0)),
            ("end 1 at 0", end(1, 0)),
            ("end 1 at 3", end(1, 3)),
            ("end 1 at 4", end(1, 4)),
            ("end 2 at 3", end(2, 3)),
        ]
        .map(on_run)
        .into()
    });
    insta::assert_snapshot!(table);
}
