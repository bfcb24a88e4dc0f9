//! Copies that are interrupted, repeated, and held against what they are copies of.

use outlive_core::id::{Attempt, BootId, Epoch, NodeId, RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind, Request, RunRecord};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_store::{Embedded, Fault, Faulty, Memory, Operation};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::session::notebook_record::Snapshot;

fn id(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

const SESSION: u128 = 7;

fn node() -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(1))
}

fn run() -> RunId {
    RunId::from_uuid(Uuid::from_u128(9))
}

/// Writes as an owner does.
struct Writer<'a> {
    engine: &'a dyn Engine,
    claim: Position,
    control: Position,
}

impl Writer<'_> {
    async fn control(&mut self, change: ControlChange) -> Position {
        let record = Record::Control(Control { prev: self.control, change });
        let guard = Guard::Previous(self.control);
        self.control =
            self.engine.append(id(SESSION), Lane::Control, guard, &record, Durability::Synced).await.unwrap();
        self.control
    }

    async fn claim(&mut self, epoch: u64) {
        let boot = BootId::from_uuid(Uuid::from_u128(u128::from(epoch)));
        self.claim = self.control(ControlChange::Claim { epoch: Epoch(epoch), node: node(), boot }).await;
    }

    async fn fenced(&self, lane: Lane, body: FencedBody) -> Position {
        let record = Record::Fenced(Fenced { claim: self.claim, source: None, body });
        let guard = Guard::Claim(self.control);
        self.engine.append(id(SESSION), lane, guard, &record, Durability::Written).await.unwrap()
    }

    async fn output(&self, attempt: u64, first: u64, text: &str) -> Position {
        let chunks = vec![Chunk::inline(ChunkKind::Stdout, WallTime(1), text.as_bytes())];
        let data = RunRecord::Data { attempt: Attempt(attempt), first: Seq(first), chunks };
        self.fenced(Lane::Run(run()), FencedBody::Run(data)).await
    }

    async fn open(&self, attempt: u64, base: u64) {
        let open = RunRecord::Open { attempt: Attempt(attempt), base: Seq(base), at: WallTime(1) };
        self.fenced(Lane::Run(run()), FencedBody::Run(open)).await;
    }
}

