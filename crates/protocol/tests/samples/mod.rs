//! Arbitrary records and messages.

use outlive_core::diagnosis::evidence::{HangEvidence, StallEvidence};
use outlive_core::id::{
    Attempt, BootId, Epoch, Incarnation, NodeId, Position, ProcessKey, RunId, RuntimeId, Seq, SessionId, Src,
};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{
    BlobRef, Chunk, ChunkKind, Control, Fenced, FencedBody, Payload, Record, Request, RunRecord, Source,
};
use outlive_core::runtime::runner::{Greeting, Phase, Progress, TaskOrder};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::WallTime;
use outlive_protocol::shim::{
    FromShim, Notice, Numbered, OpenQuestion, ShimIdentity, StateNotice, ToShim, Welcome,
};
use proptest::prelude::*;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn position() -> impl Strategy<Value = Position> {
    any::<u64>().prop_map(Position)
}

fn run() -> impl Strategy<Value = RunId> {
    uuid().prop_map(RunId::from_uuid)
}

fn process() -> impl Strategy<Value = ProcessKey> {
    (uuid(), any::<u64>()).prop_map(|(runtime, n)| ProcessKey {
        runtime: RuntimeId::from_uuid(runtime),
        incarnation: Incarnation(n),
    })
}

fn blob() -> impl Strategy<Value = BlobRef> {
    (any::<u64>(), ".*").prop_map(|(size, mime)| BlobRef { sha256: "ab".repeat(32), size, mime })
}

pub fn chunk() -> impl Strategy<Value = Chunk> {
    let kind = prop::sample::select(vec![
        ChunkKind::Stdout,
        ChunkKind::Stderr,
        ChunkKind::DisplayData,
        ChunkKind::UpdateDisplayData,
        ChunkKind::ExecuteResult,
        ChunkKind::Error,
        ChunkKind::ClearOutput,
        ChunkKind::Started,
        ChunkKind::InputRequest,
        ChunkKind::Text,
        ChunkKind::Json,
        ChunkKind::Bytes,
        ChunkKind::Progress,
        ChunkKind::Result,
        ChunkKind::Gap,
        ChunkKind::Other,
    ]);
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Payload::Inline(bytes.into())),
        blob().prop_map(Payload::Blob),
    ];
    (kind, any::<u64>(), payload).prop_map(|(kind, at, payload)| Chunk { kind, at: WallTime(at), payload })
}

fn outcome() -> impl Strategy<Value = RunOutcome> {
    prop_oneof![
        Just(RunOutcome::Succeeded),
        (".*", ".*").prop_map(|(ename, evalue)| RunOutcome::Raised { ename, evalue }),
        any::<u64>().prop_map(|limit_ms| RunOutcome::TimedOut { limit_ms }),
        Just(RunOutcome::Cancelled { why: CancelWhy::User }),
    ]
}

fn control() -> impl Strategy<Value = Record> {
    let change = prop_oneof![
        (any::<u64>(), uuid(), uuid()).prop_map(|(epoch, node, boot)| ControlChange::Claim {
            epoch: Epoch(epoch),
            node: NodeId::from_uuid(node),
            boot: BootId::from_uuid(boot),
        }),
        (position(), proptest::option::of(uuid()))
            .prop_map(|(claim, to)| ControlChange::Release { claim, to: to.map(NodeId::from_uuid) }),
        position().prop_map(|claim| ControlChange::Close { claim }),
    ];
    (position(), change).prop_map(|(prev, change)| Record::Control(Control { prev, change }))
}

fn run_record() -> impl Strategy<Value = RunRecord> {
    let attempt = || any::<u64>().prop_map(Attempt);
    let seq = || any::<u64>().prop_map(Seq);
    let at = || any::<u64>().prop_map(WallTime);
    let count = proptest::option::of(any::<u32>());
    prop_oneof![
        (attempt(), seq(), at()).prop_map(|(attempt, base, at)| RunRecord::Open { attempt, base, at }),
        (attempt(), seq(), proptest::collection::vec(chunk(), 0..5))
            .prop_map(|(attempt, first, chunks)| RunRecord::Data { attempt, first, chunks }),
        (attempt(), seq(), proptest::option::of(blob()))
            .prop_map(|(attempt, seq, blob)| RunRecord::Checkpoint { attempt, seq, blob }),
        ".*".prop_map(|text| RunRecord::Note { text }),
        (attempt(), outcome(), seq(), count, at()).prop_map(
            |(attempt, outcome, last_seq, execution_count, at)| {
                RunRecord::End { attempt, outcome, last_seq, report: None, execution_count, at }
            }
        ),
    ]
}

fn fenced() -> impl Strategy<Value = Record> {
    let event = (any::<u64>(), process())
        .prop_map(|(at, process)| SessionEvent { at: WallTime(at), what: Happened::RuntimeReady(process) });
    let body = prop_oneof![
        proptest::collection::vec(event, 0..3).prop_map(FencedBody::Journal),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(FencedBody::Document),
        run_record().prop_map(FencedBody::Run),
        (process(), proptest::option::of(run()), proptest::collection::vec(chunk(), 0..5))
            .prop_map(|(process, origin, chunks)| FencedBody::Runtime { process, origin, chunks }),
    ];
    let source = (process(), any::<u64>()).prop_map(|(process, n)| Source { process, through: Src(n) });
    (position(), proptest::option::of(source), body)
        .prop_map(|(claim, source, body)| Record::Fenced(Fenced { claim, source, body }))
}

