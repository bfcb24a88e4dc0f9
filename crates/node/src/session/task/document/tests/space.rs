//! What is beside the log goes when nothing names it any more, and not before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlive_core::id::{Attempt, Incarnation, NodeId, ProcessKey, RuntimeId, SessionId};
use outlive_core::limits::{BLOB_GRACE_MS, RECORD_BYTES_MAX};
use outlive_core::log::{Chunk, ChunkKind, Payload};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_protocol::http::SubmitRuns;
use outlive_protocol::shim::{Notice, ShimIdentity, StateNotice};
use uuid::Uuid;

use super::crashes::document_records;
use super::editor::insert_cell;
use super::{ask, joined};
use crate::context::Found;
use crate::seams::FoundShim;
use crate::session::handle::{Answer, Ask, Visiting};
use crate::session::notebook::record::DocumentRecord;
use crate::session::open;
use crate::session::task::file::tests::world::{Daemon, World, life};

async fn folder(daemon: &Daemon, id: SessionId) -> PathBuf {
    daemon.context.engine.blob_directory(id).await.unwrap().unwrap()
}

/// The blobs that are there.
fn blobs(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What the document names, from its last snapshot on.
async fn named(daemon: &Daemon, id: SessionId) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for record in document_records(daemon, id).await {
        if matches!(record, DocumentRecord::Snapshot(_)) {
            named.clear();
        }
        named.extend(record.blobs().map(|blob| blob.sha256.clone()));
    }
    named
}

/// As if it had been put longer ago than a blob is kept that nothing names.
fn make_old(blob: &Path) {
    let file = File::open(blob).unwrap();
    let put = file.metadata().unwrap().modified().unwrap();
    file.set_modified(put - Duration::from_millis(BLOB_GRACE_MS + 60_000)).unwrap();
}

/// A file with one cell that says which version of it this is.
fn write_version(path: &Path, n: usize) {
    let cell = format!(
        r#"{{"id":"a","cell_type":"code","execution_count":null,"metadata":{{}},"outputs":[],"source":["version {n}"]}}"#
    );
    fs::write(path, format!(r#"{{"cells":[{cell}],"metadata":{{}},"nbformat":4,"nbformat_minor":5}}"#))
        .unwrap();
}

// Each time that another program's version of the file is taken over, all of the document is written anew.
#[test]
fn thirty_snapshots_leave_the_blobs_of_one() {
    let world = World::new();
    let path = world.path("n.ipynb");
    write_version(&path, 0);
    let (id, before) = life(async {
        let daemon = world.daemon();
        let id = daemon.open(&path).await.unwrap().session_id;
        let mut editor = joined(&daemon, id, 1).await;
        let (mut snapshots, mut updates) = (BTreeSet::new(), BTreeSet::new());
        for n in 1..=30 {
            if n == 28 {
                // More than fits a record.
                editor.edit(|txn, cells| insert_cell(txn, cells, 1, "b", &"y".repeat(RECORD_BYTES_MAX)));
                editor.flush().await;
                editor.sync().await;
            }
            for record in document_records(&daemon, id).await {
                match record {
                    DocumentRecord::Snapshot(snapshot) => drop(snapshots.insert(snapshot.document.sha256)),
                    DocumentRecord::Beside(_, blob) => drop(updates.insert(blob.sha256)),
                    _ => {}
                }
            }
            write_version(&path, n);
            daemon.until_source(id, &format!("version {n}")).await;
            editor.sync().await;
        }
        assert_eq!((snapshots.len(), updates.len()), (30, 1), "each was another one");
        let (folder, named) = (folder(&daemon, id).await, named(&daemon, id).await);
        let before = daemon.notebook(id).await;
        daemon.end().await;
        assert_eq!(blobs(&folder), named);
        (id, before)
    });
    assert_eq!((&before.cells[0].source[..], before.cells.len()), ("version 30", 2));
    life(async {
        let after = world.daemon().notebook(id).await;
        assert_eq!((after.cells, after.state_vector), (before.cells, before.state_vector));
    });
}

// As when somebody switches between two branches: each snapshot names again what the one before it has replaced.
#[test]
fn a_notebook_that_goes_back_and_forth_keeps_what_it_names() {
    let world = World::new();
    let path = world.path("n.ipynb");
    write_version(&path, 0);
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.open(&path).await.unwrap().session_id;
        for n in (1..=20).map(|n| n % 2) {
            write_version(&path, n);
            daemon.until_source(id, &format!("version {n}")).await;
        }
        let (folder, named) = (folder(&daemon, id).await, named(&daemon, id).await);
        daemon.end().await;
        assert_eq!(blobs(&folder), named);
        id
    });
    life(async { assert_eq!(world.daemon().sources(id).await, ["version 0"]) });
}

