//! The engine in a directory, on a real file system: crashes, full disks, segments, files left behind.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
use outlive_core::limits::SEGMENT_BYTES_MAX;
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Control, Entry, Fenced, FencedBody, Lane, Record};
use outlive_store::{AppendError, Durability, Embedded, Engine, Guard, LaneFilter, OpenError, ReadLimit};
use tempfile::TempDir;
use uuid::Uuid;

fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

fn claim() -> Record {
    let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
    Record::Control(Control {
        prev: Position(0),
        change: ControlChange::Claim { epoch: Epoch(1), node, boot },
    })
}

fn document(claim: Position, bytes: Vec<u8>) -> Record {
    Record::Fenced(Fenced { claim, source: None, body: FencedBody::Document(bytes) })
}

async fn claimed(engine: &Embedded, session: SessionId) -> Position {
    let guard = Guard::Previous(Position(0));
    engine.append(session, Lane::Control, guard, &claim(), Durability::Synced).await.unwrap()
}

async fn put(
    engine: &Embedded,
    session: SessionId,
    at: Position,
    bytes: Vec<u8>,
) -> Result<Position, AppendError> {
    let record = document(at, bytes);
    engine.append(session, Lane::Document, Guard::Claim(at), &record, Durability::Written).await
}

async fn read_all(engine: &Embedded, session: SessionId) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut after = Position(0);
    loop {
        let page = engine.read(session, after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
        all.extend(page.entries);
        if page.through == after {
            return all;
        }
        after = page.through;
    }
}

/// What a crash of the process leaves: the files as they are now, without any goodbye.
fn crash(from: &TempDir) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").arg("-a").arg(from.path().join("sessions")).arg(to.path()).status().unwrap();
    assert!(copied.success());
    to
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let id = session(1);
    let at = claimed(&engine, id).await;
    for n in 0..500 {
        put(&engine, id, at, vec![n as u8; n]).await.unwrap();
        if n % 100 == 0 {
            let copy = crash(&directory);
            let after = Embedded::open(copy.path()).unwrap();
            assert_eq!(read_all(&after, id).await.len(), n + 2);
        }
    }
    let copy = crash(&directory);
    let after = Embedded::open(copy.path()).unwrap();
    assert_eq!(read_all(&after, id).await, read_all(&engine, id).await);
    assert_eq!(after.sessions().await.unwrap(), [id]);
    assert!(after.dropped(id).await.unwrap().is_empty(), "nothing was lost, so nothing is said to be");
    let head = *engine.head(id).await.unwrap().borrow();
    assert!(
        put(&after, id, at, vec![1]).await.unwrap() > head,
        "the claim still stands and positions go on rising"
    );
}

#[tokio::test]
async fn a_second_process_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let second = Embedded::open(directory.path()).err().unwrap();
    assert!(matches!(&second, OpenError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("in use by another process"), "{second}");
    drop(engine);
    Embedded::open(directory.path()).unwrap();
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("made/by/the/engine");
    let engine = Embedded::open(&store).unwrap();
    let id = session(1);
    claimed(&engine, id).await;
    engine.blob_directory(id).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let of_session = store.join("sessions").join(id.to_string());
    for path in [&store, &store.join("sessions"), &of_session, &of_session.join("blobs")] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    for path in [store.join("tables.redb"), of_session.join("00000001.seg")] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_reader_can_start_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let id = session(1);
    let at = claimed(&engine, id).await;
    for n in 0..3_000_u32 {
        put(&engine, id, at, n.to_le_bytes().repeat(40)).await.unwrap();
    }
    let all = read_all(&engine, id).await;
    assert_eq!(all.len(), 3_001);
    for reopened in [false, true] {
        if reopened {
            engine.close_session(id).await;
        }
        for start in (0..all.len()).step_by(97) {
            let limit = ReadLimit { records: 3, ..ReadLimit::default() };
            let page = engine.read(id, all[start].position, &LaneFilter::All, limit).await.unwrap();
            assert_eq!(page.entries[..], all[start + 1..all.len().min(start + 4)]);
        }
    }
}

