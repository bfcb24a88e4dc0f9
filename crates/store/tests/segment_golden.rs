//! The bytes of a segment file, both ways. `golden/*.hex` is append-only: what was once written must be read.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fs;
use std::path::{Path, PathBuf};

use outlive_core::id::{Attempt, Epoch, Position, Seq, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Chunk, ChunkKind, Control, Fenced, FencedBody, Lane, Record, Request, RunRecord};
use outlive_core::time::WallTime;
use outlive_store::{Durability, Embedded, Engine, Guard, LaneFilter, ReadLimit};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn session() -> SessionId {
    ID.parse().unwrap()
}

fn segment(store: &Path) -> PathBuf {
    store.join("sessions").join(ID).join("00000001.seg")
}

fn golden() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/segment-1.hex");
    let text: String = fs::read_to_string(path).unwrap().split_whitespace().collect();
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn records() -> Vec<(Lane, Guard, Record)> {
    let (node, boot) = (ID.parse().unwrap(), ID.parse().unwrap());
    let change = ControlChange::Claim { epoch: Epoch(1), node, boot };
    let fenced = |body| Record::Fenced(Fenced { claim: Position(1), source: None, body });
    let chunks = vec![Chunk::inline(ChunkKind::Stdout, WallTime(5), &b"hello\n"[..])];
    let run = Lane::Run(ID.parse().unwrap());
    let open = RunRecord::Open { attempt: Attempt(1), base: Seq(0), at: WallTime(4) };
    let data = RunRecord::Data { attempt: Attempt(1), first: Seq(1), chunks };
    let claim = Record::Control(Control { prev: Position(0), change });
    vec![
        (Lane::Control, Guard::Previous(Position(0)), claim),
        (Lane::Journal, Guard::Claim(Position(1)), fenced(FencedBody::Journal(Vec::new()))),
        (Lane::Document, Guard::Claim(Position(1)), fenced(FencedBody::Document(vec![1, 2, 3]))),
        (run, Guard::Claim(Position(1)), fenced(FencedBody::Run(open))),
        (run, Guard::Claim(Position(1)), fenced(FencedBody::Run(data))),
        (Lane::Requests, Guard::None, Record::Request(Request::Interrupt)),
    ]
}

#[tokio::test]
async fn what_is_written_today_is_what_was_always_written() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    for (lane, guard, record) in records() {
        engine.append(session(), lane, guard, &record, Durability::Written).await.unwrap();
    }
    let written: String =
        fs::read(segment(directory.path())).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let golden: String = golden().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, golden, "a change of format: raise FORMAT, keep this file, add segment-2.hex");
}

#[tokio::test]
async fn what_was_once_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = segment(directory.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, golden()).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let page = engine.read(session(), Position(0), &LaneFilter::All, ReadLimit::default()).await.unwrap();
    let read: Vec<_> =
        page.entries.into_iter().map(|entry| (entry.position, entry.lane, entry.record)).collect();
    let expected: Vec<_> =
        (1..).map(Position).zip(records()).map(|(at, (lane, _, record))| (at, lane, record)).collect();
    assert_eq!(read, expected);
}
