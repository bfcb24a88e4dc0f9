//! A session's log after whatever happened to its files: what is read is a beginning of what was written, what was
//! dropped is said, nothing panics, recovery is done once, and the log goes on.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Control, Entry, Fenced, FencedBody, Lane, Record};
use outlive_store::{Durability, Embedded, Engine, Guard, LaneFilter, ReadLimit};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

/// What happens to one of the two segments.
#[derive(Arbitrary, Debug)]
enum Damage {
    Flip { second: bool, at: u32, by: u8 },
    Cut { second: bool, at: u32 },
    Zero { second: bool, at: u32 },
    Insert { second: bool, at: u32, bytes: Vec<u8> },
    Replace { second: bool, bytes: Vec<u8> },
    Swap,
    Remove { second: bool },
}

/// A log of two segments, as files and as entries.
struct Whole {
    files: Vec<(String, Vec<u8>)>,
    entries: Vec<Entry>,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime without a driver")
}

fn session() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(9))
}

fn folder(store: &Path) -> PathBuf {
    store.join("sessions").join(session().to_string())
}

async fn append(engine: &Embedded, lane: Lane, guard: Guard, record: Record) -> Position {
    engine.append(session(), lane, guard, &record, Durability::Written).await.expect("there is room")
}

async fn claim(engine: &Embedded, previous: Position) -> Position {
    let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
    let change = ControlChange::Claim { epoch: Epoch(1), node, boot };
    let record = Record::Control(Control { prev: previous, change });
    append(engine, Lane::Control, Guard::Previous(previous), record).await
}

async fn document(engine: &Embedded, at: Position, bytes: Vec<u8>) -> Position {
    let record = Record::Fenced(Fenced { claim: at, source: None, body: FencedBody::Document(bytes) });
    append(engine, Lane::Document, Guard::Claim(at), record).await
}

async fn read(engine: &Embedded) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut after = Position(0);
    loop {
        let page = engine.read(session(), after, &LaneFilter::All, ReadLimit::default()).await;
        // A head of a newer version is refused, never guessed at.
        let Ok(page) = page else { return all };
        all.extend(page.entries);
        if page.through == after {
            return all;
        }
        after = page.through;
    }
}

/// Two segments: trimming closes the first.
fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a directory");
        let entries = runtime().block_on(async {
            let engine = Embedded::open(place.path()).expect("a store");
            let at = claim(&engine, Position(0)).await;
            document(&engine, at, vec![7; 300_000]).await;
            let mut last = at;
            for n in 0..8 {
                last = document(&engine, at, vec![n; 10 + usize::from(n)]).await;
            }
            engine.trim(session(), &[Lane::Document].into(), last).await.expect("it can be trimmed");
            for n in 0..8 {
                document(&engine, at, vec![n; 10 + usize::from(n)]).await;
            }
            read(&engine).await
        });
        let mut files: Vec<_> = fs::read_dir(folder(place.path()))
            .expect("a session")
            .flatten()
            .map(|file| (file.file_name().into_string().expect("our own name"), file.path()))
            .map(|(name, path)| (name, fs::read(path).expect("a file")))
            .collect();
        files.sort();
        assert_eq!(files.len(), 2, "two segments");
        Whole { files, entries }
    })
}

/// The damaged files; `None` for one that is gone.
fn inflict(damages: &[Damage]) -> Vec<Option<Vec<u8>>> {
    let mut files: Vec<_> = whole().files.iter().map(|(_, content)| Some(content.clone())).collect();
    for damage in damages {
        match damage {
            Damage::Swap => files.swap(0, 1),
            Damage::Remove { second } => files[usize::from(*second)] = None,
            Damage::Replace { second, bytes } => files[usize::from(*second)] = Some(bytes.clone()),
            Damage::Flip { second, at, .. }
            | Damage::Cut { second, at }
            | Damage::Zero { second, at }
            | Damage::Insert { second, at, .. } => {
                let Some(content) = files[usize::from(*second)].as_mut().filter(|file| !file.is_empty())
                else {
                    continue;
                };
                let at = *at as usize % content.len();
                match damage {
                    Damage::Flip { by, .. } => content[at] ^= by,
                    Damage::Cut { .. } => content.truncate(at),
                    Damage::Zero { .. } => content[at..].fill(0),
                    Damage::Insert { bytes, .. } => drop(content.splice(at..at, bytes.iter().copied())),
                    Damage::Replace { .. } | Damage::Swap | Damage::Remove { .. } => {}
                }
            }
        }
    }
    files
}

fuzz_target!(|damages: Vec<Damage>| {
    let place = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(folder(place.path())).expect("a directory");
    for ((name, _), content) in whole().files.iter().zip(inflict(&damages)) {
        if let Some(content) = content {
            fs::write(folder(place.path()).join(name), content).expect("room");
        }
    }
    runtime().block_on(async {
        let engine = Embedded::open(place.path()).expect("a store");
        let found = read(&engine).await;
        let replaced =
            damages.iter().any(|damage| matches!(damage, Damage::Replace { .. } | Damage::Insert { .. }));
        // Whoever may write whole records of our own format into the file has written the log.
        assert!(replaced || whole().entries.starts_with(&found), "{} records", found.len());
        let said = engine.dropped(session()).await.expect("it can be told");
        assert!(said.iter().all(|dropped| dropped.bytes > 0 && !dropped.what.is_empty()));
        drop(engine);
        let engine = Embedded::open(place.path()).expect("a store");
        assert_eq!(read(&engine).await, found, "recovery is done once");
        assert_eq!(engine.dropped(session()).await.expect("it can be told"), said);
        let control = found.iter().rfind(|entry| entry.lane == Lane::Control);
        let previous = control.map_or(Position(0), |entry| entry.position);
        let head = engine.head(session()).await.map(|head| *head.borrow());
        if let Ok(head) = head {
            let at = claim(&engine, previous).await;
            assert!(at > head && document(&engine, at, vec![1]).await > at, "the log goes on");
            assert_eq!(read(&engine).await.len(), found.len() + 2);
        }
    });
});
