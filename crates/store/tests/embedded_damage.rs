//! D6: whatever a loss of power or a bad disk makes of the files, the log is what stands before the first damage, what
//! was dropped is said and kept, and nothing panics.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fs;
use std::path::{Path, PathBuf};

use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Control, Entry, Fenced, FencedBody, Lane, Record};
use outlive_store::{Dropped, Durability, Embedded, Engine, Guard, LaneFilter, ReadLimit};
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

fn session() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(9))
}

async fn claim(engine: &Embedded, previous: Position) -> Position {
    let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
    let change = ControlChange::Claim { epoch: Epoch(1), node, boot };
    let record = Record::Control(Control { prev: previous, change });
    let guard = Guard::Previous(previous);
    engine.append(session(), Lane::Control, guard, &record, Durability::Written).await.unwrap()
}

async fn write(engine: &Embedded, at: Position, bytes: Vec<u8>) -> Position {
    let record = Record::Fenced(Fenced { claim: at, source: None, body: FencedBody::Document(bytes) });
    engine.append(session(), Lane::Document, Guard::Claim(at), &record, Durability::Written).await.unwrap()
}

async fn read_all(engine: &Embedded) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut after = Position(0);
    loop {
        let page = engine.read(session(), after, &LaneFilter::All, ReadLimit::default()).await.unwrap();
        all.extend(page.entries);
        if page.through == after {
            return all;
        }
        after = page.through;
    }
}

fn folder(store: &Path) -> PathBuf {
    store.join("sessions").join(session().to_string())
}

fn segments(store: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder(store))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

#[derive(Clone, Debug)]
enum Damage {
    /// A byte is not what was written.
    Flip(Index, Index, u8),
    /// The end of a file was never written.
    Cut(Index, Index),
    /// Its length was, its content was not.
    Zero(Index, Index),
    /// Something else stands behind the end.
    Garbage(Vec<u8>),
    /// A file is gone.
    Remove(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), any::<Index>(), 1..=255_u8).prop_map(|(file, at, by)| Damage::Flip(file, at, by)),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(file, at)| Damage::Cut(file, at)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(file, at)| Damage::Zero(file, at)),
        2 => proptest::collection::vec(any::<u8>(), 1..200).prop_map(Damage::Garbage),
        1 => any::<Index>().prop_map(Damage::Remove),
    ]
}

/// Does the damage; true when bytes were changed in a way that a reader of the files can notice.
fn inflict(store: &Path, damage: &Damage) -> bool {
    let files = segments(store);
    match damage {
        Damage::Flip(file, at, by) => {
            let path = file.get(&files);
            let mut content = fs::read(path).unwrap();
            let at = at.index(content.len());
            content[at] ^= by;
            fs::write(path, content).unwrap();
            true
        }
        Damage::Cut(file, at) => {
            let path = file.get(&files);
            let mut content = fs::read(path).unwrap();
            content.truncate(at.index(content.len()));
            fs::write(path, content).unwrap();
            // The last file, cut between two records, looks like one that ends there.
            path != files.last().unwrap()
        }
        Damage::Zero(file, at) => {
            let path = file.get(&files);
            let mut content = fs::read(path).unwrap();
            let at = at.index(content.len());
            let noticed = content[at..].iter().any(|byte| *byte != 0);
            content[at..].fill(0);
            fs::write(path, content).unwrap();
            noticed
        }
        Damage::Garbage(garbage) => {
            let path = files.last().unwrap();
            let mut content = fs::read(path).unwrap();
            content.extend_from_slice(garbage);
            fs::write(path, content).unwrap();
            true
        }
        Damage::Remove(file) => {
            let path = file.get(&files);
            fs::remove_file(path).unwrap();
            path != files.last().unwrap()
        }
    }
}

/// Every byte that the reports speak of is in a file beside the log, or was never a whole record.
fn check_asides(store: &Path, reports: &[Dropped]) {
    for report in reports {
        let kept: u64 =
            report.aside.iter().map(|name| fs::metadata(folder(store).join(name)).unwrap().len()).sum();
        let torn = report.aside.is_empty() && report.records == 0;
        assert!(kept == report.bytes || torn, "{report:?} but {kept} bytes are kept");
        assert!(!report.what.is_empty() && report.bytes > 0, "{report:?}");
    }
}

/// What is written, whether and where the document is trimmed then, and what becomes of the files.
type Round = (Vec<u16>, Option<Index>, Damage);

async fn rounds(rounds: Vec<Round>) {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path();
    let mut expected: Vec<Entry> = Vec::new();
    let mut highest = Position(0);
    for (sizes, trim, damage) in rounds {
        let engine = Embedded::open(store).unwrap();
        let last_control = |entries: &[Entry]| {
            entries
                .iter()
                .rev()
                .find(|entry| entry.lane == Lane::Control)
                .map_or(Position(0), |entry| entry.position)
        };
        let at = claim(&engine, last_control(&expected)).await;
        assert!(at > highest, "a position is never given out twice: {at} after {highest}");
        for size in sizes {
            highest = write(&engine, at, vec![size as u8; usize::from(size)]).await;
        }
        highest = highest.max(at);
        let mut written = read_all(&engine).await;
        assert_eq!(written[..expected.len()], expected[..]);
        if let Some(trim) = trim {
            // With enough to trim the log goes on in another segment: damage finds several.
            engine.trim(session(), &[Lane::Document].into(), trim.get(&written).position).await.unwrap();
            let left = read_all(&engine).await;
            assert!(left.iter().all(|entry| written.contains(entry)));
            written = left;
        }
        let before = engine.dropped(session()).await.unwrap();
        drop(engine);
        let noticed = inflict(store, &damage);

        let engine = Embedded::open(store).unwrap();
        let read = read_all(&engine).await;
        let reports = engine.dropped(session()).await.unwrap();
        assert_eq!(reports[..before.len()], before[..], "what was said is not forgotten");
        check_asides(store, &reports);
        assert!(written.starts_with(&read), "{damage:?}: what is read is a beginning of what was written");
        // A file that held no record is nobody's loss.
        if noticed && read != written {
            assert_eq!(reports.len(), before.len() + 1, "{damage:?}: it is said");
        }
        drop(engine);
        let again = Embedded::open(store).unwrap();
        assert_eq!(read_all(&again).await, read, "recovery is done once");
        assert_eq!(again.dropped(session()).await.unwrap(), reports);
        if matches!(damage, Damage::Cut(..) | Damage::Remove(_)) || reports.len() == before.len() {
            // Nobody can know of what is gone without a trace. Power takes nothing that was synced, so no claim.
            highest = *again.head(session()).await.unwrap().borrow();
        }
        expected = read;
    }
}

