//! The bytes on disk and on the wire, both ways. `golden/*.txt` is append-only: what was once written must be read.
//!
//! A line is `name hexadecimal`. Of each name the last line is what is written today; every line must be read. When
//! an encoding changes on purpose, `OUTLIVE_GOLDEN=append cargo test -p outlive-protocol --test golden` appends it.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use outlive_core::diagnosis::evidence::StallEvidence;
use outlive_core::failover::{Member, TakenWhy, Takeover};
use outlive_core::group::event::{GroupEvent, RunnerLost};
use outlive_core::id::{Attempt, Epoch, Incarnation, Position, ProcessKey, Seq, Src};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{
    BlobRef, Chunk, ChunkKind, Control, Fenced, FencedBody, Payload, Record, Request, RunRecord, Source,
};
use outlive_core::runtime::runner::{Greeting, Phase, Progress, Replay, Saved, TaskOrder};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::WallTime;
use outlive_protocol::frame::{self, Frame};
use outlive_protocol::log::{decode, encode};
use outlive_protocol::shim::{
    FromShim, Notice, Numbered, OpenQuestion, ShimIdentity, StateNotice, ToShim, Welcome,
};
use outlive_protocol::shim_codec::{decode_from_shim, decode_to_shim, encode_from_shim, encode_to_shim};
use serde_json::json;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const OTHER: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn process() -> ProcessKey {
    ProcessKey { runtime: ID.parse().unwrap(), incarnation: Incarnation(3) }
}

fn chunks() -> Vec<Chunk> {
    vec![
        Chunk::inline(ChunkKind::Stdout, WallTime(1_000), &b"h\xc3\xa9llo\n"[..]),
        Chunk {
            kind: ChunkKind::DisplayData,
            at: WallTime(1_001),
            payload: Payload::Blob(BlobRef {
                sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
                size: 300_000,
                mime: "application/json".into(),
            }),
        },
        Chunk::inline(ChunkKind::Stderr, WallTime(1_002), &b"\xff\x00"[..]),
    ]
}

fn fenced(body: FencedBody) -> Record {
    Record::Fenced(Fenced { claim: Position(41), source: None, body })
}

fn records() -> Vec<(&'static str, Record)> {
    let control = |change| Record::Control(Control { prev: Position(40), change });
    let run = |record| fenced(FencedBody::Run(record));
    let source = Some(Source { process: process(), through: Src(17) });
    let (node, boot) = (OTHER.parse().unwrap(), ID.parse().unwrap());
    let data = RunRecord::Data { attempt: Attempt(2), first: Seq(5), chunks: chunks() };
    let data = Record::Fenced(Fenced { claim: Position(41), source, body: FencedBody::Run(data) });
    let event = SessionEvent { at: WallTime(7), what: Happened::RuntimeReady(process()) };
    let journal = |what| fenced(FencedBody::Journal(vec![SessionEvent { at: WallTime(7), what }]));
    let member = |id: &str| Member { node: id.parse().unwrap(), boot: id.parse().unwrap() };
    let takeover = Takeover {
        from: member(ID),
        from_name: "one".into(),
        to: member(OTHER),
        to_name: "two".into(),
        epoch: Epoch(3),
        why: TakenWhy::Silent,
        last_heard: Some(WallTime(5)),
        noticed_at: WallTime(6),
        claimed_at: WallTime(7),
        resumed_at: WallTime(8),
        resumed: vec!["its runners, anew: llm-0".into()],
    };
    let again = GroupEvent::TaskWaitsAgain { run: ID.parse().unwrap(), lost: RunnerLost::WithNode };
    let end = |outcome, execution_count| {
        let (attempt, last_seq, at) = (Attempt(2), Seq(7), WallTime(9));
        run(RunRecord::End { attempt, outcome, last_seq, report: None, execution_count, at })
    };
    let origin = Some(OTHER.parse().unwrap());
    vec![
        ("taken-over", journal(Happened::TakenOver(Box::new(takeover)))),
        ("hand-over", journal(Happened::HandOverAsked { grace_ms: 5_000 })),
        ("run-waits-again", journal(Happened::RunWaitsAgain { run: ID.parse().unwrap() })),
        ("task-waits-again", journal(Happened::Group(again))),
        ("claim", control(ControlChange::Claim { epoch: Epoch(2), node, boot })),
        (
            "release",
            control(ControlChange::Release { claim: Position(40), to: Some(OTHER.parse().unwrap()) }),
        ),
        ("close", control(ControlChange::Close { claim: Position(40) })),
        ("request-cancel", Record::Request(Request::Cancel { run: ID.parse().unwrap() })),
        ("request-interrupt", Record::Request(Request::Interrupt)),
        (
            "request-input",
            Record::Request(Request::Input { run: ID.parse().unwrap(), value: "yes\n".into() }),
        ),
        ("journal", fenced(FencedBody::Journal(vec![event]))),
        ("document", fenced(FencedBody::Document(vec![0, 1, 0xfe]))),
        ("run-open", run(RunRecord::Open { attempt: Attempt(2), base: Seq(4), at: WallTime(8) })),
        ("run-data", data),
        ("run-checkpoint", run(RunRecord::Checkpoint { attempt: Attempt(2), seq: Seq(6), blob: None })),
        ("run-note", run(RunRecord::Note { text: "moved".into() })),
        ("run-end", end(RunOutcome::Succeeded, Some(12))),
        ("run-end-raised", end(RunOutcome::Raised { ename: "KeyError".into(), evalue: "'x'".into() }, None)),
        ("run-end-cancelled", end(RunOutcome::Cancelled { why: CancelWhy::EarlierFailure }, None)),
        ("runtime", fenced(FencedBody::Runtime { process: process(), origin, chunks: chunks() })),
    ]
}