/// A notebook that has run a cell with a large output, and two blobs that no record names: an old one and a young one.
/// Everything but the last is old.
async fn with_leftovers(daemon: &Daemon) -> (SessionId, PathBuf, [String; 2]) {
    let id = daemon.new_notebook("large()").await;
    let cell = daemon.notebook(id).await.cells[0].id.clone();
    let Ok(Answer::Runs(runs)) = ask(daemon, id, Ask::Submit(SubmitRuns::All { required: None })).await
    else {
        panic!("it is not run")
    };
    let run = runs[0].id;
    daemon.until(id, |view| view.current == Some(run)).await;
    let engine = &daemon.context.engine;
    let output =
        serde_json::json!({ "data": { "text/plain": "a large output" }, "metadata": {} }).to_string();
    let blob = engine.put_blob_bytes(id, output.as_bytes(), "application/json").await.unwrap();
    let chunk = Chunk { kind: ChunkKind::DisplayData, at: WallTime(1), payload: Payload::Blob(blob) };
    daemon.kernels.says(id, 3, Notice::Output { run: Some(run), chunks: vec![chunk] }).await;
    let outcome = RunOutcome::Succeeded;
    let end = StateNotice::RunFinished { run, attempt: Attempt(1), outcome, execution_count: Some(1) };
    daemon.kernels.says(id, 4, Notice::State(end)).await;
    daemon.until(id, |view| view.current.is_none()).await;
    daemon.until_output(id, &cell, "a large output").await;
    let old = engine.put_blob_bytes(id, b"old", "application/json").await.unwrap().sha256;
    let young = engine.put_blob_bytes(id, b"young", "application/json").await.unwrap().sha256;
    let folder = folder(daemon, id).await;
    for name in blobs(&folder).iter().filter(|name| **name != young) {
        make_old(&folder.join(name));
    }
    (id, folder, [old, young])
}

/// What the next daemon makes of it, which has been asked for the notebook and has ended.
async fn taken_up(daemon: &Daemon, id: SessionId) {
    let notebook = daemon.notebook(id).await;
    assert_eq!(notebook.cells[0].source, "large()");
    let outputs = notebook.cells[0].outputs.as_deref().unwrap();
    assert_eq!(outputs[0]["data"]["text/plain"], serde_json::json!(["a large output"]));
    daemon.end().await;
}

#[test]
fn an_old_blob_that_nothing_names_goes_when_its_session_is_taken_up_and_nothing_else_does() {
    let world = World::new();
    let (id, folder, [old, young], before) = life(async {
        let daemon = world.daemon();
        let (id, folder, left) = with_leftovers(&daemon).await;
        daemon.end().await;
        let before = blobs(&folder);
        (id, folder, left, before)
    });
    assert!(before.contains(&old) && before.contains(&young));
    life(async { taken_up(&world.daemon(), id).await });
    let after = blobs(&folder);
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), [&old]);
    make_old(&folder.join(&young));
    life(async { taken_up(&world.daemon(), id).await });
    assert_eq!(after.difference(&blobs(&folder)).collect::<Vec<_>>(), [&young]);
    // What is left is enough.
    life(async { taken_up(&world.daemon(), id).await });
}

#[test]
fn nothing_is_removed_where_a_part_of_the_log_is_lost() {
    let world = World::new();
    let (id, folder) = life(async {
        let daemon = world.daemon();
        let (id, folder, _) = with_leftovers(&daemon).await;
        (id, folder)
    });
    let before = blobs(&folder);
    let log = folder.with_file_name("00000001.seg");
    let content = fs::read(&log).unwrap();
    fs::write(&log, &content[..content.len() - 5]).unwrap();
    life(async {
        let daemon = world.daemon();
        assert_eq!(daemon.notebook(id).await.cells[0].source, "large()");
        assert_eq!(daemon.context.engine.dropped(id).await.unwrap().len(), 1);
        daemon.end().await;
    });
    assert!(blobs(&folder).is_superset(&before));
}

// It may have put a blob hours ago, when there was no daemon to tell of it.
#[test]
fn nothing_is_removed_while_a_shim_may_still_name_it() {
    let world = World::new();
    let (id, folder, [old, _]) = life(async {
        let daemon = world.daemon();
        let left = with_leftovers(&daemon).await;
        daemon.end().await;
        left
    });
    life(async {
        let daemon = world.daemon();
        let process =
            ProcessKey { runtime: RuntimeId::from_uuid(Uuid::from_u128(5)), incarnation: Incarnation(1) };
        let identity = ShimIdentity {
            session: id,
            process,
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            machine_boot: String::new(),
            shim_pid: 1,
            shim_start: 1,
            pid: None,
            pid_start: None,
            cgroups: Vec::new(),
        };
        let shim = FoundShim { identity, of_earlier_boot: false };
        assert!(matches!(daemon.context.enter(id, Visiting::ToAsk), Ok(Found::Absent)));
        let reservation = daemon.context.reserve(id).unwrap();
        open::resume(&daemon.context, &reservation, open::Instead::OfNobody(vec![shim])).await.unwrap();
        drop(reservation);
        taken_up(&daemon, id).await;
    });
    assert!(blobs(&folder).contains(&old));
}