/// A session with two owners, a run that was begun again, a snapshot, a wish and its row.
async fn filled(engine: &dyn Engine, presence: &str, lose: impl Fn(Position)) -> Position {
    let mut writer = Writer { engine, claim: Position(0), control: Position(0) };
    writer.claim(1).await;
    writer.open(1, 0).await;
    let last = writer.output(1, 1, "a").await;
    // Positions are not given out again, so that those behind are others in a copy.
    writer.output(1, 2, "lost").await;
    writer.output(1, 3, "lost").await;
    lose(last);
    writer.claim(2).await;
    writer.open(2, 1).await;
    let last = writer.output(2, 2, "b").await;
    let blob = engine.put_blob_bytes(id(SESSION), b"a notebook", "application/json").await.unwrap();
    let mut snapshot = Snapshot::first(blob, None);
    snapshot.through = last;
    let snapshot = DocumentRecord::Snapshot(Box::new(snapshot)).encode();
    writer.fenced(Lane::Document, FencedBody::Document(snapshot)).await;
    let wish = Record::Request(Request::Cancel { run: run() });
    engine.append(id(SESSION), Lane::Requests, Guard::None, &wish, Durability::Written).await.unwrap();
    let end = RunRecord::End {
        attempt: Attempt(2),
        outcome: RunOutcome::TimedOut { limit_ms: 1 },
        last_seq: Seq(2),
        report: None,
        execution_count: None,
        at: WallTime(2),
    };
    let last = writer.fenced(Lane::Run(run()), FencedBody::Run(end)).await;
    let runtime = json!({"id": Uuid::nil(), "incarnation": 0, "name": "k", "state": {"state": "down"}, "pid": null, "since": 0});
    let none = json!({"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0});
    let row = json!({"presence": presence, "view": {
        "id": id(SESSION), "generation": 1, "position": last, "title": "t", "kind": "notebook", "path": "/a.ipynb",
        "created_at": 1, "closed_at": null, "state": "idle", "runtime": runtime, "runs": none, "current": null,
        "question": null, "last_report": null, "save_problem": null, "peers": 0,
    }});
    let row = serde_json::to_vec(&row).unwrap();
    engine.put_if(SESSIONS, &id(SESSION).to_string(), Revision(0), &row).await.unwrap();
    engine.put_if("trust", "key", Revision(0), b"").await.unwrap();
    last
}

async fn all(engine: &dyn Engine) -> Vec<Entry> {
    let mut reader = Reader::new(engine, id(SESSION), "new");
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().await.unwrap() {
        entries.push(entry);
    }
    entries
}

fn fold(entries: &[Entry]) -> Fold {
    let mut fold = Fold::default();
    for entry in entries {
        fold.push(entry);
    }
    fold
}

async fn old() -> Memory {
    let old = Memory::default();
    filled(&old, "dormant", |last| old.lose_behind(id(SESSION), last)).await;
    old
}

#[tokio::test]
async fn a_copy_means_what_the_original_means() {
    let (old, new) = (old().await, Memory::default());
    let moved = session(&old, &new, id(SESSION)).await.unwrap();
    let (before, mut after) = (all(&old).await, all(&new).await);
    assert_eq!((moved.records, moved.written, moved.is_new), (9, 9, true));
    assert_ne!(before.last().unwrap().position, after[8].position, "the positions are other ones");
    let (was, is) = (fold(&before), fold(&after[..9]));
    assert_eq!(was.run(run()), is.run(run()));
    assert_eq!((was.epoch(), is.claim().unwrap().epoch), (Epoch(2), Epoch(2)));
    let offered = after.pop().unwrap();
    assert_eq!((after.len(), offered.lane), (9, Lane::Control));
    after.push(offered);
    assert_eq!(fold(&after).ownership(), Ownership::Released { to: None });
    // The snapshot goes as far as it went.
    let Record::Fenced(Fenced { body: FencedBody::Document(bytes), .. }) = &after[6].record else {
        panic!("{:?}", after[6])
    };
    let Some(DocumentRecord::Snapshot(snapshot)) = DocumentRecord::decode(bytes) else { panic!("{bytes:?}") };
    assert_eq!(snapshot.through, after[5].position);
    let row = new.get(SESSIONS, &id(SESSION).to_string()).await.unwrap().expect("its row");
    let row: Indexed = serde_json::from_slice(&row.value).unwrap();
    assert_eq!(row.view.position, after[8].position);
    assert_eq!(tables(&old, &new).await.unwrap(), 1);
    assert!(new.get("trust", "key").await.unwrap().is_some());
}

#[tokio::test]
async fn a_second_time_changes_nothing_also_when_the_session_has_gone_on() {
    let (old, new) = (old().await, Memory::default());
    session(&old, &new, id(SESSION)).await.unwrap();
    let mut writer = Writer { engine: &new, claim: Position(0), control: all(&new).await[9].position };
    writer.claim(3).await;
    let there = all(&new).await;
    let again = session(&old, &new, id(SESSION)).await.unwrap();
    assert!(!again.is_new);
    assert_eq!(all(&new).await, there);
    assert_eq!(tables(&old, &new).await.unwrap() + tables(&old, &new).await.unwrap(), 1);
}

#[tokio::test]
async fn an_interrupted_copy_is_completed() {
    let old = old().await;
    for (nth, fault) in
        (0..10).flat_map(|nth| [(nth, Fault::LostAck), (nth, Fault::LostRequest), (nth, Fault::Unavailable)])
    {
        let memory = Memory::default();
        let mut appended = 0;
        let new = Faulty::new(memory.clone(), move |operation| {
            let Operation::Append { .. } = operation else { return Fault::None };
            appended += 1;
            if appended == nth + 1 { fault } else { Fault::None }
        });
        let moved = session(&old, &new, id(SESSION)).await;
        let moved = moved.unwrap_or_else(|error| panic!("{nth} {fault:?}: {error}"));
        assert_eq!((all(&memory).await.len(), moved.records), (10, 9), "{nth} {fault:?}");
    }
    // A store that takes nothing any more is an error, and the next try completes what is there.
    let memory = Memory::default();
    let mut appended = 0;
    let stuck = Faulty::new(memory.clone(), move |operation| {
        let Operation::Append { .. } = operation else { return Fault::None };
        appended += 1;
        if appended > 4 { Fault::Unavailable } else { Fault::None }
    });
    let error = session(&old, &stuck, id(SESSION)).await.unwrap_err();
    assert!(matches!(error, MoveError::Append { number: 5, .. }), "{error}");
    let moved = session(&old, &memory, id(SESSION)).await.unwrap();
    assert_eq!((moved.records, moved.written, all(&memory).await.len()), (9, 5, 10));
}

#[tokio::test]
async fn another_session_of_the_same_id_is_left_alone() {
    let (old, new) = (old().await, Memory::default());
    let mut writer = Writer { engine: &new, claim: Position(0), control: Position(0) };
    writer.claim(1).await;
    writer.output(1, 1, "something else").await;
    let there = all(&new).await;
    let error = session(&old, &new, id(SESSION)).await.unwrap_err();
    assert!(matches!(error, MoveError::Different { number: 2 }), "{error}");
    assert_eq!(all(&new).await, there);
    assert!(new.get(SESSIONS, &id(SESSION).to_string()).await.unwrap().is_none());
}

#[tokio::test]
async fn blobs_go_along() {
    let folder = tempfile::tempdir().unwrap();
    let old = Embedded::open(folder.path()).unwrap();
    filled(&old, "open", |_| {}).await;
    let new = Memory::default();
    // Without the loss there is a hole in the run's output, which the copy has as well.
    let moved = session(&old, &new, id(SESSION)).await.unwrap();
    assert_eq!(moved.blobs, 1);
    let blob = outlive_store::blob::reference(b"a notebook", "");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut new.get_blob(id(SESSION), &blob.sha256).await.unwrap(), &mut text)
        .unwrap();
    assert_eq!(text, "a notebook");
    // It was open, so that it is still its daemon's, which finds its processes.
    let entries = all(&new).await;
    let claim = fold(&entries).claim().expect("it was not given away");
    let row = new.get(SESSIONS, &id(SESSION).to_string()).await.unwrap().expect("its row");
    let row: Indexed = serde_json::from_slice(&row.value).unwrap();
    assert_eq!(row.owner, Some(Member { node: claim.node, boot: claim.boot }));
    assert_eq!((row.owner.unwrap().node, row.epoch, row.has_kernel), (node(), Epoch(2), true));
}