pub fn record() -> impl Strategy<Value = Record> {
    let request = prop_oneof![
        run().prop_map(|run| Request::Cancel { run }),
        Just(Request::Interrupt),
        (run(), ".*").prop_map(|(run, value)| Request::Input { run, value }),
    ];
    prop_oneof![1 => control(), 4 => fenced(), 1 => request.prop_map(Record::Request)]
}

pub fn to_shim() -> impl Strategy<Value = ToShim> {
    let hello = (any::<u16>(), uuid(), process(), uuid(), any::<u64>()).prop_map(
        |(version, s, process, b, acked)| {
            let (session, boot) = (SessionId::from_uuid(s), BootId::from_uuid(b));
            ToShim::Hello { version, session, process, boot, acked: Src(acked) }
        },
    );
    prop_oneof![
        hello,
        any::<u64>().prop_map(|through| ToShim::Ack { through: Src(through) }),
        (run(), any::<u64>(), ".*", any::<bool>(), any::<bool>()).prop_map(
            |(run, attempt, code, allow_stdin, silent)| ToShim::Execute {
                run,
                attempt: Attempt(attempt),
                code,
                allow_stdin,
                silent
            }
        ),
        Just(ToShim::Interrupt),
        (run(), ".*").prop_map(|(run, value)| ToShim::Input { run, value }),
        Just(ToShim::Stop { why: StopWhy::Eviction, from: StopStep::Term }),
        Just(ToShim::Goodbye),
        Just(ToShim::Freeze),
        Just(ToShim::Thaw),
        Just(ToShim::Beat),
        ".*".prop_map(|reason| ToShim::Refuse { reason }),
        (run(), ".*", ".*").prop_map(|(run, task, key)| {
            let order = TaskOrder {
                task,
                input: serde_json::json!([1, { "x": null }]),
                key,
                checkpoint: None,
                replay: None,
            };
            ToShim::Task { run, attempt: Attempt(3), order }
        }),
        run().prop_map(|run| ToShim::CancelTask { run, attempt: Attempt(3) }),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let identity =
        (uuid(), process(), uuid(), any::<i32>(), any::<u64>()).prop_map(|(s, process, n, pid, start)| {
            ShimIdentity {
                session: SessionId::from_uuid(s),
                process,
                node: NodeId::from_uuid(n),
                machine_boot: "3f0c".into(),
                shim_pid: pid,
                shim_start: start,
                pid: Some(pid),
                pid_start: None,
                cgroups: vec!["/sys/fs/cgroup/outlive".into()],
            }
        });
    let asks = (any::<u64>(), run(), ".*", any::<bool>())
        .prop_map(|(n, run, prompt, password)| OpenQuestion { src: Src(n), run, prompt, password });
    let runs = proptest::collection::vec((run(), any::<u64>()), 0..3);
    (identity, runs, any::<u64>(), proptest::option::of(asks)).prop_map(|(identity, runs, n, asks)| Welcome {
        version: 1,
        identity,
        open_runs: runs.into_iter().map(|(run, n)| (run, Attempt(n))).collect(),
        last_src: Src(n),
        asks,
        frozen: n % 2 == 1,
    })
}

pub fn from_shim() -> impl Strategy<Value = FromShim> {
    let state = prop_oneof![
        (any::<i32>(), any::<u64>()).prop_map(|(pid, pid_start)| StateNotice::Spawned { pid, pid_start }),
        ".*".prop_map(|banner| StateNotice::Ready { kernel_info: serde_json::json!({ "banner": banner }) }),
        (run(), any::<u64>()).prop_map(|(run, n)| StateNotice::RunStarted { run, attempt: Attempt(n) }),
        (run(), outcome()).prop_map(|(run, outcome)| StateNotice::RunFinished {
            run,
            attempt: Attempt(1),
            outcome,
            execution_count: Some(2)
        }),
        Just(StateNotice::Unresponsive { hang: HangEvidence::default() }),
        Just(StateNotice::Responsive),
        (any::<u64>(), ".*").prop_map(|(n, reason)| StateNotice::Gap { since: Src(n), reason }),
        proptest::collection::btree_set(".*", 0..3).prop_map(|tasks| StateNotice::Greeted {
            greeting: Greeting { tasks, concurrency: 1, ..Greeting::default() }
        }),
        proptest::option::of(".*").prop_map(|message| StateNotice::Entered {
            phase: Phase::Loading,
            progress: Progress { done: Some(0.1), total: None, message }
        }),
        (run(), blob()).prop_map(|(run, blob)| StateNotice::Checkpointed { run, attempt: Attempt(1), blob }),
        proptest::option::of(run())
            .prop_map(|run| StateNotice::Stalled { stall: StallEvidence::default(), run }),
        (".*", any::<bool>()).prop_map(|(what, is_fatal)| StateNotice::Violated { what, is_fatal }),
    ];
    let notice = prop_oneof![
        (proptest::option::of(run()), proptest::collection::vec(chunk(), 0..4))
            .prop_map(|(run, chunks)| Notice::Output { run, chunks }),
        state.prop_map(Notice::State),
    ];
    let record = (any::<u64>(), any::<u64>(), notice)
        .prop_map(|(src, at, notice)| FromShim::Record(Numbered { src: Src(src), at: WallTime(at), notice }));
    prop_oneof![
        1 => welcome().prop_map(FromShim::Welcome),
        1 => ".*".prop_map(|reason| FromShim::Wrong { reason }),
        5 => record,
    ]
}