fn messages_to_shim() -> Vec<(&'static str, ToShim)> {
    let (session, boot, run) = (OTHER.parse().unwrap(), ID.parse().unwrap(), ID.parse().unwrap());
    let code = "print('h\u{e9}')".to_owned();
    let run_again = ID.parse().unwrap();
    let replay = Some(Replay { chunks: 12, sha256: "ab".repeat(32) });
    let replayed = TaskOrder { replay, ..task_order() };
    vec![
        ("hello", ToShim::Hello { version: 1, session, process: process(), boot, acked: Src(4) }),
        ("ack", ToShim::Ack { through: Src(5) }),
        ("execute", ToShim::Execute { run, attempt: Attempt(1), code, allow_stdin: true, silent: false }),
        ("interrupt", ToShim::Interrupt),
        ("input", ToShim::Input { run: run_again, value: "42".into() }),
        ("stop", ToShim::Stop { why: StopWhy::User, from: StopStep::Ask }),
        ("goodbye", ToShim::Goodbye),
        ("refuse", ToShim::Refuse { reason: "unknown".into() }),
        ("task", ToShim::Task { run, attempt: Attempt(2), order: task_order() }),
        ("cancel-task", ToShim::CancelTask { run, attempt: Attempt(2) }),
        ("task-replayed", ToShim::Task { run, attempt: Attempt(2), order: replayed }),
        ("freeze", ToShim::Freeze),
        ("thaw", ToShim::Thaw),
        ("beat", ToShim::Beat),
    ]
}

fn task_order() -> TaskOrder {
    let checkpoint = Some(Saved { seq: Seq(41), file: "/var/lib/outlive/blobs/ba78".into() });
    TaskOrder {
        task: "generate".into(),
        input: json!({"prompt": "h\u{e9}"}),
        key: "k-1".into(),
        checkpoint,
        replay: None,
    }
}

fn notices_of_runners() -> Vec<(&'static str, StateNotice)> {
    let (run, attempt) = (ID.parse().unwrap(), Attempt(2));
    let greeting = Greeting {
        tasks: ["chat".into(), "embed".into()].into(),
        capabilities: ["chat".into()].into(),
        concurrency: 4,
        exact: BTreeSet::new(),
        sdk: Some("outlive-python 0.1.0".into()),
    };
    let exact = Greeting { exact: ["embed".into()].into(), sdk: None, ..greeting.clone() };
    let progress = Progress { done: Some(1.5), total: Some(3.0), message: Some("shard 2".into()) };
    let blob = BlobRef { sha256: "ab".repeat(32), size: 12, mime: "application/json".into() };
    let stall = StallEvidence { phase: "first chunk".into(), silent_ms: 300_004, limit_ms: 300_000 };
    vec![
        ("greeted", StateNotice::Greeted { greeting }),
        ("greeted-exact", StateNotice::Greeted { greeting: exact }),
        ("frozen", StateNotice::Frozen { by_guard: true }),
        ("thawed", StateNotice::Thawed),
        ("entered", StateNotice::Entered { phase: Phase::Loading, progress }),
        ("entered-ready", StateNotice::Entered { phase: Phase::Ready, progress: Progress::default() }),
        ("checkpointed", StateNotice::Checkpointed { run, attempt, blob }),
        ("stalled", StateNotice::Stalled { stall, run: Some(run) }),
        ("violated", StateNotice::Violated { what: "a second `hello`".into(), is_fatal: false }),
    ]
}

