//! Records for the checks.

use outlive_core::id::SessionId;
use outlive_core::id::{
    Attempt, BootId, Epoch, Incarnation, NodeId, Position, ProcessKey, RunId, RuntimeId, Seq, Src,
};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{
    Chunk, ChunkKind, Control, Fenced, FencedBody, Lane, Record, Request, RunRecord, Source,
};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use uuid::Uuid;

pub(super) fn session() -> SessionId {
    SessionId::from_uuid(Uuid::new_v4())
}

pub(super) fn run() -> RunId {
    RunId::from_uuid(Uuid::new_v4())
}

pub(super) fn claim(prev: Position, epoch: u64) -> Record {
    let node = NodeId::from_uuid(Uuid::new_v4());
    let boot = BootId::from_uuid(Uuid::new_v4());
    Record::Control(Control { prev, change: ControlChange::Claim { epoch: Epoch(epoch), node, boot } })
}

pub(super) fn release(claim: Position) -> Record {
    Record::Control(Control { prev: claim, change: ControlChange::Release { claim, to: None } })
}

pub(super) fn fenced(claim: Position, body: FencedBody) -> Record {
    Record::Fenced(Fenced { claim, source: None, body })
}

pub(super) fn journal(claim: Position) -> Record {
    fenced(claim, FencedBody::Journal(Vec::new()))
}

pub(super) fn document(claim: Position, bytes: Vec<u8>) -> Record {
    fenced(claim, FencedBody::Document(bytes))
}

pub(super) fn open(claim: Position, attempt: u64) -> Record {
    let open = RunRecord::Open { attempt: Attempt(attempt), base: Seq(0), at: WallTime(7) };
    fenced(claim, FencedBody::Run(open))
}

pub(super) fn data(claim: Position, first: u64, text: &str) -> Record {
    let chunks = vec![Chunk::inline(ChunkKind::Stdout, WallTime(first), text.as_bytes())];
    fenced(claim, FencedBody::Run(RunRecord::Data { attempt: Attempt(1), first: Seq(first), chunks }))
}

pub(super) fn end(claim: Position, last_seq: u64) -> Record {
    fenced(
        claim,
        FencedBody::Run(RunRecord::End {
            attempt: Attempt(1),
            outcome: RunOutcome::Succeeded,
            last_seq: Seq(last_seq),
            report: None,
            execution_count: Some(3),
            at: WallTime(9),
        }),
    )
}

/// A record for each fenced lane and for requests.
pub(super) fn one_of_each(claim: Position, run: RunId) -> Vec<(Lane, Record)> {
    let process = ProcessKey { runtime: RuntimeId::from_uuid(Uuid::new_v4()), incarnation: Incarnation(2) };
    let chunks = vec![
        Chunk::inline(ChunkKind::Stderr, WallTime(1), &b"\xff not UTF-8"[..]),
        Chunk::inline(ChunkKind::Gap, WallTime(2), &b""[..]),
    ];
    let with_source = Fenced {
        claim,
        source: Some(Source { process, through: Src(17) }),
        body: FencedBody::Runtime { process, origin: Some(run), chunks },
    };
    let checkpoint = RunRecord::Checkpoint { attempt: Attempt(1), seq: Seq(1), blob: None };
    vec![
        (Lane::Journal, journal(claim)),
        (Lane::Document, document(claim, vec![0, 1, 2, 255])),
        (Lane::Run(run), open(claim, 1)),
        (Lane::Run(run), data(claim, 1, "one\n")),
        (Lane::Run(run), fenced(claim, FencedBody::Run(checkpoint))),
        (Lane::Run(run), fenced(claim, FencedBody::Run(RunRecord::Note { text: "note".into() }))),
        (Lane::Run(run), end(claim, 1)),
        (Lane::Runtime, Record::Fenced(with_source)),
        (Lane::Requests, Record::Request(Request::Cancel { run })),
    ]
}