#[tokio::test]
async fn a_log_goes_on_over_segments_and_trimming_closed_ones_frees_space() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let id = session(1);
    let at = claimed(&engine, id).await;
    let records = SEGMENT_BYTES_MAX / 900_000 + 3;
    let mut positions = Vec::new();
    for n in 0..records {
        positions.push(put(&engine, id, at, vec![n as u8; 900_000]).await.unwrap());
    }
    let segments = || {
        let mut names: Vec<_> = fs::read_dir(directory.path().join("sessions").join(id.to_string()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(segments(), ["00000001.seg", "00000002.seg"]);
    let before = read_all(&engine, id).await;
    assert_eq!(before.len() as u64, records + 1);
    let used = engine.usage(id).await.unwrap().log_bytes;
    let keep_from = positions[records as usize / 2];
    let freed = engine.trim(id, &[Lane::Document].into(), keep_from).await.unwrap();
    assert!(freed > SEGMENT_BYTES_MAX / 3, "{freed} bytes");
    assert_eq!(engine.usage(id).await.unwrap().log_bytes, used - freed);
    let expected: Vec<_> =
        before.into_iter().filter(|e| e.lane == Lane::Control || e.position >= keep_from).collect();
    assert_eq!(read_all(&engine, id).await, expected);
    put(&engine, id, at, vec![1]).await.unwrap();
    engine.close_session(id).await;
    assert_eq!(
        read_all(&engine, id).await.len(),
        expected.len() + 1,
        "the control lane was kept for the next owner"
    );
    assert_eq!(segments().len(), 2, "no temporary file is left");
    assert!(engine.dropped(id).await.unwrap().is_empty());
}

#[tokio::test]
async fn closed_sessions_leave_no_file_open() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let open_files = || {
        let under = directory.path().join("sessions");
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|path| path.starts_with(&under)).count()
    };
    for n in 0..1_000 {
        let id = session(n);
        let at = claimed(&engine, id).await;
        put(&engine, id, at, vec![1; 100]).await.unwrap();
        assert_eq!(read_all(&engine, id).await.len(), 2);
        if n % 2 == 0 { engine.close_session(id).await } else { engine.drop_session(id).await.unwrap() }
    }
    engine.flush().await.unwrap();
    assert_eq!(open_files(), 0);
    assert_eq!(engine.sessions().await.unwrap().len(), 500);
}

#[tokio::test]
async fn an_append_whose_caller_goes_away_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let id = session(1);
    let at = claimed(&engine, id).await;
    for n in 0..20 {
        let record = document(at, vec![n]);
        let append = engine.append(id, Lane::Document, Guard::Claim(at), &record, Durability::Synced);
        tokio::select! {
            biased;
            _ = append => {}
            () = std::future::ready(()) => {}
        }
    }
    let last = put(&engine, id, at, vec![99]).await.unwrap();
    let all = read_all(&engine, id).await;
    assert_eq!(all.last().map(|entry| entry.position), Some(last));
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
}

/// Runs a test of this file alone, in a mount namespace where `directory` is a tmpfs of this size.
fn on_small_disk(directory: &Path, size: &str, test: &str) {
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs \"$1\" && exec \"$2\" --exact {test} --ignored --nocapture"
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(directory)
        .arg(std::env::current_exe().unwrap())
        .env("OUTLIVE_TEST_DISK", directory)
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

// C9 (the store's part)
#[test]
fn a_full_disk_refuses_appends_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    on_small_disk(directory.path(), "4m", "on_a_full_disk");
}

#[tokio::test]
#[ignore = "needs a small disk: run by a_full_disk_refuses_appends_and_loses_nothing"]
async fn on_a_full_disk() {
    let disk = std::path::PathBuf::from(std::env::var_os("OUTLIVE_TEST_DISK").unwrap());
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = disk.join("store");
    let engine = Embedded::open(&store).unwrap();
    let id = session(1);
    let at = claimed(&engine, id).await;
    let mut stored = 0;
    let error = loop {
        // Not a multiple of the page size: the last write that fits is cut in its middle.
        match put(&engine, id, at, vec![stored as u8; 70_001]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    let AppendError::Unavailable(unavailable) = &error else { panic!("{error}") };
    assert_eq!(unavailable.source.raw_os_error(), Some(28), "ENOSPC is kept as the reason: {unavailable:?}");
    assert!(error.to_string().contains("free disk space"), "{error}");
    assert!(matches!(put(&engine, id, at, vec![1; 70_001]).await, Err(AppendError::Unavailable(_))));
    let first = claim();
    let guard = Guard::Previous(Position(0));
    let other = engine.append(session(2), Lane::Control, guard, &first, Durability::Synced);
    assert!(
        matches!(other.await, Ok(_) | Err(AppendError::Unavailable(_))),
        "never an answer that is not true"
    );
    assert_eq!(read_all(&engine, id).await.len(), stored + 1, "what was acknowledged can be read");
    fs::remove_file(&ballast).unwrap();
    put(&engine, id, at, vec![7; 70_001]).await.expect("it goes on by itself when there is room again");
    let expected = read_all(&engine, id).await;
    assert_eq!(expected.len(), stored + 2);
    drop(engine);
    let engine = Embedded::open(&store).unwrap();
    assert_eq!(read_all(&engine, id).await, expected);
    assert!(engine.dropped(id).await.unwrap().is_empty(), "the cut record was cut off at once");
}