fn round() -> impl Strategy<Value = Round> {
    let size = prop_oneof![9 => 0..2_000_u16, 1 => 60_000..=u16::MAX];
    (proptest::collection::vec(size, 0..14), proptest::option::of(any::<Index>()), damage())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    // D6
    #[test]
    fn any_damage_leaves_the_records_before_it_and_is_said(
        story in proptest::collection::vec(round(), 1..4)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(rounds(story));
    }
}

/// A log of ten records of 100 bytes, closed.
async fn ten_records(store: &Path) -> Vec<Entry> {
    let engine = Embedded::open(store).unwrap();
    let at = claim(&engine, Position(0)).await;
    for n in 0..9 {
        write(&engine, at, vec![n; 100]).await;
    }
    read_all(&engine).await
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let written = ten_records(directory.path()).await;
    let path = &segments(directory.path())[0];
    let content = fs::read(path).unwrap();
    fs::write(path, &content[..content.len() - 30]).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    assert_eq!(read_all(&engine).await, written[..9]);
    let said = engine.dropped(session()).await.unwrap();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].last_good, said[0].records), (written[8].position, 0));
    assert!(said[0].aside.is_empty() && said[0].what.contains("ends within a record"), "{said:?}");
}

#[tokio::test]
async fn what_was_dropped_is_told_of_all_sessions_without_looking_into_their_logs() {
    // Somebody asks how a store of a thousand sessions is: no log is opened for that, and none repaired.
    let directory = tempfile::tempdir().unwrap();
    ten_records(directory.path()).await;
    let path = &segments(directory.path())[0];
    let content = fs::read(path).unwrap();
    fs::write(path, &content[..content.len() - 30]).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    assert!(engine.all_dropped().await.unwrap().is_empty());
    assert_eq!(fs::metadata(path).unwrap().len(), content.len() as u64 - 30, "nothing was repaired");
    read_all(&engine).await;
    let said = engine.dropped(session()).await.unwrap();
    assert_eq!(said.len(), 1);
    assert_eq!(engine.all_dropped().await.unwrap(), [(session(), said[0].clone())]);
}

#[tokio::test]
async fn a_flipped_byte_in_the_middle_is_said_and_the_rest_is_kept_beside_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let written = ten_records(directory.path()).await;
    let path = &segments(directory.path())[0];
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(path, &content).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let read = read_all(&engine).await;
    assert!(read.len() >= 3 && read.len() < 7 && written.starts_with(&read), "{} records", read.len());
    let said = engine.dropped(session()).await.unwrap();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].last_good, read.last().unwrap().position);
    assert_eq!(said[0].records as usize, written.len() - read.len() - 1, "all but the damaged one are whole");
    let aside = fs::read(folder(directory.path()).join(&said[0].aside[0])).unwrap();
    assert!(
        content.ends_with(&aside) && aside.len() as u64 == said[0].bytes,
        "the dropped bytes are all there"
    );
    let at = read[0].position;
    assert!(write(&engine, at, vec![1]).await > written.last().unwrap().position, "the log goes on");
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    ten_records(directory.path()).await;
    let path = segments(directory.path())[0].clone();
    let head = format!(r#"{{"format":2,"session":"{}","previous":0,"after":0,"new":true}}"#, session());
    let frame = outlive_protocol::frame::encode(0x7e, 0, &[head.as_bytes()]).unwrap();
    fs::write(&path, &frame).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let error =
        engine.read(session(), Position(0), &LaneFilter::All, ReadLimit::default()).await.unwrap_err();
    assert!(error.to_string().contains("upgrade this program"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), frame, "it is not touched");
}

#[tokio::test]
async fn the_size_of_a_log_is_known_without_reading_it() {
    // A daemon asks it of every ended session at its start. To read a log is to repair it, which shows here.
    let store = tempfile::tempdir().unwrap();
    let engine = Embedded::open(store.path()).unwrap();
    claim(&engine, Position(0)).await;
    drop(engine);
    let segment = segments(store.path()).remove(0);
    let mut content = fs::read(&segment).unwrap();
    content.extend_from_slice(b"torn");
    fs::write(&segment, &content).unwrap();
    let engine = Embedded::open(store.path()).unwrap();
    assert_eq!(engine.usage(session()).await.unwrap().log_bytes, content.len() as u64);
    assert_eq!(fs::read(&segment).unwrap(), content);
    assert_eq!(engine.usage(SessionId::from_uuid(Uuid::from_u128(8))).await.unwrap().log_bytes, 0);
}