fn messages_from_shim() -> Vec<(&'static str, FromShim)> {
    let numbered = |notice| FromShim::Record(Numbered { src: Src(9), at: WallTime(77), notice });
    let identity = ShimIdentity {
        session: OTHER.parse().unwrap(),
        process: process(),
        node: ID.parse().unwrap(),
        machine_boot: "3a2e7d5c".into(),
        shim_pid: 4711,
        shim_start: 123_456,
        pid: Some(4712),
        pid_start: Some(123_457),
        cgroups: vec!["/sys/fs/cgroup/outlive/x".into()],
    };
    let open_runs = vec![(ID.parse().unwrap(), Attempt(1))];
    let run = ID.parse().unwrap();
    let finished = StateNotice::RunFinished {
        run,
        attempt: Attempt(1),
        outcome: RunOutcome::Succeeded,
        execution_count: Some(3),
    };
    let asks = OpenQuestion { src: Src(7), run, prompt: "name? ".into(), password: true };
    let asking = Welcome {
        version: 1,
        identity: identity.clone(),
        open_runs: Vec::new(),
        last_src: Src(8),
        asks: Some(asks),
        frozen: false,
    };
    let frozen = Welcome { frozen: true, version: 2, ..asking.clone() };
    let of_runners = notices_of_runners();
    let of_runners = of_runners.into_iter().map(|(name, state)| (name, numbered(Notice::State(state))));
    let mut messages = vec![
        (
            "welcome",
            FromShim::Welcome(Welcome {
                version: 1,
                identity,
                open_runs,
                last_src: Src(8),
                asks: None,
                frozen: false,
            }),
        ),
        ("welcome-asking", FromShim::Welcome(asking)),
        ("welcome-frozen", FromShim::Welcome(frozen)),
        ("wrong", FromShim::Wrong { reason: "another session".into() }),
        ("output", numbered(Notice::Output { run: Some(run), chunks: chunks() })),
        ("output-of-nobody", numbered(Notice::Output { run: None, chunks: Vec::new() })),
        ("spawned", numbered(Notice::State(StateNotice::Spawned { pid: 4712, pid_start: 99 }))),
        ("finished", numbered(Notice::State(finished))),
        ("gap", numbered(Notice::State(StateNotice::Gap { since: Src(8), reason: "spool full".into() }))),
    ];
    messages.extend(of_runners);
    messages
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Holds `samples` to a file of golden bytes.
fn check<T: PartialEq + Debug>(
    file: &str,
    samples: &[(&str, T)],
    write: impl Fn(&T) -> Vec<u8>,
    read: impl Fn(&Frame) -> T,
) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    for (name, sample) in samples {
        let today = hex(&write(sample));
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{name} "))).collect();
        if lines.last() == Some(&&today[..]) {
            continue;
        }
        assert!(
            std::env::var_os("OUTLIVE_GOLDEN").is_some(),
            "{name} is written in new bytes: see this file's top"
        );
        text.push_str(&format!("{name} {today}\n"));
    }
    if std::env::var_os("OUTLIVE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    for line in text.lines() {
        let (name, bytes) = line.split_once(' ').unwrap();
        let bytes = unhex(bytes);
        let found = frame::split(&bytes).unwrap().unwrap();
        let value = read(&Frame { kind: found.kind, flags: found.flags, body: found.body.to_vec().into() });
        let (_, sample) =
            samples.iter().find(|(sample, _)| *sample == name).expect("a name is never taken away");
        assert_eq!(&value, sample, "{name}");
    }
}

#[test]
fn log_records() {
    let write = |record: &Record| {
        let encoded = encode(record).unwrap();
        frame::encode(encoded.kind, 0, &[&encoded.body]).unwrap()
    };
    check("log.txt", &records(), write, |frame| decode(frame.kind, &frame.body).unwrap());
}

#[test]
fn messages_between_daemon_and_shim() {
    check(
        "to_shim.txt",
        &messages_to_shim(),
        |message| encode_to_shim(message).unwrap(),
        |frame| decode_to_shim(frame).unwrap().unwrap(),
    );
    check(
        "from_shim.txt",
        &messages_from_shim(),
        |message| encode_from_shim(message).unwrap(),
        |frame| decode_from_shim(frame).unwrap().unwrap(),
    );
}
